"""One table from one GPU, in under 8 minutes.

    python -m benchmarks.gpu                 prints each line as soon as it is known; needs some 60 GB for STDiT3-XL/2
    python -m benchmarks.gpu --only unet     lines whose name holds one of these words
    python -m benchmarks.gpu --tiny          on the CPU, at no size at all: does it run?

Training steps are forward, backward and Adam on random data, under bfloat16 autocast with float32 weights, and compiled
where the line says so. Times are medians after warm-up. The share is of the bfloat16 matmul rate that the card really
reaches; a step's operations are counted over its matrix products and convolutions. A line that does not fit into the
card's memory says so, and once the time is up the rest is left out. The peer is measured when it is installed.
"""

import argparse
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.peers import VIDEO_DIFFUSION, installed, versions, video_diffusion
from minivdm.config import load_preset
from minivdm.denoisers.stdit3 import STDiT3, STDiT3Config
from minivdm.pipelines import TextToVideoPipeline, UnetPipeline
from minivdm.text.words import BagOfWords
from minivdm.vae import AutoEncoder2D, TemporalVAE, VideoAutoencoder

SIZE = {name: torch.tensor([number]) for name, number in (("fps", 24.0), ("height", 256.0), ("width", 256.0))}


class Bench:
    """Runs one line at a time and prints it."""

    def __init__(self, device: str, tiny: bool, seconds: float):
        self.device, self.tiny = torch.device(device), tiny
        self.end, self.rate = time.perf_counter() + seconds, 0.0

    def autocast(self, dtype: torch.dtype = torch.bfloat16):
        """Half precision on a GPU; not on a CPU, many of which are slow at it."""
        return torch.autocast(self.device.type, dtype) if self.device.type == "cuda" else nullcontext()

    def randn(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.device)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def median(self, run: Callable, warm_up: int, repeats: int) -> float:
        """Seconds."""
        for _ in range(warm_up):
            run()
        times = []
        for _ in range(1 if self.tiny else repeats):
            self.wait()
            start = time.perf_counter()
            run()
            self.wait()
            times.append(time.perf_counter() - start)
        return median(times)

    def line(self, name: str, make: Callable[[], Callable], unit: str, amount: float, *, flops: bool = False) -> None:
        """Measure what `make` builds, and print seconds, `amount` per second in `unit`, memory and share."""
        if time.perf_counter() > self.end:
            print(f"{name:<58} left out: the time is up", flush=True)
            return
        begun = time.perf_counter()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        try:
            run = make()
            count = count_flops(run) if flops else 0.0
            if hasattr(run, "compile"):
                run.compile()
            seconds = self.median(run, warm_up=3 if not self.tiny else 1, repeats=7)
        except torch.OutOfMemoryError:
            print(f"{name:<58} does not fit into this card's memory", flush=True)
        else:
            memory = torch.cuda.max_memory_allocated() / 2**30 if self.device.type == "cuda" else float("nan")
            share = f"{count / seconds / self.rate:6.0%}" if count else "      "
            spent = time.perf_counter() - begun
            print(
                f"{name:<58}{1000 * seconds:10.1f} ms {amount / seconds:10.2f} {unit:<9}{memory:7.1f} GiB {share}"
                f"   [{spent:.0f} s]",
                flush=True,
            )
        run = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


class Step:
    """A training step. `compile` compiles the parts given, each on its own: equal blocks are compiled once."""

    def __init__(self, bench: Bench, model: nn.Module, loss: Callable[[], Tensor], parts: list, half=torch.bfloat16):
        self.bench, self.loss, self.parts, self.half = bench, loss, parts, half
        self.optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=bench.device.type == "cuda")
        self.scaler = torch.amp.GradScaler(enabled=half == torch.float16 and bench.device.type == "cuda")

    def compile(self) -> None:
        for part in self.parts:  # at no size only the tracing is tried, which takes no C++ compiler
            part.compile(dynamic=False, backend="eager" if self.bench.tiny else "inductor")

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        with self.bench.autocast(self.half):
            loss = self.loss()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()


def count_flops(run: Callable) -> float:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def matmul_rate(bench: Bench) -> float:
    """Operations per second of large bfloat16 products."""
    size = 256 if bench.tiny else 8192
    a, b = (bench.randn(size, size).to(torch.bfloat16) for _ in range(2))
    return 2 * size**3 / bench.median(lambda: a @ b, warm_up=5, repeats=21)


def unet_step(bench: Bench, preset: str, overrides: dict, batch: int, compiled: bool) -> Step:
    """The Unet3D of a preset and its loss; with captions when the preset has them."""
    config = load_preset(preset, overrides, task="unet3d")
    words = BagOfWords.from_captions(["a red peony"] if config.unet3d.captions else [])
    pipeline = UnetPipeline.from_config(config, words).to(bench.device)
    unet, diffusion, data = pipeline.unet, pipeline.diffusion, config.data
    x0, noise = (bench.randn(batch, 3, data.frames, data.size, data.size) for _ in range(2))
    t = torch.randint(diffusion.num_steps, (batch,), device=bench.device)
    cond = (words.encode(["a red peony"] * batch).to(bench.device),) if words.dim else ()
    loss = lambda: diffusion.loss(lambda x_t, t: unet(x_t, t, *cond), x0, t, noise).mean()  # noqa: E731
    return Step(bench, unet, loss, [unet] if compiled else [])


def their_unet_step(bench: Bench, batch: int) -> Step:
    """The peer at the sizes of `fireworks_a6000`, in half precision as its Trainer does with amp=True."""
    config, theirs = load_preset("fireworks_a6000", small_unet(bench), task="unet3d"), video_diffusion()
    unet = theirs.Unet3D(dim=config.unet3d.dim, dim_mults=tuple(config.unet3d.dim_mults)).to(bench.device)
    diffusion = theirs.GaussianDiffusion(unet, image_size=config.data.size, num_frames=config.data.frames)
    diffusion = diffusion.to(bench.device)
    clips = bench.randn(batch, 3, config.data.frames, config.data.size, config.data.size).sigmoid()
    return Step(bench, unet, lambda: diffusion(clips), [], half=torch.float16)


def small_unet(bench: Bench) -> dict:
    return {"unet3d.dim": 8, "unet3d.dim_mults": [1, 2], "data.size": 8, "data.frames": 3} if bench.tiny else {}


def stdit3_step(bench: Bench, config: STDiT3Config, batch: int, latents: tuple[int, ...]) -> Step:
    """Velocity prediction for latents (T, H, W), with text of the length that the model was made for."""
    model = STDiT3(config).to(bench.device)
    z, target = (bench.randn(batch, config.in_channels, *latents) for _ in range(2))
    text, t = bench.randn(batch, config.model_max_length, config.caption_channels), 1000 * torch.rand(batch)
    t = t.to(bench.device)
    loss = lambda: F.mse_loss(model(z, t, text, **SIZE)[:, : config.in_channels], target)  # noqa: E731
    return Step(bench, model, loss, [*model.spatial_blocks, *model.temporal_blocks])


def decode(bench: Bench, frames: int, size: int) -> Callable:
    """A clip out of the VAE of Open-Sora 1.2's sizes."""
    vae2d = AutoEncoder2D(**({"ch": 32, "ch_mult": (1, 2)} if bench.tiny else {}))
    tiny = {"filters": 8, "channel_multipliers": (1, 1), "temporal_downsample": (True,), "num_groups": 4}
    temporal = TemporalVAE(**(tiny | {"num_res_blocks": 1} if bench.tiny else {}))
    vae = VideoAutoencoder(vae2d, temporal, micro_frame_size=17, micro_batch_size=4).to(bench.device).eval()
    z = bench.randn(1, vae.channels, *vae.get_latent_size((frames, size, size)))

    @torch.inference_mode()
    def run() -> None:
        with bench.autocast():
            vae.decode(z, frames)

    return run


def film(pipeline: Callable, **options) -> Callable:
    return lambda: pipeline(["a large red peony high on the left"], **options)


def stdit3_call(bench: Bench, config: STDiT3Config, latents: tuple[int, ...]) -> Callable:
    """One guided step of sampling: the prompt and "no text" in one batch."""
    model = STDiT3(config).to(bench.device, torch.bfloat16 if bench.device.type == "cuda" else torch.float32).eval()
    z, text = bench.randn(2, 4, *latents), bench.randn(2, config.model_max_length, config.caption_channels)
    t = torch.full((2,), 500.0, device=bench.device)
    return torch.inference_mode()(lambda: model(z, t, text, **SIZE))


def lines(bench: Bench) -> Iterator[tuple[str, Callable[[], Callable], str, float, bool]]:
    """Name, how to build it, unit, units per run, whether to count operations."""
    batch = 2 if bench.tiny else 16
    small, side, xl = small_unet(bench), 4 if bench.tiny else 32, STDiT3Config()
    if bench.tiny:
        xl = STDiT3Config(hidden_size=24, depth=1, num_heads=2, caption_channels=8, model_max_length=5)
    for compiled in (False, True):
        name = f"unet fireworks_a6000, {batch} clips, bf16{' + compile' * compiled}"
        step = lambda compiled=compiled: unet_step(bench, "fireworks_a6000", small, batch, compiled)  # noqa: E731
        yield name, step, "clips/s", batch, True
    if installed(VIDEO_DIFFUSION):
        yield f"unet {VIDEO_DIFFUSION}, amp", lambda: their_unet_step(bench, batch), "clips/s", batch, True
    for frames, latents, clips in ((17, 5, 4), (51, 15, 2)):
        name = f"stdit3 XL/2 step, 256 px, {frames} frames, {clips} clips, bf16 + compile"
        step = lambda n=latents, clips=clips: stdit3_step(bench, xl, clips, (n, side, side))  # noqa: E731
        yield name, step, "clips/s", clips, True
    frames, pixels = (9, 16) if bench.tiny else (17, 256)
    yield (
        f"vae decode, {frames} frames of {pixels} px, bf16",
        lambda: decode(bench, frames, pixels),
        "clips/s",
        1,
        False,
    )
    for preset in ("toy", "small"):
        config = load_preset(preset, task="stdit3")
        step = lambda preset=preset: unet_step(bench, preset, small, batch, True)  # noqa: E731
        yield f"unet {preset}, {batch} clips, bf16 + compile", step, "clips/s", batch, True
        stdit3, data = STDiT3Config(**asdict(config.stdit3)), config.data
        if bench.tiny:
            stdit3 = xl
        latents = (-(-data.frames // 4), data.size // 4, data.size // 4)
        step = lambda sizes=stdit3, latents=latents: stdit3_step(bench, sizes, batch, latents)  # noqa: E731
        yield f"stdit3 {preset}, {batch} clips, bf16 + compile", step, "clips/s", batch, True
    toy = lambda kind: kind.from_pretrained("toy").to(bench.device)  # noqa: E731
    yield (
        "sample toy unet, 25 steps",
        lambda: film(toy(UnetPipeline), steps=2 if bench.tiny else 25),
        "films/s",
        1,
        False,
    )
    few = {"steps": 2} if bench.tiny else {}
    yield "sample toy stdit3, its own steps", lambda: film(toy(TextToVideoPipeline), **few), "films/s", 1, False
    yield (
        "sample stdit3 XL/2, 51 frames, a guided step",
        lambda: stdit3_call(bench, xl, (15, side, side)),
        "steps/s",
        1,
        False,
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="WORD", help="lines whose name holds one of these")
    parser.add_argument("--seconds", type=float, default=450, help="no line begins after that many (default: 450)")
    parser.add_argument("--tiny", action="store_true", help="on the CPU, at no size at all")
    options = parser.parse_args(argv)
    if not options.tiny and not torch.cuda.is_available():
        parser.error("no CUDA device found; --tiny runs on the CPU")
    bench = Bench("cpu" if options.tiny else "cuda", options.tiny, options.seconds)
    card = "CPU" if options.tiny else torch.cuda.get_device_name()
    print(", ".join([card, *(f"{name} {number}" for name, number in versions().items())]))
    bench.rate = matmul_rate(bench)
    print(f"bfloat16 matmul rate: {bench.rate / 1e12:.3g} TFLOP/s")
    for name, make, unit, amount, flops in lines(bench):
        if not options.only or any(word in name for word in options.only):
            bench.line(name, make, unit, amount, flops=flops)


if __name__ == "__main__":
    main()
