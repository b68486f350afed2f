# %% [markdown]
# # 01 DDPM math: how do you destroy a film so gently that the damage can be learnt?
#
# A diffusion model makes films by running a destruction backwards. So before anything can be generated, something has
# to be destroyed, and with care: slowly, by a rule that is known exactly, and so that every film ends in the same
# place. This lesson builds that destruction. It needs no network and no training, only multiplication, addition and
# dice.
#
# When you are done you will have made
#
# - a firework that sinks into noise in a thousand small steps, each of them your own code;
# - a formula that says where any of the thousand steps leads, with measurements lying on it;
# - three noise schedules, and for each the moment at which it destroys the place, the colour and the shape of a
#   firework;
# - a reason, in nats, why these do not die together;
# - two faults found by measuring: a schedule in wide use that never finishes its work, and a sampler that leaves dirt.
#
# **Time:** about 1 minute of computing in all (preset `toy`, two CPU cores, no GPU, no network), and an afternoon of
# yours. Eight exercises, each with a check that says more than right or wrong, and with three hints: `hint("01.snr")`
# gives the idea, once more the equation, a third time the line.

# %% tags=["parameters"]
preset = "toy"
seed = 0
device = None  # None: the CPU, which is all that this lesson needs

# %%
import io
import math
import zlib
from dataclasses import replace

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import display
from PIL import Image
from torch import Tensor

from minivdm import viz
from minivdm.config import load_preset
from minivdm.course import check, hint
from minivdm.data.fireworks import COLOURS, COLUMNS, ROWS, SHAPES, Scene, Shell, render, sample_scenes
from minivdm.data.io import to_uint8
from minivdm.data.judge import attribute_accuracy
from minivdm.diffusion.schedules import rescale_zero_terminal_snr, scaled_linear_betas

# %%
data = load_preset(preset).data
torch.set_flush_denormal(True)  # fading light makes vanishing numbers, which slow a CPU down


def dice(number: int) -> torch.Generator:
    """Dice that always fall the same way: all chance in this lesson comes from numbered dice."""
    return torch.Generator().manual_seed(1000 * seed + number)


def show(picture, alt: str) -> None:
    """Display a plot or a strip of frames, with words for those who cannot see it."""
    if isinstance(picture, plt.Figure):
        picture.savefig(drawn := io.BytesIO(), format="png")
        picture = Image.open(drawn).convert("RGB").quantize(128)  # a plot has few colours; the file stays small
    picture.save(png := io.BytesIO(), "PNG", optimize=True)
    display(viz.picture(png.getvalue(), alt))
    plt.close("all")


# %% [markdown]
# ## The film
#
# One clip travels through all nine lessons: **a large gold willow, high on the left**. It comes from
# `minivdm.data.fireworks`, a small world of fireworks in which every clip knows what it shows. Today it is destroyed.
# In lesson 02 arithmetic brings it back, in lesson 07 a network dreams it, in lesson 09 you ask for it in words.


# %% tags=["nbval-ignore-output"]
def draw(scenes: list[Scene], number: int) -> Tensor:
    """Clips (B, 3, T, H, W) of these scenes; the dice `number` decide what the scenes leave open."""
    return render(scenes, data.frames, data.size, generator=dice(number))


willow = Shell(colour="gold", shape="willow", column="left", row="high", size="large")
film = draw([Scene((willow,))], 2)[0]
viz.player(film, fps=5, scale=6, alt="a spark climbs, bursts high on the left and sinks as a gold willow")

# %%
print("channels, frames, height, width:", tuple(film.shape))
print(f"{film.numel()} numbers from {film.min():.2f} to {film.max():.2f}")
print(f"mean {film.mean():.2f}, mean square {film.square().mean():.2f}")

# %% [markdown]
# To the computer the film is a list of numbers between −1 (black) and 1 (full red, green or blue). Most of them are
# night. Note the *mean square*: it says how loud the list is, and we shall call it the **power**. Black is loud too,
# since (−1)² = 1; it is the middle grey, 0, that is silent.
#
# ## Why not in one leap?
#
# Destroying is easy: throw the film away and put random numbers in its place. The trouble comes when someone has to
# undo it. Suppose a network sees nothing but noise and must name the film that was there. Whatever it answers, it is
# graded by the squared error, averaged over all films that could have been there. Which answer loses least?
#
# The average of all films. (For a guess $g$, the expected loss $\mathbb E\,(g - x)^2$ is a parabola in $g$ with its
# lowest point at $g = \mathbb E\,x$.) Let us look at that best answer. We render an album of 4,096 films and put our
# own in as number 0. (About 5 seconds.)

# %%
album_scenes = [Scene((willow,)), *sample_scenes(4095, generator=dice(3))]
album = torch.cat([film[None], draw(album_scenes[1:], 4)])
average = album.mean(dim=0)
print("album:", tuple(album.shape))

# %% tags=["nbval-ignore-output"]
viz.player(
    [*album[:4], average, (4 * (average + 1) - 1).clamp(-1, 1)],
    labels=["our film", "another", "another", "another", "their average", "average, 4 × light"],
    fps=5,
    alt="fireworks; the average of 4096 films is a haze of six faint spots",
)

# %% [markdown]
# The best answer to an impossible question is a haze: six faint spots, one for every place where a shell may burst,
# and no firework anywhere. A network that must leap from noise to film in one go can learn nothing better.
#
# So do not ask for the leap. Destroy the film in many steps, each so small that hardly anything is lost in it. Then
# every step back asks a small question, *what was here a moment ago?*, and small questions have sharp answers. That
# is the idea of diffusion. What is left is to choose the step.
#
# ## The obvious step, and what it does
#
# Two recipes come to mind for a small step with a share $\beta = 0.02$ of noise. ($\varepsilon$ stands for fresh
# standard normal numbers, one for each number of the film: mean 0, variance 1.)
#
# - **add**: $x \leftarrow x + \sqrt\beta\,\varepsilon$, just pour noise on;
# - **mix**: $x \leftarrow (1-\beta)\,x + \beta\,\varepsilon$, as one mixes paint, 98 parts film and 2 parts noise.

# %%
share = 0.02
recipes = {
    "add": lambda x, noise: x + share**0.5 * noise,
    "mix": lambda x, noise: (1 - share) * x + share * noise,
}


def repeat(step, x: Tensor, times: int) -> Tensor:
    """Take `times` steps from x, each with fresh noise."""
    fresh = dice(5)
    for _ in range(times):
        x = step(x, torch.randn(x.shape, generator=fresh))
    return x


# %% [markdown] tags=["predict"]
# **Predict first.** What will be on the screen after 300 steps of *add*, and after 300 steps of *mix*: the film, the
# film with some noise, strong noise, or something else? Write down a sentence for each before you run the next cell.
#
# *My guess: …*

# %% tags=["nbval-ignore-output"]
MOMENT = 6  # the frame that stands for the film in strips: the willow at its widest


def strip(rows: dict[str, list[Tensor]], titles: list[str], scale: int = 3):
    """One row per name, one frame per film."""
    frames = [torch.stack([one[:, MOMENT] for one in films], dim=1) for films in rows.values()]
    return viz.filmstrip(frames, labels=list(rows), titles=titles, scale=scale)


counts = [0, 10, 30, 100, 300]
fates = {name: [repeat(step, film, n) for n in counts] for name, step in recipes.items()}
show(strip(fates, [f"{n} steps" for n in counts]), "add ends in glare, mix in an even grey")

# %%
for name, films in fates.items():
    for n, x in zip(counts, films, strict=True):
        print(f"{name} after {n:3d} steps: mean {x.mean():5.2f}, power {x.square().mean():5.2f}")

# %% [markdown]
# *Add* runs away: its power grows by β with every step, without end, until the numbers leave the range that any
# network could be tuned to.
#
# *Mix* does the opposite. The film fades and the noise never comes: **everything turns grey**. Grey is what you get
# from mixing paint.
#
# <details><summary>Why does the noise not build up when we mix?</summary>
#
# Because independent noises partly cancel. Every step brings noise of *standard deviation* β, that is of power β² =
# 0.0004, while the power that is there shrinks by (1 − β)² = 0.96. Where the two balance, P = (1 − β)² P + β², the
# power is P = β / (2 − β) = 0.0101.
# </details>
#
# ## The repair: keep the power
#
# Let a step be $x' = a\,x + b\,\varepsilon$, and ask for its power. The noise is drawn independently of $x$ and has
# mean 0, so the mixed term vanishes:
#
# $$\mathbb E\,x'^2 \;=\; a^2\,\mathbb E\,x^2 + 2ab\,\underbrace{\mathbb E\,x\;\mathbb E\,\varepsilon}_{0} +
# b^2\,\underbrace{\mathbb E\,\varepsilon^2}_{1} \;=\; a^2\,\mathbb E\,x^2 + b^2 .$$
#
# Power 1 stays power 1 exactly when $a^2 + b^2 = 1$. It is the *squares* that must add up to one, not the factors.
# Give the noise the share $b^2 = \beta$ of the power, leave the film the rest, $a^2 = 1 - \beta$, and you have the
# step of DDPM (Ho, Jain and Abbeel, 2020):
#
# $$x_t = \sqrt{1-\beta}\;x_{t-1} + \sqrt{\beta}\;\varepsilon .$$
#
# ### Exercise 01.noise_one_step (2 minutes)


# %%
# exercise: 01.noise_one_step
def noise_one_step(x_prev: Tensor, beta: float | Tensor, noise: Tensor) -> Tensor:
    """One step of the forward process: x_t from x_{t-1}.

    x_prev, noise: tensors of one shape. beta: the share of the power that becomes noise, a float or a 0-d tensor.
    """
    ### BEGIN SOLUTION
    return (1 - beta) ** 0.5 * x_prev + beta**0.5 * noise
    ### END SOLUTION


# %%
# hint("01.noise_one_step")
check("01.noise_one_step", noise_one_step)

# %% [markdown]
# Your step beside the other two. Each panel is a histogram of all the numbers of the film: before, during and after.

# %% tags=["nbval-ignore-output"]
recipes["yours"] = lambda x, noise: noise_one_step(x, share, noise)
figure, panels = viz.figure(1, 3, width=9, height=2.8)
for panel, (name, step) in zip(panels, recipes.items(), strict=True):
    for n, colour in ((0, viz.DATA), (30, viz.TIME), (300, viz.NOISE)):
        values = repeat(step, film, n).flatten()
        panel.hist(values, bins=120, range=(-6, 6), density=True, histtype="step", color=colour, label=f"{n} steps")
    panel.set(title=name, xlabel="value of a pixel", yscale="log", ylim=(1e-3, 60))
panels[0].set_ylabel("density")
panels[2].legend(loc="upper right", fontsize=8)
show(figure, "add grows ever wider, mix shrinks to a needle at 0, yours becomes a bell")

# %%
for name, step in recipes.items():
    x = repeat(step, film, 300)
    print(f"{name:5s} after 300 steps: mean {x.mean():5.2f}, power {x.square().mean():4.2f}")

# %% [markdown]
# Three fates of the same spike of night near −1. *Add* smears it ever wider, *mix* gathers everything at 0, and your
# step turns it into a bell of width 1 and leaves it there: another thousand steps would not change it.
#
# ## A thousand small steps
#
# How many steps, and how large? DDPM takes $N = 1000$ and lets $\beta$ grow evenly from $10^{-4}$ to $0.02$: tiny
# steps while there is fine detail to lose, larger ones when there is only noise left to stir. The list $\beta_0,
# \dots, \beta_{N-1}$ is called a **schedule**.
#
# One convention, kept in the whole course: **x0 is the clean film, and steps are counted from t = 0**. So "$x_t$ at
# $t = 0$" has been noised once already and is not x0. An unlucky clash of names, but a common one.
#
# ### Exercise 01.linear_betas (2 minutes)


# %%
# exercise: 01.linear_betas
def linear_betas(num_steps: int, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """The schedule of DDPM (num_steps,), float64: evenly spaced from `start` to `end`, both included."""
    ### BEGIN SOLUTION
    return torch.linspace(start, end, num_steps, dtype=torch.float64)
    ### END SOLUTION


# %%
# hint("01.linear_betas")
check("01.linear_betas", linear_betas)

# %% [markdown]
# ### Exercise 01.noise_chain (3 minutes)
#
# Now all the steps, one after the other. The noises come in from outside, one for each step, so that the same noises
# always make the same ruin.


# %%
# exercise: 01.noise_chain
def noise_chain(x0: Tensor, betas: Tensor, noises: Tensor) -> Tensor:
    """x after all N steps from the clean x0. betas (N,); noises (N, ...), one of x0's shape for each step."""
    ### BEGIN SOLUTION
    x = x0
    for beta, noise in zip(betas, noises, strict=True):
        x = noise_one_step(x, beta, noise)
    return x
    ### END SOLUTION


# %%
# hint("01.noise_chain")
check("01.noise_chain", noise_chain)

# %% [markdown]
# The first of the thousand steps is as gentle as promised. A screen shows 256 levels of brightness; one level is
# 2/255 of our range.

# %%
betas = linear_betas(1000)
noises = torch.randn(1000, *film.shape, generator=dice(6))
change = noise_chain(film, betas[:1], noises[:1]) - film
print(f"the first step moves pixels by {change.std() * 255 / 2:.1f} of 256 levels (standard deviation)")

# %% [markdown]
# And here is the film after 0, 50, 150, 300, 500 and 1000 of your steps. Watch what you can still tell: the trails,
# the colour, the place.

# %% tags=["nbval-ignore-output"]
stops = [0, 50, 150, 300, 500, 1000]
states = [noise_chain(film, betas[:n], noises[:n]) for n in stops]
viz.player(states, labels=[f"{n} steps" for n in stops], fps=5, alt="the willow sinks into coloured noise")

# %% [markdown]
# ## Where do the steps lead? Measure first
#
# A thousand steps, each with its own throw of the dice: can we say anything about where they end? Pick two numbers of
# the film, one in a bright star and one in the night sky, and let each of them live 10,000 lives. In every life the
# dice fall differently. After every step we write down the mean and the variance over all lives.

# %%
star, sky = film[0].max(), film[2].min()
lives = torch.stack([star, sky])[:, None].expand(2, 10_000)
fresh, means, variances, paths = dice(7), [], [], []
for beta in betas:
    lives = noise_one_step(lives, beta, torch.randn(lives.shape, generator=fresh))
    means.append(lives.mean(dim=1))
    variances.append(lives.var(dim=1))
    paths.append(lives[:, :3])
means, variances, paths = torch.stack(means), torch.stack(variances), torch.stack(paths)


# %% tags=["nbval-ignore-output"]
def draw_measurements() -> tuple:
    """Mean and variance over 10,000 lives at every 50th step, for the star and for the sky."""
    figure, (left, right) = viz.figure(1, 2, width=9, height=3)
    when = torch.arange(49, 1000, 50)
    for pixel, name, colour, marker in ((0, "star", viz.DATA, "o"), (1, "sky", viz.SPACE, "s")):
        left.plot(paths[:, pixel], color=colour, alpha=0.25, linewidth=0.5)
        left.plot(when, means[when, pixel], marker, color=colour, markersize=4, label=name)
        right.plot(when, variances[when, pixel], marker, color=colour, markersize=4, label=name)
    left.set(title="mean of 10,000 lives (thin lines: three lives each)", xlabel="t", ylim=(-2, 2))
    right.set(title="variance over the lives", xlabel="t", ylim=(0, 1.1))
    left.legend(loc="upper right")
    return figure, left, right


figure, left, right = draw_measurements()
show(figure, "both means glide to 0, both variances rise from 0 to 1")

# %% [markdown]
# Single lives stagger about, but the dots are orderly. Both means glide to 0. The two variances rise to 1, and they
# rise *together*, as if the steps did not know which number they were noising. There must be a formula. Write
# $\alpha_t = 1-\beta_t$ and follow the first two steps:
#
# $$x_{t=0} = \sqrt{\alpha_0}\;x_0 + \sqrt{1-\alpha_0}\;\varepsilon_0$$
#
# $$x_{t=1} = \sqrt{\alpha_1}\;x_{t=0} + \sqrt{1-\alpha_1}\;\varepsilon_1 =
# \sqrt{\alpha_1\alpha_0}\;x_0 + \underbrace{\sqrt{\alpha_1(1-\alpha_0)}\;\varepsilon_0 +
# \sqrt{1-\alpha_1}\;\varepsilon_1}_{\text{two independent noises}}$$
#
# Independent Gaussian noises add up to Gaussian noise, and their variances add: $\alpha_1(1-\alpha_0) + (1-\alpha_1)
# = 1-\alpha_0\alpha_1$. So two steps look just like one step, with $\alpha_0\alpha_1$ in place of $\alpha_0$. The
# third step repeats the argument, and so on to the thousandth. With the running product
#
# $$\bar\alpha_t = \alpha_0\,\alpha_1\cdots\alpha_t \qquad\text{(say "alpha bar")}$$
#
# it all fits on one line:
#
# $$q(x_t \mid x_0) = \mathcal N\big(\text{mean } \sqrt{\bar\alpha_t}\;x_0,\;\; \text{variance } 1-\bar\alpha_t\big).$$
#
# ### Exercise 01.alphas_cumprod (2 minutes)


# %%
# exercise: 01.alphas_cumprod
def alphas_cumprod(betas: Tensor) -> Tensor:
    """ᾱ (N,): the share of the film's power that is left after each step. betas (N,)."""
    ### BEGIN SOLUTION
    return torch.cumprod(1 - betas, dim=0)
    ### END SOLUTION


# %%
# hint("01.alphas_cumprod")
check("01.alphas_cumprod", alphas_cumprod)

# %% [markdown]
# Now the moment of truth. The dots were made by a thousand calls of your `noise_one_step`; the curves come from your
# `alphas_cumprod`, which has never seen a die.

# %% tags=["nbval-ignore-output"]
abar = alphas_cumprod(betas)
figure, left, right = draw_measurements()
left.plot(abar.sqrt() * star, color=viz.INK, label="√ᾱ · x0")
left.plot(abar.sqrt() * sky, color=viz.INK)
right.plot(1 - abar, color=viz.INK, label="1 − ᾱ")
left.legend(loc="upper right")
right.legend(loc="lower right")
show(figure, "the formula's curves pass through all the measured dots")

# %% [markdown]
# The curves pass through the dots, and no dot was used to make them. How near should they pass? A mean over 10,000
# lives is itself uncertain, by one standard error $\sqrt{(1-\bar\alpha_t)/10000}$. If the formula is right, about 95
# % of the dots lie within two of these. (Neighbouring dots share most of their past, so they tend to err together.)

# %%
standard_error = ((1 - abar) / 10_000).sqrt()
off = (means - abar.sqrt()[:, None] * torch.stack([star, sky])) / standard_error[:, None]
dots = off[49::50].abs().flatten()
print(f"{int((dots < 2).sum())} of {len(dots)} dots lie within 2 standard errors; the worst is off by {dots.max():.1f}")

# %% [markdown]
# ### Proof: a thousand steps are one jump
#
# Measurements convince, but we can be stricter. Unroll the chain, and see with which weight $w_i$ each single noise
# $\varepsilon_i$ arrives at step $t$. It enters with $\sqrt{\beta_i}$, and every later step shrinks it by its
# $\sqrt{\alpha}$, together by $\sqrt{\bar\alpha_t/\bar\alpha_i}$:
#
# $$x_t = \sqrt{\bar\alpha_t}\;x_0 + \sum_{i \le t} w_i\,\varepsilon_i, \qquad
# w_i = \sqrt{\beta_i\,\bar\alpha_t/\bar\alpha_i}\,, \qquad \sum_{i \le t} w_i^2 = 1-\bar\alpha_t .$$
#
# Both claims can be checked on the film itself, with the very noises that your chain used.

# %%
weights = (betas * abar[-1] / abar).sqrt()
one_jump = abar[-1].sqrt() * film + torch.einsum("n,ncthw->cthw", weights.to(noises.dtype), noises)
print("chain and jump agree to 5 decimals:", bool((states[-1] - one_jump).abs().max() < 1e-5))
print(f"sum of squared weights {weights.square().sum():.12f}")
print(f"1 − ᾱ                  {1 - abar[-1]:.12f}")

# %% [markdown]
# Equal in all twelve digits. A thousand steps *are* one jump, whose single noise is a weighted sum of a thousand.
# This is what will make training affordable: nobody has to walk 700 steps to see a film at step 700. From here on we
# jump.


# %%
def jump(x0: Tensor, alpha_bar: Tensor, noise: Tensor) -> Tensor:
    """x_t from the clean x0 in one go; alpha_bar a 0-d tensor. (In lesson 02 you write it for a whole batch.)"""
    return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise


# %% [markdown]
# The weights tell one more thing. Which of the thousand noises do you really see at the end?

# %% tags=["nbval-ignore-output"]
figure, panel = viz.figure(width=7, height=2.6)
for t, style in ((249, ":"), (499, "--"), (999, "-")):
    panel.plot(betas[: t + 1] * abar[t] / abar[: t + 1], style, color=viz.NOISE, label=f"in the film at t = {t}")
panel.set(xlabel="step i at which the noise came in", ylabel="its share of the power")
panel.legend(loc="upper left")
show(figure, "shares grow steeply towards the latest steps")

# %% [markdown]
# The latest. Noise fades just as the film fades, and at $t = 999$ the dice of the first 600 steps together make 0.2 %
# of the power. A diffusing film forgets its own past: that is how all films come to end in the same place.
#
# ## Schedules: how fast to destroy
#
# Everything now hangs on one curve, $\bar\alpha$. Is the linear schedule a good one?

# %% [markdown] tags=["predict"]
# **Predict first.** Somebody has no patience and takes 100 steps instead of 1000: `linear_betas(100)`, from the same
# `start` to the same `end`. How much of the film's power is left after the last step: none, one hundredth, or one
# third? Will you see the willow?
#
# *My guess: …*

# %% tags=["nbval-ignore-output"]
lasts = {n: alphas_cumprod(linear_betas(n))[-1] for n in (100, 300, 1000)}
viz.player(
    [jump(film, last, noises[0]) for last in lasts.values()],
    labels=[f"after all of N = {n}" for n in lasts],
    fps=5,
    alt="after 100 steps the willow is plain to see, after 300 barely, after 1000 not at all",
)

# %%
for n, last in lasts.items():
    print(f"N = {n:4d}: {last:.2g} of the power is left, {last.sqrt():.2g} of the brightness")

# %% [markdown]
# <details><summary>Why so much?</summary>
#
# $\log\bar\alpha = \sum\log(1-\beta_i) \approx -\sum\beta_i$, which is $N$ times the mean $\beta$ of about 0.01: for
# $N = 100$ that is $-1$, and $e^{-1}$ is 0.37; for $N = 1000$ it is $-10$. The numbers 0.0001 and 0.02 were chosen
# for a thousand steps and do not adapt themselves.
# </details>
#
# Better to say first what should be *left*, and to work out the steps from that. The **cosine schedule** (Nichol and
# Dhariwal, 2021) draws $\bar\alpha$ as a squared cosine, flat at both ends and steady in between:
#
# $$f(i) = \cos^2\!\Big(\frac{i/N + s}{1+s}\cdot\frac{\pi}{2}\Big),\qquad
# \bar\alpha_t = \frac{f(t+1)}{f(0)},\qquad \beta_t = 1 - \frac{f(t+1)}{f(t)} .$$
#
# The offset $s = 0.008$ keeps the first steps from being uselessly small. At the last step $f$ reaches 0, which would
# make $\beta$ exactly 1; it is cut off at 0.9999.
#
# ### Exercise 01.cosine_betas (8 minutes)


# %%
# exercise: 01.cosine_betas
def cosine_betas(num_steps: int, s: float = 0.008) -> Tensor:
    """The cosine schedule (num_steps,), computed in float64 and clamped to [0, 0.9999]."""
    ### BEGIN SOLUTION
    i = torch.arange(num_steps + 1, dtype=torch.float64)
    f = torch.cos((i / num_steps + s) / (1 + s) * math.pi / 2) ** 2
    return (1 - f[1:] / f[:-1]).clamp(0, 0.9999)
    ### END SOLUTION


# %%
# hint("01.cosine_betas")
check("01.cosine_betas", cosine_betas)

# %% [markdown]
# A third schedule comes from latent diffusion and Stable Diffusion: there $\sqrt\beta$ grows evenly, from
# $\sqrt{0.00085}$ to $\sqrt{0.012}$. It is called *scaled linear*, and we take it from `minivdm.diffusion.schedules`,
# where your two live as well.

# %% tags=["nbval-ignore-output"]
schedules = {"linear": betas, "cosine": cosine_betas(1000), "scaled linear": scaled_linear_betas(1000)}
abars = {name: alphas_cumprod(schedule) for name, schedule in schedules.items()}
STYLE = {"linear": "-", "cosine": "--", "scaled linear": ":"}
figure, (left, right) = viz.figure(1, 2, width=9, height=2.8)
for name in schedules:
    left.plot(schedules[name], STYLE[name], color=viz.NOISE, label=name)
    right.plot(abars[name], STYLE[name], color=viz.DATA, label=name)
left.set(title="β: the share that each step destroys", xlabel="t", yscale="log")
right.set(title="ᾱ: the share of the film that is left", xlabel="t")
left.legend()
right.legend()
show(figure, "ᾱ falls early for linear, later for scaled linear, last for cosine")

# %% [markdown]
# The same film and the same noise under three schedules. Where do *you* lose the shape? The colour? The place?

# %% tags=["nbval-ignore-output"]
times = [0, 100, 200, 300, 400, 500, 600, 700, 800, 999]
ruins = {name: [jump(film, curve[t], noises[0]) for t in times] for name, curve in abars.items()}
show(strip(ruins, [f"t = {t}" for t in times], scale=2), "linear loses the willow near t = 400, the others later")


# %% tags=["nbval-ignore-output"]
def show_slider() -> None:
    """The film at any t under any schedule. Needs a running notebook; the strip above is the same, standing still."""
    screen = widgets.Image(format="png")
    clock = widgets.IntSlider(value=300, min=0, max=999, description="t", layout={"width": "500px"})
    menu = widgets.Dropdown(options=list(abars), description="schedule")

    def redraw(_=None) -> None:
        ruin = jump(film, abars[menu.value][clock.value], noises[0])
        viz.filmstrip(ruin, moments=6, scale=3).save(png := io.BytesIO(), "PNG")
        screen.value = png.getvalue()

    for control in (clock, menu):
        control.observe(redraw, "value")
    redraw()
    bundle = widgets.VBox([menu, clock, screen])._repr_mimebundle_()
    display(bundle | {"text/plain": "(Run this cell to move the slider.)"}, raw=True)


show_slider()

# %% [markdown]
# ## Signal and noise
#
# Three schedules are three clocks. To compare what they do we need a measure that knows no clock: how much louder
# than the noise is the film? The film arrives at step $t$ with the share $\bar\alpha_t$ of its power, the noise with
# $1-\bar\alpha_t$. Their ratio is the **signal-to-noise ratio**
#
# $$\mathrm{SNR}(t) = \frac{\bar\alpha_t}{1-\bar\alpha_t} .$$
#
# ### Exercises 01.snr (1 minute) and 01.first_noisy_step (3 minutes)


# %%
# exercise: 01.snr
def snr(alphas_cumprod: Tensor) -> Tensor:
    """ᾱ / (1 − ᾱ) for each step: a plain ratio of powers, not decibels."""
    ### BEGIN SOLUTION
    return alphas_cumprod / (1 - alphas_cumprod)
    ### END SOLUTION


# %%
# hint("01.snr")
check("01.snr", snr)


# %%
# exercise: 01.first_noisy_step
def first_noisy_step(alphas_cumprod: Tensor) -> int:
    """The smallest t at which the film is quieter than the noise, SNR(t) < 1; N when there is none."""
    ### BEGIN SOLUTION
    return int((snr(alphas_cumprod) >= 1).sum())
    ### END SOLUTION


# %%
# hint("01.first_noisy_step")
check("01.first_noisy_step", first_noisy_step)

# %% tags=["nbval-ignore-output"]
figure, panel = viz.figure(width=7, height=2.8)
for name, curve in abars.items():
    panel.plot(snr(curve), STYLE[name], color=viz.DATA, label=name)
    panel.plot(first_noisy_step(curve), 1, "o", color=viz.NOISE)
panel.axhline(1, color=viz.NOISE, linewidth=0.8)
panel.set(yscale="log", ylim=(1e-6, 1e5), xlabel="t", ylabel="SNR")
panel.legend()
show(figure, "SNR falls; cosine plunges at the very end, scaled linear stops near 0.005")

# %%
for name, curve in abars.items():
    print(f"{name:14s} noise is louder from t = {first_noisy_step(curve)}; SNR at the end {snr(curve)[-1]:.1e}")

# %% [markdown]
# Keep the last column in mind. Cosine ends at next to nothing, linear at 4 parts in 100,000. Scaled linear ends at
# nearly half a percent of the power, which is 7 % of the brightness. We shall come back to that.
#
# ## When does the information die?
#
# At $t = 500$ the linear schedule has an SNR of 0.08: in every pixel the noise is more than three times as strong as
# the film. But nobody looks at a single pixel. A film has 27,648 numbers, and what they have in common may survive
# long after each of them is lost. So it depends on *what*: the place of the burst, its colour, or its shape.
#
# In the world of fireworks this can be measured. The **judge** (`minivdm.data.judge`) is a small network that was
# trained to read place, colour and shape from clips under every amount of noise. We give it 384 fresh clips, noised
# more and more, and count how often it is right. It always answers, so on pure noise it can only guess: 1 in 6 for
# place and shape, 1 in 8 for colour. (About 10 seconds.)

# %% [markdown] tags=["predict"]
# **Predict first.** Place, colour, shape: which dies first on the way down, and which last? Go back to the slider,
# and note for the linear schedule the three values of $t$ at which *you* lose them.
#
# *My guess: first … at t = …, then … at t = …, last … at t = …*

# %%
CHANCE = {"place": 1 / 6, "colour": 1 / 8, "shape": 1 / 6}
fresh_scenes = sample_scenes(384, generator=dice(8))
clips = draw(fresh_scenes, 9)
clip_noise = torch.randn(clips.shape, generator=dice(10))
levels = torch.logspace(-4, 1.5, 16, dtype=torch.float64)  # signal-to-noise ratios
answers = [attribute_accuracy(jump(clips, ratio / (1 + ratio), clip_noise), fresh_scenes) for ratio in levels]

# %% [markdown]
# We noised by SNR and not by $t$. Since $\bar\alpha = \mathrm{SNR}/(1+\mathrm{SNR})$, the ratio fixes the whole
# mixture, and a schedule only decides *when* each ratio comes. So one measurement serves all three schedules, and
# your `snr` translates. To compare six possible answers with eight we draw the share that is read **above chance**: 1
# is always right, 0 is no better than guessing.


# %%
def above_chance(accuracy: float, name: str) -> float:
    """1 when everything is read, 0 when guessing would do as well."""
    return (accuracy - CHANCE[name]) / (1 - CHANCE[name])


def over_time(measured: Tensor, curve: Tensor) -> np.ndarray:
    """Values measured at `levels`, as a schedule meets them: (N,), straight lines between levels in log SNR."""
    return np.interp(snr(curve).log10(), levels.log10(), measured)


judged = {name: torch.tensor([above_chance(answer[name], name) for answer in answers]) for name in CHANCE}


# %% tags=["nbval-ignore-output"]
PAINT = {"place": viz.SPACE, "colour": "#B8860B", "shape": viz.INK}


def draw_readings(readings: dict[str, tuple[str, dict[str, Tensor]]]):
    """One panel per schedule. readings: who reads -> (line style, attribute -> values at `levels`)."""
    figure, panels = viz.figure(1, 3, width=9, height=3.2)
    for panel, (schedule, curve) in zip(panels, abars.items(), strict=True):
        for who, (style, values) in readings.items():
            for name in CHANCE:
                panel.plot(over_time(values[name], curve), style, color=PAINT[name], label=f"{name}, {who}")
        panel.set(title=schedule, xlabel="t", ylim=(-0.05, 1.05))
    panels[0].set_ylabel("read, above chance")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8)
    return figure


show(draw_readings({"judge": ("-", judged)}), "three falling curves per schedule; place falls last")


# %% tags=["nbval-ignore-output"]
def half_life(measured: Tensor, curve: Tensor) -> int:
    """The t at which less than half is read above chance, to the nearest ten; 1000 when that never happens."""
    return round(int((over_time(measured, curve) >= 0.5).sum()), -1)


for schedule, curve in abars.items():
    print(f"{schedule:14s} half is lost of the", ", ".join(f"{n} at t = {half_life(judged[n], curve)}" for n in CHANCE))

# %% [markdown]
# The shape dies first, then the colour, and the place dies last, under every schedule. What differs is the timing. By
# $t = 700$ the linear schedule has killed shape and colour, by $t = 900$ the place as well: its last hundred steps
# stir what is dead already. Cosine spreads the dying over more of its steps. And look where the curves of scaled
# linear *stop*: after its last step the place can still be read in part of the clips. Remember its SNR.
#
# ## Does the judge give up, or is the information gone?
#
# A network that fails to read proves little: a better one might succeed. So let us build a reader that *cannot* be
# beaten. Suppose the world held just the 4,096 films of our album, all equally likely. Then Bayes' rule says how
# probable each of them is, given a noisy film: the nearer $\sqrt{\bar\alpha_t}\;x_k$ lies to $x_t$, the more probable
# is film $k$,
#
# $$P(\text{film } k \mid x_t) \;\propto\; \exp\Big(\!-\frac{\lVert x_t - \sqrt{\bar\alpha_t}\;x_k\rVert^2}
# {2\,(1-\bar\alpha_t)}\Big).$$
#
# To read the colour, add up the probabilities of all films of each colour, and name the colour with the largest sum.
# In this small world no network and no person can be right more often. Multiply the square out, put in $x_t =
# \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon$, drop what is the same for all $k$, and the exponent
# becomes
#
# $$\mathrm{SNR}\cdot\langle x_0, x_k\rangle + \sqrt{\mathrm{SNR}}\cdot\langle\varepsilon, x_k\rangle -
# \tfrac12\,\mathrm{SNR}\cdot\lVert x_k\rVert^2 .$$
#
# The clock has dropped out; only the SNR is left. Two large matrix products serve every step of every schedule.
# (About 5 seconds.)

# %%
centred = (album - average).flatten(1)  # only differences count, and smaller numbers keep more digits
film_products = centred[:384] @ centred.T  # the first 384 films of the album are to be read
noise_products = clip_noise.flatten(1) @ centred.T
squares = centred.square().sum(dim=1)


def beliefs(ratio: float) -> Tensor:
    """(384, 4096): how probable each film of the album is, for each noised film, at this signal-to-noise ratio."""
    exponent = ratio * film_products + ratio**0.5 * noise_products - 0.5 * ratio * squares
    return exponent.double().softmax(dim=1)


# %%
def attribute(scene: Scene, name: str) -> str:
    shell = scene.shells[0]
    return f"{shell.column} {shell.row}" if name == "place" else getattr(shell, name)


def bayes_accuracy(belief: Tensor, name: str) -> float:
    """Share of films whose attribute wins when the probabilities of all films that have it are added up."""
    values = sorted({attribute(scene, name) for scene in album_scenes})
    has = torch.tensor([values.index(attribute(scene, name)) for scene in album_scenes])
    sums = torch.zeros(len(belief), len(values), dtype=belief.dtype).index_add_(1, has, belief)
    return float((sums.argmax(dim=1) == has[: len(belief)]).double().mean())


every_belief = [beliefs(float(ratio)) for ratio in levels]
exact = {name: torch.tensor([above_chance(bayes_accuracy(b, name), name) for b in every_belief]) for name in CHANCE}

# %% tags=["nbval-ignore-output"]
show(draw_readings({"Bayes": ("-", exact), "judge": (":", judged)}), "Bayes reads a little longer than the judge")

# %%
for schedule, curve in abars.items():
    print(f"{schedule:14s} half is lost of the", ", ".join(f"{n} at t = {half_life(exact[n], curve)}" for n in CHANCE))

# %% [markdown]
# The solid lines are the limit that no reader can pass, in this small world. The judge (dotted) gives up earlier, on
# the shape most of all. It is not only weaker, its task is harder: it has never seen its 384 clips before, while
# Bayes knows all films by heart, and once a film is recognised, its shape is a gift. That is why shape and colour die
# together here. But both readers agree on what dies last.
#
# Bayes' rule gives more than an answer. The average of the album *weighted by these probabilities* is the best
# possible guess of the clean film, just as the plain average was the best guess from nothing. Above, the ruin of our
# willow under the linear schedule; below, the best that anyone can make of it (light doubled):

# %% tags=["nbval-ignore-output"]
times = [300, 500, 550, 600, 650, 700, 750, 800, 999]
ruins, guesses = [], []
for t in times:
    belief = beliefs(float(snr(abar)[t]))[0].float()
    guess = torch.einsum("k,kcthw->cthw", belief, album)
    ruins.append(jump(film, abar[t], clip_noise[0]))
    guesses.append((2 * (guess + 1) - 1).clamp(-1, 1))
picture = strip({"x_t": ruins, "best guess": guesses}, [f"t = {t}" for t in times])
show(picture, "from right to left the best guess turns from fog into a light, then into a gold willow")

# %% [markdown]
# Read it from right to left, as a sampler will walk it: fog; two pale lights, one of them in the wrong place, for the
# noise deceives; one light in the right place, round and of no clear colour; then gold; at last the willow. **Coarse
# first, fine last.** Nobody programs this order into a diffusion model. It is the order in which noise takes things
# away, run backwards. And the lower row, the best guess at every $t$, is what the network of lesson 07 will have to
# learn.
#
# ## How far apart are two bells?
#
# Why does the place outlive the shape? We need to measure how well two clouds of noise, two Gaussian bells, can be
# told apart. Draw $x$ from $N_1$ and ask how much better $N_1$ explains it than $N_2$ does, in logarithms: $\log
# N_1(x) - \log N_2(x)$. The average over many draws is the **Kullback–Leibler divergence**, in *nats*. At 0 nats
# nothing tells the two apart; at 1 nat a draw favours the truth by about $e : 1$; 10 nats hardly leave a doubt. For
# Gaussians the average can be done by hand, from
#
# $$\log N(x) = -\tfrac12\log(2\pi\sigma^2) - \frac{(x-\mu)^2}{2\sigma^2}, \qquad
# \mathbb E_1 (x-\mu_1)^2 = \sigma_1^2, \qquad \mathbb E_1 (x-\mu_2)^2 = \sigma_1^2 + (\mu_1-\mu_2)^2 :$$
#
# $$\mathrm{KL}(N_1\,\|\,N_2) = \frac12\Big(\log\frac{\sigma_2^2}{\sigma_1^2} - 1 + \frac{\sigma_1^2}{\sigma_2^2} +
# \frac{(\mu_1-\mu_2)^2}{\sigma_2^2}\Big).$$
#
# Code speaks of $\log\sigma^2$, which may be any number, so that is what the function takes.
#
# ### Exercise 01.gaussian_kl (5 minutes)


# %%
# exercise: 01.gaussian_kl
def gaussian_kl(mean1: Tensor, logvar1: Tensor, mean2: Tensor, logvar2: Tensor) -> Tensor:
    """Elementwise KL(N1 ‖ N2) in nats. Means and log variances, of shapes that broadcast."""
    ### BEGIN SOLUTION
    ratio = torch.exp(logvar1 - logvar2) + (mean1 - mean2) ** 2 * torch.exp(-logvar2)
    return 0.5 * (logvar2 - logvar1 - 1 + ratio)
    ### END SOLUTION


# %%
# hint("01.gaussian_kl")
check("01.gaussian_kl", gaussian_kl)

# %% [markdown]
# Dots and curves once more: the dots roll dice and average the difference of the logarithms, the curves are yours.


# %% tags=["nbval-ignore-output"]
def rolled_kl(mean1: float, logvar1: float) -> float:
    """KL(N1 ‖ standard normal) by rolling dice: the mean of log N1(x) − log N2(x) over 100,000 draws x from N1."""
    one = torch.distributions.Normal(mean1, math.exp(logvar1 / 2))
    other = torch.distributions.Normal(0.0, 1.0)
    x = mean1 + math.exp(logvar1 / 2) * torch.randn(100_000, generator=dice(11))
    return float((one.log_prob(x) - other.log_prob(x)).mean())


line, zero, some = torch.linspace(-3, 3, 61), torch.zeros(()), range(-3, 4)
figure, (left, right) = viz.figure(1, 2, width=9, height=2.8)
left.plot(line, gaussian_kl(line, zero, zero, zero), color=viz.DATA)
left.plot(some, [rolled_kl(m, 0.0) for m in some], "o", color=viz.DATA)
right.plot(line, gaussian_kl(zero, line, zero, zero), color=viz.DATA, label="KL(N1 ‖ N2)")
right.plot(some, [rolled_kl(0.0, v) for v in some], "o", color=viz.DATA)
right.plot(line, gaussian_kl(zero, zero, zero, line), "--", color=viz.NOISE, label="KL(N2 ‖ N1)")
left.set(title="equal widths", xlabel="distance of the means", ylabel="nats")
right.set(title="equal means", xlabel="log variance of N1 (N2 has 0)", ylim=(-0.2, 5))
right.legend()
show(figure, "dots lie on the curves; KL grows with the squared distance, and has a direction")

# %% [markdown]
# The right panel shows that KL has a direction. To believe in a narrow bell when the truth is wide is expensive
# (right half of the solid curve): draws land where the belief says "impossible". To believe in a wide bell when the
# truth is narrow costs little. Lesson 03 will use it.
#
# ## Why place outlives shape
#
# Take two films $A$ and $B$. By step $t$ they have become two clouds, $\mathcal N(\sqrt{\bar\alpha_t}\,A,\
# 1-\bar\alpha_t)$ and $\mathcal N(\sqrt{\bar\alpha_t}\,B,\ 1-\bar\alpha_t)$, equally wide. Put that into your formula
# and add up all the pixels; only the last term survives:
#
# $$\mathrm{KL}\big(q(x_t\mid A)\,\big\|\,q(x_t\mid B)\big) = \tfrac12\;\mathrm{SNR}(t)\;\lVert A-B\rVert^2 .$$
#
# There is the answer. **What survives is what makes a large squared distance**: a difference that covers many pixels
# outlives one that covers few. So measure distances: 32 fireworks, each beside its double, which was drawn with the
# same dice but has another place, another colour or another shape. (About 2 seconds.)


# %%
def double(shell: Shell, name: str, choice: torch.Generator) -> Shell:
    """The same shell with another place, colour or shape."""
    others = {
        "place": [dict(column=column, row=row) for column in COLUMNS for row in ROWS],
        "colour": [dict(colour=colour) for colour in COLOURS],
        "shape": [dict(shape=shape) for shape in SHAPES],
    }[name]
    candidates = [candidate for other in others if (candidate := replace(shell, **other)) != shell]
    return candidates[int(torch.randint(len(candidates), (), generator=choice))]


def squared_distance(name: str) -> float:
    """Mean of ‖A − B‖² over 32 fireworks A and their doubles B."""
    total = 0.0
    for number, scene in enumerate(fresh_scenes[:32]):
        other = Scene((double(scene.shells[0], name, dice(100 + number)),))
        total += (draw([scene], 200 + number) - draw([other], 200 + number)).square().sum().item()
    return total / 32


distances = {name: squared_distance(name) for name in CHANCE}

# %% tags=["nbval-ignore-output"]
figure, panel = viz.figure(width=7, height=2.8)
for name, distance in distances.items():
    panel.plot(0.5 * snr(abar) * distance, color=PAINT[name], label=name)
panel.axhline(1, color=viz.NOISE, linewidth=0.8)
panel.set(yscale="log", ylim=(1e-2, 1e6), xlabel="t (linear schedule)", ylabel="nats between doubles")
panel.legend()
show(figure, "three parallel falling curves, place on top; they cross 1 nat one after the other")


# %%
def ratio_at_half(measured: Tensor) -> float:
    """The signal-to-noise ratio at which half is read above chance."""
    return float(10 ** np.interp(0.5, measured, levels.log10()))


for name, distance in distances.items():
    ratio = ratio_at_half(exact[name])
    print(f"{name:7s} squared distance {distance:4.0f}; Bayes reads half at SNR {ratio:.2g},", end=" ")
    print(f"where doubles are {0.5 * ratio * distance:.1f} nats apart")
luck = [draw([scene], 200 + n) - draw([scene], 300 + n) for n, scene in enumerate(fresh_scenes[:32])]
print(f"luck    squared distance {torch.stack(luck).square().sum() / 32:4.0f} between two films of the same shell")

# %% [markdown]
# Place makes about three times the squared distance that shape makes, and five times that of colour: a burst in
# another place is wrong twice, dark where there should be light and bright where there should be none. And see the
# last column. The signal-to-noise ratios differ by more than three times, yet each attribute dies where its doubles
# are a few nats apart. That one rule explains why the place lives longest.
#
# It is a rough rule. By distance alone the shape should outlive the colour, but for Bayes they die together, and for
# the judge the shape dies first. The last line says what makes shapes hard for the judge: two films of *the same*
# shell, drawn with other dice, already have almost two thirds of the squared distance of two films of different
# shape. Whoever does not know all films by heart must see the shape through all that luck; a colour shines through
# it.
#
# ## Where it must end, and a schedule that does not get there
#
# Generation will start at the far end, so we must be able to make the far end out of nothing, without knowing any
# film. There is one cloud that all films share and that dice can make: the standard normal, $\mathcal N(0, 1)$ in
# every pixel. That is why the end must be this one. How far from it does each schedule stop? Your `gaussian_kl`
# knows, summed over the pixels of our film:


# %%
def nats_from_noise(alpha_bar: Tensor) -> Tensor:
    """KL between what the film has become and pure noise, over all its pixels."""
    zero = torch.zeros((), dtype=torch.float64)
    return gaussian_kl(alpha_bar.sqrt() * film.double(), torch.log1p(-alpha_bar), zero, zero).sum()


for name, curve in abars.items():
    print(f"{name:14s} stops {nats_from_noise(curve[-1]):.2g} nats from pure noise")

# %% [markdown]
# Cosine arrives. Linear nearly arrives: half a nat is a hint, no more. Scaled linear stops so far away that anyone
# who knows what to look for can tell its end from pure noise every time. What is there to look for? Our sky is dark,
# and 7 % of that darkness is left, spread so thinly over all pixels that no eye can see it. But average a whole clip,
# and the noise averages out:

# %% tags=["nbval-ignore-output"]
ends = {name: jump(clips, curve[-1], clip_noise).mean(dim=(1, 2, 3, 4)) for name, curve in abars.items()}
ends["pure noise"] = torch.randn(clips.shape, generator=dice(12)).mean(dim=(1, 2, 3, 4))
figure, panels = viz.figure(4, 1, width=7, height=4)
for panel, (name, means_of_clips) in zip(panels, ends.items(), strict=True):
    panel.hist(means_of_clips, bins=80, range=(-0.09, 0.03), color=viz.NOISE if name == "pure noise" else viz.DATA)
    panel.set(xlim=(-0.09, 0.03), yticks=[], ylabel=name)
panels[-1].set(xlabel="mean of all the numbers of a clip after the last step (384 clips)")
show(figure, "cosine equals pure noise, linear is a shade darker, scaled linear stands apart by 0.06")

# %%
for name in abars:
    middle = (ends[name].mean() + ends["pure noise"].mean()) / 2
    told = ((ends[name] < middle).double().mean() + (ends["pure noise"] >= middle).double().mean()) / 2
    print(f"{name:14s} told from pure noise by its mean alone: {told:.0%} (a coin reaches 50%)")

# %% [markdown]
# No eye sees it, and one average finds it every time. Why does it matter? A network trained on this schedule never
# meets pure noise. At its noisiest it still gets clips whose mean tells how bright the film is, and it learns to
# trust that. A sampler then starts from real pure noise, with mean 0, which in this language says *neither dark nor
# bright*. Lin and others (2023) found just that in Stable Diffusion, which could hardly make a very dark or a very
# bright picture. (Their finding; we have trained nothing yet.) For fireworks, nearly all night, it would be the worst
# of starts.
#
# Their repair shifts and stretches $\sqrt{\bar\alpha}$ until its last value is exactly 0. At that step there is
# nothing to be learnt from guessing the noise, since $x_t$ *is* the noise; one asks the network for something else,
# called $v$, which lesson 02 introduces.

# %%
mended = alphas_cumprod(rescale_zero_terminal_snr(schedules["scaled linear"]))
print(f"scaled linear, mended: SNR at the end {snr(mended)[-1]:.1g}, {nats_from_noise(mended[-1]):.1g} nats from noise")

# %% [markdown]
# ## Bug of the day
#
# A glance ahead. Below is a step *back*, from $x_t$ to $x_{t-1}$. Lesson 02 derives it; today we only run it. Instead
# of a network it gets the perfect answer, the noise that is really in $x_t$, by peeking at the film. The step is
# written as it stands in more than one tutorial on the web (in our words): compute the mean, add fresh noise, done.


# %%
def step_back(x_t: Tensor, t: int, noise: Tensor, betas: Tensor, alpha_bar: Tensor, z: Tensor) -> Tensor:
    """x_{t-1} from x_t and the answer of the network, `noise`; z is fresh noise, alpha_bar is ᾱ at t."""
    mean = (x_t - betas[t] / (1 - alpha_bar).sqrt() * noise) / (1 - betas[t]).sqrt()
    return mean + betas[t].sqrt() * z


def walk_back(step, betas: Tensor, number: int) -> Tensor:
    """From pure noise to the film, with a network that is perfect because it peeks."""
    curve, fresh = alphas_cumprod(betas), dice(number)
    x = torch.randn(film.shape, generator=fresh)
    for t in reversed(range(len(betas))):
        peeked = (x - curve[t].sqrt() * film) / (1 - curve[t]).sqrt()
        x = step(x, t, peeked, betas, curve[t], torch.randn(film.shape, generator=fresh))
    return x


# %% tags=["nbval-ignore-output"]
returned = walk_back(step_back, betas, 13)
viz.player(
    [film, returned, (25 * (returned - film)).clamp(-1, 1)],
    labels=["the film", "walked back", "25 × their difference"],
    fps=5,
    alt="the film and its return look the same; their difference, enlarged, is noise everywhere",
)

# %% [markdown]
# It works: out of pure noise the willow comes back, and side by side the two look the same. Now measure.

# %%
for name, clip in {"the film": film, "walked back": returned}.items():
    packed = len(zlib.compress(to_uint8(clip).tobytes()))
    print(f"{name:11s} off by {(clip - film).std():.4f}; zipped it takes {packed / 1000:.0f} kB")

# %% [markdown] tags=["predict"]
# **Find it first.** With a perfect network the film should come back perfect. Instead every pixel is off by 0.01, and
# the clean night sky no longer packs. One of the thousand steps leaves this noise behind. Which one, and why do the
# other 999 leave nothing? (How large is the noise that step $t$ adds?)
#
# *My suspect: …*

# %%
for name, schedule in schedules.items():
    left_over = (walk_back(step_back, schedule, 13) - film).std()
    added = ", ".join(f"{schedule[t].sqrt():.4f} at t = {t}" for t in (0, 1, 500))
    print(f"{name:14s} left over: {left_over:.4f}; the steps add {added}")

# %% [markdown]
# The dirt has the size of $\sqrt{\beta_0}$ (linear and cosine leave no doubt), so it is the very last step back, the
# one from $t = 0$. All earlier noise is welcome: it is seen by the steps that follow, and they take it out again.
# After the last step nobody follows. So at $t = 0$ go to the mean itself:


# %%
def clean_step_back(x_t: Tensor, t: int, noise: Tensor, betas: Tensor, alpha_bar: Tensor, z: Tensor) -> Tensor:
    """The same, but the last step adds nothing."""
    return step_back(x_t, t, noise, betas, alpha_bar, z if t > 0 else torch.zeros_like(z))


for name, schedule in schedules.items():
    one, other = walk_back(clean_step_back, schedule, 13), walk_back(clean_step_back, schedule, 14)
    print(f"{name:14s} off by less than 0.00001: {bool((one - film).abs().max() < 1e-5)};", end=" ")
    print(f"two walks with different dice agree: {bool((one - other).abs().max() < 1e-5)}")

# %% [markdown]
# A bug like this lives long, because it does so little harm: with $\beta_0 = 10^{-4}$ the dirt is 1.3 of 256 levels.
# But no network, however good, can get rid of it, the films compress badly, and it grows with $\beta_0$: under scaled
# linear it is nearly 4 levels.
#
# ## Reflection
#
# In your own words, a sentence or two each (there is a cell below for it):
#
# 1. Why the square roots? What would you see on the screen without them?
# 2. Why does it help a network that the film is destroyed in small steps, when one jump leads to the same place?
# 3. Two films differ in one small spark. Two others differ in the colour of the whole sky. Which difference is still
#    there at $t = 700$, and what does that say about the order in which a sampler decides things?
# 4. Stable Diffusion's schedule never quite reaches pure noise. Whom does that hurt: the training, the sampling, or
#    both?

# %% [markdown]
# *My answers: …*

# %% [markdown]
# ## What comes next
#
# You can ruin any film, to any degree, and you know exactly what the ruin is. In the bug of the day the way back
# worked because we peeked. **Lesson 02 asks: to run the film backwards, what would you have to know?**
#
# Where today's functions live in `minivdm/`:
#
# | yours | in the package |
# |---|---|
# | `linear_betas`, `cosine_betas`, `alphas_cumprod`, `snr` | `minivdm/diffusion/schedules.py` |
# | `jump`, `noise_one_step` taken N times | `GaussianDiffusion.q_sample` in `minivdm/diffusion/gaussian.py` |
# | the clean step back | `GaussianDiffusion.p_sample`, same file |
# | zero terminal SNR | `rescale_zero_terminal_snr` in `minivdm/diffusion/schedules.py` |
# | the fireworks, and their judge | `minivdm/data/fireworks.py`, `minivdm/data/judge.py` |
#
# Your functions that passed are kept in `workbook/`; `minivdm progress` shows how far you are. In lesson 09 they run
# in the final pipeline.
#
# **Read on:** Ho, Jain and Abbeel, *Denoising Diffusion Probabilistic Models* (2020), section 2. Nichol and Dhariwal,
# *Improved Denoising Diffusion Probabilistic Models* (2021), section 3.2. Lin, Liu, Li and Yang, *Common Diffusion
# Noise Schedules and Sample Steps are Flawed* (2023).
