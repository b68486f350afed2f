"""What does a 3D convolution in chunks of channels cost, and what does it save?

    python benchmarks/chunked_conv.py                    time and memory, and a plot of memory against chunks
    python benchmarks/chunked_conv.py --device cuda      the same on a GPU, and a convolution past 2³¹ elements

Time is that of nn.Conv3d and of n chunks of the input times n chunks of the output (n · n small convolutions), taken in
turns, the best of several rounds. Memory is the highest in use during the call, less what was in use before it and less
the output, which every way has to have.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from minivdm import viz
from minivdm.memory import watch_memory
from minivdm.vae.chunked_conv import CONV3D_NUMEL_LIMIT, ChannelChunkConv3D, Geometry, conv3d_in_chunks

MIB = 2**20


def ways_of(x: Tensor, weight: Tensor, bias: Tensor, counts: list[int]) -> dict[int, Callable[[], Tensor]]:
    """0 is the plain convolution, n the one in n · n chunks."""
    same = Geometry((3, 3, 3), padding=(1, 1, 1))
    chunked = {n: lambda n=n: conv3d_in_chunks(x, weight, bias, n, n, same) for n in counts}
    return {0: lambda: F.conv3d(x, weight, bias, padding=1)} | chunked


def seconds(run: Callable[[], Tensor], device: str) -> float:
    """CPU time of this process, so that a busy machine does not count; on a GPU, time until it is done."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    start = clock()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def extra_memory(run: Callable[[], Tensor], device: str) -> int:
    """Bytes in use at the highest, beyond what was there before and the output."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        y = run()
        return torch.cuda.max_memory_allocated() - before - y.numel() * y.itemsize
    with watch_memory() as seen:
        y = run()
    return seen.peak - y.numel() * y.itemsize


def past_the_limit() -> None:
    """An output of more than 2³¹ elements, in bfloat16."""
    conv = ChannelChunkConv3D(128, 128, 3, padding=1, device="cuda", dtype=torch.bfloat16)
    x = torch.randn(1, 128, 17, 1024, 1024, device="cuda", dtype=torch.bfloat16)
    over = x.numel() - CONV3D_NUMEL_LIMIT
    print(f"\n{x.numel():,} elements, {over:,} past the limit, {x.numel() * 2 / 2**30:.2f} GiB in bfloat16")
    plain = lambda: F.conv3d(x, conv.weight, conv.bias, padding=1)  # noqa: E731
    for name, run in {"plain": plain, "chunked": lambda: conv(x)}.items():
        try:
            spent, memory = seconds(run, "cuda"), extra_memory(run, "cuda")
            print(f"{name:>8}: {spent:.3f} s, {memory / MIB:,.0f} MiB beside the output")
        except RuntimeError as error:
            print(f"{name:>8}: {str(error).splitlines()[0]}")


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--shape", type=int, nargs=5, default=[1, 128, 9, 160, 32], metavar=("B", "C", "T", "H", "W"))
    parser.add_argument("--counts", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plot", metavar="FILE.png", help="write a plot of memory against chunks")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    channels = args.shape[1]
    x = torch.randn(args.shape, device=args.device)
    weight = 0.02 * torch.randn(channels, channels, 3, 3, 3, device=args.device)
    bias = torch.randn(channels, device=args.device)
    ways = ways_of(x, weight, bias, args.counts)
    exact = F.conv3d(x.double(), weight.double(), bias.double(), padding=1)
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(args.rounds):
        for n, run in ways.items():
            best[n] = min(best[n], seconds(run, args.device))
    memory = {n: extra_memory(run, args.device) for n, run in ways.items()}
    print(f"input {tuple(x.shape)}, {x.numel() * x.itemsize / MIB:.1f} MiB, as large as the output; {args.device}")
    print("  chunks    seconds   against plain   MiB beside the output   largest error")
    for n, run in ways.items():
        error = (run() - exact).abs().max().item()
        name = f"{n} x {n}" if n else "plain"
        print(f"{name:>8} {best[n]:10.3f} {best[n] / best[0] - 1:14.0%} {memory[n] / MIB:23.1f} {error:15.1e}")
    if args.plot:
        figure, ax = viz.figure(width=6, height=3)
        ax.bar([f"{n} × {n}" if n else "plain" for n in ways], [memory[n] / MIB for n in ways], color=viz.SPACE)
        ax.set(xlabel="chunks of input × output channels", ylabel="MiB beside the output")
        viz.save_png(figure, args.plot)
    if args.device == "cuda":
        past_the_limit()


if __name__ == "__main__":
    main()
