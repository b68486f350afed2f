"""How much memory does it take to decode a clip?

    python benchmarks/vae_memory.py stream     272 frames against 17, streaming and whole, with a small video VAE
    python benchmarks/vae_memory.py full       16 frames of 768×768 with the full-size 2D decoder (84M): minutes

`stream`: decoding piece by piece should take the same memory for any length. `full`: the economical way takes the
frames one by one, the other way all at once. Where all at once would not fit into this machine, fewer frames are
measured, and a straight line through them gives the rest: activations grow with the number of frames.

Every figure is measured in a process of its own, as the highest resident size of the process less what it had when the
model was loaded. Weights are random; memory does not depend on them.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

MIB = 2**20
# glibc keeps freed blocks for later, more of them on some days than on others, which would hide what is really needed.
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def resident(which: str) -> int:
    """Bytes of this process in memory: now ("VmRSS") or at the highest ("VmHWM")."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(which):
            return int(line.split()[1]) * 1024
    raise SystemExit("vae_memory needs Linux: it reads /proc/self/status")


def available() -> int:
    """Bytes that this machine could still give."""
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    return int(line.split()[1]) * 1024


def small_vae():
    from minivdm.vae import AutoEncoder2D, TemporalVAE, VideoAutoencoder

    vae2d = AutoEncoder2D(ch=32, ch_mult=(1, 2, 2), num_res_blocks=1)
    sizes = {"filters": 32, "channel_multipliers": (1, 1, 1), "num_res_blocks": 1, "num_groups": 8}
    temporal = TemporalVAE(**sizes, temporal_downsample=(True, True))
    return VideoAutoencoder(vae2d, temporal, micro_batch_size=4).eval()


def measure(way: str, frames: int, size: int) -> None:
    """Decode in this process, and print the highest memory above the loaded model, and the seconds."""
    import torch

    from minivdm.vae import AutoEncoder2D, VideoAutoencoder

    torch.set_num_threads(1)
    torch.manual_seed(0)
    if way in ("stream", "whole"):
        vae = small_vae()
    else:
        vae = VideoAutoencoder(AutoEncoder2D(), micro_batch_size=1 if way == "one_by_one" else None).eval()
    latent_size = vae.get_latent_size((frames, size, size))
    z = torch.randn(1, 4, *latent_size)
    loaded, started = resident("VmRSS"), time.perf_counter()
    with torch.no_grad():
        if way == "stream":
            for piece in vae.decode_stream(z.split(1, dim=2), frames):
                assert piece.isfinite().all()  # here a real program would show or write the frames
        else:
            assert vae.decode(z, frames).shape[2] == frames
    print(resident("VmHWM") - loaded, time.perf_counter() - started, loaded)


def in_its_own_process(way: str, frames: int, size: int) -> tuple[int, float, int]:
    """Bytes above the loaded model, seconds, bytes of the loaded model."""
    command = [sys.executable, __file__, "measure", way, str(frames), str(size)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | GIVE_BACK)
    if done.returncode:
        raise SystemExit(f"{way} of {frames} frames failed:\n{done.stderr}")
    above, seconds, loaded = done.stdout.split()
    return int(above), float(seconds), int(loaded)


def stream(size: int, frames: list[int]) -> None:
    print(f"decoding {size}×{size} with a video VAE of {sum(p.numel() for p in small_vae().parameters()) / 1e6:.1f}M")
    print("way     frames   MiB above the model   MiB in all   seconds")
    peaks = {}
    for way in ("stream", "whole"):
        for count in frames:
            above, seconds, loaded = in_its_own_process(way, count, size)
            peaks[way, count] = above
            print(f"{way:<8}{count:6}{above / MIB:22.1f}{(above + loaded) / MIB:13.1f}{seconds:10.1f}")
    for way in ("stream", "whole"):
        ratio = peaks[way, frames[-1]] / peaks[way, frames[0]]
        print(f"{way}: {frames[-1]} frames take {ratio:.2f} times the memory of {frames[0]}")


def full(size: int, frames: int) -> None:
    print(f"decoding {frames} frames of {size}×{size} with the full-size 2D VAE (84M), float32, one thread")
    above, seconds, loaded = in_its_own_process("one_by_one", frames, size)
    print(f"one by one:  {(above + loaded) / MIB / 1024:6.2f} GiB in all, {seconds:.0f} s")
    measured = {}
    for count in (1, 2, frames):
        if count == frames and measured and 1.2 * _line(measured, frames) > available():
            guess = (_line(measured, frames) + loaded) / MIB / 1024
            print(f"all at once: {guess:6.2f} GiB in all, extrapolated from 1 and 2 frames: does not fit here")
            return
        measured[count], seconds, loaded = in_its_own_process("at_once", count, size)
        total = (measured[count] + loaded) / MIB / 1024
        print(f"all at once: {total:6.2f} GiB in all for {count} frames, {seconds:.0f} s")


def _line(measured: dict[int, int], frames: int) -> float:
    return measured[1] + (measured[2] - measured[1]) * (frames - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    streaming = commands.add_parser("stream", help="272 frames against 17")
    streaming.add_argument("--size", type=int, default=96)
    streaming.add_argument("--frames", type=int, nargs=2, default=[17, 272])
    whole = commands.add_parser("full", help="16 frames of 768×768 with 84 million parameters: minutes")
    whole.add_argument("--size", type=int, default=768)
    whole.add_argument("--frames", type=int, default=16)
    one = commands.add_parser("measure", help="one figure: bytes above the model, seconds, bytes of the model")
    one.add_argument("way", choices=["stream", "whole", "one_by_one", "at_once"])
    one.add_argument("frames", type=int)
    one.add_argument("size", type=int)
    options = parser.parse_args()
    if options.command == "stream":
        stream(options.size, options.frames)
    elif options.command == "full":
        full(options.size, options.frames)
    else:
        measure(options.way, options.frames, options.size)


if __name__ == "__main__":
    main()
