# %% [markdown]
# # 05 Chunked Conv3D: the GPU has 40 GB free and says "cannot allocate". Why?
#
# The films of this course are small. Make one large, and a decoder that has worked all week stops with a message about
# memory, on a machine with plenty of it. This lesson finds out what has really run out, and then does the same
# convolution with less: a few channels at a time, exactly, and in the end on two processes that share the work.
#
# When you are done you will have made
#
# - a **count** of what a convolution writes, before anything is written, and a limit that is counted in the right
#   unit;
# - a **measurement** of what a convolution really takes, and an explanation of the part that nobody ordered;
# - a 3D convolution **in chunks of channels**, equal to the whole one, and a plot of its memory that does not look as
#   you expect;
# - **tensor parallelism**: the same sum over two processes, first pretended, then real.
#
# **Time:** about a minute of computing in all (preset `toy`, two CPU cores, no GPU, no network), and an afternoon of
# yours. Five exercises, each with three hints: `hint("05.num_chunks")` gives the idea, once more the equation, a third
# time the line.

# %% tags=["parameters"]
preset = "toy"
seed = 0
device = None  # None: the CPU, which is all that this lesson needs

# %%
import inspect
import io
import math
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

# %%
import ipywidgets as widgets
import matplotlib.pyplot as plt
import PIL.Image
import torch
import torch.distributed as dist
import torch.nn.functional as F
from einops import rearrange
from IPython.display import HTML, Image, display
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

from minivdm import viz
from minivdm.config import load_preset
from minivdm.course import check, hint  # noqa: F401
from minivdm.data.fireworks import Scene, Shell, render
from minivdm.memory import Watched, watch_memory
from minivdm.vae import ChannelChunkConv3D, run_processes

# %%
torch.set_num_threads(1)  # so that measurements are the same on every machine
size, num_frames = load_preset(preset).data.size, 17
MIB, GIB = 2**20, 2**30


def dice(number: int) -> torch.Generator:
    """Dice that always fall the same way: all chance in this lesson comes from numbered dice."""
    return torch.Generator().manual_seed(1000 * seed + number)


def as_png(figure: Figure) -> Image:
    """A plot as a small PNG."""
    figure.savefig(png := io.BytesIO())
    PIL.Image.open(png).quantize(64).save(small := io.BytesIO(), "PNG", optimize=True)
    plt.close(figure)
    return Image(small.getvalue())


def show(figure: Figure, alt: str) -> None:
    """Display a plot, with words for those who cannot see it."""
    display(viz.picture(as_png(figure).data, alt))


# %% [markdown]
# ## What has run out?
#
# Here is the order that was refused: one activation of a video decoder's last level, 128 channels, 17 frames of
# 1024 × 1024, in `bfloat16`, two bytes a number.

# %%
for frames in (16, 17):
    numel = 128 * frames * 1024 * 1024
    print(f"{frames} frames: {numel:>13,} numbers, {numel * 2 / GIB:.2f} GiB in bfloat16")

# %% [markdown]
# Four and a quarter gigabytes, and forty are free. Sixteen frames work and seventeen do not, so it is not "nearly
# full" either. Look at the first line again. 2,147,483,648 is a famous number, $2^{31}$.
#
# A tensor is one long row of numbers, and a kernel that works on it must say *which* number it wants. Many fast
# kernels say it with a signed 32-bit integer, because those are quick. Such an integer can count from $0$ to
# $2^{31} - 1$, and this is what comes next:

# %%
last = torch.tensor(2**31 - 1, dtype=torch.int32)
print(f"{last.item():,} + 1 = {(last + 1).item():,}")

# %% [markdown]
# Careful libraries look at the size first and refuse, which is the message that you got (some of them call it a lack
# of memory). What would happen if they did not? Let us build a world in which integers have 16 bits. There the limit
# is $2^{15} = 32{,}768$ numbers, and the willow that goes with us through this course is already too large.

# %%
scene = Scene((Shell(colour="gold", shape="willow", column="left", row="high", size="large"),))
film = render([scene], num_frames, size, generator=dice(2))
print("film (B, C, T, H, W):", tuple(film.shape), f"= {film.numel():,} numbers")

# %% tags=["nbval-ignore-output"]
index = torch.arange(film.numel()).to(torch.int16)  # counts to 32,767, goes on at −32,768
misread = film.flatten()[index.long()].reshape(film.shape)  # a negative index reads from the end
viz.player(
    [film[0], misread[0]],
    ["the film", "read with 16-bit indices"],
    fps=5,
    scale=5,
    alt="the gold willow; beside it a white one with a blue ghost that opens before it, red in the last frames",
)

# %% [markdown]
# No crash and no message. Numbers are stored colour by colour, red, green, blue; the count overflows in the last frames
# of green, and from there on the kernel reads *something else*: what should be blue is green of four frames later, so a
# blue ghost opens before its willow. On a real network you might have trained on that for a week.
#
# So the limit is a limit of **counting**. It does not ask how large a number is.

# %% [markdown] tags=["predict"]
# **Predict first.** In the published code that this lesson grew from, the limit stands as `2**31`, and a
# walkthrough of it adds the comment "2 GB". Four tensors follow. Which of them can a kernel with 32-bit indices count?
# Write down yes or no for each before you run the cell.
#
# | | shape | type | bytes a number |
# |---|---|---|---|
# | A | 128 × 16 × 1024 × 1024 | bfloat16 | 2 |
# | B | 128 × 16 × 1024 × 1024 | float64 | 8 |
# | C | 128 × 17 × 1024 × 1024 | bfloat16 | 2 |
# | D | 256 × 9 × 1024 × 1024 | int8 | 1 |
#
# *My guess: …*

# %%
for name, shape, bytes_each in (
    ("A", (128, 16, 1024, 1024), 2),
    ("B", (128, 16, 1024, 1024), 8),
    ("C", (128, 17, 1024, 1024), 2),
    ("D", (256, 9, 1024, 1024), 1),
):
    numel = math.prod(shape)
    verdict = "yes" if numel <= 2**31 else "no"
    print(f"{name}: {numel * bytes_each / GIB:5.2f} GiB, {numel / 2**31:.3f} of 2³¹ numbers: {verdict}")

# %% [markdown]
# <details><summary>What happened</summary>
#
# A and B pass, though B has 16 GiB. C and D fail, though D has a seventh of B's bytes. The comment is wrong twice: the
# limit is $2^{31}$ *elements*, which are 4 GiB in bfloat16, 8 GiB in float32, and never 2 GB except for bytes
# themselves.
# </details>
#
# ## Count before you order
#
# Whether a convolution meets the limit can be told beforehand, from shapes alone. Not the input's alone, though: a
# layer writes too, and it may write more than it reads. How much?
#
# ### Exercise 05.conv3d_output_numel (5 minutes)
#
# On each axis a window of `kernel` taps, `dilation` apart, is moved in steps of `stride` over the axis and its
# `padding`. Count the places where it fits, and multiply.


# %%
# exercise: 05.conv3d_output_numel
def conv3d_output_numel(
    shape: tuple[int, ...],
    out_channels: int,
    kernel: tuple[int, int, int],
    stride: tuple[int, int, int],
    padding: tuple[int, int, int],
    dilation: tuple[int, int, int],
) -> int:
    """How many numbers a 3D convolution of an input (B, C, T, H, W) writes, the whole batch together."""
    ### BEGIN SOLUTION
    numel = shape[0] * out_channels
    for n, k, s, p, d in zip(shape[2:], kernel, stride, padding, dilation, strict=True):
        numel *= (n + 2 * p - d * (k - 1) - 1) // s + 1
    return numel
    ### END SOLUTION


# %%
# hint("05.conv3d_output_numel")
check("05.conv3d_output_numel", conv3d_output_numel)

# %% [markdown]
# With it, walk through a whole decoder without running it. These are the convolutions of a typical video decoder that
# makes 17 frames of 1024 × 1024 (kernel 3, padding 1), and what each reads and writes:

# %%
decoder = {
    "first": ((1, 4, 5, 128, 128), 512),
    "level 1": ((1, 512, 5, 128, 128), 512),
    "level 2": ((1, 512, 9, 256, 256), 512),
    "level 3": ((1, 512, 17, 512, 512), 256),
    "enlarged": ((1, 256, 17, 1024, 1024), 256),
    "level 4": ((1, 128, 17, 1024, 1024), 128),
    "last": ((1, 128, 17, 1024, 1024), 3),
}
one, three = (1, 1, 1), (3, 3, 3)
read = {name: math.prod(shape) for name, (shape, _) in decoder.items()}
written = {
    name: conv3d_output_numel(shape, d, three, one, one, one) for name, (shape, d) in decoder.items()
}
for name in decoder:
    over = max(read[name], written[name]) / 2**31
    print(
        f"{name:>8}: reads {read[name]:>13,}, writes {written[name]:>13,}"
        + (f"  {over:.2f} × 2³¹" * (over > 1))
    )

# %% tags=["nbval-ignore-output"]
figure, ax = viz.figure(width=7.5, height=3)
places = torch.arange(len(decoder))
ax.barh(places - 0.2, list(read.values()), 0.36, color=viz.SPACE, label="reads")
ax.barh(places + 0.2, list(written.values()), 0.36, color=viz.TIME, label="writes")
ax.axvline(2**31, color=viz.INK, linewidth=2)
ax.text(2**31 * 1.15, 0.2, "$2^{31}$", color=viz.INK)
ax.set(xscale="log", xlabel="numbers", yticks=places, yticklabels=list(decoder), xlim=(2e4, 2e10))
ax.invert_yaxis()
ax.legend(loc="upper left", bbox_to_anchor=(0.6, 1.02))
show(
    figure,
    "bars that grow from 300 thousand to 4.6 thousand million; the last four layers pass the line at 2 to the 31",
)

# %% [markdown]
# The first layers are harmless, and the last four are all too large, on one side or both. Count also before you believe:
# the walkthrough that calls the limit 2 GB reports that decoding 16 frames of 768 × 768 went from 32 GB to 12 GB, chunked
# convolution among the reasons. For that clip the limit lies at $2^{31} / (16 \cdot 768^2) \approx 227$ channels. A
# level of 128 channels never meets it, and where nothing meets the limit, the method does nothing at all.
#
# ## Estimate, measure, explain the gap
#
# Now the bytes. The willow again, in a taller frame, made wide by a layer of 64 channels, as in the middle of a
# decoder. What does *one more* convolution of the same width take?

# %%
big_film = render([scene], num_frames, (160, 96), generator=dice(2))
widen = torch.randn(64, 3, 3, 3, 3, generator=dice(50)) / 9
features = F.silu(F.conv3d(big_film, widen, padding=1))
weight = torch.randn(64, 64, 3, 3, 3, generator=dice(51)) / 42
bias = torch.randn(64, generator=dice(52))
mib = features.numel() * features.itemsize / MIB
print("features:", tuple(features.shape), f"= {features.numel():,} numbers, {mib:.0f} MiB")

# %% [markdown] tags=["predict"]
# **Predict first.** The features are there and take their 64 MiB, the weights are small. How many MiB *more* will the
# process hold at the highest moment of `F.conv3d(features, weight, bias, padding=1)`? Write your estimate, and what it
# is made of.
#
# *My estimate: … MiB, because …*


# %%
def measured(function: Callable[..., Tensor], *args, **options) -> tuple[Watched, Tensor]:
    """Calls it once; returns what was seen of the memory meanwhile, and the result."""
    with torch.no_grad(), watch_memory() as seen:
        result = function(*args, **options)
    return seen, result


# %% tags=["nbval-ignore-output"]
measured(F.conv3d, features[:, :, :2], weight, bias, padding=1)  # the first call of all also loads code
plain, whole = measured(F.conv3d, features, weight, bias, padding=1)
print(f"output {mib:.0f} MiB, at the highest {plain.peak / MIB:.0f} MiB more than before")

# %% tags=["nbval-ignore-output"]
figure, ax = viz.figure(width=7, height=2.4)
ax.fill_between(plain.seconds, torch.tensor(plain.bytes) / MIB, color=viz.SPACE, alpha=0.6, step="post")
ax.axhline(mib, color=viz.INK, linewidth=1.5, linestyle="--")
ax.text(plain.seconds[-1] * 1.02, mib + 3, "the output", color=viz.INK)
ax.set(xlabel="seconds", ylabel="MiB", xlim=(0, plain.seconds[-1] * 1.18))
show(
    figure,
    "memory jumps to the size of the input, climbs slowly to twice that, drops, climbs again, ends at the output",
)

# %% [markdown]
# The estimate of most people is the output, and the machine takes twice that. (On a GPU, or with another version of
# the library, the number will differ; a gap there usually is.) The fast kernel wants the channels of one pixel side by
# side in memory, and we keep the pixels of one channel side by side. Read the curve from the left. A jump: the kernel
# makes itself a **rearranged copy of the whole input**. A slow rise: it writes the output, in its own layout. A drop: the
# copy is let go. And a last small hill: the output is laid out as we wanted it. Nobody ordered the copies, and they are
# gone before one can look.
#
# So there are two reasons to do a convolution piece by piece: a count that must not be passed, and scratch space that
# grows with the size of the piece.
#
# ## Where to cut?
#
# To see what goes wrong, we need a layer whose output can be *looked at*. So here is a decoder's last layer: 16
# channels of features in, a film out. Its weights are not trained but solved for (least squares: which 3 × 3 × 3
# kernels on these features give the willow?).

# %%
small = torch.randn(16, 3, 3, 3, 3, generator=dice(53)) / 5
seen_by_decoder = F.silu(F.conv3d(film, small, padding=1))


def neighbourhoods(x: Tensor) -> Tensor:
    """For every pixel the 3 × 3 × 3 values round it, of every channel: (B·T·H·W, C·27 + 1), and a 1 for the bias."""
    around = F.pad(x, (1,) * 6).unfold(2, 3, 1).unfold(3, 3, 1).unfold(4, 3, 1)
    rows = rearrange(around, "b c t h w i j k -> (b t h w) (c i j k)").double()
    return torch.cat([rows, torch.ones(len(rows), 1, dtype=torch.float64)], dim=1)


rows = neighbourhoods(seen_by_decoder)
gram = rows.T @ rows + 1e-3 * torch.eye(rows.shape[1], dtype=torch.float64)
solved = torch.linalg.solve(gram, rows.T @ rearrange(film, "b c t h w -> (b t h w) c").double()).float()
to_film = rearrange(solved[:-1], "(c i j k) d -> d c i j k", i=3, j=3, k=3).contiguous()
film_bias = solved[-1].clone()
decoded = F.conv3d(seen_by_decoder, to_film, film_bias, padding=1)
print(
    f"{tuple(to_film.shape)} weights; the decoded film is off by {(decoded - film).abs().max():.2f} at most"
)

# %% [markdown]
# The obvious cut is through the picture: decode the left half, decode the right half, lay them side by side.

# %% tags=["nbval-ignore-output"]
halves = [F.conv3d(half, to_film, film_bias, padding=1) for half in seen_by_decoder.chunk(2, dim=-1)]
tiled = torch.cat(halves, dim=-1)
error = (tiled - decoded).abs()
viz.player(
    [decoded[0].clamp(-1, 1), tiled[0].clamp(-1, 1), (2 * error[0] - 1).clamp(-1, 1)],
    ["whole", "in two halves", "the difference"],
    fps=5,
    scale=4,
    alt="the willow; the same with a stripe down the middle; a stripe alone on black",
)

# %%
columns = error.amax(dim=(0, 1, 2, 3))
wrong = (columns > 1e-5).nonzero().flatten().tolist()
print(f"columns that are wrong: {wrong}, by up to {columns.max():.2f}")

# %% [markdown]
# A seam. At the cut each half sees zeros where its neighbour's pixels should be. After one layer the seam is two columns
# wide, and every further layer adds one on either side. One can cut with overlap, and compute the border twice; cutting
# time has the same trouble (lesson 04 carried frames over the cut for that reason).
#
# Is there an axis along which a convolution has *no neighbours*? Write down what it computes,
#
# $$y_o = b_o + \sum_{i=1}^{C} w_{oi} * x_i ,$$
#
# where $*$ slides one small kernel over one channel, and look at the two indices.
#
# - **Output channels $o$** have nothing to do with each other. Compute some of them, then the others, and lay them side
#   by side.
# - **Input channels $i$** only meet in a *sum*. Add up some of the terms, then the others.
#
# Neither has an edge. For the sum, one can watch it grow, four channels at a time:

# %% tags=["nbval-ignore-output"]
partial, sums = 0, []
for x_part, w_part in zip(seen_by_decoder.chunk(4, dim=1), to_film.chunk(4, dim=1), strict=True):
    partial = partial + F.conv3d(x_part, w_part, padding=1)
    sums.append(partial)
ghosts = [(ghost + film_bias[:, None, None, None])[0].clamp(-1, 1) for ghost in sums]
viz.player(
    ghosts,
    [f"channels 1 to {4 * k}" for k in range(1, 5)],
    fps=5,
    scale=4,
    alt="three dull ghosts of the willow on a brownish ground; the last is the gold willow on black",
)

# %% [markdown]
# Every part is a whole film of its own, in wrong colours. None has a seam. The last one is the willow:

# %%
whole_film = F.conv3d(seen_by_decoder, to_film, padding=1)
print(f"sum of four parts against the whole: {(sums[-1] - whole_film).abs().max():.4f} apart at most")

# %% [markdown]
# ## How many chunks?
#
# Enough that each is small enough. And all of the same size, for a fast kernel is planned for one shape, and a plan
# costs time. So the number must **divide** the channels.
#
# ### Exercise 05.num_chunks (5 minutes)


# %%
# exercise: 05.num_chunks
def num_chunks(numel: int, channels: int, limit: int) -> int:
    """The smallest number of equal chunks of `channels` that leaves at most `limit` of the `numel` numbers in each.

    When even single channels are too large: `channels`.
    """
    ### BEGIN SOLUTION
    enough = (n for n in range(1, channels + 1) if channels % n == 0 and n * limit >= numel)
    return next(enough, channels)
    ### END SOLUTION


# %%
# hint("05.num_chunks")
check("05.num_chunks", num_chunks)

# %% [markdown]
# ### Bug of the day
#
# Well-known code has a function for this, with a promising name. In our own words it is


# %%
def ceil_to_divisible(n: int, channels: int) -> int:
    """At least n, and … look at what it returns."""
    return math.ceil(channels / (channels // n))


# %% [markdown]
# It *looks* right: from $n$ to the chunk size and back. Do not believe it, try it. Here are all pairs up to 32, in
# three colours: the answer divides the channels, it does not, the function crashes.


# %%
def verdict(n: int, channels: int) -> int:
    """0 divides, 1 does not, 2 crashes."""
    try:
        return int(channels % ceil_to_divisible(n, channels) != 0)
    except ZeroDivisionError:
        return 2


table = torch.tensor([[verdict(n, channels) for n in range(1, 33)] for channels in range(1, 33)])
print(f"5 chunks of 16 channels? It says {ceil_to_divisible(5, 16)}, and 16 / 6 is {16 / 6:.2f}")
print(f"up to 32: {(table == 0).sum()} divide, {(table == 1).sum()} do not, {(table == 2).sum()} crash")

# %% tags=["nbval-ignore-output"]
figure, ax = viz.figure(width=4.6, height=4)
ax.imshow(
    table,
    cmap=ListedColormap(["#DDDDDD", viz.DATA, viz.INK]),
    origin="lower",
    extent=(0.5, 32.5, 0.5, 32.5),
)
ax.plot(10, 3, "o", color="white", markeredgecolor=viz.INK)
line = {"arrowstyle": "-", "color": "white"}
ax.annotate("a film: 3 channels,\n10 chunks asked for", (10, 3), (13, 8), color="white", arrowprops=line)
ax.set(xlabel="chunks asked for", ylabel="channels", title="grey divides, green does not, dark crashes")
ax.grid(visible=False)
show(figure, "above the diagonal a grey field with green streaks; everything below the diagonal is dark")

# %% [markdown]
# Wherever the answer does not divide, the last chunk is smaller than the others: a second shape, a second plan, and on
# several machines partners that wait for tensors of another size. And the dark half is a division by zero. It is hit by
# the layers with the *fewest* channels and the *largest* pictures, the very first and the very last of a network.
#
# The same code has a second surprise. It decides whether to cut by looking at its **input** only. A layer that reads
# little and writes much (at full size, our decoder's first writes 128 times what it reads) passes whole, however far its output is over
# the limit. Your function has to look at both.
#
# ## The convolution in chunks
#
# ### Exercise 05.chunked_conv3d (15 minutes)
#
# Both cuts in one function. Count what is read and what is written, ask `num_chunks` for both, and then: for each chunk
# of output channels, the sum over the chunks of input channels. The check watches how large your convolutions are.


# %%
# exercise: 05.chunked_conv3d
def chunked_conv3d(
    x: Tensor, weight: Tensor, bias: Tensor | None, limit: int, padding: tuple[int, int, int]
) -> Tensor:
    """Equal to F.conv3d(x, weight, bias, padding=padding), in convolutions of at most `limit` numbers.

    x (B, C, T, H, W), weight (D, C, t, h, w), bias (D,) or None. No convolution reads or writes more
    than `limit` numbers while it has more than one channel.
    """
    ### BEGIN SOLUTION
    one = (1, 1, 1)
    written = conv3d_output_numel(x.shape, len(weight), weight.shape[2:], one, padding, one)
    n_in, n_out = num_chunks(x.numel(), x.shape[1], limit), num_chunks(written, len(weight), limit)
    outputs = []
    for rows in weight.chunk(n_out):
        pairs = zip(x.chunk(n_in, dim=1), rows.chunk(n_in, dim=1), strict=True)
        outputs.append(sum(F.conv3d(part, w, padding=padding) for part, w in pairs))
    y = torch.cat(outputs, dim=1)
    return y if bias is None else y + bias[:, None, None, None]
    ### END SOLUTION


# %%
# hint("05.chunked_conv3d")
check("05.chunked_conv3d", chunked_conv3d)

# %% [markdown]
# The willow through it, under a limit of a tenth of its features, and where a gradient would go as well:

# %%
limit = seen_by_decoder.numel() // 10
x = seen_by_decoder.clone().requires_grad_()
for name, run in {
    "whole": lambda: F.conv3d(x, to_film, film_bias, padding=1),
    "chunked": lambda: chunked_conv3d(x, to_film, film_bias, limit, (1, 1, 1)),
}.items():
    y = run()
    (gradient,) = torch.autograd.grad((y * film).sum(), x)
    print(f"{name:>8}: film off by {(y - decoded).abs().max():.4f}, gradient {gradient.norm():.3f}")

# %% [markdown]
# ## Memory against chunks, live
#
# Now what it was all for. The same wide layer as above, cut into 1, 2, 4 and 8 chunks of input and of output channels.
# Measured is the highest memory *beside the output*, since the output has to be somewhere anyway.

# %% [markdown] tags=["predict"]
# **Predict first.** The plain convolution took about as much again beside its output. How much will your function take
# beside it with 2, 4 and 8 chunks? Write three numbers. (Think of what is alive at the last moment: of every tensor that your function
# has made, and that nobody has thrown away yet.)
#
# *My guess: …*

# %%
counts = [1, 2, 4, 8]
traces: dict[str, dict[int, Watched]] = {}


def bars() -> HTML:
    """What has been measured so far."""
    figure, ax = viz.figure(width=7, height=2.8)
    said = [f"a dashed line at {plain.peak / MIB - mib:.0f} MiB"]
    for k, (name, seen) in enumerate(traces.items()):
        extra = [max(seen[n].peak / MIB - mib, 0) for n in seen]
        where = [counts.index(n) + 0.38 * (k - 0.5) for n in seen]
        ax.bar(where, extra, 0.36, color=(viz.NOISE, viz.SPACE)[k], label=name)
        said.append(f"{name}: bars of {', '.join(f'{height:.0f}' for height in extra)} MiB")
    ax.axhline(plain.peak / MIB - mib, color=viz.INK, linestyle="--", linewidth=1.2)
    ax.set(xticks=range(len(counts)), xticklabels=counts, xlabel="chunks", ylabel="MiB beside the output")
    ax.set(xlim=(-0.6, 3.6), ylim=(0, 2.6 * mib))
    if traces:
        ax.legend(loc="upper right", ncols=2)
    return viz.picture(as_png(figure).data, "; ".join(said))


# %% tags=["nbval-ignore-output"]
live = display(bars(), display_id=True)
traces["yours"] = {}
for n in counts:
    traces["yours"][n], y = measured(
        chunked_conv3d, features, weight, bias, features.numel() // n, (1, 1, 1)
    )
    assert torch.allclose(y, whole, atol=1e-4)
    live.update(bars())

# %% [markdown]
# Nothing is saved. (If your bars do fall, you have written it as the next cell does: well done.) The dashed line is the
# plain convolution, and the chunked ones need *more*. The answer is right, every convolution is small, and yet the
# memory is not. Who holds it?
#
# At the last moment of the usual way of writing this there is a *list of all chunks*, which together are as large as
# the output; then `torch.cat` makes the output, beside the list; then `+ bias` makes it a third time. The convolutions
# got small, and the bookkeeping got large.
#
# The cure is to make room for the output once, and let every sum grow **in its own place** in it. Then only one small
# result exists at a time.


# %%
def chunked_in_place(x: Tensor, weight: Tensor, bias: Tensor, n: int) -> Tensor:
    """The same in n chunks of input times n chunks of output channels, every sum in its place (no gradients)."""
    y = torch.empty(len(x), len(weight), *x.shape[2:])
    for place, rows, b in zip(y.chunk(n, dim=1), weight.chunk(n), bias.chunk(n), strict=True):
        place[:] = b[:, None, None, None]
        for part, w in zip(x.chunk(n, dim=1), rows.chunk(n, dim=1), strict=True):
            place += F.conv3d(part, w, padding=1)  # += : remember it
    return y


# %% tags=["nbval-ignore-output"]
live = display(bars(), display_id=True)
traces["in place"] = {}
for n in counts:
    traces["in place"][n], y = measured(chunked_in_place, features, weight, bias, n)
    assert torch.allclose(y, whole, atol=1e-4)
    live.update(bars())

# %% [markdown]
# There it is, and with an honest kink. Beside the output there are now two things, each $1/n$ of a whole: the
# rearranged copy of one chunk of the input, $X/n$, and one small result, $Y/n$. The plain convolution has only the first
# beside its output, for its result *is* the output:
#
# $$\text{plain: } X \qquad\qquad \text{in } n \text{ chunks: } \frac{X + Y}{n}$$
#
# So two chunks save next to *nothing*, four save about half, eight more again. Whoever promises that $n$ chunks divide the
# memory by $n$ has not measured. (One chunk in this way of writing is worse than none. And if your last bar is higher
# than the formula says: chunks of eight channels are narrow, and many a kernel's own layout rounds them up to sixteen.)
#
# How the memory rises and falls while the work is done, and with the slider for each number of chunks:


# %%
def skyline(n: int) -> Figure:
    """Memory over time, in place, in n chunks."""
    seen = traces["in place"][n]
    figure, ax = viz.figure(width=7, height=2.2)
    ax.fill_between(seen.seconds, torch.tensor(seen.bytes) / MIB, color=viz.SPACE, alpha=0.6, step="post")
    ax.axhline(mib, color=viz.INK, linewidth=1.2, linestyle="--")
    ax.set(xlabel="seconds", ylabel="MiB", ylim=(0, 210), title=f"{n} × {n} convolutions")
    return figure


# %% tags=["nbval-ignore-output"]
show(
    skyline(4),
    "a saw: the memory rises slowly to the output as chunk after chunk fills its place, with small teeth on top",
)
window = widgets.Image(value=as_png(skyline(4)).data)
slider = widgets.SelectionSlider(options=counts, value=4, description="chunks")
slider.observe(lambda change: setattr(window, "value", as_png(skyline(change["new"])).data), names="value")
display(widgets.VBox([slider, window]))

# %% [markdown]
# Small teeth, and a floor that rises: the output is not even there before its first chunk is written.
#
# ### And the rounding?
#
# Floating-point sums depend on their order. A sum over 64 channels in eight parts is not, bit for bit, the sum in one
# go. Is the chunked result then a little *wrong*? Wrong against what? Both are roundings of a truth that we can
# compute, in float64. And because GPUs work in bfloat16, with its three digits, the same again for parts in bfloat16,
# added up once in bfloat16 and once in float32:

# %% tags=["nbval-ignore-output"]
some, cuts = features[:, :, :3, :48], [1, 2, 4, 8, 16, 32, 64]
truth = F.conv3d(some.double(), weight.double())
errors = {"float32": [], "bfloat16, added in float32": [], "bfloat16, added in bfloat16": []}
for n in cuts:
    pairs = zip(some.chunk(n, dim=1), weight.chunk(n, dim=1), strict=True)
    parts = [F.conv3d(part, w) for part, w in pairs]
    rounded = [part.bfloat16() for part in parts]
    totals = (sum(parts), sum(part.float() for part in rounded).bfloat16(), sum(rounded))
    for found, total in zip(errors.values(), totals, strict=True):
        found.append(((total.double() - truth).square().mean().sqrt() / truth.std()).item())
print({name: [float(f"{e:.1g}") for e in found] for name, found in errors.items()})

# %% tags=["nbval-ignore-output"]
figure, ax = viz.figure(width=7, height=2.8)
for (name, found), colour in zip(errors.items(), (viz.SPACE, viz.DATA, viz.NOISE), strict=True):
    ax.plot(cuts, found, "o-", color=colour, label=name)
ax.set(
    xscale="log",
    yscale="log",
    xticks=cuts,
    xticklabels=cuts,
    xlabel="chunks",
    ylabel="error / typical value",
)
ax.minorticks_off()
ax.legend(loc="center right")
show(
    figure,
    "float32 flat near one ten-millionth; bfloat16 near two thousandths, rising with the chunks when added in bfloat16",
)

# %% [markdown]
# In float32 all are off in the seventh digit, the plain one included, and that is what float32 promises: chunks neither
# spoil nor mend it. In bfloat16 it matters *where the sum lives*. Added in bfloat16, every further chunk rounds the whole
# sum once more. That is why the package keeps such sums in float32 until they are complete.
#
# ## Padding, cut as well
#
# A layer that makes a film of the same size needs a border. Video decoders of this family lay zeros round each picture
# and, in time, let the film **stand still** at its ends: the first frame again in front, the last again behind. (Both
# ends, so this is *not* the causal padding of lesson 04.)
#
# ### Exercise 05.pad_3x3x3 (5 minutes)


# %%
# exercise: 05.pad_3x3x3
def pad_3x3x3(x: Tensor) -> Tensor:
    """(B, C, T, H, W) -> (B, C, T + 2, H + 2, W + 2): zeros round each picture, first and last frame repeated."""
    ### BEGIN SOLUTION
    wide = F.pad(x, (1, 1, 1, 1))
    return torch.cat([wide[:, :, :1], wide, wide[:, :, -1:]], dim=2)
    ### END SOLUTION


# %%
# hint("05.pad_3x3x3")
check("05.pad_3x3x3", pad_3x3x3)

# %% [markdown]
# Padding *copies* the tensor into a larger one, so it meets the limit a little before the convolution does. But it acts
# on every channel alone. No sum, hence no rounding: in chunks it is the same to the last bit.

# %%
padded = pad_3x3x3(features)
by_channels = torch.cat([pad_3x3x3(part) for part in features.chunk(8, dim=1)], dim=1)
print(
    f"{features.numel():,} numbers become {padded.numel():,}; in 8 chunks equal to the last bit: {torch.equal(padded, by_channels)}"
)

# %% [markdown]
# ## The same sum, on two machines
#
# You wrote `+=`, over chunks that were computed one *after* another. Nothing in the sum says that they must be. Give
# each chunk to a machine of its own:
#
# | | every machine holds | and computes | then |
# |---|---|---|---|
# | **column parallel** | some *output* channels' weights | some channels of the result | lay side by side: **all-gather** |
# | **row parallel** | some *input* channels' weights | a whole result that lacks the others' share | `+=` over machines: **all-reduce** |
#
# That is **tensor parallelism**. Memory for weights, memory for scratch and the work itself are divided by the number
# of machines (each is called a *rank*). Only one thing in it is easy to get wrong, and the check will see it.
#
# ### Exercise 05.row_parallel_conv3d (5 minutes)
#
# First pretended, in one process: a loop over ranks stands for the machines, a sum for the all-reduce.


# %%
# exercise: 05.row_parallel_conv3d
def row_parallel_conv3d(x: Tensor, weight: Tensor, bias: Tensor, ranks: int) -> Tensor:
    """F.conv3d(x, weight, bias), with the input channels split over `ranks`, which divides them."""
    ### BEGIN SOLUTION
    shares = zip(x.chunk(ranks, dim=1), weight.chunk(ranks, dim=1), strict=True)
    total = sum(F.conv3d(share, w) for share, w in shares)
    return total + bias[:, None, None, None]  # once, not on every rank
    ### END SOLUTION


# %%
# hint("05.row_parallel_conv3d")
check("05.row_parallel_conv3d", row_parallel_conv3d)

# %% tags=["nbval-ignore-output"]
padded_features = pad_3x3x3(seen_by_decoder)
pretended = row_parallel_conv3d(padded_features, to_film, film_bias, ranks=2)
by_rank = [
    F.conv3d(share, w, film_bias)[0].clamp(-1, 1)
    for share, w in zip(padded_features.chunk(2, dim=1), to_film.chunk(2, dim=1), strict=True)
]
viz.player(
    [*by_rank, pretended[0].clamp(-1, 1)],
    ["rank 0 alone", "rank 1 alone", "their sum"],
    fps=5,
    scale=4,
    alt="two ghosts of the willow in false colours, and the gold willow",
)

# %% [markdown]
# ### Now really
#
# Two processes of the operating system, which share no memory. Each gets its half of the channels and its half of the
# weights, convolves, and calls `all_reduce`. That is the `+=`: what goes in is one rank's film, what comes out, on
# *both*, is the sum. Read the function as a script that runs twice at the same time, with another `rank`.


# %%
def one_rank(rank: int, ranks: int, x: Tensor, weight: Tensor, bias: Tensor) -> dict:
    """What each process runs: its share of the convolution, then the sum of all shares."""
    mine, my_weight = x.chunk(ranks, dim=1)[rank], weight.chunk(ranks, dim=1)[rank]
    y = F.conv3d(mine, my_weight)
    alone = y.clone()
    dist.all_reduce(y)  # += over processes
    y += bias[:, None, None, None]
    return {"pid": os.getpid(), "weights": my_weight.numel(), "alone": alone, "y": y}


# %% [markdown]
# A new process knows nothing of this notebook. So the function goes into a file, as any program that `torchrun` starts
# on a cluster, and `run_processes` starts it twice. The two meet through a file and talk over the loopback of this
# machine; no network is needed. (Some ten seconds, nearly all of it Python starting twice.)

# %%
folder = tempfile.TemporaryDirectory()  # gone when the notebook closes
program = Path(folder.name) / "two_ranks.py"
header = "import os\nimport torch.distributed as dist\nimport torch.nn.functional as F\nfrom torch import Tensor\n\n\n"
program.write_text(header + inspect.getsource(one_rank))
sys.path.insert(0, str(program.parent))
import two_ranks

first, second = run_processes(two_ranks.one_rank, 2, 2, padded_features, to_film, film_bias)

# %% tags=["nbval-ignore-output"]
print(f"this notebook is process {os.getpid()}; the film was made by {first['pid']} and {second['pid']}")

# %%
print(f"weights: {to_film.numel()} in all, {first['weights']} and {second['weights']} held")
print(f"both ranks end with the same film: {torch.equal(first['y'], second['y'])}")
print(
    f"each alone is off by {(first['alone'] - decoded).abs().max():.1f} and {(second['alone'] - decoded).abs().max():.1f}"
)
print(f"real against pretended: {(first['y'] - pretended).abs().max():.4f} apart")

# %% [markdown]
# Not a simulation any more: two processes, each of which computed with half of the channels and half of the weights, and
# both have the willow.
#
# A whole decoder goes the same way. The package replaces every 3D convolution in it by its parallel kind, and nothing
# else has to know. Here is a small temporal decoder of lesson 04 (with random weights, for equality does not care), on
# two processes:

# %%
whole_decoder = """
import torch
from minivdm.vae import TemporalVAE, parallelize

def decode(rank, ranks):
    torch.manual_seed(0)  # the same weights on every rank
    vae = TemporalVAE(filters=32, channel_multipliers=(1, 1), temporal_downsample=(True,), num_res_blocks=1, num_groups=8)
    z = torch.randn(1, 4, 3, 8, 8)
    with torch.no_grad():
        alone, before = vae.decode(z, num_frames=5), sum(p.numel() for p in vae.decoder.parameters())
        parallelize(vae.decoder, split="column")
        together, after = vae.decode(z, num_frames=5), sum(p.numel() for p in vae.decoder.parameters())
    return {"apart": (together - alone).abs().max().item(), "share": after / before}
"""
(program.parent / "two_decoders.py").write_text(whole_decoder)
import two_decoders

for rank, found in enumerate(run_processes(two_decoders.decode, 2, 2)):
    print(
        f"rank {rank}: holds {found['share']:.0%} of the weights, its film is {found['apart']:.4f} from the whole decoder's"
    )

# %% [markdown]
# ## Where all this lives
#
# | yours | in the package |
# |---|---|
# | `conv3d_output_numel`, `num_chunks` | `minivdm/vae/chunked_conv.py` |
# | `chunked_conv3d`, in place | `ChannelChunkConv3D`, same file: any bias, groups, stride, dilation and padding, gradients too |
# | `pad_3x3x3` | `pad_for_conv3d_kernel_3x3x3` in `minivdm/vae/chunked_ops.py` |
# | `row_parallel_conv3d`, `one_rank` | `RowParallelConv3d`, `ColumnParallelConv3d`, `parallelize` in `minivdm/vae/parallel.py` |
# | the measurements | `minivdm/memory.py`, and `benchmarks/chunked_conv.py` with times |
#
# `ChannelChunkConv3D` is an `nn.Conv3d` in all respects but one. Its limit is $2^{31}$ unless you say otherwise, and
# below it, it is one plain convolution, to the last bit:

# %%
layer = ChannelChunkConv3D(16, 3, 3, padding=1)
layer.load_state_dict({"weight": to_film, "bias": film_bias})
with torch.no_grad():
    print("below the limit, the same bits:", torch.equal(layer(seen_by_decoder), decoded))
    layer.numel_limit = limit
    mine = chunked_conv3d(seen_by_decoder, to_film, film_bias, limit, (1, 1, 1))
    print(f"beyond it, yours and the package's are {(layer(seen_by_decoder) - mine).abs().max():.4f} apart")

# %% [markdown]
# ## Reflection
#
# In your own words, a sentence or two each (there is a cell below for it):
#
# 1. Forty gigabytes are free, and the machine says "cannot allocate". What would you compute before you buy a larger
#    one?
# 2. Why does a cut through the channels leave no seam, and a cut through the picture does?
# 3. Your chunked convolution was right, and saved nothing. How would you have noticed without a measurement?
# 4. What would the film look like if every rank added the bias? With two ranks, and with eight?
# 5. When would you split columns, when rows, and when would you chunk on one machine instead?

# %% [markdown]
# *My answers: …*

# %% [markdown]
# ## What comes next
#
# The willow fits now, however large. But look closely at a film that has gone through the VAE of lessons 03 and 04:
# the sparks have melted into a glow. Every pixel is nearly right, and the whole is soft. **Lesson 06 asks: why is the
# reconstruction soft?**
#
# Your functions that passed are kept in `workbook/`; `minivdm progress` shows how far you are.
#
# **Read on:** Shoeybi et al., *Megatron-LM: Training Multi-Billion Parameter Language Models Using Model Parallelism*
# (2019), section 3, where column and row parallel come in pairs. Open-Sora 2.0's `opensora/models/vae`, from which the
# chunked convolution comes. Goldberg, *What Every Computer Scientist Should Know About Floating-Point Arithmetic*
# (1991), on sums and their order.
