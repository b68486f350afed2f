# %% [markdown]
# # 03 The 2D VAE: a clip is 208,896 numbers, and most of them are night. How few are enough?
#
# A film of 17 frames, 64 × 64, in three colours: 208,896 numbers, and nearly all of them say *dark*. A diffusion
# model that works on pixels spends its time on night. This lesson makes the pictures small first, so that diffusion
# can happen where every number counts. Stable Diffusion, Open-Sora and their kin all begin so.
#
# When you are done you will have made
#
# - an **autoencoder** that keeps two numbers of a picture, and a map of the **holes** in what it learnt;
# - the **variational** one that fills them, at three prices: too low, right, and too high;
# - the bill itself, **KL in nats**, checked against a million dice, and a published version that sums the wrong axes;
# - the **blocks** of the real thing, each beside the package's, equal;
# - a training that you watch, a score that flatters it, and **a score that does not count the night**;
# - a latent that you can look at, shift, cut and walk through, and **one number** without which diffusion goes wrong.
#
# **Time:** about 2 minutes of computing (preset `toy`, two CPU cores, no GPU, no network), half of it two trainings,
# and an afternoon of yours. Seven exercises, each with three hints: `hint("03.reparameterize")` gives the idea, once
# more the equation, a third time the line.

# %% tags=["parameters"]
preset = "toy"
seed = 0
device = None  # None: the CPU, which is all that this lesson needs

# %%
import io
import itertools
import json
import math

import ipywidgets as widgets
import matplotlib.pyplot as plt
import PIL.Image
import torch
import torch.nn.functional as F
from einops import rearrange
from IPython.display import Image, display
from torch import Tensor, nn

# %%
from minivdm import viz
from minivdm.config import load_preset
from minivdm.course import check, hint  # noqa: F401
from minivdm.data.fireworks import COLOURS, COLUMNS, ROWS, SHAPES, Scene, Shell, render, sample_scenes
from minivdm.data.judge import attribute_accuracy
from minivdm.diffusion.schedules import alphas_cumprod, linear_betas
from minivdm.paths import checkpoint_dir
from minivdm.vae import AutoEncoder2D, DiagonalGaussianDistribution
from minivdm.vae.blocks2d import AttnBlock, Downsample, ResnetBlock

# %%
data = load_preset(preset, task="vae2d").data
torch.set_num_threads(1)  # most tensors are small today: two threads would wait for each other
torch.set_flush_denormal(True)  # fading light makes vanishing numbers, which slow a CPU down


def dice(number: int) -> torch.Generator:
    """Dice that always fall the same way: all chance in this lesson comes from numbered dice."""
    return torch.Generator().manual_seed(1000 * seed + number)


def as_png(figure: plt.Figure, colours: int = 128) -> Image:
    """A plot as a small PNG."""
    figure.savefig(png := io.BytesIO())
    PIL.Image.open(png).quantize(colours).save(small := io.BytesIO(), "PNG", optimize=True)
    plt.close(figure)
    return Image(small.getvalue())


def show(figure: plt.Figure, alt: str) -> None:
    """Display a plot, with words for those who cannot see it."""
    display(viz.picture(as_png(figure).data, alt))


def on(ax: plt.Axes, picture: Tensor, title: str = "") -> None:
    """Draw a picture (3, H, W) in [-1, 1]."""
    ax.imshow(rearrange(picture.detach().clamp(-1, 1) / 2 + 0.5, "c h w -> h w c"))
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=9)


# %% [markdown]
# ## The night is cheap to say
#
# Our film once more, large this time: 17 frames of 64 × 64.

# %%
willow = Scene((Shell(colour="gold", shape="willow", column="left", row="high", size="large"),))
large = render([willow], frames=17, size=64, generator=dice(2))
lit = (large.amax(dim=1) > -0.8).float().mean().item()
print(f"{large[0].numel():,} numbers; {lit:.0%} of the pixels show any light")

# %% [markdown]
# The obvious way to fewer numbers is to make the pictures smaller. Lessons work at 32 × 32, where a picture is 3,072
# numbers. Suppose we may keep about 250 of them: that is a picture of 9 × 9. Shrink it, and enlarge it again:


# %%
def shrink(film: Tensor, side: int = 9) -> Tensor:
    """Every frame of (B, 3, T, H, W) down to side × side, and smoothly up again."""
    frames = rearrange(film, "b c t h w -> (b t) c h w")
    small = F.interpolate(frames, size=side, mode="area")
    back = F.interpolate(small, size=film.shape[-2:], mode="bicubic")
    return rearrange(back, "(b t) c h w -> b c t h w", b=len(film)).clamp(-1, 1)


# %% tags=["nbval-ignore-output"]
film = render([willow], frames=17, size=data.size, generator=dice(2))
viz.player(
    [film[0], shrink(film)[0]],
    ["3,072 numbers a frame", "9 × 9 × 3 = 243 numbers a frame"],
    fps=data.fps,
    scale=5,
    alt="the gold willow, and beside it a gold smudge",
)

# %% [markdown]
# A smudge. And it is wasteful as well: most of the 81 places still say *dark*. We would rather spend our numbers on
# what can actually happen in a sky. Nobody can write that down. But it can be **learnt**: one network that squeezes
# (the *encoder*), one that unfolds (the *decoder*), and one demand on the pair, that what comes out is what went in.
#
# ## Two numbers
#
# How few are enough? Let us be greedy, in a small world: 24 pictures of fireworks, and **two** numbers for each.
# Two, because then we can *see* everything the network knows: it is a map.

# %%
kinds = [(COLOURS[i % 8], SHAPES[(i // 8 + i) % 6], COLUMNS[i % 3], ROWS[i // 3 % 2]) for i in range(24)]
scenes = [Scene((Shell(*kind, size="large"),)) for kind in kinds]
world = render(scenes, frames=17, size=24, generator=dice(31))[:, :, 8]
pictures = world.flatten(1)
print("24 pictures of", pictures.shape[1], "numbers each")

# %% tags=["nbval-ignore-output"]
figure, axes = viz.figure(2, 12, width=9, height=1.6)
for ax, picture in zip(axes.flat, world, strict=True):
    on(ax, picture)
show(figure, "24 fireworks, all different in colour, shape or place")


# %%
def layers(*widths: int) -> nn.Sequential:
    """Linear layers with SiLU between them."""
    stack = [layer for a, b in zip(widths, widths[1:], strict=False) for layer in (nn.Linear(a, b), nn.SiLU())]
    return nn.Sequential(*stack[:-1])


def newborn() -> tuple[nn.Sequential, nn.Sequential]:
    """An encoder and a decoder that know nothing; always the same ones."""
    torch.manual_seed(seed)
    encoder, decoder = layers(1728, 64, 4), layers(2, 64, 128, 1728)
    decoder[-1].bias.data = pictures.mean(0)  # whatever the latent, begin with the average picture
    return encoder, decoder


def train(networks: tuple[nn.Sequential, nn.Sequential], loss, steps: int = 800) -> None:
    """Minimise loss(encoder, decoder, x) on the 24 pictures, each twice in every batch."""
    optimiser = torch.optim.Adam([p for network in networks for p in network.parameters()], lr=5e-3)
    slow_down = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        value = loss(*networks, pictures.repeat(2, 1))
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        slow_down.step()


# %% [markdown]
# The encoder has four outputs; a plain autoencoder uses the first two as the *latent* $z$ and ignores the others.
# (They have their day below.) About 4 seconds:


# %%
def plain_loss(encoder: nn.Sequential, decoder: nn.Sequential, x: Tensor) -> Tensor:
    """Squared error of a picture, summed over its numbers, averaged over pictures."""
    z = encoder(x)[:, :2]
    return (x - decoder(z)).square().sum(dim=1).mean()


plain = newborn()
train(plain, plain_loss)

# %% tags=["nbval-ignore-output"]
with torch.no_grad():
    codes = plain[0](pictures)[:, :2]
    rebuilt = plain[1](codes).reshape(world.shape)
figure, axes = viz.figure(2, 8, width=9, height=2.4)
for k in range(8):
    on(axes[0, k], world[3 * k])
    on(axes[1, k], rebuilt[3 * k])
axes[0, 0].set_ylabel("picture")
axes[1, 0].set_ylabel("from 2 numbers")
show(figure, "eight pictures, and below each the one rebuilt from two numbers: alike, some of them mixed up")

# %% [markdown]
# From 1,728 numbers to two and back. Not all are perfect, but most can be told. So is the problem solved? If every
# pair of numbers is a firework, then *making* new fireworks is child's play: throw two numbers, decode.

# %% [markdown] tags=["predict"]
# **Predict first.** We lay a bell over the codes, with their mean and their spread, throw 40 pairs of numbers from
# it and decode them. What will you see: (a) the 24 fireworks, (b) new fireworks in between, (c) something else?
# Write it down before you run the next cell.
#
# *My guess: …*


# %%
def dreams(decoder: nn.Sequential, count: int, like: Tensor | None = None) -> Tensor:
    """Decode thrown latents (count, 2): standard normal, or with the mean and spread of `like`."""
    z = torch.randn(count, 2, generator=dice(32))
    if like is not None:
        z = like.mean(0) + like.std(0) * z
    with torch.no_grad():
        return decoder(z).reshape(count, *world.shape[1:])


def sheet(pictures: Tensor, columns: int, alt: str, inches: float = 0.75) -> None:
    """Pictures (N, 3, H, W) side by side, each so many inches wide."""
    rows = rearrange(pictures, "(r c) rgb h w -> rgb (r h) (c w)", c=columns)
    figure, ax = viz.figure(width=columns * inches, height=len(pictures) // columns * inches + 0.1)
    on(ax, rows)
    show(figure, alt)


# %% tags=["nbval-ignore-output"]
sheet(dreams(plain[1], 40, like=codes), 10, "double exposures, glaring colours, ghosts")

# %% [markdown]
# Ghosts: two fireworks in one picture, colours that no shell has, light beyond white. The decoder has been asked
# about 24 points of the plane. Of the land between them it knows nothing, and nobody ever complained about what it
# draws there. A plain autoencoder has **holes**, and most of its plane is hole.
#
# ## Say a cloud, not a point
#
# The repair is to train on the land between. Let the encoder answer with a *cloud*: a mean and a spread, and let the
# decoder be examined at a random point of it. Then a whole neighbourhood must decode to the picture, and where two
# clouds meet the decoder has to find a compromise that looks acceptable to both.
#
# So now the encoder's four outputs are $\mu$ (two) and $\log\sigma^2$ (two): the logarithm, so that the network may
# say any number. And the latent is *drawn*. Now there is a difficulty: how can a gradient flow back through dice?
# Put the dice outside. Throw $\varepsilon$ first, from a standard bell that depends on nothing, then stretch and
# move it:
#
# $$z = \mu + \sigma\,\varepsilon.$$
#
# ### Exercise 03.reparameterize (3 minutes)


# %%
# exercise: 03.reparameterize
def reparameterize(mean: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """A draw from N(mean, exp(logvar)), made of standard normal `noise`. All of one shape; nothing is clamped."""
    ### BEGIN SOLUTION
    return mean + torch.exp(0.5 * logvar) * noise
    ### END SOLUTION


# %%
# hint("03.reparameterize")
check("03.reparameterize", reparameterize)

# %% [markdown]
# What does the gradient see? For the mean, $\partial z/\partial\mu = 1$; for the spread,
# $\partial z/\partial\sigma = \varepsilon$: it is told which way the dice fell, and so learns whether a wider cloud
# would have hurt.

# %%
mu, sigma = torch.tensor([0.3, -1.0], requires_grad=True), torch.tensor([0.5, 2.0], requires_grad=True)
thrown = torch.randn(2, generator=dice(33))
reparameterize(mu, 2 * sigma.log(), thrown).sum().backward()
print("dz/dmu   ", mu.grad.tolist())
print("dz/dsigma", [round(g, 4) for g in sigma.grad.tolist()], "  dice", [round(e, 4) for e in thrown.tolist()])
drawn = torch.normal(mu.detach(), sigma.detach(), generator=dice(33))
print("a draw made by a ready-made sampler has a gradient:", drawn.requires_grad)

# %% [markdown]
# ## The bill
#
# Clouds alone change nothing: to please the decoder, the encoder will make them as small as points, and push them
# far apart. Clouds must *cost* something when they are small or far out. How much? Suppose everybody expects $z$ to
# be a standard bell $p$. To say where it really is, around $\mu$ with spread $\sigma$, call that bell $q$, takes a
# message, and its length in *nats* (a nat is 1.44 bits) is the **Kullback–Leibler divergence**
#
# $$\mathrm{KL}(q\,\|\,p) = \mathbb E_{z \sim q}\left[\log q(z) - \log p(z)\right]
# = \tfrac12 \sum \left(\mu^2 + \sigma^2 - 1 - \log \sigma^2\right).$$
#
# Far out costs ($\mu^2$), precision costs ($-\log\sigma^2$), and "anywhere" costs nothing. Each sample has its own
# bill, and each number of its latent adds to it: whether the latent is a vector, a picture or a film.
#
# ### Exercise 03.kl_to_standard_normal (5 minutes)


# %%
# exercise: 03.kl_to_standard_normal
def kl_to_standard_normal(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, exp(logvar)) || N(0, 1)) in nats, (B,): summed over every dimension but the first, of any number."""
    ### BEGIN SOLUTION
    return 0.5 * (mean**2 + logvar.exp() - 1 - logvar).flatten(1).sum(dim=1)
    ### END SOLUTION


# %%
# hint("03.kl_to_standard_normal")
check("03.kl_to_standard_normal", kl_to_standard_normal)

# %% [markdown]
# Is the formula right? The definition is an average, and averages can be thrown. A million dice per bell, no formula:


# %%
def log_bell(z: Tensor, mean: float, std: float) -> Tensor:
    """Logarithm of the density of a bell."""
    return -((z - mean) ** 2) / (2 * std**2) - math.log(std) - 0.5 * math.log(2 * math.pi)


for mean, std in ((0.0, 1.0), (1.5, 1.0), (0.0, 0.1), (-2.0, 0.5)):
    z = mean + std * torch.randn(1_000_000, generator=dice(34), dtype=torch.float64)
    thrown_kl = (log_bell(z, mean, std) - log_bell(z, 0, 1)).mean()
    yours = kl_to_standard_normal(torch.tensor([[mean]]), torch.tensor([[2 * math.log(std)]]))
    print(f"mean {mean:4.1f}, spread {std:.1f}: dice {thrown_kl:.2f} nats, yours {yours.item():.2f} nats")

# %% [markdown]
# ## Three prices
#
# Now both together. The loss is the error plus a price per nat. One precaution: at birth the codes say nothing yet, and
# whoever is charged for words before having learnt to speak may fall silent for ever. So the price rises from zero.


# %%
def vae_loss(weight: float):
    """The loss of a variational autoencoder whose nats cost `weight` each, at the end of a rise over 400 batches."""
    thrown, batches = dice(35), itertools.count()

    def loss(encoder: nn.Sequential, decoder: nn.Sequential, x: Tensor) -> Tensor:
        mean, logvar = encoder(x).chunk(2, dim=1)
        z = reparameterize(mean, logvar, torch.randn(mean.shape, generator=thrown))
        error = (x - decoder(z)).square().sum(dim=1).mean()
        price = weight * min(1, next(batches) / 400)
        return error + price * kl_to_standard_normal(mean, logvar).mean()

    return loss


# %% [markdown] tags=["predict"]
# **Predict first.** Three trainings, at 0.01, 3 and 100 per nat. In which will the rebuilt pictures be sharpest? In
# which will thrown latents look most like fireworks? And one number: to say *which one of 24 pictures*, a message
# needs $\ln 24 = 3.18$ nats. Which of the three will pay about that much, which more, which less?
#
# *My guess: …*

# %% [markdown]
# (About 12 seconds.)

# %%
weights = (0.01, 3.0, 100.0)
vaes = {weight: newborn() for weight in weights}
for weight, networks in vaes.items():
    train(networks, vae_loss(weight))


# %%
def nearest(many: Tensor) -> float:
    """Squared distance of pictures to the nearest of the world's 24, on average."""
    return torch.cdist(many.flatten(1), pictures).min(dim=1).values.square().mean().item()


@torch.no_grad()
def portrait(encoder: nn.Sequential, decoder: nn.Sequential) -> tuple[Tensor, float, float]:
    """Means of the 24 clouds (24, 2), error of the rebuilt pictures, average bill in nats."""
    mean, logvar = encoder(pictures).chunk(2, dim=1)
    error = (decoder(mean) - pictures).square().sum(dim=1).mean().item()
    return mean, error, kl_to_standard_normal(mean, logvar).mean().item()


# %% tags=["nbval-ignore-output"]
print(f"{'price':>8} {'bill in nats':>13} {'error rebuilt':>14} {'distance of dreams':>19}")
ghosts = nearest(dreams(plain[1], 400, like=codes))
print(f"{'plain':>8} {'':>13} {portrait(*plain)[1]:14.1f} {ghosts:19.1f}")
for weight, networks in vaes.items():
    _, error, nats = portrait(*networks)
    print(f"{weight:8} {nats:13.2f} {error:14.1f} {nearest(dreams(networks[1], 400)):19.1f}")


# %%
def draw_map(ax: plt.Axes, decoder: nn.Sequential, means: Tensor, cells: int = 11) -> None:
    """The plane from -2.2 to 2.2, every place decoded; the 24 means as dots."""
    line = torch.linspace(-2, 2, cells)
    places = torch.stack(torch.meshgrid(line, -line, indexing="xy"), dim=-1).reshape(-1, 2)
    with torch.no_grad():
        tiles = decoder(places).reshape(-1, *world.shape[1:])
    picture = rearrange(tiles, "(r c) rgb h w -> (r h) (c w) rgb", r=cells).clamp(-1, 1) / 2 + 0.5
    ax.imshow(picture, extent=(-2.2, 2.2, -2.2, 2.2))
    inside = means[means.abs().amax(dim=1) < 2.2]
    ax.scatter(inside[:, 0], inside[:, 1], s=14, color="white", edgecolor="black", linewidth=0.5)
    ax.set(xticks=[-2, 0, 2], yticks=[-2, 0, 2])


# %% tags=["nbval-ignore-output"]
figure, axes = viz.figure(1, 3, width=10.5, height=3.8)
for ax, (weight, networks), verdict in zip(axes, vaes.items(), ("holes", "a map", "fog"), strict=True):
    draw_map(ax, networks[1], portrait(*networks)[0])
    ax.set_title(f"{weight} per nat: {verdict}")
show(figure, "three decoded planes: few fireworks with ghosts between; a patchwork of distinct fireworks; grey fog")

# %% [markdown]
# <details><summary>What happened</summary>
#
# *Too cheap:* the clouds shrank to points and fled (most dots are outside the panel). It rebuilds best, and knows
# nothing about the land between. *Too dear:* nobody says anything any more, the bill is zero, and the decoder draws
# the average of all pictures whatever it is told. *In between:* the plane is tiled with fireworks, each in a place
# of its own, and a throw lands on one or on the border between neighbours. The bill is a few nats: $\ln 24$, to say *which*, and something for clouds
# that leave gaps, since round clouds cannot tile a plane.
# </details>
#
# Here they dream, from the same throws. Above the plain one: glare and debris. Below the one at 3 per nat: single
# fireworks, and soft mixtures of neighbours where two clouds overlap.

# %% tags=["nbval-ignore-output"]
both = torch.cat([dreams(plain[1], 12, like=codes), dreams(vaes[3.0][1], 12)])
sheet(both, 12, "above ghosts; below fireworks, a few of them between two kinds")

# %% [markdown]
# And a **walk**: a straight line from one firework's code to another's. Left in the plain autoencoder, right in the
# variational one, both between the same two pictures.


# %%
def walk(networks: tuple[nn.Sequential, nn.Sequential], start: int, end: int, steps: int = 25) -> Tensor:
    """Decode a straight line between two codes, there and back: a clip (3, T, H, W)."""
    with torch.no_grad():
        a, b = networks[0](pictures[[start, end]])[:, :2]
        there = networks[1](torch.lerp(a, b, torch.linspace(0, 1, steps)[:, None]))
    clip = rearrange(there, "t (c h w) -> c t h w", c=3, h=24)
    return torch.cat([clip, clip.flip(1)], dim=1).clamp(-1, 1)


# %% tags=["nbval-ignore-output"]
far = portrait(*vaes[3.0])[0]
start, end = divmod(torch.cdist(far, far).argmax().item(), 24)
viz.player(
    [walk(plain, start, end), walk(vaes[3.0], start, end)],
    ["plain", "variational"],
    fps=12,
    scale=6,
    alt="one firework turns into another; on the left through ghosts, on the right through other fireworks",
)

# %% [markdown]
# ## Bug of the day: a bill that forgets an axis
#
# A latent of a film has five axes, `(B, C, T, H, W)`. Here is a divergence as it stood in well-known code, in our
# words. The axes to sum over were counted out by hand:


# %%
def published_kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """As published: sums the axes 1, 3 and 4."""
    return 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum(dim=[1, 3, 4])


# %% [markdown]
# It runs, and a training with it converges; the loss even looks nicer. Measure it against yours, as a training would
# use it (averaged), on films of one, five and nine latent frames:

# %%
for frames in (1, 5, 9):
    mean, logvar = (0.5 * torch.randn(2, 4, frames, 8, 8, generator=dice(36)) for _ in range(2))
    right, published = kl_to_standard_normal(mean, logvar), published_kl(mean, logvar)
    print(
        f"{frames} frames: yours {tuple(right.shape)}, published {tuple(published.shape)}; "
        f"yours / published = {right.mean() / published.mean():.3f}"
    )

# %%
try:
    published_kl(torch.zeros(2, 4, 8, 8), torch.zeros(2, 4, 8, 8))
except IndexError as error:
    print("on pictures (B, C, H, W):", type(error).__name__)

# %% [markdown]
# Axis 2 was forgotten: time. So every *frame* gets a bill of its own, the average divides by their number, and a nat
# in a film of nine frames costs a ninth of a nat in a still. Nothing crashes: the gradients point the right way and
# are too small. Whoever then trains on longer films has quietly changed the price. (On single pictures, four axes, it
# does crash, as you saw.) A check that would have caught it: *a film twice as long, each half the same,
# has twice the bill.*

# %%
mean, logvar = (torch.randn(2, 4, 5, 8, 8, generator=dice(37)) for _ in range(2))
twice = [torch.cat([each, each], dim=2) for each in (mean, logvar)]
for name, kl in (("yours", kl_to_standard_normal), ("published", published_kl)):
    print(f"{name}: twice the film, {kl(*twice).mean() / kl(mean, logvar).mean():.3f} times the bill")

# %% [markdown]
# ## From two numbers to a grid
#
# Two numbers are enough for 24 pictures. For every sky that might be, they are not, and nobody could train those
# linear layers on real frames. So the real thing keeps a **grid** of numbers: a small picture with a few channels,
# here 8 × 8 places with 4 numbers each, 256 in all (the smudge above had 243). Convolutions squeeze, so place stays
# place, and the same weights work at any size.
#
# The blocks are few. Let us open them one by one.
#
# **Norm.** Channels in groups; each group of each picture is brought to mean 0 and variance 1 on its own. No picture
# of a batch sees another.

# %%
torch.manual_seed(seed)
x = torch.randn(2, 64, 8, 8, generator=dice(38))
norm = nn.GroupNorm(32, 64, eps=1e-6)
groups = rearrange(x, "b (g c) h w -> b g (c h w)", g=32)
groups = (groups - groups.mean(2, keepdim=True)) / (groups.var(2, keepdim=True, correction=0) + 1e-6).sqrt()
by_hand = rearrange(groups, "b g (c h w) -> b (g c) h w", c=2, h=8)
print("by hand = GroupNorm:", torch.allclose(by_hand, norm(x), atol=1e-5))
print("a picture alone = in a batch:", torch.allclose(norm(x)[:1], norm(x[:1]), atol=1e-6))

# %% [markdown]
# **Residual block.** Norm, SiLU, convolution, twice; then *add the input*. If the block has nothing to say, its input
# passes, and so does the gradient. Where the width changes, a 1 × 1 convolution carries the input across.

# %%
block = ResnetBlock(64, 32)
h = block.conv1(F.silu(block.norm1(x)))
h = block.conv2(F.silu(block.norm2(h)))
print("by hand = ResnetBlock:", torch.allclose(block.nin_shortcut(x) + h, block(x), atol=1e-5))
print("shortcut where the width stays:", ResnetBlock(32, 32).nin_shortcut)

# %% [markdown]
# What is the sum worth? Thirty blocks in a row, with it and without it, both just born, and the size of the gradient
# that arrives at each block from the far end. With the sum it stays about level. Without it every block multiplies it by
# something, and over thirty blocks that is a factor of hundreds: which learning rate would suit them all? Beside it the
# other half of the story: SiLU's slope has no dead half, as ReLU's has.

# %% tags=["nbval-ignore-output"]
torch.manual_seed(seed)
deep = [ResnetBlock(32, 32) for _ in range(30)]
figure, (left, right) = viz.figure(1, 2, width=8.5, height=2.8)
for with_sum, name, colour in ((True, "with the sum", viz.SPACE), (False, "without", viz.TIME)):
    states = [torch.randn(1, 32, 8, 8, generator=dice(53), requires_grad=True)]
    for block in deep:
        states.append(block(states[-1]) - (0 if with_sum else states[-1]))
    gradients = torch.autograd.grad(states[-1].square().mean(), states)
    left.semilogy([g.norm().item() for g in gradients], color=colour, label=name)
left.set(xlabel="block", ylabel="size of the gradient")
left.legend()
inputs = torch.linspace(-5, 5, 200, requires_grad=True)
for curve, name, colour in ((F.silu, "SiLU", viz.SPACE), (F.relu, "ReLU", viz.NOISE)):
    right.plot(inputs.detach(), torch.autograd.grad(curve(inputs).sum(), inputs)[0], color=colour, label=name)
right.set(xlabel="input", ylabel="slope")
right.legend()
show(
    figure,
    "left: the gradient stays about level with the sum and changes several hundredfold without; right: slopes of SiLU and ReLU",
)

# %% [markdown]
# **Attention.** A convolution sees its neighbours. In the middle, where the picture is smallest, every place may look
# at every other: it asks a question $q$, compares it with all keys $k$, and takes home a weighted average of the
# values $v$,
#
# $$\mathrm{out} = \mathrm{softmax}\!\left(\frac{q\,k^\top}{\sqrt C}\right) v.$$
#
# ### Exercise 03.spatial_attention (8 minutes)


# %%
# exercise: 03.spatial_attention
def spatial_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One head as wide as the channels: every place of a picture looks at all places of it. (B, C, H, W) each, and out."""
    ### BEGIN SOLUTION
    height = q.shape[2]
    q, k, v = (rearrange(each, "b c h w -> b (h w) c") for each in (q, k, v))
    weights = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(q.shape[2]), dim=2)
    return rearrange(weights @ v, "b (h w) c -> b c h w", h=height)
    ### END SOLUTION


# %%
# hint("03.spatial_attention")
check("03.spatial_attention", spatial_attention)

# %% [markdown]
# PyTorch has the same as one fused call, which never writes the table of weights down. And the package's block is
# yours with 1 × 1 convolutions around it:

# %%
q, k, v = (torch.randn(2, 64, 6, 10, generator=dice(39 + i)) for i in range(3))
rows = [rearrange(each, "b c h w -> b 1 (h w) c") for each in (q, k, v)]
fused = rearrange(F.scaled_dot_product_attention(*rows), "b 1 (h w) c -> b c h w", h=6)
print("yours = scaled_dot_product_attention:", torch.allclose(spatial_attention(q, k, v), fused, atol=1e-5))
attend = AttnBlock(64)
h = attend.norm(x)
by_hand = x + attend.proj_out(spatial_attention(attend.q(h), attend.k(h), attend.v(h)))
print("yours in a block = AttnBlock:", torch.allclose(by_hand, attend(x), atol=1e-5))

# %% [markdown]
# **Half the size.** A 3 × 3 convolution in steps of two. On eight pixels it fits three times, and the last pixel is
# left over, so something must be padded. Stable Diffusion's choice: one zero row at the bottom, one zero column at the
# right, nothing at the other ends.

# %% tags=["nbval-ignore-output"]
figure, axes = viz.figure(1, 2, width=8.5, height=1.9)
for ax, first, name in zip(axes, (0, -1), ("zeros at one end (this code)", "zeros at both ends"), strict=True):
    for pixel in range(first, first + 9):
        real = 0 <= pixel < 8
        ax.add_patch(plt.Rectangle((pixel, 0), 1, 1, facecolor="#BBDDCC" if real else "white", edgecolor=viz.INK))
    for k in range(4):
        left = first + 2 * k
        ax.plot([left + 0.1, left + 2.9], [-0.3 - 0.25 * k] * 2, color=viz.SPACE, linewidth=4)
    ax.set(xlim=(-1.2, 9.2), ylim=(-1.4, 1.1), title=name)
    ax.axis("off")
show(figure, "windows of three in steps of two over eight pixels: starting at pixel 0, or at the zero before it")

# %% [markdown]
# ### Exercise 03.downsample_pad (2 minutes)


# %%
# exercise: 03.downsample_pad
def downsample_pad(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H + 1, W + 1): one zero column at the right, one zero row at the bottom."""
    ### BEGIN SOLUTION
    return F.pad(x, (0, 1, 0, 1))
    ### END SOLUTION


# %%
# hint("03.downsample_pad")
check("03.downsample_pad", downsample_pad)

# %%
halve = Downsample(64)
print("sizes 8 × 8 ->", tuple(F.conv2d(downsample_pad(x), halve.conv.weight, stride=2).shape[2:]))
by_hand = F.conv2d(downsample_pad(x), halve.conv.weight, halve.conv.bias, stride=2)
print("yours = Downsample:", torch.allclose(by_hand, halve(x), atol=1e-6))

# %% [markdown]
# **Twice the size** is simpler: every pixel becomes four, then a 3 × 3 convolution. Put together, encoder on the way
# down, decoder on the way up, here is what a picture passes through:

# %%
torch.manual_seed(seed)
vae = AutoEncoder2D(ch=16, ch_mult=(1, 2, 2), num_res_blocks=1, scale_factor=1.0)
stages = ["encoder.conv_in", *(f"encoder.down.{i}" for i in range(3)), "encoder.mid", "encoder.conv_out"]
stages += ["decoder.conv_in", "decoder.mid", *(f"decoder.up.{i}" for i in (2, 1, 0)), "decoder.conv_out"]


def tell(name: str):
    return lambda module, inputs, output: print(f"{name:>18} {tuple(output.shape[1:])}")


hooks = [
    vae.get_submodule(name + (".block.0" if ".down." in name or ".up." in name else "")).register_forward_hook(
        tell(name)
    )
    for name in stages
]
with torch.no_grad():
    vae(film[:, :, 8])
for hook in hooks:
    hook.remove()

# %%
with torch.device("meta"):
    full = AutoEncoder2D()
sizes = [sum(p.numel() for p in model.parameters()) for model in (vae, full)]
print(f"this one has {sizes[0]:,} numbers to learn; the same class with its defaults, Stable Diffusion's, {sizes[1]:,}")

# %% [markdown]
# The last layer of the encoder has 8 channels for 4 latents: means and log-variances, as before.
#
# ## What is a pixel worth in nats?
#
# One thing is left open. The error was in squared brightness, the bill in nats, and we had to try prices until the
# exchange was fair. There is an honest rate. Say that the true picture *scatters* around the rebuilt one. Then the
# error, too, is a message: how surprising is the true picture? For scatter of size $e^{s}$ with tails like
# $e^{-|d|/e^{s}}$, a difference of $d$ costs $|d|\,e^{-s} + s$ nats (and a constant $\ln 2$, which teaches nothing).
# Let $s$ be *learnt*: claim to be precise, and errors become expensive; claim to know nothing, and pay $s$ for every
# pixel.
#
# ### Exercise 03.nll (5 minutes)


# %%
# exercise: 03.nll
def nll(x: Tensor, x_rec: Tensor, logvar: Tensor, kl: Tensor, kl_weight: float) -> Tensor:
    """The whole bill per sample, a scalar: (Σ(|x − x_rec|·e^(−logvar) + logvar) + kl_weight·Σ kl) / B.

    x, x_rec (B, …); logvar a scalar tensor that learns; kl (B,).
    """
    ### BEGIN SOLUTION
    error = (x - x_rec).abs() * torch.exp(-logvar) + logvar
    return (error.sum() + kl_weight * kl.sum()) / len(x)
    ### END SOLUTION


# %%
# hint("03.nll")
check("03.nll", nll)

# %% [markdown]
# Which $s$ does best? Setting the derivative to zero says: $e^{s}$ is the mean absolute error itself. Try it on a
# rebuilt picture and a few claims:

# %%
difference = (world - rebuilt).abs().mean()
claims = torch.linspace(-5, 1, 601)
bills = torch.stack([nll(world, rebuilt, s, torch.zeros(24), 1.0) for s in claims])
print(f"the cheapest claim is wrong by {abs(claims[bills.argmin()].exp() / difference - 1):.0%} from the mean error")

# %% [markdown]
# ## Training, and a flattering score
#
# Frames of fireworks, in batches of eight; your `reparameterize`, your `kl_to_standard_normal`, your `nll`. A nat of
# latent costs a tenth of a nat here: the first stage of a diffusion model should throw away little, for diffusion
# will take care of the land between. (About 10 seconds.)


# %%
def frames_of(scenes: list[Scene], number: int, side: int = data.size) -> Tensor:
    """Frames (N, 3, side, side) with something to see on them."""
    clips = render(scenes, frames=9, size=side, generator=dice(number))
    frames = rearrange(clips, "b c t h w -> (b t) c h w")
    return frames[(frames.amax(dim=1) > -0.8).float().mean(dim=(1, 2)) > 0.01]


lessons = frames_of(sample_scenes(300, level="scene", generator=dice(41)), 42)
exam = frames_of(sample_scenes(30, level="scene", split="test", generator=dice(43)), 44)
print(f"{len(lessons)} frames to learn from, {len(exam)} for the exam; the network has seen none of those")


# %%
def psnr(x: Tensor, x_rec: Tensor) -> float:
    """Peak signal-to-noise ratio in dB: 10 dB more is a tenth of the squared error."""
    return 10 * math.log10(4 / (x - x_rec).square().mean().item())


@torch.no_grad()
def rebuild(model: AutoEncoder2D, x: Tensor) -> Tensor:
    """There and back, without dice."""
    return model.decode(model.encode(x, sample=False)).clamp(-1, 1)


# %%
def train_vae(model: AutoEncoder2D, steps: int, light: float, kl_weight: float, live) -> None:
    """`steps` batches of 8 frames; a lit pixel counts `light` times."""
    thrown, claim = dice(45), nn.Parameter(torch.tensor(-1.5))
    groups = [{"params": model.parameters(), "lr": 4e-3}, {"params": [claim], "lr": 4e-2}]
    optimiser = torch.optim.Adam(groups)
    speed = torch.optim.lr_scheduler.OneCycleLR(optimiser, [4e-3, 4e-2], total_steps=steps, pct_start=0.1)
    for step in range(1, steps + 1):
        x = lessons[torch.randint(len(lessons), (8,), generator=thrown)]
        mean, logvar = model.posterior(x).moments.chunk(2, dim=1)
        z = reparameterize(mean, logvar, torch.randn(mean.shape, generator=thrown))
        counts = 1 + (light - 1) * (x.amax(dim=1, keepdim=True) > -0.8)
        loss = nll(counts * x, counts * model.decode(z), claim, kl_to_standard_normal(mean, logvar), kl_weight)
        optimiser.zero_grad()
        (loss / x[0].numel()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        speed.step()
        live(step, model)


# %%
def against(x: Tensor, rows: dict[str, Tensor], alt: str) -> None:
    """Pictures and what became of them, one row each."""
    figure, axes = viz.figure(1 + len(rows), len(x), width=9, height=1.15 * (1 + len(rows)))
    for r, (name, pictures) in enumerate([("exam", x), *rows.items()]):
        for ax, picture in zip(axes[r], pictures, strict=True):
            on(ax, picture)
        axes[r, 0].set_ylabel(name)
    show(figure, alt)


scores: dict[int, float] = {}
eight = exam[:: len(exam) // 8][:8]


def note(step: int, model: AutoEncoder2D) -> None:
    """Sit the exam every 50 steps."""
    if step % 50 == 0:
        scores[step] = psnr(exam, rebuild(model, exam))
        status.update(f"step {step}: {scores[step]:.1f} dB")


# %% tags=["nbval-ignore-output"]
status = display("training …", display_id=True)
train_vae(vae, steps=150, light=1.0, kl_weight=0.1, live=note)

# %% [markdown]
# Engineers measure pictures in decibels, and at 20 dB, an error of a tenth of the range, one can begin to see something.

# %% [markdown] tags=["predict"]
# **Predict first.** The training above ended with a PSNR of about 20. What does a *black picture* get, whatever
# was asked for: 5 dB, 10 dB, 20 dB?
#
# *My guess: …*

# %% tags=["nbval-ignore-output"]
black = torch.full_like(exam, -1.0)
print(f"after the training: {psnr(exam, rebuild(vae, exam)):.1f} dB;   a black picture: {psnr(exam, black):.1f} dB")
against(eight, {"rebuilt": rebuild(vae, eight)}, "eight frames with fireworks; the rebuilt ones are pale and blurred")

# %% [markdown]
# Black is worth nearly as much. The score is splendid because the sky is black, and *anyone* can paint a black sky;
# and the training, paid by the same measure, first learns to paint it. The fireworks are pale and their colours are
# lost.
#
# ### Exercise 03.psnr_lit (8 minutes)
#
# So write a score that does not count the night: only pixels that shine, in at least one colour.


# %%
# exercise: 03.psnr_lit
def psnr_lit(x: Tensor, x_rec: Tensor, threshold: float) -> float:
    """PSNR in dB over the pixels of x (B, C, …) whose brightest colour is above `threshold`; all colours of them count."""
    ### BEGIN SOLUTION
    lit = x.amax(dim=1) > threshold
    error = (x - x_rec).square().mean(dim=1)[lit].mean()
    return 10 * math.log10(4 / error.item())
    ### END SOLUTION


# %%
# hint("03.psnr_lit")
check("03.psnr_lit", psnr_lit)

# %% tags=["nbval-ignore-output"]
smudges = shrink(rearrange(exam, "b c h w -> b c 1 h w"))[:, :, 0]
answers = {"black": black, "9 × 9 smudge": smudges, "trained": rebuild(vae, exam)}
for name, answer in answers.items():
    print(
        f"{name:>14}: {psnr(exam, answer):5.1f} dB everywhere, {psnr_lit(exam, answer, -0.8):5.1f} dB where there is light"
    )

# %% [markdown]
# That is the truth about our training. And what can be measured can be paid for. The same network goes on, but a lit
# pixel counts five times and nats are nearly free. (About 15 seconds.)

# %% tags=["nbval-ignore-output"]
status = display("training …", display_id=True)
train_vae(vae, steps=250, light=5.0, kl_weight=0.003, live=note)

# %% [markdown]
# Better where it counts, and still grey. *Where* and *how bright* are learnt first, colours later, and 400 batches of
# eight frames are few. The checkpoint that ships with this course was trained for the same loss, at twice the width, on
# 3,000 batches of 48 frames ([its card](../checkpoints/toy/vae2d/MODEL_CARD.md) says the rest). This is its log, and
# your training beside it:

# %% tags=["nbval-ignore-output"]
log = [json.loads(row) for row in (checkpoint_dir("toy/vae2d") / "metrics.jsonl").read_text().splitlines()]
log = [row for row in log if "psnr_lit" in row]
figure, ax = viz.figure(width=7, height=2.8)
ax.semilogx(
    [48 * row["step"] for row in log], [row["psnr_lit"] for row in log], color="#AAAAAA", label="the shipped one's log"
)
yours = {150 * 8: answers["trained"], 400 * 8: rebuild(vae, exam)}
ax.plot(list(yours), [psnr_lit(exam, answer, -0.8) for answer in yours.values()], "o", color=viz.DATA, label="yours")
ax.axhline(psnr_lit(exam, smudges, -0.8), color=viz.NOISE, linestyle="--", label="9 × 9 smudges")
ax.set(xlabel="frames seen in training", ylabel="dB where there is light")
ax.legend()
show(
    figure,
    "a grey curve rises from 10 to 28 dB; two dots at its left end; it crosses the smudges at some thousand frames",
)

# %% [markdown]
# A learnt squeezer first has to be as good as plain shrinking, and then is better by far. All of them on the same eight
# frames:

# %%
shipped = AutoEncoder2D.from_pretrained(checkpoint_dir("toy/vae2d"))

# %% tags=["nbval-ignore-output"]
answers |= {"trained on": rebuild(vae, exam), "shipped": rebuild(shipped, exam)}
for name, answer in answers.items():
    print(
        f"{name:>14}: {psnr(exam, answer):5.1f} dB everywhere, {psnr_lit(exam, answer, -0.8):5.1f} dB where there is light"
    )
rows = {name: answer[:: len(exam) // 8][:8] for name, answer in answers.items() if name != "black"}
against(eight, rows, "row by row sharper and more colourful, from the smudge to the shipped one")

# %% [markdown]
# Does it matter? The judge of lesson 01 reads what the shell was. Forty films that no training has seen:
# as they are, as smudges of 243 numbers a frame, and rebuilt from 256.

# %% tags=["nbval-ignore-output"]
test_scenes = sample_scenes(40, split="test", generator=dice(46))
test_films = render(test_scenes, frames=9, size=data.size, generator=dice(47))
for name, clips in {
    "as they are": test_films,
    "smudges": shrink(test_films),
    "rebuilt": rebuild(shipped, test_films),
}.items():
    read = attribute_accuracy(clips, test_scenes)
    print(f"{name:>12}: " + ", ".join(f"{attribute} {share:.0%}" for attribute, share in read.items()))

# %% tags=["nbval-ignore-output"]
viz.player(
    [film[0], shrink(film)[0], rebuild(shipped, film)[0]],
    ["the film", "243 numbers a frame", "256 numbers a frame"],
    fps=data.fps,
    scale=5,
    alt="the willow; a smudge; the willow again, sharp",
)

# %% [markdown]
# Convolutions do not ask how large a picture is. The weights were trained at 32 × 32; the same ones at 48 × 48, and the
# sizes of Stable Diffusion beside them:

# %%
wide = frames_of(scenes, 54, side=48)[:8]
with torch.no_grad():
    print(
        "48 × 48 -> latent",
        tuple(shipped.encode(wide, sample=False).shape[1:]),
        "-> back",
        tuple(rebuild(shipped, wide).shape[1:]),
    )
for name, factor, channels in (("ours", shipped.downsampling, 4), ("Stable Diffusion", full.downsampling, 4)):
    print(
        f"{name}: {factor} times smaller per side, {channels} channels: {3 * factor**2 // channels} times fewer numbers"
    )

# %% tags=["nbval-ignore-output"]
against(wide, {"rebuilt": rebuild(shipped, wide)}, "eight frames of 48 by 48 and their reconstructions")

# %% [markdown]
# The fireworks come back, under a night that is a shade too bright inside a dark frame. "Any size" means that it runs: the
# norms and the attention look at the whole picture, and these have never seen one of this size. Published VAEs saw many.
#
# ## Look at the latent
#
# What are those 256 numbers? Four channels of 8 × 8. The first three as red, green and blue, and the film beside it:

# %%
with torch.no_grad():
    z = shipped.encode(film, sample=False)
print(
    "film (B, C, T, H, W):",
    tuple(film.shape),
    " latent:",
    tuple(z.shape),
    " numbers:",
    film.numel() // z.numel(),
    "to 1",
)

# %% tags=["nbval-ignore-output"]
unlike_night = z[0, :3] - z[0, :3].flatten(1).median(dim=1).values[:, None, None, None]  # most places are night
as_colours = (unlike_night / unlike_night.abs().amax()).repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
viz.player(
    [film[0], as_colours, rebuild(shipped, film)[0]],
    ["film", "three of its four latent channels", "decoded"],
    fps=data.fps,
    scale=5,
    alt="the willow; a coarse mosaic that lights up where the willow is; the willow decoded",
)

# %% tags=["nbval-ignore-output"]
frame = 8
figure, axes = viz.figure(1, 5, width=9, height=2)
on(axes[0], film[0, :, frame], "frame")
for channel in range(4):
    axes[channel + 1].imshow(z[0, channel, frame], cmap="PuOr", vmin=-3, vmax=3)
    axes[channel + 1].set(xticks=[], yticks=[])
    axes[channel + 1].set_title(f"channel {channel}", fontsize=9)
show(figure, "the frame, and four 8 by 8 mosaics in which the shape of the willow can be guessed")

# %% [markdown]
# A small picture, in colours of its own. Place stayed place. How literally?

# %% [markdown] tags=["predict"]
# **Predict first.** We push the latent grid of every frame by *one place* to the right and decode. What happens to
# the film? By how many pixels, and how exactly?
#
# *My guess: …*

# %% tags=["nbval-ignore-output"]
with torch.no_grad():
    night = shipped.encode(torch.full_like(film, film.min().item()), sample=False)
    after = shipped.decode(torch.cat([night[..., :1], z[..., :-1]], dim=-1)).clamp(-1, 1)
moved = torch.roll(rebuild(shipped, film), shipped.downsampling, dims=-1)
inner = slice(8, 32)  # right of what comes in
for name, candidate in (("moved by 4 pixels", moved), ("not moved", rebuild(shipped, film))):
    print(
        f"against the film {name}: {psnr_lit(candidate[..., inner], after[..., inner], -0.8):.1f} dB where there is light"
    )
viz.player(
    [film[0], after[0]], ["the film", "latent pushed by one place"], fps=data.fps, scale=5, alt="the willow moves right"
)

# %% [markdown]
# One place is four pixels. (The curtain at the left is the old edge, which has moved inside: zeros beyond the edge tell a
# place where it is, and the decoder takes its word for it.) So a latent is not a sentence about the film; it is a film, in other words and fewer.
# Where is attention in all that? In the middle of the encoder, at 8 × 8. With values $v$ that are 64 different flags,
# one for each place, *your* `spatial_attention` returns the weights themselves: how much each place looks at each other.

# %%
flags = torch.eye(64).reshape(1, 64, 8, 8)
seen: dict[str, Tensor] = {}
mid = shipped.encoder.mid.attn_1
hook = mid.norm.register_forward_hook(lambda module, inputs, output: seen.update(h=output))
with torch.no_grad():
    shipped.encode(film[:, :, frame])
    looks = spatial_attention(mid.q(seen["h"]), mid.k(seen["h"]), flags)[
        0
    ]  # looks[j, y, x]: how much (y, x) looks at j
hook.remove()
print("all that a place looks at adds up to", round(looks.sum(dim=0).mean().item(), 4))

# %% tags=["nbval-ignore-output"]
bright = F.avg_pool2d(film[0, :, frame].amax(dim=0)[None], 4)[0]
places = {"in the burst": divmod(bright.argmax().item(), 8), "in the night": divmod(bright.argmin().item(), 8)}
figure, axes = viz.figure(1, 3, width=7, height=2.4)
on(axes[0], film[0, :, frame], "frame")
for ax, (name, (y, x)) in zip(axes[1:], places.items(), strict=True):
    ax.imshow(looks[:, y, x].reshape(8, 8), cmap="Blues")
    ax.plot(x, y, "x", color=viz.TIME, markersize=9, markeredgewidth=2)
    ax.set(xticks=[], yticks=[])
    ax.set_title(f"a place {name} looks …", fontsize=9)
show(figure, "two 8 by 8 maps of where a place looks, for one place in the burst and one in the dark")

# %% [markdown]
# ## Walk, and throw
#
# Two shells, their latents, and a straight line between. The same walk as in the little world, and beside it a mere
# cross-fade of pixels:

# %%
ring = Scene((Shell(colour="blue", shape="ring", column="right", row="low", size="large"),))
other = render([ring], frames=17, size=data.size, generator=dice(48))
share = torch.linspace(0, 1, 24)
with torch.no_grad():
    ends = shipped.encode(torch.cat([film[:, :, frame], other[:, :, frame]]), sample=False)
    steps = shipped.decode(torch.lerp(ends[:1], ends[1:], share[:, None, None, None])).clamp(-1, 1)
fade = torch.lerp(film[0, :, frame], other[0, :, frame], share[:, None, None, None])

# %% tags=["nbval-ignore-output"]
clips = [rearrange(each, "t c h w -> c t h w") for each in (steps, fade)]
clips = [torch.cat([clip, clip.flip(1)], dim=1) for clip in clips]
viz.player(
    clips, ["through the latents", "through the pixels"], fps=12, scale=6, alt="one shell fades, the other appears"
)

# %% [markdown]
# Hardly different, and that is worth knowing. Two numbers had to *understand* fireworks. A grid of 256 has no need to:
# it keeps what is where, and keeps it well. And if we throw its latents?

# %% tags=["nbval-ignore-output"]
with torch.no_grad():
    throws = shipped.decode(torch.randn(10, 4, 8, 8, generator=dice(49)))
sheet(throws.clamp(-1, 1), 5, "confetti: patches of light in all colours, no fireworks", inches=1.2)

# %% [markdown]
# Confetti. Every *place* looks like a piece of some firework, the clouds took care of that; but nobody told the 64
# places to agree. That is a question of what pictures there are, and the answer to such questions is lesson 02: noise
# a latent, learn to clean it. **Latent diffusion** is this division of labour. The VAE keeps the looks; diffusion
# learns what exists. It only needs latents of the right size.
#
# ## One number: `scale_factor`
#
# Diffusion mixes its data with noise of size 1 and ends in noise of size 1. Pixels in [−1, 1] are about that size.
# Latents are as large as the training left them. So measure once, and divide.
#
# ### Exercise 03.latent_scale (2 minutes)


# %%
# exercise: 03.latent_scale
def latent_scale(latents: Tensor) -> float:
    """The factor that brings latents to standard deviation 1: one number for all samples, channels and places."""
    ### BEGIN SOLUTION
    return 1 / latents.std().item()
    ### END SOLUTION


# %%
# hint("03.latent_scale")
check("03.latent_scale", latent_scale)

# %% [markdown]
# The package's `encode` returns $z = \text{scale} \cdot (\text{latent} - \text{shift})$, and `decode` undoes it. What
# is stored in the shipped checkpoint, and what do you find on today's films?

# %% tags=["nbval-ignore-output"]
with torch.no_grad():
    scaled = shipped.encode(test_films, sample=False)
raw = scaled / shipped.config.scale_factor + shipped.config.shift_factor
print(f"stored {shipped.config.scale_factor:.3f}, yours {latent_scale(raw):.3f};  std of z: {scaled.std():.2f}")
print(f"Stable Diffusion stores 0.18215: its raw latents have a standard deviation of {1 / 0.18215:.1f}")

# %% [markdown]
# Ours left the training at about the right size, by the grace of a small bill. Stable Diffusion's nats were almost
# free, and its latents came out at 5.5. What if one forgets to divide? Here is the willow in latents of three sizes,
# noised by the jump of lesson 02, $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1 - \bar\alpha_t}\,\varepsilon$, then brought
# back to size and decoded:

# %%
abar = alphas_cumprod(linear_betas(1000)).float()
willow_z, noise = z / z.std(), torch.randn(z.shape, generator=dice(50))


@torch.no_grad()
def noised(size: float, t: int) -> Tensor:
    """The willow, as latents of standard deviation `size`, noised to step t, brought back to size, decoded."""
    x_t = abar[t].sqrt() * size * willow_z + (1 - abar[t]).sqrt() * noise
    return shipped.decode(x_t / (abar[t].sqrt() * size) * z.std()).clamp(-1, 1)[0]


def three_sizes(t: int):
    """The willow at step t, in latents that are too small, right, and too large."""
    return viz.player(
        [noised(size, t) for size in (0.2, 1.0, 5.5)],
        ["5 times too small", "right", "5.5 times too large"],
        fps=data.fps,
        scale=4,
        alt=f"step {t}: confetti; between; the willow almost clean",
    )


# %% tags=["nbval-ignore-output"]
picture = display(three_sizes(250), display_id=True)
slider = widgets.SelectionSlider(
    options=[0, 50, 100, 250, 400, 600, 800], value=250, description="t", continuous_update=False
)
slider.observe(lambda change: picture.update(three_sizes(change["new"])), "value")
display(slider)

# %% [markdown]
# All three are "step 250". What diffusion has to teach happens at the steps where signal and noise are of like size;
# before that there is nothing to do, after it nothing to see:

# %%
snr = abar / (1 - abar)
for size in (0.2, 1.0, 5.5):
    useful = ((size**2 * snr > 0.01) & (size**2 * snr < 10)).sum().item()
    print(
        f"size {size}: signal = noise at step {(size**2 * snr > 1).sum().item():3d}; {useful} of 1000 steps teach something"
    )
left = [(abar[-1] * size**2).sqrt().item() for size in (1.0, 5.5)]
print(f"and the last step, which sampling takes for pure noise, still holds {left[1] / left[0]:.1f} times the signal")

# %% [markdown]
# Too small, and the film is gone at the first steps: the network trains for most of its life on pure noise. Too large,
# and for hundreds of steps the noise is too faint to see, while the network's inputs are five times what its layers
# expect. Nothing crashes in either case, and who drowns the latents even sees a lower loss: noise alone is easily told.
# 0.18215 belongs to *one* set of weights, and SDXL's VAE has another (0.13025).
#
# ## Where all this lives
#
# | yours | in the package |
# |---|---|
# | `reparameterize`, `kl_to_standard_normal` | `DiagonalGaussianDistribution` in `minivdm/vae/distributions.py` |
# | `spatial_attention`, `downsample_pad` | `AttnBlock`, `Downsample` in `minivdm/vae/blocks2d.py` |
# | the encoder, the decoder, `latent_scale` | `AutoEncoder2D` in `minivdm/vae/autoencoder2d.py`; `scale_factor` of its config |
# | `nll` | `VAELoss` in `minivdm/vae/losses.py` |
# | `psnr_lit` | `minivdm/vae/metrics.py` |
#
# `AutoEncoder2D.from_diffusers(folder)` reads the published weights of Stable Diffusion's and SDXL's VAE, in this very
# class. Is it really the same?

# %%
moments = torch.randn(2, 8, 3, 5, 4, generator=dice(51))
posterior, (mean, logvar) = DiagonalGaussianDistribution(moments), moments.chunk(2, dim=1)
noise = torch.randn(mean.shape, generator=dice(52))
print("draw:", torch.allclose(posterior.sample(noise), reparameterize(mean, logvar, noise)))
print("bill:", torch.allclose(posterior.kl(), kl_to_standard_normal(mean, logvar)))

# %% [markdown]
# ## Reflection
#
# In your own words, a sentence or two each (there is a cell below for it):
#
# 1. Why does a plain autoencoder have holes, and how do clouds close them? Say it to somebody who has not read this.
# 2. A friend trains a VAE and reports a KL of 0.000 and is glad that the bill is so low. What has happened?
# 3. Which numbers in this lesson looked good and were not? How did you find out?
# 4. The little VAE of two numbers could throw fireworks, the big one of 256 cannot. Which is the better first stage
#    for diffusion, and why?
# 5. You load somebody's VAE weights without their `scale_factor`. What would you measure first?

# %% [markdown]
# *My answers: …*

# %% [markdown]
# ## What comes next
#
# Every frame is now 256 numbers instead of 3,072. But look at the latent film once more: each frame is nearly the last
# one. We pay 17 times for a sky that hardly changes. **Lesson 04 asks: each frame is nearly the last one. Why pay for it
# again?**
#
# Your functions that passed are kept in `workbook/`; `minivdm progress` shows how far you are. In lesson 09 they run in
# the final pipeline.
#
# **Read on:** Kingma and Welling, *Auto-Encoding Variational Bayes* (2014). Rombach et al., *High-Resolution Image
# Synthesis with Latent Diffusion Models* (2022), section 3.1 and appendix G on the scale. Dai and Wipf, *Diagnosing and
# Enhancing VAE Models* (2019), on learnt scatter and on two stages.
