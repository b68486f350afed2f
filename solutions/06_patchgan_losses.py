# %% [markdown]
# # 06 PatchGAN and losses: why is the reconstruction soft?
#
# The autoencoders of lessons 03 and 04 gave the willow back in the right place, in the right gold, and a little out of
# focus, as if someone had breathed on the lens. More training does not wipe it off. Today you will find out who is
# breathing, and hire a critic.
#
# When you are done you will have made
#
# - the **culprit**: a hundred willows whose average is what squared error calls the best picture;
# - a **critic of patches**, its field of view computed, drawn on the frame, and proven pixel by pixel;
# - **three losses** for it, seen as curves, as forces, and in six runs of one small game, with and without a penalty;
# - a **collapse**, with the alarm that notices it and two cures;
# - a critic that **shuffled frames** cannot fool;
# - a soft decoder made **sharp**, eight times enlarged, with a measured rule for the moment to let the critic in.
#
# **Time:** a good minute of computing in all, at most 2 minutes (preset `toy`, two CPU cores, no GPU, no network), and an afternoon of
# yours. Eight exercises, each with three hints: `hint("06.hinge_d_loss")` gives the idea, once more the equation, a
# third time the line.

# %% tags=["parameters"]
preset = "toy"
seed = 0
device = None  # None: the CPU, which is all that this lesson needs

# %%
import copy
import io
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
from minivdm.data.fireworks import Scene, Shell, render
from minivdm.training.critic_switch import CriticSwitch
from minivdm.training.randomness import seeded_modules
from minivdm.vae import LPIPS, NLayerDiscriminator2D, NLayerDiscriminator3D
from minivdm.vae import losses as package

# %%
data = load_preset(preset).data
torch.set_num_threads(1)  # everything is small today: two threads would wait for each other
torch.set_flush_denormal(True)  # fading light makes vanishing numbers, which slow a CPU down


def dice(number: int) -> torch.Generator:
    """Dice that always fall the same way: all chance in this lesson comes from numbered dice."""
    return torch.Generator().manual_seed(1000 * seed + number)


def show(figure: plt.Figure, alt: str) -> None:
    """Display a plot as a small PNG, with words for those who cannot see it."""
    figure.savefig(png := io.BytesIO())
    PIL.Image.open(png).quantize(64).save(small := io.BytesIO(), "PNG", optimize=True)
    plt.close(figure)
    display(viz.picture(small.getvalue(), alt))


# %% [markdown]
# ## 1 · The breath on the lens
#
# Here is the film of all lessons, six times. It is always "a large gold willow, high on the left". But an order is not
# a film: where exactly each spark flies is left to chance, and no two willows are alike.

# %% tags=["nbval-ignore-output"]
willow = Scene((Shell(colour="gold", shape="willow", column="left", row="high", size="large"),))
films = render([willow] * 100, data.frames, data.size, generator=dice(60))
viz.player(
    films[:6], fps=4, scale=4, alt="a gold willow bursts high on the left, its sparks a little different each time"
)

# %% [markdown]
# Now be a decoder. The latent tells you: large, gold, willow, high on the left. It has no room to tell you where each
# spark is. You must answer with *one* picture, and pay the squared error to the film that it was. Take one moment of
# all hundred films, a few ticks after the burst.

# %%
moment = math.ceil(willow.shells[0].burst / 16 * (data.frames - 1)) + 1
skies = films[:, :, moment]  # (100, 3, 32, 32): what it could have been
a_willow, average = skies[0], skies.mean(0)
print("a hundred possible skies (N, C, H, W):", tuple(skies.shape))

# %% [markdown] tags=["predict"]
# **Predict first.** Two answers: a real willow (but probably the wrong one), or the average of all hundred. Which one
# pays less squared error on average? By how much: a tenth less, half, a tenth of it?
#
# *My guess: …*


# %%
def price(answer: Tensor, power: int) -> float:
    """What an answer (3, H, W) costs, averaged over the other possible skies."""
    return (skies[1:] - answer).abs().pow(power).mean().item()


for name, answer in (("a real willow", a_willow), ("the average", average)):
    print(f"{name:>14}: squared error {price(answer, 2):.3f}")
print(f"         ratio: {price(a_willow, 2) / price(average, 2):.1f}")

# %% tags=["nbval-ignore-output"]
median = skies.median(0).values
answers = torch.stack([*skies[:3], average, median])
strip = viz.filmstrip(
    rearrange(answers, "n c h w -> c n h w"),
    titles=["a willow", "a willow", "a willow", "average of 100", "median of 100"],
    scale=4,
)
viz.picture(strip, "three willows with rays, and two smooth balls: their average and their median")

# %% [markdown]
# <details><summary>What happened</summary>
#
# Two independent draws differ by twice the variance, $\mathbb E(x - y)^2 = 2\,\mathrm{Var}$. A draw and the mean differ
# by the variance, once. So whatever the data, the average pays **half**: squared error does not merely tolerate the
# blur, it *asks* for it, at a discount of fifty percent. And nothing pays less than the mean.
# </details>
#
# The absolute error asks for the **median** instead: a pixel is lit when it is lit in most of the hundred skies. That
# gives the ball a harder edge, and not one spark more. Neither loss is broken. Each is paid pixel by pixel, and no
# pixel knows what a spark is.

# %% [markdown]
# So let something that has seen fireworks measure the distance. `LPIPS` compares two pictures by the *features* that a
# trained network finds in them: is there a spark of this kind at about this place? The package ships a small trunk
# for it, trained by us on rendered frames (the published one, VGG16, was trained on photographs).

# %%
perceptual = LPIPS("fireworks")
others = skies[1:33]
print("                 squared error   perceptual distance")
for name, answer in (("another willow", skies[33]), ("average", average), ("median", median)):
    distance = perceptual(others, answer.expand_as(others)).mean()
    print(f"{name:>15}: {(others - answer).square().mean():12.4f} {distance:18.4f}")

# %% [markdown]
# Compare the two columns. Squared error prefers the average to a real willow by far; to the network that has seen
# fireworks, the real willow with the wrong sparks is *nearer*. (The median with its hard edge gets off lightly. No
# distance is perfect.) That is the second of the losses by which VAEs are trained: reconstruction, perceptual distance,
# divergence. The next one is stranger: a loss that is itself a network, and that learns while the decoder learns.
#
# ## 2 · A critic of patches
#
# A **critic** is a network that gets a picture and answers with scores: high for real, low for made. The decoder is
# then trained to raise the scores of its own pictures. If its pictures are soft, the critic will learn that softness
# gives them away, and the decoder will have to get rid of it. That is a GAN (Goodfellow et al. 2014).
#
# Softness is a *local* crime. So the critic need not judge the picture as a whole, only every patch of it: a **PatchGAN**
# (Isola et al. 2017) is a short stack of convolutions whose output is a small map of scores. Each score sees a part of
# the picture, its receptive field. How large?
#
# ### Exercise 06.receptive_field (5 minutes)
#
# Walk from input to output. A kernel of $k$ looks at $k$ neighbours, so it adds $k - 1$ steps to what is seen. A step is
# one pixel long at first. Behind every stride, steps are that many times longer.


# %%
# exercise: 06.receptive_field
def receptive_field(kernels: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """How many input pixels, along one axis, one output depends on. Layers from input to output."""
    ### BEGIN SOLUTION
    field, step = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        field += (kernel - 1) * step
        step *= stride
    return field
    ### END SOLUTION


# %%
# hint("06.receptive_field")
check("06.receptive_field", receptive_field)

# %% [markdown]
# The classic critic has kernels of 4: `n_layers` convolutions of stride 2, then two of stride 1. With three strided
# layers it is "the 70×70 PatchGAN". Our sky is 32 pixels wide, so let us see which one we want.

# %%
fields = {n: receptive_field((4,) * (n + 2), (2,) * n + (1, 1)) for n in (1, 2, 3)}
for n, field in fields.items():
    critic = NLayerDiscriminator2D(3, 8, n)
    print(f"n_layers = {n}: yours {field:3d} pixels, the package's critic says {critic.receptive_field}")


# %% tags=["nbval-ignore-output"]
def enlarged(picture: Tensor, ax: plt.Axes, title: str = "") -> None:
    """A picture (3, H, W) with visible pixels."""
    ax.imshow(
        rearrange((picture + 1) / 2, "c h w -> h w c").clamp(0, 1), extent=(0, 32, 32, 0), interpolation="nearest"
    )
    ax.set(title=title, xlim=(-4, 36), ylim=(36, -4))
    ax.axis("off")


def draw_fields(n_layers: int) -> None:
    """The patch behind one score of a critic, on the willow."""
    figure, ax = viz.figure(width=4, height=4)
    enlarged(a_willow, ax, f"n_layers = {n_layers}: one score sees {fields[n_layers]} × {fields[n_layers]}")
    side = fields[n_layers]
    corner = [max(-3.5, 10 - side / 2)] * 2
    ax.add_patch(plt.Rectangle(corner, min(side, 39), min(side, 39), fill=False, color=viz.SPACE, linewidth=3))
    show(figure, f"the willow, and around its middle a blue square of {side} pixels")


widgets.interact(draw_fields, n_layers=widgets.IntSlider(value=1, min=1, max=3))
draw_fields(1)

# %% [markdown]
# With one strided layer a score sees half of the sky's width. With two it sees all of it, with three more than there
# is. We take the first: it has many opinions per picture, and none about where in the sky a willow should hang, which the
# reconstruction loss knows better anyway.
#
# Do not take the number on trust. A score can only depend on a pixel if its gradient there is not zero. One `backward`
# draws the field of view of the real network:

# %%
with seeded_modules(seed):
    critic = NLayerDiscriminator2D(3, 8, 1).eval()  # eval: a batch norm in training looks at everything at once
sky = a_willow.unsqueeze(0).clone().requires_grad_(True)
scores = critic(sky)
scores[0, 0, 6, 6].backward()
touched = sky.grad[0].abs().sum(0) > 0
rows, columns = touched.any(1).nonzero().flatten(), touched.any(0).nonzero().flatten()
print("scores:", tuple(scores.shape), "; the score at (6, 6) depends on", int(touched.sum()), "pixels:")
print(
    "rows", rows.min().item(), "to", rows.max().item(), "and columns", columns.min().item(), "to", columns.max().item()
)

# %% [markdown]
# Sixteen by sixteen, as you computed. (Had we left the critic in training mode, the batch norm would have looked at the
# whole batch. Keep that in mind: a critic whose scores depend on the rest of the batch has no slope of its own, and a
# slope is what section 4 will be about. From there on our critics have no batch norm.)
#
# ## 3 · What is a score worth?
#
# The critic hands out numbers. It needs a loss that says what a good number is. Three have become famous.
#
# ### Exercise 06.hinge_d_loss (3 minutes)
#
# *Real ones above +1, made ones below −1; what is beyond that is good enough.* The VAEs that this course follows use it unless told otherwise.


# %%
# exercise: 06.hinge_d_loss
def hinge_d_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The critic's hinge loss, with the factor ½ that published code has. Scores of any shapes; a scalar."""
    ### BEGIN SOLUTION
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
    ### END SOLUTION


# %%
# hint("06.hinge_d_loss")
check("06.hinge_d_loss", hinge_d_loss)

# %% [markdown]
# ### Exercise 06.vanilla_d_loss (5 minutes)
#
# *A score is the logarithm of odds.* Then $\sigma(s)$ is the probability "real", and the loss is the surprise at the
# truth: $-\ln\sigma(s)$ for real ones, $-\ln(1 - \sigma(s))$ for made ones. A sure critic has scores of a hundred and
# more, so mind the exponentials.


# %%
# exercise: 06.vanilla_d_loss
def vanilla_d_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The critic's loss of the first GAN, with a factor ½. Finite for scores of ±200."""
    ### BEGIN SOLUTION
    return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())
    ### END SOLUTION


# %%
# hint("06.vanilla_d_loss")
check("06.vanilla_d_loss", vanilla_d_loss)

# %% [markdown]
# ### Exercise 06.wgan_d_loss (2 minutes)
#
# *Real ones high, made ones low, as far apart as possible.* No ±1, no probability: the difference of the two means,
# halved like the others. It comes from a distance between distributions, Wasserstein's (Arjovsky et al. 2017).


# %%
# exercise: 06.wgan_d_loss
def wgan_d_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The critic's Wasserstein loss, with a factor ½."""
    ### BEGIN SOLUTION
    return 0.5 * (fake.mean() - real.mean())
    ### END SOLUTION


# %%
# hint("06.wgan_d_loss")
check("06.wgan_d_loss", wgan_d_loss)

# %% [markdown]
# Who makes the pictures has a loss as well: minus the mean score, and for the vanilla game $-\ln\sigma(s)$. Draw your
# three losses as curves. And then as *forces*, which is what a network feels of a loss: the slope, by `backward`.


# %%
LOSSES = {"hinge": hinge_d_loss, "vanilla": vanilla_d_loss, "Wasserstein": wgan_d_loss}
COLOURS = {"hinge": viz.SPACE, "vanilla": viz.DATA, "Wasserstein": viz.TIME}


def blame(kind: str, scores: Tensor) -> Tensor:
    """What low scores cost the one who made the pictures."""
    return F.softplus(-scores).mean() if kind == "vanilla" else -scores.mean()


def pull(cost: Tensor, scores: Tensor) -> Tensor:
    """The force on each score: how much the cost falls when it rises by one, times the number of scores."""
    return -torch.autograd.grad(cost, scores)[0] * scores.numel()


# %% tags=["nbval-ignore-output"]
s = torch.linspace(-4, 4, 161, requires_grad=True)
figure, axes = viz.figure(1, 3, width=10, height=2.9)
for kind, loss in LOSSES.items():
    on_real = [2 * loss(value, torch.tensor(-50.0 if kind == "hinge" else 0.0)) for value in s.detach()]
    look = {"color": COLOURS[kind], "label": kind, "linestyle": "--" if kind == "Wasserstein" else "-"}
    axes[0].plot(s.detach(), torch.stack(on_real) - on_real[80] + 1, **look)
    axes[1].plot(s.detach(), 2 * pull(loss(s, torch.tensor(0.0)), s), **look)
    axes[2].plot(s.detach(), pull(blame(kind, s), s), **look)
for ax, title in zip(
    axes, ("critic's cost of a real patch", "force on a real patch's score", "force on a made patch"), strict=True
):
    ax.set(xlabel="score", title=title)
axes[0].legend(fontsize=8)
show(figure, "hinge falls and is flat beyond 1, vanilla falls ever more slowly, Wasserstein is a straight line")

# %% [markdown]
# Read the middle picture as *when does the critic stop?* (Costs are drawn through 1 at score 0, to compare shapes.) The
# hinge lets go of a patch the moment it is clear of 1 and spends its strength on the doubtful ones. Vanilla lets go
# slowly. Wasserstein never lets go: it pulls on a patch with score +4 as hard as on one with −4. In the picture on the
# right, the maker's side, there is one surprise less than you may have feared: all three still pull when the critic is
# sure ($s = -4$).
#
# ## 4 · A small game
#
# Losses are judged in play. The smallest game with fireworks in it: eight sparks on a ring. A generator turns dice
# into points of the plane, a critic scores points. Both are three small layers.


# %%
SPARKS = torch.stack([torch.tensor([math.cos(a), math.sin(a)]) for a in torch.arange(8) * math.pi / 4])


def real_points(count: int, g: torch.Generator) -> Tensor:
    """Points near the eight sparks, (count, 2)."""
    return SPARKS[torch.randint(8, (count,), generator=g)] + 0.05 * torch.randn(count, 2, generator=g)


def small_net(inputs: int, outputs: int) -> nn.Sequential:
    layers = [nn.Linear(inputs, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Linear(64, outputs))


# %% [markdown]
# What can go wrong has a name: the generator finds one spark that the critic happens to believe in, and makes nothing
# else. **Mode collapse.** No loss curve shows it, so count: which spark is each generated point nearest to, and *how many
# sparks are really in use?* Eight used equally should count as 8. If one does nearly all the work, as little more than 1.
#
# ### Exercise 06.perplexity (5 minutes)
#
# $e$ to the entropy of the shares does exactly that. (The same number tells whether the codebook of a VQ-VAE is in use.)


# %%
# exercise: 06.perplexity
def perplexity(indices: Tensor, n_embed: int) -> Tensor:
    """How many of n_embed codes are in use. indices: long, any shape, 0 to n_embed - 1; returns a 0-d tensor."""
    ### BEGIN SOLUTION
    share = torch.bincount(indices.flatten(), minlength=n_embed) / indices.numel()
    return torch.exp(-(share * torch.log(share + 1e-10)).sum())
    ### END SOLUTION


# %%
# hint("06.perplexity")
check("06.perplexity", perplexity)


# %%
def slope(critic: nn.Module, points: Tensor) -> float:
    """How steep the critic is at some points, on average: the length of the gradient of its score."""
    points = points.detach().requires_grad_(True)
    return torch.autograd.grad(critic(points).sum(), points)[0].norm(dim=1).mean().item()


def sparks_in_use(points: Tensor) -> float:
    return perplexity(torch.cdist(points, SPARKS).argmin(1), 8).item()


def critics_cost(
    kind: str, critic: nn.Module, real: Tensor, fake: Tensor, penalty: float, g: torch.Generator
) -> Tensor:
    """What the critic minimises."""
    loss = LOSSES[kind](critic(real), critic(fake))
    if penalty:
        loss = loss + penalty * gradient_penalty(critic, real, fake, torch.rand(len(real), generator=g))
    return loss


# %% [markdown]
# The game itself. The critic takes a few turns, the generator one, and so on. `penalty` is for later.


# %%
def play(kind: str, penalty: float = 0.0, turns: int = 3, momentum: float = 0.0, rate: float = 2e-3) -> dict[str, list]:
    """A game of 300 steps: every 20 of them a cloud of points, the critic's slope, the number of sparks in use."""
    g, seen = dice(61), {"cloud": [], "slope": [], "sparks": []}
    with seeded_modules(seed):
        maker, critic = small_net(4, 2), small_net(2, 1)
    movers = [torch.optim.Adam(net.parameters(), rate, betas=(momentum, 0.9)) for net in (maker, critic)]
    for step in range(300):
        for _ in range(turns):
            fake = maker(torch.randn(64, 4, generator=g)).detach()
            turn_of(movers[1], critics_cost(kind, critic, real_points(64, g), fake, penalty, g))
        turn_of(movers[0], blame(kind, critic(maker(torch.randn(64, 4, generator=g)))))
        if step % 20 == 19:
            note(seen, maker, critic)
    return seen


# %%
def turn_of(mover: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of one player; what the other one's weights got of it is thrown away at its own turn."""
    mover.zero_grad()
    loss.backward()
    mover.step()


@torch.no_grad()
def note(seen: dict[str, list], maker: nn.Module, critic: nn.Module) -> None:
    cloud = maker(torch.randn(500, 4, generator=dice(62)))
    with torch.enable_grad():
        steepness = slope(critic, cloud)
    for name, value in (("cloud", cloud), ("slope", steepness), ("sparks", sparks_in_use(cloud))):
        seen[name].append(value)


# %% [markdown]
# Three games, one per loss, no penalty. (A few seconds.)

# %% tags=["nbval-ignore-output"]
games = {(kind, 0.0): play(kind) for kind in LOSSES}
for (kind, _), seen in games.items():
    print(f"{kind:>12}: {seen['sparks'][-1]:.1f} sparks in use, the critic's slope is {seen['slope'][-1]:.1f}")

# %% tags=["nbval-ignore-output"]
figure, axes = viz.figure(1, 2, width=9, height=2.9)
steps_shown = range(20, 301, 20)
for (kind, _), seen in games.items():
    axes[0].plot(steps_shown, seen["sparks"], color=COLOURS[kind], label=kind)
    axes[1].plot(steps_shown, seen["slope"], color=COLOURS[kind], label=kind)
axes[0].set(xlabel="step", title="sparks in use, of 8", ylim=(0, 8.4))
axes[1].set(xlabel="step", title="slope of the critic")
axes[0].legend(fontsize=8)
show(figure, "all three games use nearly all sparks; the slope grows in all, and runs away under Wasserstein's loss")

# %% [markdown]
# All three find the ring and spread over all of it (300 steps are too few to pull it into eight knots). But look at the
# critics. Their slopes grow and grow, and Wasserstein's runs away: nothing in its loss ever says "enough", so the
# cheapest way to a bigger difference is *bigger weights*. The slope is also the force that the generator feels, and this
# force multiplies. A VAE in whose loss such a number sits will feel it.
#
# ### Bug of the day
#
# It stands in published code of a video model under the name of WGAN-GP, "with gradient penalty, to keep the critic
# Lipschitz", and looks like this:


# %%
def wgan_gp_loss_as_published(real: Tensor, fake: Tensor) -> Tensor:
    """In our words, but line by line."""
    return 0.5 * (fake.mean() - real.mean())


g = dice(63)
real, fake = torch.randn(5, 1, 7, generator=g), torch.randn(5, 1, 7, generator=g)
print("is it what you wrote yourself?", torch.allclose(wgan_gp_loss_as_published(real, fake), wgan_d_loss(real, fake)))

# %% [markdown]
# It is. The penalty exists, in another function that this one never calls. The picture above had already told you: a
# critic with slope 1 was promised, and you measured more than 20. Names promise, measurements keep.
#
# ### Exercise 06.gradient_penalty (10 minutes)
#
# The theory wants a critic that is nowhere steeper than 1. Nobody can look everywhere, so look somewhere on the way
# from a made sample to a real one (Gulrajani et al. 2017): at $\hat x = \alpha\,x + (1 - \alpha)\,\tilde x$, one $\alpha$
# per sample. There, take the slope of the critic, one number per sample, and pay $(\|\nabla\| - 1)^2$. The critic has to
# *learn* from this, so the gradient itself must stay differentiable.


# %%
# exercise: 06.gradient_penalty
def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    """Mean over the batch of (slope - 1)², a scalar; no factor λ.

    real, fake (B, …), alpha (B,): the share of the real one. The critic's scores may have any shape: sum them.
    """
    ### BEGIN SOLUTION
    share = alpha.reshape(-1, *[1] * (real.ndim - 1))
    mixed = (share * real + (1 - share) * fake).requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
    return ((gradient.flatten(1).norm(dim=1) - 1) ** 2).mean()
    ### END SOLUTION


# %%
# hint("06.gradient_penalty")
check("06.gradient_penalty", gradient_penalty)

# %% [markdown] tags=["predict"]
# **Predict first.** The same three games again, from the same start and with the same dice, now with your penalty (times
# 0.3). What will the three slopes be after 300 steps? Which of the three losses changes most?
#
# *My guess: …*

# %% tags=["nbval-ignore-output"]
games |= {(kind, 0.3): play(kind, penalty=0.3) for kind in LOSSES}
print("                 sparks in use          slope of the critic")
print("              no penalty  penalty     no penalty  penalty")
for kind in LOSSES:
    without, with_penalty = games[kind, 0.0], games[kind, 0.3]
    numbers = [seen[name][-1] for name in ("sparks", "slope") for seen in (without, with_penalty)]
    print(f"{kind:>12}: {numbers[0]:9.1f} {numbers[1]:8.1f} {numbers[2]:14.1f} {numbers[3]:8.1f}")


# %% tags=["nbval-ignore-output"]
def as_film(clouds: list[Tensor], side: int = 48) -> Tensor:
    """Clouds of points as glowing pixels, (3, T, side, side) in [-1, 1]."""
    light = []
    for points in clouds:
        x, y = ((points / 1.5 + 1) / 2 * side).long().clamp(0, side - 1).unbind(1)
        light.append(torch.bincount(y * side + x, minlength=side**2).reshape(side, side))
    glow = 1 - torch.exp(-torch.stack(light) / 1.5)
    gold = torch.tensor([1.0, 0.85, 0.4])
    return 2 * rearrange(gold, "c -> c 1 1 1") * glow - 1


order = [(kind, penalty) for penalty in (0.0, 0.3) for kind in LOSSES]
viz.player(
    [as_film(games[one]["cloud"]) for one in order],
    [f"{kind}, {'penalty' if penalty else 'no penalty'}" for kind, penalty in order],
    columns=3,
    fps=4,
    scale=4,
    alt="a cloud of points gathers on the ring of the eight sparks",
)

# %% [markdown]
# <details><summary>What happened</summary>
#
# With the penalty all three slopes sit near 1, whatever the loss, and the clouds hardly differ any more: *most of what the
# famous names differ in is how they keep the critic's slope in check.* The hinge and the vanilla loss do it a little by
# themselves, because they lose interest in patches that are settled; Wasserstein's does not do it at all.
# </details>
#
# You will find tables on the web that give these losses stars for stability, quality and speed. Now you have one of
# your own, and you know how much one small game proves: not much, but it was measured.
#
# ### A collapse
#
# So far the games went well, because they were set up well: the critic has three turns for each turn of the generator, and
# no momentum. Be careless: one turn each, larger steps, and the momentum that all other trainings of this
# course use. What rings is a bell that you made yourself.


# %%
def alarm(sparks: float) -> str:
    return "ALARM" if sparks < 4 else "all is well"


# %% tags=["nbval-ignore-output"]
careless = play("Wasserstein", turns=1, momentum=0.5, rate=5e-3)
careful = games["Wasserstein", 0.3]
for step in (100, 200, 300):
    then = [seen["sparks"][step // 20 - 1] for seen in (careless, careful)]
    print(f"step {step}: careless {then[0]:.1f} sparks, {alarm(then[0])}; careful {then[1]:.1f}, {alarm(then[1])}")
rings = [sum(sparks < 4 for sparks in seen["sparks"]) for seen in (careless, careful)]
print(f"the alarm rang {rings[0]} times of 15 in the careless game, {rings[1]} times in the careful one")

# %% tags=["nbval-ignore-output"]
viz.player(
    [as_film(careless["cloud"]), as_film(careful["cloud"])],
    ["careless: the cloud hunts round the ring", "careful, with penalty"],
    fps=4,
    scale=4,
    alt="left, one lump of points wanders from spark to spark; right, the cloud settles on the whole ring",
)

# %% [markdown]
# The whole cloud sits on a spark or two. The critic learns that *there* is nothing but forgeries, the cloud flees to
# the next spark, and so round the ring. Momentum makes it worse: it keeps running to where the critic was pleased a
# moment ago. The cure is what the careful games had: let the critic lead, take smaller steps without momentum, keep its
# slope at 1.
#
# ## 5 · What a critic of pictures cannot see
#
# A film made of perfect frames is not yet a perfect film. Take the willow and **shuffle its frames**.

# %% tags=["nbval-ignore-output"]
mixed_up = torch.randperm(data.frames, generator=dice(65))
viz.player(
    [films[0], films[0][:, mixed_up]],
    ["the film", "its frames, shuffled"],
    fps=4,
    alt="the willow bursts and sinks; beside it the same frames flicker in no order",
)

# %% [markdown] tags=["predict"]
# **Predict first.** A critic of pictures gives every frame a map of scores. A critic of films has kernels in time too.
# Both are fresh, untrained. Whose mean score changes when the frames are shuffled? After training both to tell real films from
# shuffled ones, how often will each be right?
#
# *My guess: …*

# %%
with seeded_modules(seed):
    flat = NLayerDiscriminator2D(3, 8, 1, norm="group")
    deep = NLayerDiscriminator3D(3, 8, 2, norm="group", dropout=None)
some = films[:8]
for name, critic in (("2D", flat), ("3D", deep)):
    change = critic(some[:, :, mixed_up]).mean((1, 2, 3, 4)) - critic(some).mean((1, 2, 3, 4))
    print(f"{name}: shuffling changes a film's mean score: {bool(change.abs().max() > 1e-5)}")


# %%
def shuffled(clips: Tensor, g: torch.Generator) -> Tensor:
    """Every clip (B, C, T, H, W) with its frames in an order of its own."""
    return torch.stack([clip[:, torch.randperm(clip.shape[1], generator=g)] for clip in clips])


def train_on_order(critic: nn.Module, steps: int) -> float:
    """Teach a critic to tell films from shuffled ones; how often it prefers the film, on films it has not seen."""
    g, mover = dice(66), torch.optim.Adam(critic.parameters(), 3e-3, betas=(0.5, 0.9))
    for _ in range(steps):
        real = films[torch.randint(80, (8,), generator=g)]
        turn_of(mover, hinge_d_loss(critic(real), critic(shuffled(real, g))))
    unseen, again = films[80:], shuffled(films[80:], g)
    with torch.no_grad():
        better = critic(unseen).mean((1, 2, 3, 4)) - critic(again).mean((1, 2, 3, 4))
    return (better > 1e-5).float().mean().item()


# %% tags=["nbval-ignore-output"]
print(f"2D: prefers the film to its shuffled frames in {train_on_order(flat, 30):.0%} of cases")
print(f"3D: prefers the film to its shuffled frames in {train_on_order(deep, 60):.0%} of cases")

# %% [markdown]
# To the critic of pictures the two films are the *same set of frames*: their mean scores are equal, before training and after
# it, and no amount of training can change that. It never has a reason to prefer either. The critic of films
# sees frames *in order*, and learns within seconds that fireworks do not shrink back into their shells. (Its kernels have
# size 3 in time, and two strided layers. How many frames does one score see? Your `receptive_field` knows: more than the
# film has.)

# %%
print(
    "frames behind one score:", receptive_field((3, 3, 3, 3), (2, 2, 1, 1)), "; the package says", deep.receptive_field
)

# %% [markdown]
# This is why video VAEs are trained with a 3D PatchGAN, and why images, which have no order, keep their 2D one.
#
# ## 6 · Sharp
#
# Now the real thing: a decoder that must be soft, and a critic that forbids it. We go nearer to the sky, so that there
# is something to be out of focus. The decoder is told the picture *shrunk eight times per side*, which is 48 numbers
# instead of 3072, and gets dice for everything else. It is the decoder of lesson 03 in small, with an encoder that cannot be
# blamed for anything: plain averaging.


# %%
def near_skies(count: int, g: torch.Generator) -> Tensor:
    """Willows from nearby, two moments of each: (2 · count, 3, 32, 32)."""
    near = render([willow] * count, data.frames, 48, generator=g)[..., :32, :32]
    return rearrange(near[:, :, moment : moment + 2], "b c t h w -> (b t) c h w")


def layer(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.SiLU())


# %%
class Decoder(nn.Module):
    """A 4×4 summary of a picture and dice -> the picture, (B, 3, 32, 32)."""

    def __init__(self):
        super().__init__()
        up = nn.Upsample(scale_factor=2)
        self.body = nn.Sequential(layer(7, 48), layer(48, 48), up, layer(48, 48), up, layer(48, 24), up)
        self.last = nn.Conv2d(24, 3, 3, padding=1)

    def forward(self, picture: Tensor, luck: Tensor) -> Tensor:
        summary = 3 * F.avg_pool2d(picture, 8) + 2.5  # most of it is night: bring it to a size of about 1
        pixels = self.last(self.body(torch.cat([summary, luck], dim=1)))
        return torch.tanh(pixels - 1.5)  # an untrained decoder paints night


# %% [markdown]
# Two questions are left. **How loud** may the critic be? And **since when**?
#
# How loud: reconstruction and critic pull at the same weights with forces that differ by orders of magnitude, and that
# change as the training goes on. So do not guess a factor, measure it, at the one place through which every gradient passes: the last layer.
#
# ### Exercise 06.adaptive_weight (10 minutes)
#
# The factor that makes the critic pull as hard as the reconstruction: $\|\nabla\,\text{rec}\| \,/\, (\|\nabla\,\text{gan}\| +
# 10^{-4})$, clamped to $[0, 10^4]$ (Esser et al. 2021). It is a measured number, so nothing may flow back through it; and measuring must not
# disturb the training: both losses are needed afterwards, and no `.grad` may change.


# %%
# exercise: 06.adaptive_weight
def adaptive_weight(rec_loss: Tensor, gan_loss: Tensor, last_layer: Tensor) -> Tensor:
    """A detached 0-d tensor. rec_loss, gan_loss: scalars with a graph; last_layer: a weight in both graphs."""
    ### BEGIN SOLUTION
    (by_rec,) = torch.autograd.grad(rec_loss, last_layer, retain_graph=True)
    (by_gan,) = torch.autograd.grad(gan_loss, last_layer, retain_graph=True)
    return (by_rec.norm() / (by_gan.norm() + 1e-4)).clamp(0, 1e4).detach()
    ### END SOLUTION


# %%
# hint("06.adaptive_weight")
check("06.adaptive_weight", adaptive_weight)

# %% [markdown]
# ### Exercise 06.adopt_weight (2 minutes)
#
# Since when: a weight that is something else, mostly 0, before a given step.


# %%
# exercise: 06.adopt_weight
def adopt_weight(weight: float, step: int, threshold: int, value: float = 0.0) -> float:
    """`value` before step `threshold`, `weight` from that step on."""
    ### BEGIN SOLUTION
    return weight if step >= threshold else value
    ### END SOLUTION


# %%
# hint("06.adopt_weight")
check("06.adopt_weight", adopt_weight)

# %% [markdown]
# And which step? Everybody who trains a VAE-GAN asks, and the usual answer is a number that somebody else used: 50001, 10000, 2001.
# A critic that comes while the pictures are still fog has an easy life. It learns "fog", and drives the decoder
# away from fog in any direction, before the decoder knows what it is supposed to paint. So wait until the reconstruction *has stopped getting
# better*. That can be measured: look every 25 steps, and let the critic in when they brought less than a tenth.
# `CriticSwitch` in the package does just that, and it keeps an eye on what happens afterwards.


# %%
def one_step(
    decoder: Decoder, critic: nn.Module, movers: list, loudness: float, even: bool, g: torch.Generator
) -> tuple:
    """One step of training: reconstruction loss, and the critic's scores of real and made patches, or None."""
    real = sky_set[torch.randint(len(sky_set), (16,), generator=g)]
    fake = decoder(real, torch.randn(16, 4, 4, 4, generator=g))
    reconstruction = (fake - real).square().mean()
    if not loudness:
        turn_of(movers[0], reconstruction)
        return reconstruction.detach(), None
    scores, fake_scores = critic(real), critic(fake.detach())
    turn_of(movers[1], hinge_d_loss(scores, fake_scores))
    cost = blame("hinge", critic(fake))
    factor = adaptive_weight(reconstruction, cost, decoder.last.weight) if even else 1.0
    look = 0.1 * perceptual(fake, real).mean()
    turn_of(movers[0], reconstruction + look + loudness * factor * cost)
    return reconstruction.detach(), (scores.detach(), fake_scores.detach())


# %%
def teach(decoder: Decoder, steps: int, start: int | None = None, loudness: float = 0.5, even: bool = True) -> dict:
    """Train in place. start: the step at which the critic comes, None: when the switch says so."""
    seen, alarm, g, switch = {"loss": [], "picture": []}, None, dice(67), CriticSwitch(window=25, gain=0.1)
    with seeded_modules(seed):
        critic = NLayerDiscriminator2D(3, 16, 1, norm="group")
    movers = [torch.optim.Adam(net.parameters(), 2e-3, betas=(0.0, 0.9)) for net in (decoder, critic)]
    for step in range(steps):
        if step == start:
            switch.started.fill_(step)
            switch.at_start.copy_(switch.smooth if step else torch.tensor(SOFT))
        now = int(switch.started) if switch.is_on else steps
        loss, scores = one_step(decoder, critic, movers, adopt_weight(loudness, step, now), even, g)
        switch.watch(loss)
        if scores:
            switch.watch_critic(*scores)
        note_picture(seen, decoder, loss, step)
        alarm = alarm or switch.alarm()
    return seen | {"started": int(switch.started), "alarm": alarm}


# %%
sky_set, test_skies = near_skies(256, dice(68)), near_skies(8, dice(69))[::2]
test_luck = torch.randn(len(test_skies), 4, 4, 4, generator=dice(70))
print("to learn from:", tuple(sky_set.shape), " to look at:", tuple(test_skies.shape))


@torch.no_grad()
def note_picture(seen: dict[str, list], decoder: Decoder, loss: Tensor, step: int) -> None:
    """Keep the loss of each step, and every 20 steps what becomes of the first test sky."""
    seen["loss"].append(loss.item())
    if step % 20 == 19:
        seen["picture"].append(decoder(test_skies[:1], test_luck[:1])[0])


# %% [markdown]
# First without a critic, until the switch finds that nothing more is to be gained. (A few seconds.)

# %% tags=["nbval-ignore-output"]
with seeded_modules(seed):
    decoder = Decoder()
alone = teach(decoder, 225, loudness=0.0)
soft, SOFT = copy.deepcopy(decoder), sum(alone["loss"][-50:]) / 50
print(f"let in at step {alone['started']}; the reconstruction loss is {SOFT:.3f} by then")

# %% tags=["nbval-ignore-output"]
figure, ax = viz.figure(width=6.5, height=2.6)
ax.plot(alone["loss"], color=viz.NOISE, linewidth=1)
ax.axvline(alone["started"], color=viz.TIME, label="the switch: a window without gain")
ax.set(xlabel="step", ylabel="squared error", yscale="log")
ax.legend()
show(figure, "the error falls steeply, then is flat; a line marks where the switch lets the critic in")


# %% [markdown]
# ### Too loud
#
# Now a critic that shouts: no measured balance, thirty times its own loss, from this moment on. (Some seconds.)

# %% tags=["nbval-ignore-output"]
shouted_at = copy.deepcopy(soft)
loud = teach(shouted_at, 80, start=0, loudness=30.0, even=False)
print("alarm:", loud["alarm"])

# %% [markdown]
# That is the alarm of the package, and it measures what you care about: since the critic came, the *reconstruction* has
# become worse, by almost a third. (It names the setting of a real run that has to be lowered.) GAN losses themselves would have told you nothing, they
# go up and down in good games and in bad ones.
#
# ### As loud as the reconstruction
#
# The cure: your `adaptive_weight` measures the balance anew at every step, and the critic speaks half as loud as that. (Some twenty seconds.)

# %% tags=["nbval-ignore-output"]
sharp = copy.deepcopy(soft)
balanced = teach(sharp, 300, start=0, loudness=0.5)
print("alarm:", balanced["alarm"])

# %% [markdown]
# To be fair: from the moment the critic comes, `one_step` also adds a tenth of the perceptual distance, which keeps the
# colours honest. Which of the two does the work? The same again with a critic that may watch, but whose voice is turned
# down to nothing.

# %% tags=["nbval-ignore-output"]
only_looked = copy.deepcopy(soft)
watched = teach(only_looked, 300, start=0, loudness=1e-9)
print("alarm:", watched["alarm"])

# %% [markdown] tags=["predict"]
# **Predict first.** Against the *true* pictures of the test skies, which decoder has the smaller squared error, the
# soft one or the sharp one? And a real willow, but with other sparks?
#
# *My guess: …*


# %%
@torch.no_grad()
def report(name: str, pictures: Tensor) -> None:
    """Two distances to the true skies, and how much neighbouring pixels differ compared with the true ones."""
    edges = [(x[..., 1:] - x[..., :-1]).abs().mean() for x in (pictures, test_skies)]
    squared, seen = (pictures - test_skies).square().mean(), perceptual(pictures, test_skies).mean()
    print(f"{name:>18}: squared error {squared:.3f}   perceptual {seen:.2f}   detail {edges[0] / edges[1]:4.0%}")


# %% tags=["nbval-ignore-output"]
with torch.no_grad():
    made = {"soft": soft(test_skies, test_luck), "sharp": sharp(test_skies, test_luck)}
    made["perceptual only"] = only_looked(test_skies, test_luck)
    made["shouted at"] = shouted_at(test_skies, test_luck)
for name, pictures in made.items():
    report(name, pictures)
report("other real willows", test_skies.roll(2, 0))

# %% [markdown]
# That is worth a pause. The sharp decoder pays hardly more squared error than the soft one, it is far nearer to the
# network that has seen fireworks, and its pictures have nearly as much detail as real ones. The perceptual distance alone
# brings the pictures nearer, and leaves them almost as soft as they were: the *detail* is the critic's work. (A real
# willow with other sparks pays most of all. Our decoder keeps to the summary, and invents only what the summary leaves
# open.)

# %% tags=["nbval-ignore-output"]
rows = [test_skies, *made.values()]
strip = viz.filmstrip(
    [rearrange(row[:4], "n c h w -> c n h w").clamp(-1, 1) for row in rows],
    ["the truth", "before the critic", "after", "without its voice", "shouted at"],
    scale=4,
)
viz.picture(strip, "willows with rays; smooth balls; balls with streaks; balls again; flat-bottomed crowns")

# %% [markdown]
# Before and after, each pixel enlarged eight times. This is what "soft" was, and what the critic did about it:

# %% tags=["nbval-ignore-output"]
pair = torch.cat([made["soft"][:1], made["sharp"][:1]], dim=3).clamp(-1, 1)
strip = viz.filmstrip(rearrange(pair, "1 c h w -> c 1 h w"), "8 x 8 pixels each", scale=8)
viz.picture(strip, "on the left a smooth yellow ball, on the right one with rays and gaps")

# %% [markdown]
# And the way there, as a film: on the left the decoder under the critic, a picture every 20 steps, on the right the one
# that was shouted at.

# %% tags=["nbval-ignore-output"]
ways = [torch.stack(seen["picture"], dim=1).clamp(-1, 1) for seen in (balanced, loud)]
viz.player(
    ways,
    ["balanced", "too loud"],
    fps=4,
    scale=6,
    alt="a round glow grows edges and rays; beside it a glow falls apart",
)

# %% [markdown]
# ### Since when?
#
# And if we had not waited? A fresh decoder, with the critic beside it from the first step, for as long as the soft one
# had alone. (Some seconds.)

# %% tags=["nbval-ignore-output"]
with seeded_modules(seed):
    hasty_one = Decoder()
hasty = teach(hasty_one, 225, start=0, loudness=0.5)
print("mean squared error of steps 175 to 225")
print(f"  alone: {SOFT:.4f}   with the critic from the first step: {sum(hasty['loss'][-50:]) / 50:.4f}")

# %% [markdown]
# In this small world haste costs a few percent: the balance keeps the worst away. In big ones the same haste has cost people
# their training, and then the question is asked in vain at which step to begin, because the answer is not a step. It is
# a *state*: "the reconstruction has stopped getting better". The switch costs nothing, and it knows.
#
# ## 7 · The whole loss, and a term of your own
#
# A VAE is trained on the sum: reconstruction and perceptual distance, under a noise level that is learned as well, a
# little divergence, and the critic's part from the moment it is let in. In the package the first three are `VAELoss`. It
# does not care *what* measures the perceptual distance. Here is a distance that nobody has used before, plugged in without touching the
# package: it compares only how much neighbouring pixels differ.


# %%
class Detail(nn.Module):
    """Pictures (N, 3, H, W) -> how differently detailed they are, (N, 1, 1, 1)."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        detail_x, detail_y = ((p[..., 1:] - p[..., :-1]).abs().mean((1, 2, 3), keepdim=True) for p in (x, y))
        return (detail_x - detail_y).abs()


for name, distance in (("LPIPS", perceptual), ("Detail", Detail())):
    whole = package.VAELoss(perceptual_weight=1.0, perceptual=distance)
    parts = whole.terms(films[:2], films[2:4])
    print(f"{name:>6}: " + "  ".join(f"{term} {value.item():.1f}" for term, value in parts.items()))

# %% [markdown]
# Last, your functions against the package's, on scores and points that neither has seen:

# %%
g = dice(71)
real, fake, points, others = (torch.randn(9, 4, generator=g) for _ in range(4))
alpha, codes = torch.rand(9, generator=g), torch.randint(16, (40,), generator=g)
net = small_net(4, 1)
pairs = {
    "hinge_d_loss": (hinge_d_loss(real, fake), package.hinge_d_loss(real, fake)),
    "vanilla_d_loss": (vanilla_d_loss(real, fake), package.vanilla_d_loss(real, fake)),
    "wgan_d_loss": (wgan_d_loss(real, fake), package.wgan_d_loss(real, fake)),
    "gradient_penalty": [f(net, points, others, alpha) for f in (gradient_penalty, package.gradient_penalty)],
    "perplexity": (perplexity(codes, 16), package.measure_perplexity(codes, 16)[0]),
}
for name, (mine, theirs) in pairs.items():
    print(f"{name:>16}: equal {torch.allclose(mine, theirs, atol=1e-6)}")

# %% [markdown]
# ## Reflection
#
# In your own words, a sentence or two each (there is a cell below for it):
#
# 1. Why is the reconstruction soft? Say it to somebody who believes that the network is too small.
# 2. The sharp willow has the larger squared error. Which of the two would you rather have in front of a diffusion
#    model, and what would you tell a colleague who compares VAEs by PSNR alone?
# 3. The sparks that the critic brought back are not the sparks that were there. For which uses of a VAE does that matter?
# 4. What exactly did "WGAN-GP" promise, and how would you have noticed without reading the code?
# 5. Why is the balance measured at the *last* layer?

# %% [markdown]
# *My answers: …*

# %% [markdown]
# ## What comes next
#
# The wing of the VAE is finished: fewer numbers (03), causal in time (04), within memory (05), and sharp. What lives in those
# latents still has to be *dreamt up*. **Lesson 07 asks: what must a network know to clean a film?**
#
# **Where it lives:** `minivdm/vae/discriminator.py` has the critics, `critic_losses.py` the three losses, the penalty and the
# balance, `losses.py` the whole `VAELoss`, `lpips.py` the perceptual distance. `minivdm/training/critic_switch.py` lets the critic in
# and rings the alarm, when you run `minivdm train vae2d` with `--vae_loss.critic hinge`. Your functions that passed are kept in
# `workbook/`.
#
# **Read on:** Isola et al., *Image-to-Image Translation with Conditional Adversarial Networks* (2017), the PatchGAN. Zhang et al.,
# *The Unreasonable Effectiveness of Deep Features as a Perceptual Metric* (2018). Gulrajani et al., *Improved Training of
# Wasserstein GANs* (2017). Esser, Rombach and Ommer, *Taming Transformers* (2021), the adaptive weight. Blau and Michaeli, *The
# Perception-Distortion Tradeoff* (2018), on why sharp must cost squared error.
