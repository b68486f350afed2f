# %% [markdown]
# # 04 The causal temporal VAE: each frame is nearly the last one. Why pay for it again?
#
# Lesson 03 squeezed every picture of a film by itself. But a film is not a heap of pictures. Between one frame and the
# next a spark moves by a pixel, a colour fades a little, and the night stays the night. This lesson squeezes *time*,
# under a condition that sounds like a luxury and turns out to be the point: **no frame may look into the future.**
#
# When you are done you will have made
#
# - the **bill**: how many tokens a film costs a transformer, with and without the squeeze, before there is a
#   transformer;
# - a **causal convolution**, which pads the past and never the future, and a map that shows it;
# - the whole **temporal VAE** from your own functions, equal to the package's, and our willow through it: 17 frames
#   in, 5 out, and back;
# - a **test for causality** that catches a famous network which is called causal and is not;
# - a film decoded **while it arrives**, in the memory of one moment, equal to the film decoded as a whole.
#
# **Time:** under a minute of computing in all (preset `toy`, two CPU cores, no GPU, no network), and an afternoon of
# yours. Eight exercises, each with three hints: `hint("04.causal_pad")` gives the idea, once more the equation, a
# third time the line.

# %% tags=["parameters"]
preset = "toy"
seed = 0
device = None  # None: the CPU, which is all that this lesson needs

# %%
import io
import math
from collections.abc import Callable

import ipywidgets as widgets
import matplotlib.pyplot as plt
import PIL.Image
import torch
import torch.nn.functional as F
from einops import rearrange
from IPython.display import Image, display
from matplotlib.colors import LinearSegmentedColormap
from torch import Tensor

from minivdm import viz
from minivdm.config import load_preset
from minivdm.course import check, hint  # noqa: F401
from minivdm.data.fireworks import Scene, Shell, render, sample_scenes
from minivdm.data.judge import judge
from minivdm.pipelines import load_video_autoencoder
from minivdm.vae import VAE_TEMPORAL_SD, TemporalVAE
from minivdm.vae.metrics import psnr_lit

# %%
torch.set_num_threads(1)  # small tensors: two threads would wait for each other
size, num_frames = load_preset(preset).data.size, 17


def dice(number: int) -> torch.Generator:
    """Dice that always fall the same way: all chance in this lesson comes from numbered dice."""
    return torch.Generator().manual_seed(1000 * seed + number)


def show(picture: plt.Figure | PIL.Image.Image, alt: str) -> None:
    """Display a plot or a picture as a small PNG, with words for those who cannot see it."""
    if isinstance(picture, plt.Figure):
        picture.savefig(png := io.BytesIO())
        plt.close(picture)
        picture = PIL.Image.open(png).quantize(64)  # plenty for lines
    picture.save(small := io.BytesIO(), "PNG", optimize=True)
    display(viz.picture(small.getvalue(), alt))


# %% [markdown]
# The film is the willow of all lessons, seventeen frames of it today. Beneath it, what each frame *adds* to the one
# before: brighter or darker than grey where something changed, grey where the frame says nothing new.

# %%
scene = Scene((Shell(colour="gold", shape="willow", column="left", row="high", size="large"),))
film = render([scene], num_frames, size, generator=dice(2))
change = film[:, :, 1:] - film[:, :, :-1]
still = (change.abs() < 0.02).float().mean()
print("film (B, C, T, H, W):", tuple(film.shape))
print(f"{still:.0%} of its numbers change by less than 1 % of the scale from one frame to the next")

# %% tags=["nbval-ignore-output"]
news = torch.cat([torch.zeros_like(film[:, :, :1]), change], dim=2).clamp(-1, 1)
strips = viz.filmstrip([film[0, :, ::2], news[0, :, ::2]], labels=["the film", "what is new"], scale=3)
show(strips, "a spark climbs and bursts into a willow; beneath, grey but for the edges of what moves")

# %% [markdown]
# ## The bill
#
# Who pays for frames? Not the disk; the *transformer* of lesson 08. It cuts the latent film into little patches, makes
# a **token** of each, and lets every token look at every other. So what it costs grows with the *square* of the number
# of tokens, and that is the number to count.
#
# ### Exercise 04.token_count (3 minutes)
#
# The autoencoder shrinks time by `time_factor` and each side by `space_factor`; then patches of `patch` × `patch`
# latent pixels of one latent frame are cut. Whatever hangs over an edge needs a patch too, and an incomplete group of
# frames a latent frame.


# %%
# exercise: 04.token_count
def token_count(
    num_frames: int, height: int, width: int, time_factor: int, space_factor: int, patch: int
) -> int:
    """How many patches the latent of a film (num_frames, height, width) is cut into."""
    ### BEGIN SOLUTION
    rows, columns = (math.ceil(side / (space_factor * patch)) for side in (height, width))
    return math.ceil(num_frames / time_factor) * rows * columns
    ### END SOLUTION


# %%
# hint("04.token_count")
check("04.token_count", token_count)

# %% [markdown] tags=["predict"]
# **Predict first.** Two seconds of film, 51 frames of 720 × 1280, with the space factor 8 and the patch 2 of Open-Sora.
# A temporal VAE makes it four times shorter. By what factor falls the number of *pairs* of tokens that look at each
# other? Write down a guess before you run the next cell.
#
# *My guess: …*

# %%
films = {
    "our willow": (17, 32, 32, 4, 1),
    "2 s of 240p": (51, 240, 426, 8, 2),
    "2 s of 720p": (51, 720, 1280, 8, 2),
}
for name, (frames, height, width, space, patch) in films.items():
    without, squeezed = (token_count(frames, height, width, factor, space, patch) for factor in (1, 4))
    pairs = (without / squeezed) ** 2
    print(
        f"{name:>11}: {without:7,} tokens, four times shorter {squeezed:6,}: {pairs:4.1f} times fewer pairs"
    )

# %% [markdown]
# <details><summary>What happened</summary>
#
# Nearly 16, the square of 4. Not quite, because 51 frames need 13 latent frames, and 13 · 4 is 52: one place is empty.
# </details>
#
# Sixteen times cheaper, for every one of the hundreds of thousands of steps that a training takes. That is why every
# large video model squeezes time.
#
# ## The cheap way
#
# The cheapest squeeze of all: keep every fourth frame, and paint those between by fading from one to the next. No
# network, no training. 17 frames become 5.

# %% tags=["nbval-ignore-output"]
kept = film[:, :, ::4]
faded = F.interpolate(kept, size=film.shape[2:], mode="trilinear", align_corners=True)
viz.player(
    [film[0], faded[0]],
    ["the film", "every fourth frame, faded"],
    fps=5,
    scale=6,
    alt="the willow, and a slide show",
)

# %%
for t in (4, 5, 6, 7, 8):
    score = psnr_lit(film[:, :, t], faded[:, :, t]).item()
    print(f"frame {t}: " + ("kept" if t % 4 == 0 else f"{score:4.1f} dB on the lit pixels"))

# %% [markdown]
# A slide show with soft edges. Fading does not *move* a spark, it dims it here and lights it there; and when the shell
# bursts between two kept frames, the moment of the burst is lost. The lost frames are not redundant, they are
# *predictable*: somebody who knows how sparks fly could say in a few numbers what happens in between. So a network has
# to look at neighbouring frames and write down their movement. The tool for looking at neighbours is a convolution, now
# with a third axis.
#
# ## A window in time
#
# A convolution with a kernel of three frames sees, by default, one frame back and one ahead. Who sees whom can be
# *measured*. Take an output frame, weigh its numbers at random, add them up, and ask by gradient which input frames the
# sum depends on. One row per output frame:


# %%
def influence(fn: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """How strongly each output frame of fn(x) (rows) depends on each frame of x (B, C, T, H, W): (T_out, T)."""
    with torch.enable_grad():
        x = x.clone().requires_grad_()
        y = fn(x)
        weighed = y * torch.randn(y.shape, generator=dice(1))
        rows = [
            torch.autograd.grad(weighed[:, :, t].sum(), x, retain_graph=True)[0] for t in range(y.shape[2])
        ]
    return torch.stack([row.square().sum((0, 1, 3, 4)).sqrt() for row in rows])


# %%
SHADES = LinearSegmentedColormap.from_list("time", ["#F3D9C9", viz.TIME, "#5A2700"])


def draw_map(ax, matrix: Tensor, title: str, newest: Tensor | None = None) -> None:
    """Draw an influence map on a logarithmic scale; white is exactly nothing. Right of the line lies the future:
    beyond the frame `newest[t]` for output frame t, by default beyond frame t."""
    strength = (matrix / matrix.max()).log10().clamp(min=-5)
    ax.imshow(strength.masked_fill(matrix == 0, math.nan), cmap=SHADES, vmin=-5, vmax=0)
    rows, columns = matrix.shape
    edge = (torch.arange(rows) if newest is None else newest) + 0.5
    heights = torch.stack([torch.arange(rows) - 0.5, torch.arange(rows) + 0.5], dim=1).flatten()
    ax.plot(edge.repeat_interleave(2), heights, color=viz.INK, linewidth=1.2)
    ax.locator_params(integer=True, nbins=6)
    ax.set(
        title=title,
        xlabel="input frame",
        ylabel="output frame",
        xlim=(-0.5, columns - 0.5),
        ylim=(rows - 0.5, -0.5),
    )


# %%
noise_film = torch.randn(1, 3, 9, 6, 7, generator=dice(3))
weight, bias = torch.randn(3, 3, 3, 3, 3, generator=dice(4)) / 9, torch.randn(3, generator=dice(5))
both_sides = influence(lambda x: F.conv3d(x, weight, bias, padding=1), noise_film)
print("seen by output frame 4:", [t for t in range(9) if both_sides[4, t] > 0])

# %% [markdown]
# Frame 4 has seen frame 5. In a film on disk that is no crime. But think of what we want to do with films:
#
# - **Show them while they are made.** If frame 4 needs frame 5, and that needs frame 6, nothing can be shown before
#   everything is there.
# - **Treat pictures as films of one frame**, so that a model can learn from pictures too. A picture has no frame 1. If
#   frame 0 is used to seeing one, a picture is something else than the beginning of a film.
#
# So: nobody looks ahead. The window of three frames stays, but ends at the present. All that has to change is the
# *padding*, since it decides where the window stands. In height and width half a kernel on each side, as ever. In time
# everything in front.
#
# ### Exercise 04.causal_pad (8 minutes)
#
# How many frames in front? The window reaches over $\text{dilation}\cdot(k_t - 1) + 1$ frames. For output frame 0 only
# the last of them shall be a real one; with a stride $s$ (a window that moves on by $s$ frames) the last $s$ of them,
# because those $s$ frames have only this one output to stand for them:
#
# $$\text{front} = \text{dilation}\cdot(k_t - 1) + 1 - s.$$


# %%
# exercise: 04.causal_pad
def causal_pad(
    kernel_size: int | tuple[int, int, int], stride: int = 1, dilation: int = 1
) -> tuple[int, int, int, int, int, int]:
    """What `F.pad` wants for a film: (left, right, top, bottom, front, back).

    kernel_size: one number, or (time, height, width). stride and dilation are those of time.
    """
    ### BEGIN SOLUTION
    time, height, width = (kernel_size,) * 3 if isinstance(kernel_size, int) else kernel_size
    front = dilation * (time - 1) + 1 - stride
    return width // 2, width // 2, height // 2, height // 2, front, 0
    ### END SOLUTION


# %%
# hint("04.causal_pad")
check("04.causal_pad", causal_pad)

# %% [markdown]
# ### Exercise 04.causal_conv3d (5 minutes)
#
# Pad, then convolve. Black frames (zeros) stand before the film; the kernel's shape is in the weight.


# %%
# exercise: 04.causal_conv3d
def causal_conv3d(x: Tensor, weight: Tensor, bias: Tensor | None, stride_t: int = 1) -> Tensor:
    """A 3D convolution that never looks ahead. x (B, C, T, H, W), weight (C_out, C, k_t, k_h, k_w).

    Time moves on by `stride_t` frames, height and width by one pixel.
    """
    ### BEGIN SOLUTION
    padded = F.pad(x, causal_pad(tuple(weight.shape[2:]), stride_t))
    return F.conv3d(padded, weight, bias, stride=(stride_t, 1, 1))
    ### END SOLUTION


# %%
# hint("04.causal_conv3d")
check("04.causal_conv3d", causal_conv3d)

# %% [markdown]
# The three maps side by side. White is not "little", white is *exactly nothing*, and right of the line lies the future:

# %% tags=["nbval-ignore-output"]
figure, axes = viz.figure(1, 3, width=9.5, height=3.1)
draw_map(axes[0], both_sides, "padded on both sides")
draw_map(axes[1], influence(lambda x: causal_conv3d(x, weight, bias), noise_film), "padded in front")
by_two = influence(lambda x: causal_conv3d(x, weight, bias, stride_t=2), noise_film[:, :, :8])
draw_map(axes[2], by_two, "in front, stride 2", newest=torch.arange(4) * 2 + 1)
show(figure, "a band on both sides of the diagonal; a band below it only; a band in steps of two")

# %% [markdown]
# In the middle: lower-triangular, by your own hands. On the right is the convolution that will *shorten* films: four
# frames out of eight, each made of its pair and of the frame before.
#
# ### Exercise 04.is_causal (10 minutes)
#
# A map has to be looked at. For networks we want a yes or no. Two films that agree up to some moment, and differ
# afterwards: whoever cannot see the future must say the same about both up to there. Mind that one cut is not
# enough (a leak may stay inside the first half), that one pair of frames is not enough, and that leaks may be small.


# %%
# exercise: 04.is_causal
def is_causal(fn: Callable[[Tensor], Tensor], shape: tuple[int, int, int, int, int]) -> bool:
    """True only if no output frame of fn changes when later input frames do.

    shape (B, C, T, H, W) of the films to try it with; fn keeps the number of frames.
    """
    ### BEGIN SOLUTION
    film, other = torch.randn((2, *shape), generator=torch.Generator().manual_seed(0))
    before = fn(film)
    for now in range(1, shape[2]):
        after = fn(torch.cat([film[:, :, :now], other[:, :, now:]], dim=2))
        if not torch.allclose(after[:, :, :now], before[:, :, :now]):
            return False
    return True
    ### END SOLUTION


# %%
# hint("04.is_causal")
check("04.is_causal", is_causal)

# %%
shape = (2, 3, 8, 6, 5)
print("padded on both sides:", is_causal(lambda x: F.conv3d(x, weight, bias, padding=1), shape))
print("padded in front:     ", is_causal(lambda x: causal_conv3d(x, weight, bias), shape))

# %% [markdown]
# ## Four frames become one
#
# Two convolutions of stride 2 make a film four times shorter. What about 17 frames, or one? 4 does not divide them. The
# rule of the course (and of Open-Sora): black frames are put **in front** until it does.
#
# ### Exercise 04.latent_frames (2 minutes) and 04.pad_front (4 minutes)


# %%
# exercise: 04.latent_frames
def latent_frames(num_frames: int, factor: int) -> int:
    """How many latent frames a film has that is squeezed `factor` times."""
    ### BEGIN SOLUTION
    return math.ceil(num_frames / factor)
    ### END SOLUTION


# %%
# hint("04.latent_frames")
check("04.latent_frames", latent_frames)


# %%
# exercise: 04.pad_front
def pad_front(x: Tensor, factor: int) -> Tensor:
    """x (B, C, T, H, W) behind as few frames of zeros as make the number of frames a multiple of `factor`."""
    ### BEGIN SOLUTION
    return F.pad(x, (0, 0, 0, 0, -x.shape[2] % factor, 0))
    ### END SOLUTION


# %%
# hint("04.pad_front")
check("04.pad_front", pad_front)

# %% [markdown]
# Your two functions fill the table. A film whose frames are numbered 1, 2, 3, … is padded, and cut into groups of four;
# each group will be one latent frame. A dot is a black frame.

# %%
for frames in (1, 2, 4, 5, 8, 9, 13, 17):
    numbered = torch.arange(1.0, frames + 1).reshape(1, 1, frames, 1, 1)
    groups = rearrange(pad_front(numbered, 4).flatten().int(), "(k f) -> k f", f=4).tolist()
    assert len(groups) == latent_frames(frames, 4)
    cells = [" ".join(str(t) if t else "·" for t in group) for group in groups]
    print(f"{frames:2} frames, {len(groups)} latent: | {' | '.join(cells)} |")

# %% [markdown]
# Look at the lengths 1, 5, 9, 13 and 17, that is $1 + 4k$. Their first group holds **the first frame alone**, behind
# three black ones; all others are full. So a film of $1 + 4k$ frames begins with a *picture*, and its first latent
# frame is that of the picture. This is why video models like lengths such as 17, and why ours is 17 frames long. Had
# the black frames been put at the end, every length would begin with a full group, and a picture would never look like
# the beginning of a film.
#
# On the way back the film gets longer. A convolution with twice the channels puts two frames on top of each other, and
# they are dealt out:
#
# ### Exercise 04.depth_to_time (4 minutes)
#
# Of `C · factor` channels, the first `factor` ones are channel 0 of `factor` frames in a row, the next ones channel 1,
# and so on.


# %%
# exercise: 04.depth_to_time
def depth_to_time(x: Tensor, factor: int) -> Tensor:
    """(B, C·factor, T, H, W) -> (B, C, T·factor, H, W)."""
    ### BEGIN SOLUTION
    return rearrange(x, "b (c f) t h w -> b c (t f) h w", f=factor)
    ### END SOLUTION


# %%
# hint("04.depth_to_time")
check("04.depth_to_time", depth_to_time)

# %% [markdown]
# ## The whole network, out of your functions
#
# All parts are there. The temporal VAE of this course (Open-Sora 1.2's, in small) works on the *latents* of lesson
# 03's autoencoder, so that height and width are small already. It has been trained beforehand; its weights are tensors
# with names, and your functions can use them as they are.

# %%
vae = load_video_autoencoder("toy").requires_grad_(False)  # nothing is trained today
weights = vae.temporal.state_dict()
latents = vae.vae2d.encode(film, sample=False)
print(f"{sum(w.numel() for w in weights.values()):,} weights, such as encoder.conv_in.conv.weight:")
print(tuple(weights["encoder.conv_in.conv.weight"].shape), "= (C_out, C, k_t, k_h, k_w)")
print("the film", tuple(film.shape), "is", tuple(latents.shape), "after lesson 03")

# %% [markdown]
# A convolution with its weights looked up by name (most have no bias, hence the `get`). A normalisation, which brings
# the numbers to mean 0 and size 1, group by group of channels, and then applies SiLU. A block: twice these two, and
# what comes out is added to what came in. All as in lesson 03, with time. `norm` is written as in the published code
# that this network follows.
#
# One part is ours and not Open-Sora's: a **straight way** past the encoder, and one past the decoder. Four frames on
# top of each other are 16 numbers at every place. One matrix makes 4 of them, another one makes 16 again, and the
# network has only to learn what two matrices cannot. A large network with weeks of time can do without.


# %%
def conv(name: str, x: Tensor, stride_t: int = 1) -> Tensor:
    return causal_conv3d(x, weights[f"{name}.conv.weight"], weights.get(f"{name}.conv.bias"), stride_t)


def norm(name: str, x: Tensor) -> Tensor:
    groups = vae.temporal.config.num_groups
    return F.silu(F.group_norm(x, groups, weights[f"{name}.weight"], weights[f"{name}.bias"]))


def block(name: str, x: Tensor) -> Tensor:
    h = conv(f"{name}.conv1", norm(f"{name}.norm1", x))
    return x + conv(f"{name}.conv2", norm(f"{name}.norm2", h))


def straight(name: str, x: Tensor) -> Tensor:
    """A matrix, applied at every place of every frame."""
    return F.conv3d(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def fours(x: Tensor) -> Tensor:
    """Four frames on top of each other: (B, C, T, h, w) -> (B, 4·C, T / 4, h, w). `depth_to_time` takes them apart."""
    return rearrange(x, "b c (t f) h w -> b (c f) t h w", f=4)


# %%
def encode(x: Tensor) -> Tensor:
    """Latents of frames (B, 4, T, h, w) -> the mean of z (B, 4, ceil(T / 4), h, w)."""
    padded = pad_front(x, 4)
    x = conv("encoder.conv_in", padded)
    for level in (0, 1):
        x = block(f"encoder.block_res_blocks.{level}.0", x)
        x = conv(f"encoder.conv_blocks.{level}", x, stride_t=2)  # half as many frames
    x = block("encoder.res_blocks.0", block("encoder.block_res_blocks.2.0", x))
    moments = conv("quant_conv", conv("encoder.conv2", norm("encoder.norm1", x)))
    return moments.chunk(2, dim=1)[0] + straight("shortcut_in", fours(padded))


def decode(z: Tensor, num_frames: int) -> Tensor:
    """z (B, 4, T', h, w) -> latents of num_frames frames: the black ones in front are dropped again."""
    x = block("decoder.res_blocks.0", conv("decoder.conv1", conv("post_quant_conv", z)))
    for level in (2, 1):
        x = block(f"decoder.block_res_blocks.{level}.0", x)
        x = depth_to_time(conv(f"decoder.conv_blocks.{level - 1}", x), 2)  # twice as many
    x = conv("decoder.conv_out", norm("decoder.norm1", block("decoder.block_res_blocks.0.0", x)))
    x = x + depth_to_time(straight("shortcut_out", z), 4)
    return x[:, :, x.shape[2] - num_frames :]


# %%
z = encode(latents)
print("z:", tuple(z.shape), " and back:", tuple(decode(z, num_frames).shape))
print(f"numbers: film {film.numel():,}, after lesson 03 {latents.numel():,}, now {z.numel():,}")

# %% [markdown] tags=["predict"]
# **Predict first.** Every convolution in it is your `causal_conv3d`; you have proved that it does not look ahead. The
# rest are sums, normalisations and reshapes. Below is the map of the whole network, 17 frames in, 17 frames out. What
# will it look like? Remember that four frames share one latent frame.
#
# *My guess: …*


# %% tags=["nbval-ignore-output"]
def there_and_back(x: Tensor) -> Tensor:
    return decode(encode(x), x.shape[2])


def group_end(frames: int) -> Tensor:
    """The last frame of the group of four to which each frame belongs, when black ones stand in front."""
    front = -frames % 4
    return (torch.arange(frames) + front) // 4 * 4 + 3 - front


figure, ax = viz.figure(width=4.6, height=4.2)
draw_map(ax, influence(there_and_back, latents), "the whole network", group_end(num_frames))
show(figure, "a square that is filled everywhere: every output frame depends on every input frame")

# %% [markdown]
# Not triangular, not in steps of four: *full*. Frame 0 depends on frame 16. Somewhere in this network the future leaks.
#
# ## The hunt
#
# You have a tool for that. `is_causal` wants functions that keep the number of frames. Here are the parts of one block,
# one by one, and whole:

# %%
width = weights["encoder.res_blocks.0.norm1.weight"].numel()
parts = {
    "first convolution": lambda x: conv("encoder.res_blocks.0.conv1", x),
    "second convolution": lambda x: conv("encoder.res_blocks.0.conv2", x),
    "SiLU": F.silu,
    "the sum": lambda x: x + F.silu(x),
    "norm": lambda x: norm("encoder.res_blocks.0.norm1", x),
    "the whole block": lambda x: block("encoder.res_blocks.0", x),
}
for name, part in parts.items():
    print(f"{name:>18}: causal {is_causal(part, (1, width, 6, 4, 4))}")

# %% [markdown]
# ### Bug of the day: the network that was called causal
#
# It is the innocent one. `F.group_norm` takes the mean and the size of a group of channels over **everything else that
# the film has**: height, width, *and time*,
#
# $$\hat x_{c,t,h,w} = \frac{x_{c,t,h,w} - \mu_g}{\sigma_g}, \qquad
# \mu_g = \operatorname{mean}_{c \in g,\; t = 0 \dots T - 1,\; h,\; w}\; x_{c,t,h,w}.$$
#
# If the last frame gets brighter, $\mu_g$ and $\sigma_g$ move, and with them frame 0. Whoever wrote `nn.GroupNorm` in a
# network of films wrote this, and it stands in well-known code, next to convolutions which are named causal and are.
# The published network of which ours is a small copy does it. It was trained that way and works well, for whole
# films. But nothing in it can be shown before the film is over, and its pictures are not the beginnings of its films.
#
# How far does the leak reach? Two films that are equal up to frame 8; in the second, night falls afterwards. How
# different are the first 9 frames *after* the network?

# %% tags=["nbval-ignore-output"]
cut = latents.clone()
cut[:, :, 9:] = latents[:, :, :1]  # from frame 9 on nothing but the first frame, which is night
leak = (there_and_back(cut) - there_and_back(latents)).square().mean((0, 1, 3, 4)).sqrt()
size_of = there_and_back(latents).std()
print("frames 0 to 8 moved, in % of the size of all numbers:")
print(" ".join(f"{100 * part / size_of:.1f}" for part in leak[:9].tolist()))

# %% [markdown]
# The past, changed by what had not happened yet. The repair is a line. Let every frame be normalised **alone**, as if
# the frames were a batch of pictures. Write it yourself before you look at the next cell, if you like: fold the frames
# into the batch, normalise, unfold.


# %%
def norm(name: str, x: Tensor) -> Tensor:  # noqa: F811
    groups, batch = vae.temporal.config.num_groups, len(x)
    frames = rearrange(x, "b c t h w -> (b t) c h w")
    frames = F.silu(F.group_norm(frames, groups, weights[f"{name}.weight"], weights[f"{name}.bias"]))
    return rearrange(frames, "(b t) c h w -> b c t h w", b=batch)


repaired = {"norm": parts["norm"], "the whole block": parts["the whole block"]}
for name, part in repaired.items():
    print(f"{name:>15}: causal {is_causal(part, (1, width, 6, 4, 4))}")

# %% tags=["nbval-ignore-output"]
z = encode(latents)  # once more: the first z came from the network that leaks
figure, axes = viz.figure(1, 3, width=9.5, height=3.3)
draw_map(axes[0], influence(encode, latents), "film to z", torch.arange(5) * 4)
from_z = influence(lambda x: decode(x, num_frames), z)
draw_map(axes[1], from_z, "z to film", (torch.arange(num_frames) + 3) // 4)
for ax in axes:
    ax.set_aspect("auto")
draw_map(axes[2], influence(there_and_back, latents), "the whole network", group_end(num_frames))
show(
    figure,
    "three maps without a single value right of the line; the third is a staircase with steps of four frames",
)

# %% [markdown]
# A staircase. Its steps are four frames wide, and that is no leak but the price of the squeeze. Frames 1 to 4 share a
# latent frame, so they can be decoded when frame 4 is there and not before. Counted in latent frames, nothing looks
# ahead, and your test says so when four frames are handed over as one:


# %%
def by_groups(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """fn, on films whose frames come in groups of four: (B, 4·C, T / 4, h, w) -> the same."""

    def grouped(x: Tensor) -> Tensor:
        return fours(fn(depth_to_time(x, 4)))

    return grouped


print("frame by frame:    causal", is_causal(there_and_back, (1, 4, 17, 8, 8)))
print("by groups of four: causal", is_causal(by_groups(there_and_back), (1, 16, 5, 8, 8)))

# %% [markdown]
# The shipped weights were trained with this norm from the start, so now the network is what it was meant to be. Here
# is the willow after it, beside what went in, and beside the cheap way with the same count of numbers: every fourth
# *latent* frame of lesson 03 kept, the others faded between them.


# %% tags=["nbval-ignore-output"]
def frames_of(x: Tensor) -> Tensor:
    """Latents of lesson 03 -> films, in [-1, 1]."""
    return vae.vae2d.decode(x).clamp(-1, 1)


def fade(x: Tensor) -> Tensor:
    """Every fourth frame, and between them fading: the cheap way."""
    return F.interpolate(x[:, :, ::4], size=x.shape[2:], mode="trilinear", align_corners=True)


ways = {"the film": film, "frame by frame": frames_of(latents)}
ways |= {"squeezed in time": frames_of(there_and_back(latents)), "the cheap way": frames_of(fade(latents))}
numbers = [film.numel(), latents.numel(), z.numel(), z.numel()]
labels = [f"{name}: {count:,} numbers" for name, count in zip(ways, numbers, strict=True)]
viz.player(
    [clip[0] for clip in ways.values()],
    labels,
    columns=4,
    fps=5,
    scale=5,
    alt="four willows, the last a slide show",
)

# %% [markdown]
# One film proves little. Sixteen, then, which no network has seen, some of colours and shapes that never met in the
# training. Three measures. *lit*: dB on the lit pixels, as in lesson 03. *motion*: the same idea for what changes from
# frame to frame, how many dB the true changes stand above the error in them. And the judge, who knows how fireworks
# fly: how many of the sixteen does it accept as genuine, with a rise, a burst and a fall?
#
# And a fourth row, to be fair. Of all pairs of matrices, 16 numbers to 4 and 4 to 16, the one that loses least is known:
# its four directions are the *principal components*. (It even gets to see the very films of the test.) A network that
# does not beat a matrix is not worth its name.


# %%
def motion(film: Tensor, other: Tensor) -> float:
    """How many dB the changes between frames of `film` are larger than what is wrong with them in `other`."""
    change, wrong = film.diff(dim=2), film.diff(dim=2) - other.diff(dim=2)
    return 10 * (change.square().sum() / wrong.square().sum()).log10().item()


def best_matrix(x: Tensor) -> Tensor:
    """x through 4 numbers at every place, by the two matrices that lose the least of just this x."""
    padded = fours(pad_front(x, 4))
    columns = rearrange(padded, "b c t h w -> (b t h w) c")
    mean = columns.mean(0)
    directions = torch.linalg.svd(columns - mean, full_matrices=False).Vh[:4]
    again = (columns - mean) @ directions.T @ directions + mean
    b, _, t, h, _ = padded.shape
    again = depth_to_time(rearrange(again, "(b t h w) c -> b c t h w", b=b, t=t, h=h), 4)
    return again[:, :, again.shape[2] - x.shape[2] :]


# %% tags=["nbval-ignore-output"]
scenes = sample_scenes(16, split="test", generator=dice(10))
clips = render(scenes, num_frames, size, generator=dice(11))
many = vae.vae2d.encode(clips, sample=False)
tested = {"frame by frame": many, "squeezed in time": there_and_back(many)}
tested |= {"the best matrix": best_matrix(many), "the cheap way": fade(many)}
for name, result in tested.items():
    result = frames_of(result)
    genuine = sum(verdict.legal for verdict in judge(result))
    lit = psnr_lit(clips, result).mean()
    print(f"{name:>17}: {lit:4.1f} dB lit, {motion(clips, result):4.1f} dB motion, genuine {genuine:2} of 16")

# %% [markdown]
# Most lit pixels of a firework hardly move, so fading does not look bad in *lit*. What it loses is the flight, and with
# that its credit with the judge. The best matrix keeps the flight, but blurs it. The network spends the same count of numbers on what happens *between* the frames. It
# pays with softness: look closely at the arms of the willow. Why it does just that is the question of lesson 06.

# %% [markdown]
# ### Four numbers, if they are used
#
# As in lesson 03, each number of $z$ is drawn: the encoder says where, and how widely. A channel that has something to
# say moves a lot from place to place and is drawn narrowly. A channel of size 0 that is drawn with a spread of 1 is
# pure dice: it costs nothing in the divergence, and it says nothing. So count:

# %% tags=["nbval-ignore-output"]
posterior = vae.temporal.encode(many, return_posterior=True)[1]
for channel in range(4):
    moves, spread = posterior.mean[:, channel].std(), posterior.std[:, channel].mean()
    print(f"channel {channel}: moves by {moves:.2f}, drawn with a spread of {spread:.2f}")

# %% [markdown]
# All four speak. That is not a matter of course. The first autoencoder that was trained for this course had no straight
# way, and three times as many steps. Its loss fell as it should and its films looked fair, only a decibel softer than
# these. Then somebody counted: two of its four channels moved by 0.1 and were drawn with a spread of 0.95. (In its
# sister for larger pictures it was six of eight.)
#
# It is called **posterior collapse**, and it goes like this. A fresh decoder makes nothing of $z$ yet, so nothing speaks
# for drawing narrowly; the divergence speaks for drawing widely, and widely it is. Now the channel is noise, and a
# decoder learns to close its ears to noise. From then on no gradient ever tells the encoder to speak up. The straight
# way prevents it: from the first step on, all four channels carry what a matrix can carry, and are heard. (And since
# then, every training of an autoencoder here logs how many channels are `silent`.)
#
# ## A picture is a film of one frame
#
# Encode frame 0 alone. Then encode the film, and look at its first latent frame.

# %%
picture, whole = encode(latents[:, :, :1]), encode(latents)
longer = encode(torch.cat([latents, latents.flip(2)[:, :, 1:]], dim=2))  # the willow, and then backwards
for name, part in (("a picture", picture), ("a film of 33 frames", longer)):
    common = min(part.shape[2], 5)
    off = (part[:, :, :common] - whole[:, :, :common]).abs().max()
    print(
        f"{name}: {part.shape[2]} latent frames; the first {common} differ from our film's by at most {off:.4f}"
    )

# %% [markdown]
# That is what causality buys: the past is *finished*. Whatever comes later, it need not be computed again.
#
# ## Streaming
#
# So decode a film while it arrives. For a single convolution: a chunk of frames comes in, and in front of it belong the
# frames that were there before. How many? As far as the kernel looks back. Somebody has to keep them.
#
# ### Exercise 04.stream_conv3d (8 minutes)
#
# `carried` holds the last $k_t - 1$ frames before the chunk; at the beginning of a film they are black. Return the
# output for the chunk, and what has to be carried to the next. (A chunk may be shorter than what is carried.)


# %%
# exercise: 04.stream_conv3d
def stream_conv3d(
    chunk: Tensor, carried: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """chunk (B, C, t, H, W), carried (B, C, k_t - 1, H, W) -> output (B, C_out, t, H, W), the new carried."""
    ### BEGIN SOLUTION
    seen = torch.cat([carried, chunk], dim=2)
    out = F.conv3d(seen, weight, bias, padding=(0, weight.shape[3] // 2, weight.shape[4] // 2))
    return out, seen[:, :, chunk.shape[2] :]
    ### END SOLUTION


# %%
# hint("04.stream_conv3d")
check("04.stream_conv3d", stream_conv3d)

# %%
carried, pieces = torch.zeros(1, 3, 2, 6, 7), []
for chunk in noise_film.split([1, 4, 3, 1], dim=2):
    out, carried = stream_conv3d(chunk, carried, weight, bias)
    pieces.append(out)
difference = torch.cat(pieces, dim=2) - causal_conv3d(noise_film, weight, bias)
print(
    f"in chunks of 1, 4, 3 and 1 frames, or whole: no number differs by more than {difference.abs().max():.4f}"
)

# %% [markdown]
# And now every convolution of the decoder that way. One memory per convolution, found by its name; all else works frame
# by frame and has nothing to remember. `block` and `decode` stay as they are, for they call `conv` by its name:

# %%
conv_of_whole_films, memory = conv, {}


def conv_of_a_stream(name: str, x: Tensor) -> Tensor:
    kernel, bias = weights[f"{name}.conv.weight"], weights.get(f"{name}.conv.bias")
    before = memory.get(name, torch.zeros(*x.shape[:2], kernel.shape[2] - 1, *x.shape[3:]))
    out, memory[name] = stream_conv3d(x, before, kernel, bias)
    return out


def decode_piece(piece: Tensor) -> Tensor:
    """The frames of the next latent frames, four of each; what came before is in `memory`."""
    global conv
    conv = conv_of_a_stream
    frames = decode(piece, 4 * piece.shape[2])
    conv = conv_of_whole_films
    return frames


def stream(z: Tensor) -> list[Tensor]:
    """Decode one latent frame after the other, with an empty memory to begin with."""
    memory.clear()
    return [decode_piece(piece) for piece in z.split(1, dim=2)]


# %%
streamed = torch.cat(stream(z), dim=2)[:, :, 3:]  # without the three black frames in front
print(f"5 pieces or one: no number differs by more than {(streamed - decode(z, num_frames)).abs().max():.4f}")
print(f"carried from piece to piece: {sum(held.numel() for held in memory.values()):,} numbers")

# %% [markdown]
# Equal. Push the slider: so much of the film is on the screen when so many latent frames have arrived.


# %% tags=["nbval-ignore-output"]
def screen(count: int) -> PIL.Image.Image:
    """The film when `count` latent frames have arrived; what is not known yet is grey."""
    shown = torch.zeros_like(film[0])
    known = 4 * count - 3
    shown[:, :known] = frames_of(streamed[:, :, :known])[0]
    return viz.filmstrip(shown, scale=2)


def at(count: int) -> None:
    """Show it, with words."""
    show(screen(count), f"the first {4 * count - 3} frames of the willow, then grey: what {count} latent frames tell")


slider = widgets.IntSlider(value=3, min=1, max=5, description="arrived")
display(widgets.interactive(at, count=slider))
at(3)

# %% [markdown]
# ### Memory
#
# What does a long film cost? Count the numbers in the largest tensor that any convolution of the decoder touches, for
# longer and longer films, decoded whole and piece by piece:


# %%
def largest(run: Callable, *arguments) -> int:
    """How many numbers the largest input or output of a convolution has while run(*arguments) runs."""
    sizes, plain = [0], F.conv3d

    def watched(x: Tensor, *rest, **options) -> Tensor:
        out = plain(x, *rest, **options)
        sizes.append(max(x.numel(), out.numel()))
        return out

    F.conv3d = watched
    try:
        run(*arguments)
    finally:
        F.conv3d = plain
    return max(sizes)


# %% tags=["nbval-ignore-output"]
lengths = [17, 33, 65, 129]
long_zs = [torch.randn(1, 4, latent_frames(frames, 4), 8, 8, generator=dice(20)) for frames in lengths]
figure, ax = viz.figure(width=6, height=2.9)
whole_way = [largest(decode, long_z, frames) for long_z, frames in zip(long_zs, lengths, strict=True)]
ax.plot(lengths, whole_way, "o-", color=viz.TIME, label="whole")
ax.plot(
    lengths, [largest(stream, long_z) for long_z in long_zs], "o-", color=viz.DATA, label="piece by piece"
)
ax.set(xlabel="frames of the film", ylabel="numbers in the largest tensor", ylim=(0, None), xticks=lengths)
ax.legend()
show(figure, "decoding whole grows with the film; piece by piece is a flat line")

# %% [markdown]
# Flat. A film of an hour needs no more than a film of a second. (That counts tensors. The real memory of a process,
# from 17 to 272 frames, is measured by `benchmarks/vae_memory.py`, with the 2D decoder included.)

# %% [markdown] tags=["predict"]
# **Predict first.** Two films are decoded by streaming, one after the other, and somebody forgets `memory.clear()` in
# between. The first film ended in a sky full of gold. What will be wrong with the second one, and for how long? Write
# it down, then run.
#
# *My guess: …*

# %% tags=["nbval-ignore-output"]
second_scene = Scene((Shell(colour="blue", shape="peony", column="right", row="low", size="small"),))
second_film = render([second_scene], num_frames, size, generator=dice(12))
second = encode(vae.vae2d.encode(second_film, sample=False))
clean = torch.cat(stream(second), dim=2)[:, :, 3:]
stream(z)  # the willow, after which nobody clears the memory
haunted = torch.cat([decode_piece(piece) for piece in second.split(1, dim=2)], dim=2)[:, :, 3:]
strips = [frames_of(x)[0] for x in (clean, haunted)]
strips.append((4 * (strips[1] - strips[0]).abs() - 1).clamp(-1, 1))
labels = ["memory cleared", "forgotten", "4 times the difference"]
show(
    viz.filmstrip(strips, labels, scale=2),
    "the blue peony twice; the difference: a ghost of the willow at the start",
)

# %% tags=["nbval-ignore-output"]
wrong = (haunted - clean).square().mean((0, 1, 3, 4)).sqrt() / clean.std()
print("wrong, in % of the size of the numbers, frame by frame:")
print(" ".join(f"{100 * part:.1f}" for part in wrong.tolist()))

# %% [markdown]
# <details><summary>What happened</summary>
#
# The willow haunts the beginning of the next film, and fades. How far back a network looks is its *receptive field* in
# time. Count it for the decoder: every convolution of three frames looks two back; there are six of them that work on
# latent frames (two steps of four frames each: 48), three at half the rate (12) and three at full rate (6): 66 frames.
# So nothing in this film is safe from the willow, but what is far away counts little.
# </details>
#
# ## Two films with one past
#
# A last look at what causal means. Take the willow's five latent frames and replace the last three by those of the
# other film. Everything up to frame 4 is decoded from what the two have in common, so it must be the same, to the last
# bit:

# %%
mixed = torch.cat([z[:, :, :2], second[:, :, 2:]], dim=2)
split = decode(mixed, num_frames)
same = [t for t in range(num_frames) if torch.equal(split[:, :, t], decode(z, num_frames)[:, :, t])]
print("frames that are equal to the last bit:", same)

# %% tags=["nbval-ignore-output"]
viz.player(
    [frames_of(decode(z, num_frames))[0], frames_of(split)[0]],
    ["the willow", "the same, up to frame 4"],
    fps=4,
    scale=6,
    alt="two films that begin alike; then one becomes the willow, in the other it dissolves into something blue",
)

# %% [markdown]
# ## Where all this lives
#
# | yours | in the package |
# |---|---|
# | `causal_pad`, `causal_conv3d`, `stream_conv3d` | `CausalConv3d` in `minivdm/vae/causal_conv.py` |
# | `latent_frames`, `pad_front`, `depth_to_time` | `minivdm/vae/pieces.py`, `minivdm/vae/temporal.py` |
# | `norm` (both), `block` | `Norm`, `ResBlock` in `minivdm/vae/temporal_blocks.py` |
# | `encode`, `decode`, `decode_piece` | `TemporalVAE` in `minivdm/vae/temporal.py` |
# | lesson 03 and this one together | `VideoAutoencoder` in `minivdm/vae/video.py` |
#
# Is it really the same? `norm="group"` is the published network, leak included, so that its weights can be used.

# %%
theirs = vae.temporal.encode(latents, sample=False)
print("encode: the package gives the same:", torch.allclose(theirs, encode(latents), atol=1e-5))
print(
    "decode: the package gives the same:",
    torch.allclose(vae.temporal.decode(z, 17), decode(z, 17), atol=1e-5),
)
pieces = vae.decode_stream(vae.encode(film, sample=False).split(1, dim=2), num_frames=17)
same = torch.allclose(torch.cat(list(pieces), dim=2), vae.vae2d.decode(streamed), atol=1e-4)
print("film to film, as a stream: the same:", same)

# %% [markdown]
# And the published one, in its full size? Built without memory for the weights, only to be counted:

# %%
with torch.device("meta"):
    full = TemporalVAE(VAE_TEMPORAL_SD)
print(
    f"Open-Sora 1.2: {sum(w.numel() for w in full.parameters()) / 1e6:.1f} million weights, norm={full.config.norm!r},"
)
print(
    f"{full.time_downsample_factor} times shorter: 51 frames become {full.get_latent_size((51, None, None))[0]}"
)

# %% [markdown]
# ## Reflection
#
# In your own words, a sentence or two each (there is a cell below for it):
#
# 1. Each frame is nearly the last one. What does a latent frame have to say about its four frames, and what not?
# 2. All padding goes to the front. Name two things that become possible by that.
# 3. "All its convolutions are causal." Why does it not follow that the network is? Which other layers would you
#    suspect in a network that you have not written?
# 4. The published network leaks and works. For which use is the leak harmless, and for which is it not?
# 5. Frame 1 still has to wait for frame 4. Could a temporal VAE be made in which it does not? What would it cost?

# %% [markdown]
# *My answers: …*

# %% [markdown]
# ## What comes next
#
# The film that was 52,224 numbers is 1,280 now, and it can be decoded in the memory of a moment. For big films even a
# moment is big: one layer of a full-size decoder on one group of frames can ask for more numbers than a GPU kernel can
# count. **Lesson 05 asks: the GPU has 40 GB free and says "cannot allocate". Why?**
#
# Your functions that passed are kept in `workbook/`; `minivdm progress` shows how far you are. In lesson 09 they run
# in the final pipeline.
#
# **Read on:** Yu et al., *Language Model Beats Diffusion: Tokenizer is Key to Visual Generation* (MAGVIT-v2, 2023),
# section 3.1, on causal convolutions and pictures as first frames. Zheng et al., *Open-Sora: Democratizing Efficient
# Video Production for All* (2024), on the two autoencoders one after the other. Wu and He, *Group Normalization*
# (2018), for what it was made for: pictures.
