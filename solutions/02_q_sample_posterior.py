# %% [markdown]
# # 02 q_sample and posterior: to run the film backwards, what would you have to know?
#
# Lesson 01 destroyed a film in a thousand small steps. This lesson walks the other way, and finds out, piece by
# piece, what a person would have to know for that. It turns out to be one thing only, and in a small enough world
# even that thing can be written down. So there will be films out of pure noise today, before any network has seen a
# film.
#
# When you are done you will have made
#
# - the **jump**: a film noised to any step in one line, and brought back *by arithmetic*, even from the last step;
# - **one step back**: a formula, and a histogram from a million chains that proves it right and a published one
#   wrong;
# - a world with a **perfect denoiser**, in which your sampler turns noise into a willow, untrained;
# - **DDIM**: the same journey in tens of steps instead of a thousand;
# - a **network** that learns towards the perfect denoiser, with the floor that it cannot break drawn under its
#   loss;
# - eight films out of noise, which will turn out to be *too* good.
#
# **Time:** about 1 minute of computing in all (preset `toy`, two CPU cores, no GPU, no network), half of it one
# training that you can watch, and an afternoon of yours. Eight exercises, each with three hints:
# `hint("02.extract")` gives the idea, once more the equation, a third time the line.

# %% tags=["parameters"]
preset = "toy"
seed = 0
device = None  # None: the CPU, which is all that this lesson needs

# %%
import io
import math

import ipywidgets as widgets
import matplotlib.pyplot as plt
import PIL.Image
import torch
from einops import rearrange
from IPython.display import HTML, Image, display
from torch import Tensor, nn

from minivdm import viz
from minivdm.config import load_preset
from minivdm.course import check, hint  # noqa: F401
from minivdm.data.captions import canonical
from minivdm.data.fireworks import Scene, Shell, render, sample_scenes
from minivdm.diffusion.gaussian import GaussianDiffusion
from minivdm.diffusion.samplers import sample
from minivdm.diffusion.schedules import alphas_cumprod, linear_betas

# %%
data = load_preset(preset).data
torch.set_num_threads(1)  # most tensors are small today: two threads would wait for each other
torch.set_flush_denormal(True)  # fading light makes vanishing numbers, which slow a CPU down


def dice(number: int) -> torch.Generator:
    """Dice that always fall the same way: all chance in this lesson comes from numbered dice."""
    return torch.Generator().manual_seed(1000 * seed + number)


def normal(*shape: int, dice: torch.Generator) -> Tensor:
    """Standard normal noise, in float64: today we test formulas, and rounding must not blur the test."""
    return torch.randn(shape, generator=dice, dtype=torch.float64)


def as_png(figure: plt.Figure) -> Image:
    """A plot as a small PNG; 64 colours are plenty for lines."""
    figure.savefig(png := io.BytesIO())
    PIL.Image.open(png).quantize(64).save(small := io.BytesIO(), "PNG", optimize=True)
    plt.close(figure)
    return Image(small.getvalue())


def show(figure: plt.Figure, alt: str) -> None:
    """Display a plot, with words for those who cannot see it."""
    display(viz.picture(as_png(figure).data, alt))


# %% [markdown]
# The film is the one from lesson 01, and so is the schedule: `betas`, and its running product `abar`
# ($\bar\alpha_t$ on paper), the share of the film's power that is left at step $t$. A reminder of the one clash of
# names: $x_0$ is the *clean* film, but steps are counted from $t = 0$, so "$x_t$ at $t = 0$" has been noised once.
# The clean film stands before the first step, where $\bar\alpha_{-1} = 1$.

# %% tags=["nbval-ignore-output"]
willow_shell = Shell(colour="gold", shape="willow", column="left", row="high", size="large")
film = render([Scene((willow_shell,))], data.frames, data.size, generator=dice(2)).double()
viz.player(film, fps=5, scale=6, alt="a spark climbs, bursts high on the left and sinks as a gold willow")

# %%
betas = linear_betas(1000)
abar = alphas_cumprod(betas)
num_steps = len(betas)
print("film (B, C, T, H, W):", tuple(film.shape), " betas (N,):", tuple(betas.shape))

# %% [markdown]
# ## The jump
#
# A network will be trained on films noised to all sorts of steps, millions of times. Nobody can afford a thousand
# calls of `noise_one_step` for each. Lesson 01 found the way out: normal noises add up to normal noise, so $t + 1$
# small steps are *one* step with the right two factors,
#
# $$x_t = \sqrt{\bar\alpha_t}\;x_0 + \sqrt{1 - \bar\alpha_t}\;\varepsilon, \qquad \varepsilon \sim \mathcal N(0, 1).$$
#
# In a training batch every film stands at a step of its own. Here is a batch of three, and the factors that they
# need:

# %% tags=["nbval-ignore-output"]
figure, ax = viz.figure(width=7, height=2.6)
batch_t = torch.tensor([80, 300, 700])
for factor, name, colour in ((abar.sqrt(), "film", viz.DATA), ((1 - abar).sqrt(), "noise", viz.NOISE)):
    ax.plot(factor, color=colour, label=f"factor of the {name}")
    ax.plot(batch_t, factor[batch_t], "o", color=colour)
ax.set(xlabel="t", xticks=[0, *batch_t.tolist(), 1000])
ax.legend()
show(
    figure,
    "the film's factor falls from 1 to 0, the noise's rises from 0 to 1; dots on both at t = 80, 300 and 700",
)

# %% [markdown]
# ### Exercise 02.extract (3 minutes)
#
# Look the dots up. A film is `(B, C, T, H, W)`: to multiply each film by its own number, the `B` numbers must have
# the shape `(B, 1, 1, 1, 1)`. For points in the plane, `(B, 2)`, they must be `(B, 1)`.


# %%
# exercise: 02.extract
def extract(a: Tensor, t: Tensor, x_shape: torch.Size) -> Tensor:
    """The entries a[t], shaped (B, 1, …), so that they can multiply something of shape `x_shape`.

    a (N,), t (B,) long; x_shape begins with B.
    """
    ### BEGIN SOLUTION
    return a[t].reshape(len(t), *[1] * (len(x_shape) - 1))
    ### END SOLUTION


# %%
# hint("02.extract")
check("02.extract", extract)

# %% [markdown]
# ### Exercise 02.q_sample (3 minutes)
#
# The jump. It is called `q_sample` because the forward process is traditionally called $q$.


# %%
# exercise: 02.q_sample
def q_sample(x0: Tensor, t: Tensor, noise: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """x_t in one jump. x0 and noise (B, …), t (B,) long, alphas_cumprod (N,)."""
    ### BEGIN SOLUTION
    a = extract(alphas_cumprod, t, x0.shape)
    return a.sqrt() * x0 + (1 - a).sqrt() * noise
    ### END SOLUTION


# %%
# hint("02.q_sample")
check("02.q_sample", q_sample)

# %% [markdown]
# Six copies of the film in one batch, each jumped to a step of its own by one call:

# %% tags=["nbval-ignore-output"]
steps = torch.tensor([0, 60, 150, 300, 600, 999])
six = film.expand(6, -1, -1, -1, -1)
noise = normal(*six.shape, dice=dice(20))
noisy = q_sample(six, steps, noise, abar)
viz.player(
    noisy,
    labels=[f"t = {t}" for t in steps.tolist()],
    fps=5,
    alt="the willow sinks into noise, and is gone to the eye at 600",
)

# %% [markdown]
# Six of a thousand; the slider has more. Where do you lose the arms, where the colour, and from where on would you
# swear that there is nothing? (It needs a running kernel, the picture does not.)


# %% tags=["nbval-ignore-output"]
def with_slider(draw, values: list, value, label: str) -> None:
    """Show draw(value), and a slider that draws it again for the others of `values`."""
    picture = display(draw(value), display_id=True)
    slider = widgets.SelectionSlider(
        options=values, value=value, description=label, continuous_update=False, layout={"width": "500px"}
    )
    slider.observe(lambda change: picture.update(draw(change["new"])), "value")
    display(slider)


def noised_film(step: int) -> HTML:
    """The film at one step, under the same noise at each."""
    x_t = q_sample(film, torch.tensor([step]), noise[:1], abar)
    return viz.player(x_t, f"t = {step}", fps=5, scale=6, alt=f"the willow at t = {step}")


with_slider(noised_film, [*range(0, 1000, 20), 999], 160, "t")

# %% [markdown]
# ## Back, by arithmetic
#
# The jump is one equation with three things in it: the film, the noise, and the mixture of the two. Whoever has two
# of them has the third. So **if you know the noise, you have the film**. No learning, no statistics, however bad it
# looks.
#
# ### Exercise 02.predict_x0 (3 minutes)


# %%
# exercise: 02.predict_x0
def predict_x0(x_t: Tensor, t: Tensor, noise: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """The clean film that gives x_t when it is mixed with `noise`. Nothing is clipped."""
    ### BEGIN SOLUTION
    a = extract(alphas_cumprod, t, x_t.shape)
    return (x_t - (1 - a).sqrt() * noise) / a.sqrt()
    ### END SOLUTION


# %%
# hint("02.predict_x0")
check("02.predict_x0", predict_x0)

# %%
back = predict_x0(noisy, steps, noise, abar)
for t, clip in zip(steps.tolist(), back, strict=True):
    print(f"back from t = {t:3d}: no pixel is off by more than {(clip - film[0]).abs().max():.9f}")

# %% tags=["nbval-ignore-output"]
labels = ["t = 600", "and back", "t = 999", "and back"]
viz.player(
    [noisy[4], back[4], noisy[5], back[5]],
    labels,
    fps=5,
    alt="two films of snow, beside each the whole willow",
)

# %% [markdown]
# The willow was in that snow all the time. So the answer to today's question seems to be: *you would have to know
# the noise.* Let a network guess it, then, and do the arithmetic. How good would the guess have to be?

# %% [markdown] tags=["predict"]
# **Predict first.** Suppose the guess is excellent: its correlation with the true noise is 0.99. We go back from
# $t = 60$, from $300$ and from $999$ with it. Which of the three films will you recognise? Write down a guess for
# each before you run the next cell.
#
# *My guess: …*

# %% tags=["nbval-ignore-output"]
other = normal(*six.shape, dice=dice(21))
guess = 0.99 * noise + math.sqrt(1 - 0.99**2) * other
almost = predict_x0(noisy, steps, guess, abar)
labels = ["back from t = 60", "from t = 300", "from t = 999"]
viz.player(
    almost[[1, 3, 5]].clamp(-1, 1), labels, fps=5, alt="clear from 60, grainy from 300, wild colours from 999"
)

# %%
mistake = (guess - noise).std().item()
for t, clip in zip(steps.tolist(), almost, strict=True):
    times = ((1 - abar[t]) / abar[t]).sqrt().item()
    error = (clip - film[0]).std().item()
    print(
        f"t = {t:3d}: off by {mistake:.2f} in the noise, times {times:6.2f}, makes {error:5.2f} in the film"
    )

# %% [markdown]
# <details><summary>What happened</summary>
#
# Dividing by $\sqrt{\bar\alpha_t}$ makes the film bright again, and every mistake with it. What is wrong in the
# noise is multiplied by $\sqrt{(1 - \bar\alpha_t)/\bar\alpha_t} = 1/\sqrt{\mathrm{SNR}}$: harmless at first, more
# than a hundredfold at the end.
# </details>
#
# From the far end, an excellent guess is worthless if one *leaps*. But a small step back needs little trust: go
# from $t$ to $t - 1$ only, look again, guess again, correct yourself. A thousand small steps destroyed the film. We
# shall try a thousand small steps back. What exactly is *one* step back?
#
# ## One step back
#
# Look at a single pixel, that is, at one number. In a small world of our own it is either night, $-0.95$, or a
# star, $+0.75$, as often one as the other. Here a million such pixels go through lesson 01's noising, one small
# step after another, up to $t = 300$. No formula of today is used. (A few seconds.)

# %%
NIGHT, STAR, NOW, EARLIER = -0.95, 0.75, 300, 150
thrown, chains = dice(22), 1_000_000
start = torch.tensor([NIGHT, STAR])[torch.randint(2, (chains,), generator=thrown)]
now, threads = start, [start[:40].clone()]
for step in range(NOW + 1):
    before, beta = now, betas[step].item()
    now = math.sqrt(1 - beta) * before + math.sqrt(beta) * torch.randn(chains, generator=thrown)
    threads.append(now[:40].clone())
    if step == EARLIER:
        much_before = now
print(f"{chains:,} chains; at t = {NOW} they have mean {now.mean():.2f} and variance {now.var():.2f}")

# %% tags=["nbval-ignore-output"]
figure, ax = viz.figure(width=8, height=2.8)
for value, colour in ((NIGHT, viz.NOISE), (STAR, viz.DATA)):
    ax.plot(
        range(-1, NOW + 1, 4), torch.stack(threads)[::4, start[:40] == value], color=colour, linewidth=0.5
    )
ax.set(xlabel="t", ylabel="the pixel", title="40 of the million chains: stars start above, night below")
show(figure, "two bundles of jagged lines that start apart, spread, and are one cloud at t = 300")

# %% [markdown]
# You stand at the right edge of this picture, at some value $x_t$. Where did you come from? There is an honest way
# to ask that without any theory: **keep the chains that ended where you stand, and look where those were one step
# before.** That is all that a conditional probability means.
#
# The easy case first: somebody whispers that your pixel began as a star. Of the chains that did, keep those that
# ended near $x_t = 0.8$:

# %%
star = start == STAR


def who_came(x_t: float, among: Tensor) -> Tensor:
    """Which chains (of those in the mask `among`) ended within 0.01 of x_t: a mask (chains,)."""
    return among & ((now - x_t).abs() < 0.01)


kept = who_came(0.8, star)
print(f"about {round(kept.sum().item(), -2)} chains, which one step before had")
print(f"mean {before[kept].mean():.2f} and standard deviation {before[kept].std():.2f}")

# %% [markdown]
# A mean and a spread; we want both as formulas. Two things are known about $x_{t-1}$.
#
# - It **came from** $x_0$. By the jump, it is normal with mean $\sqrt{\bar\alpha_{t-1}}\,x_0$ and variance
#   $1 - \bar\alpha_{t-1}$.
# - It **leads to** $x_t$. One step multiplies by $\sqrt{\alpha_t}$, where $\alpha_t = 1 - \beta_t$, and adds noise
#   of variance $\beta_t$. So, read backwards, $x_{t-1}$ lies around $x_t/\sqrt{\alpha_t}$ with variance
#   $\beta_t/\alpha_t$.
#
# Both must hold, so the two bells are **multiplied** (this is Bayes' rule). The product of two bells is a bell:
# between the two, nearer to the narrower one, and narrower than either. To make that visible, here is a giant step,
# from $t = 300$ back to $t = 150$ at once, with the chains beneath it:


# %%
def bell(x: Tensor, mean: float, variance: float) -> Tensor:
    """The density of the normal distribution."""
    return torch.exp(-((x - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)


# %% tags=["nbval-ignore-output"]
x = torch.linspace(-2, 3.5, 400)
first, second = abar[EARLIER].item(), (abar[NOW] / abar[EARLIER]).item()  # power kept to 150, and on to 300
came_from, leads_to = bell(x, first**0.5 * STAR, 1 - first), bell(x, 0.8 / second**0.5, (1 - second) / second)
product = came_from * leads_to / torch.trapezoid(came_from * leads_to, x)
figure, ax = viz.figure(width=8, height=2.8)
ax.hist(much_before[kept], bins=60, density=True, color="#CCCCCC", label="the chains at t = 150")
ax.plot(x, came_from, color=viz.DATA, label="came from $x_0$")
ax.plot(x, leads_to, color=viz.NOISE, label="leads to $x_t$")
ax.plot(x, product, color=viz.INK, linewidth=2.5, label="their product")
ax.set(yticks=[])
ax.legend()
show(
    figure,
    "a bell around 0.7, a wider one around 1.1; their product, between them, lies on the histogram of the chains",
)

# %% [markdown]
# The product falls on the chains. Now the algebra, once. Bells multiply by adding their *precisions* (one over the
# variance), and the mean is the average weighted by precision:
#
# $$\frac{1}{\tilde\beta_t} = \frac{1}{1 - \bar\alpha_{t-1}} + \frac{\alpha_t}{\beta_t}, \qquad
# \tilde\mu_t = \tilde\beta_t\left(\frac{\sqrt{\bar\alpha_{t-1}}}{1 - \bar\alpha_{t-1}}\,x_0
# + \frac{\sqrt{\alpha_t}}{\beta_t}\,x_t\right).$$
#
# Put it over one denominator with $\alpha_t(1 - \bar\alpha_{t-1}) + \beta_t = 1 - \bar\alpha_t$, and out comes the
# pair that papers print:
#
# $$\tilde\mu_t = \frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1 - \bar\alpha_t}\,x_0
# + \frac{\sqrt{\alpha_t}\,(1 - \bar\alpha_{t-1})}{1 - \bar\alpha_t}\,x_t, \qquad
# \tilde\beta_t = \frac{1 - \bar\alpha_{t-1}}{1 - \bar\alpha_t}\,\beta_t.$$
#
# ### Exercise 02.q_posterior (10 minutes)
#
# "Posterior" means: what one knows *afterwards*, having seen $x_t$. Mind $t = 0$. The step before it is the clean
# film itself, $\bar\alpha_{-1} = 1$; so no doubt is left, the variance is 0, and its logarithm must stay finite all
# the same.


# %%
# exercise: 02.q_posterior
def q_posterior(x0: Tensor, x_t: Tensor, t: Tensor, betas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q(x_{t-1} | x_t, x0) as mean (shaped like x_t), var and log_var (both (B, 1, …)).

    log_var is log(max(var, 1e-20)).
    """
    ### BEGIN SOLUTION
    abar = torch.cumprod(1 - betas, dim=0)
    abar_before = torch.cat([torch.ones_like(abar[:1]), abar[:-1]])
    beta, a, a_before = (extract(table, t, x_t.shape) for table in (betas, abar, abar_before))
    mean = (a_before.sqrt() * beta * x0 + (1 - beta).sqrt() * (1 - a_before) * x_t) / (1 - a)
    var = (1 - a_before) / (1 - a) * beta
    return mean, var, var.clamp(min=1e-20).log()
    ### END SOLUTION


# %%
# hint("02.q_posterior")
check("02.q_posterior", q_posterior)

# %% [markdown]
# Right on random inputs. But is it *true*? Three places to stand, and this time the small step, from $t = 300$ to
# $299$. Your formula has never seen the chains, and the chains know no formula:


# %%
def claim(posterior, x_t: float) -> tuple[float, float]:
    """Mean and standard deviation that `posterior` claims for a star's pixel, one step before it stood at x_t."""
    x0, x_t = torch.tensor([[STAR]]), torch.tensor([[x_t]])
    mean, var, _ = posterior(x0, x_t, torch.tensor([NOW]), betas)
    return mean.item(), var.sqrt().item()


for x_t in (-1.0, 0.0, 1.0):
    past, (mean, std) = before[who_came(x_t, star)], claim(q_posterior, x_t)
    print(
        f"x_t = {x_t:4.1f}: chains {past.mean():5.2f} ± {past.std():.2f},  q_posterior {mean:5.2f} ± {std:.2f}"
    )


# %% tags=["nbval-ignore-output"]
def compare_with_chains(posterior, alt: str) -> None:
    """For three x_t: the chains' histogram one step before, and the bell that `posterior` claims."""
    figure, panels = viz.figure(1, 3, width=9, height=2.4)
    for panel, x_t in zip(panels, (-1.0, 0.0, 1.0), strict=True):
        x, (mean, std) = torch.linspace(x_t - 0.55, x_t + 0.55, 300), claim(posterior, x_t)
        panel.hist(before[who_came(x_t, star)], bins=40, density=True, color="#CCCCCC")
        panel.plot(x, bell(x, mean, std**2), color=viz.INK, linewidth=2)
        panel.set(title=f"standing at {x_t}", xlabel="one step before", yticks=[])
    show(figure, alt)


compare_with_chains(q_posterior, "three histograms of chains, and on each of them, exactly, your bell")

# %% [markdown]
# ### Bug of the day: one bar too many
#
# An article that explains a well-known video diffusion code prints the posterior mean with $\sqrt{\bar\alpha_t}$
# where you have $\sqrt{\alpha_t}$. One small bar. (The code that it explains has it right.) The printed formula, as
# code:


# %%
def published_posterior(x0: Tensor, x_t: Tensor, t: Tensor, betas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    abar = torch.cumprod(1 - betas, dim=0)
    abar_before = torch.cat([torch.ones_like(abar[:1]), abar[:-1]])
    beta, a, a_before = (extract(table, t, x_t.shape) for table in (betas, abar, abar_before))
    mean = a_before.sqrt() * beta / (1 - a) * x0 + a.sqrt() * (1 - a_before) / (1 - a) * x_t
    var = (1 - a_before) / (1 - a) * beta
    return mean, var, var.clamp(min=1e-20).log()


# %% [markdown]
# It runs, the shapes fit, the variance is right. Ask the chains:

# %% tags=["nbval-ignore-output"]
compare_with_chains(
    published_posterior, "left and right the published bell stands far from the histogram, nearer to zero"
)

# %% [markdown]
# It misses, and the further from zero one stands, the further. Such a slip can also be caught without any chain.
# Imagine a pixel for which all dice show 0. On the way it is only shrunk, $x_t = \sqrt{\bar\alpha_t}\,x_0$; one
# step back it must stand at $\sqrt{\bar\alpha_{t-1}}\,x_0$. So the two coefficients $c_1$ (of $x_0$) and $c_2$ (of
# $x_t$) must satisfy, whatever the schedule,
#
# $$c_1 + c_2\sqrt{\bar\alpha_t} = \sqrt{\bar\alpha_{t-1}}.$$
#
# On paper: $\sqrt{\alpha_t}\sqrt{\bar\alpha_t} = \alpha_t\sqrt{\bar\alpha_{t-1}}$, so the left side of yours is
# $\sqrt{\bar\alpha_{t-1}}\,\big(\beta_t + \alpha_t(1 - \bar\alpha_{t-1})\big)/(1 - \bar\alpha_t)$, and the bracket
# cancels. By computing, at all thousand steps at once:

# %%
every_t, ones = torch.arange(num_steps), torch.ones(num_steps, 1, dtype=torch.float64)
quiet = torch.cat([ones[:1], abar[:-1, None].sqrt()])
for name, posterior in (("yours", q_posterior), ("published", published_posterior)):
    mean, _, _ = posterior(ones, abar[:, None].sqrt(), every_t, betas)
    print(f"{name:>9}: off the quiet path by at most {(mean - quiet).abs().max():.6f}")

# %% [markdown]
# Keep this bug in mind. We shall meet it once more, where it does its harm in silence.
#
# ## And if nobody whispers?
#
# Then your pixel may have begun as a star or as night. Keep *all* chains that ended near $x_t = 0$ and look back,
# by one small step and by one giant step:

# %% tags=["nbval-ignore-output"]
anybody = torch.ones_like(star)
kept = who_came(0.0, anybody)
figure, panels = viz.figure(1, 2, width=9, height=2.6)
for panel, past, title in zip(
    panels, (before, much_before), ("a small step back: t = 299", "a giant step: t = 150"), strict=True
):
    parts = [past[kept & ~star], past[kept & star]]
    panel.hist(
        parts, bins=50, stacked=True, color=[viz.NOISE, viz.DATA], label=["began as night", "began as a star"]
    )
    panel.set(title=title, yticks=[])
panels[0].legend(fontsize=8)
show(
    figure,
    "after the small step both kinds form one bell; after the giant step there are two humps, night and star",
)

# %% [markdown]
# Here is the reason for the thousand steps. The giant step has two answers, and no single bell says "left or right,
# but not between". The **small** step is one plain bell although nobody knows the beginning: star and night still
# pull in different directions, but so weakly that both fit under one curve. And a bell is a mean and a spread, no
# more.
#
# The spread we have. (The doubt about $x_0$ adds to it, $c_1^2$ times its variance, but in a small step $c_1$ is
# tiny.) And the mean? Yours is $c_1 x_0 + c_2 x_t$, *linear* in $x_0$. When $x_0$ is uncertain, average over what
# it may be, and the average goes straight through the formula:
#
# $$\mathbb E[x_{t-1} \mid x_t] = c_1\,\mathbb E[x_0 \mid x_t] + c_2\,x_t.$$
#
# So this is what one has to know to run the film backwards. Not the past: only **the average of all clean films
# that could have led here**, $\mathbb E[x_0 \mid x_t]$. Whatever computes it is called a **denoiser**. Everything
# else you have written.
#
# ### Exercise 02.optimal_denoiser (10 minutes)
#
# In lesson 01 you saw the best guess of a film, from an album weighted by Bayes' rule. That was a denoiser, and it
# has a closed form whenever the world consists of $K$ points $p_1 \dots p_K$, equally likely. Point $k$ explains
# $x_t$ as well as a bell of variance $1 - \bar\alpha_t$ around $\sqrt{\bar\alpha_t}\,p_k$ says. Turn these into
# probabilities and average the points with them:
#
# $$w_k \propto \exp\!\left(-\frac{\lVert x_t - \sqrt{\bar\alpha_t}\,p_k\rVert^2}{2(1 - \bar\alpha_t)}\right), \qquad
# \mathbb E[x_0 \mid x_t] = \sum_k w_k\,p_k.$$


# %%
# exercise: 02.optimal_denoiser
def optimal_denoiser(x_t: Tensor, t: Tensor, points: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """E[x0 | x_t], (B, D), when the clean data are the K rows of `points` (K, D), all equally likely.

    x_t (B, D), t (B,). Spell it out with (B, K, D) tensors, or save memory with torch.cdist.
    """
    ### BEGIN SOLUTION
    a = extract(alphas_cumprod, t, x_t.shape)
    distances = a * torch.cdist(x_t / a.sqrt(), points) ** 2  # |x_t - √a p|² = a |x_t / √a - p|²
    return torch.softmax(-distances / (2 * (1 - a)), dim=1) @ points
    ### END SOLUTION


# %%
# hint("02.optimal_denoiser")
check("02.optimal_denoiser", optimal_denoiser)

# %% [markdown]
# Our pixel's world has two points and one dimension. The dots ask the chains where they began, the curve is yours:

# %% tags=["nbval-ignore-output"]
world = torch.tensor([[NIGHT], [STAR]], dtype=torch.float64)
places, line = torch.linspace(-2.5, 2.5, 21), torch.linspace(-2.5, 2.5, 200, dtype=torch.float64)[:, None]
figure, ax = viz.figure(width=7, height=2.6)
ax.plot(
    places, [start[who_came(x, anybody)].mean() for x in places], "o", color=viz.NOISE, label="the chains"
)
ax.plot(
    line,
    optimal_denoiser(line, torch.full((200,), NOW), world, abar),
    color=viz.DATA,
    label="optimal_denoiser",
)
ax.set(xlabel="$x_t$ at t = 300", ylabel="mean beginning")
ax.legend()
show(figure, "an S-shaped curve from night to star, and all dots on it")

# %% [markdown]
# And the claim about the mean one step back. The giant step is the harder test, since there $x_0$ pulls strongly.
# For the formula a giant step is nothing special: it is a schedule of two steps, one to $t = 150$, one on to
# $t = 300$.

# %%
giant = torch.stack([1 - abar[EARLIER], 1 - abar[NOW] / abar[EARLIER]])
for x_t in (-1.0, -0.3, 0.4, 1.1):
    here, last = torch.tensor([[x_t]], dtype=torch.float64), torch.tensor([1])
    believed = optimal_denoiser(here, last, world, alphas_cumprod(giant))
    mean, _, _ = q_posterior(believed, here, last, giant)
    chains_say = much_before[who_came(x_t, anybody)].mean()
    print(f"x_t = {x_t:4.1f}: at t = 150 the chains' mean is {chains_say:5.2f}, yours {mean.item():5.2f}")

# %% [markdown]
# ## The sampler
#
# DDPM asks its network for the *noise*. (What else one may ask, we shall see.) Noise and film say the same thing:
# with $x_t$ at hand, either gives the other. So one step of the sampler is: noise → film (`predict_x0`) → one step
# back (`q_posterior`) → throw the dice with the posterior's spread.
#
# Two details. Early guesses of $x_0$ are wild, and a film is known to live in $[-1, 1]$, so the guess may be
# *clamped*. And at $t = 0$ we arrive: dice thrown there stay in the film for good (lesson 01's bug of the day).
#
# ### Exercise 02.p_sample (5 minutes)


# %%
# exercise: 02.p_sample
def p_sample(
    x_t: Tensor, t: Tensor, noise_pred: Tensor, z: Tensor, betas: Tensor, clip: bool = True
) -> Tensor:
    """x_{t-1}: one step back. noise_pred: the noise believed to be in x_t. z: fresh noise of the same shape.

    `clip` clamps the believed x0 to [-1, 1]. The variance is the posterior's; samples with t = 0 get no noise.
    """
    ### BEGIN SOLUTION
    x0 = predict_x0(x_t, t, noise_pred, torch.cumprod(1 - betas, dim=0))
    mean, var, _ = q_posterior(x0.clamp(-1, 1) if clip else x0, x_t, t, betas)
    return mean + var.sqrt() * z
    ### END SOLUTION


# %%
# hint("02.p_sample")
check("02.p_sample", p_sample)

# %% [markdown]
# ## A world in which nothing is missing
#
# One pixel is not much of a firework. Two numbers are enough for one, if they are read as a *place*: let every data
# point be a glowing grain in the sky, and all of them together a willow. Five arms with five stars each; a grain
# lies somewhere in the glow around one of the stars. (A mixture of 25 bells, all of width 0.08.)

# %%
GLOW = 0.08
reach = torch.linspace(-0.9, 0.9, 5, dtype=torch.float64)[:, None]  # how far an arm is thrown to the side
age = torch.tensor([0.15, 0.42, 0.64, 0.83, 1.0], dtype=torch.float64)  # of the stars along an arm
across = reach * (1 - torch.exp(-2 * age)) / (1 - math.exp(-2))
height = 0.6 + (0.7 - 0.4 * reach.abs()) * age - 1.8 * age**2
stars = rearrange(torch.stack([across, height]), "xy arm star -> (arm star) xy")


def draw_grains(n: int, thrown: torch.Generator) -> Tensor:
    """n grains of the willow (n, 2)."""
    which = torch.randint(len(stars), (n,), generator=thrown)
    return stars[which] + GLOW * normal(n, 2, dice=thrown)


# %% [markdown]
# Your denoiser is for points, and these stars glow. But a glow is noise that was there from the beginning: a grain
# at step $t$ is a *point* with a little more noise on it. So your function is asked with the schedule shifted a
# little, and the grain's own place within the glow is added.
#
# <details><summary>The two lines in full</summary>
#
# With $x_0 = p + g\,n$ (star plus glow), $x_t = \sqrt{\bar\alpha_t}\,p + \sigma\,n'$ with
# $\sigma^2 = 1 - \bar\alpha_t + \bar\alpha_t g^2$. Divide by
# $\sqrt{\bar\alpha_t + \sigma^2} = \sqrt{1 + \bar\alpha_t g^2}$: now the squares of the factors add up to 1, so
# this is an ordinary noised point, with $\bar\alpha' = \bar\alpha_t/(1 + \bar\alpha_t g^2)$. And if the star is
# known, $x_0$ and $x_t$ are jointly normal:
# $\mathbb E[x_0 \mid x_t, p] = p + \frac{\sqrt{\bar\alpha_t}\,g^2}{\sigma^2}(x_t - \sqrt{\bar\alpha_t}\,p)$. That
# is linear in $p$, so averaging over the stars goes straight through.
# </details>


# %%
def perfect_x0(x_t: Tensor, t: Tensor) -> Tensor:
    """E[x0 | x_t], (B, 2), in the world of the glowing willow."""
    a = extract(abar, t, x_t.shape)
    point = optimal_denoiser(x_t / (1 + a * GLOW**2).sqrt(), t, stars, abar / (1 + abar * GLOW**2))
    return point + a.sqrt() * GLOW**2 / (1 - a + a * GLOW**2) * (x_t - a.sqrt() * point)


def perfect_noise(x_t: Tensor, t: Tensor) -> Tensor:
    """The same knowledge, said as noise: E[noise | x_t]."""
    a = extract(abar, t, x_t.shape)
    return (x_t - a.sqrt() * perfect_x0(x_t, t)) / (1 - a).sqrt()


# %% [markdown]
# What the perfect denoiser *wants*: an arrow from each place towards where it believes the grain began. The dots
# are the stars, as far as they have shrunk by then.


# %% tags=["nbval-ignore-output"]
def draw_field(ax, step: int) -> None:
    """Arrows from places x_t towards E[x0 | x_t], half as long as the way."""
    axis = torch.linspace(-1.8, 1.8, 11, dtype=torch.float64)
    places = torch.cartesian_prod(axis, axis)
    arrows = perfect_x0(places, torch.full((len(places),), step)) - places
    ax.quiver(*places.T, *arrows.T, color=viz.INK, angles="xy", scale_units="xy", scale=2, width=0.005)
    ax.plot(*(abar[step].sqrt() * stars).T, ".", color=viz.DATA, markersize=5)
    ax.set(title=f"t = {step}", xlim=(-2, 2), ylim=(-2, 2), xticks=[], yticks=[], aspect="equal")


figure, panels = viz.figure(1, 4, width=9, height=2.5)
for panel, step in zip(panels, (900, 400, 150, 20), strict=True):
    draw_field(panel, step)
show(
    figure,
    "at t = 900 all arrows point to the middle; at 400 they spread; at 150 they find the arms, at 20 the stars",
)

# %% [markdown]
# Near the end of the destruction (t = 900) every arrow points to the middle of the willow: with so much noise,
# nothing better can be said. Then the arms part, then the stars. The slider shows where the decisions fall. (It
# needs a running kernel, the pictures do not.)


# %% tags=["nbval-ignore-output"]
def field(step: int) -> HTML:
    figure, ax = viz.figure(width=3, height=3.1)
    draw_field(ax, step)
    return viz.picture(as_png(figure).data, f"arrows from all sides towards the willow, at t = {step}")


with_slider(field, [5, 20, 40, 80, 150, 250, 400, 600, 900], 80, "t")

# %% [markdown]
# Now everything is there. Two thousand grains of pure noise, a thousand calls of *your* `p_sample`, and the perfect
# denoiser in the place of a network. (A few seconds.)


# %%
def p_sample_loop(predict, x: Tensor, thrown: torch.Generator, step_back=p_sample) -> Tensor:
    """From noise x (B, …) back to data, with predict(x_t, t): all states (N + 1, B, …), the noise first."""
    states = [x]
    for step in reversed(range(num_steps)):
        t = torch.full((len(x),), step)
        x = step_back(x, t, predict(x, t), normal(*x.shape, dice=thrown), betas, False)
        states.append(x)
    return torch.stack(states)


dust = normal(2000, 2, dice=dice(30))
states = p_sample_loop(perfect_noise, dust, dice(31))


# %%
def photograph(grains: Tensor, pixels: int = 56, edge: float = 1.5) -> Tensor:
    """Grains (n, 2) as a picture (3, 1, pixels, pixels) in [-1, 1]: where there are more, there is more light."""
    column, row = ((grains * torch.tensor([1, -1]) + edge) / (2 * edge) * pixels).floor().long().T
    inside = (column >= 0) & (column < pixels) & (row >= 0) & (row < pixels)
    count = torch.bincount((row * pixels + column)[inside], minlength=pixels**2)
    light = 1 - torch.exp(-1000 * count / len(grains))
    gold = torch.tensor([1.0, 0.82, 0.3])
    return 2 * torch.einsum("c, p -> cp", gold, light).reshape(3, 1, pixels, pixels) - 1


def develop(states: Tensor, frames: int = 28) -> Tensor:
    """States (N + 1, n, 2) as a film (3, frames, H, W), slower towards the end, and then at rest."""
    moments = (1 - torch.linspace(1, 0, frames - 6) ** 2) * (len(states) - 1)
    pictures = [photograph(states[int(k)]) for k in moments]
    return torch.cat([*pictures, *pictures[-1:] * 6], dim=1)


truth = photograph(draw_grains(2000, dice(32)))

# %% tags=["nbval-ignore-output"]
labels = ["your sampler, from pure noise", "the data"]
viz.player(
    [develop(states), truth],
    labels,
    alt="golden dust gathers into arms, then stars: the willow, as in the data",
)

# %% [markdown]
# Noise became a willow, and nothing was trained. **Only the denoiser is missing**, in every world but this one.
#
# ### The bug once more
#
# What would the published formula have made of the same dust, the same dice and the same perfect denoiser?


# %%
def published_step(x_t, t, noise_pred, z, betas, clip):
    mean, var, _ = published_posterior(predict_x0(x_t, t, noise_pred, abar), x_t, t, betas)
    return mean + var.sqrt() * z


harmed = p_sample_loop(perfect_noise, dust, dice(31), published_step)
for name, ends in (("yours", states[-1]), ("published", harmed[-1])):
    distance, which = torch.cdist(ends, stars).min(dim=1)
    lit = (torch.bincount(which, minlength=len(stars)) >= 20).sum().item()
    print(
        f"{name:>9}: {(distance < 3 * GLOW).double().mean():.0%} of the grains lie in a star's glow;", end=" "
    )
    print(f"{lit} of {len(stars)} stars have at least 1% of the grains")

# %% tags=["nbval-ignore-output"]
viz.player(
    [develop(harmed), develop(states)],
    ["published", "yours"],
    alt="the published step lights only the inner stars",
)

# %% [markdown]
# This is how such a bug can live for years. Nearly every single grain is *fine*: whoever looks at samples one by
# one sees good samples. It is the whole that is wrong. The outer stars are missing. On films it would read: good
# fireworks, but somehow never the rare ones.

# %% [markdown]
# ## DDIM: a thousand is a lot
#
# The perfect denoiser of this world costs next to nothing. A network that denoises films is slow, and a thousand
# calls of it are minutes. Why not stride, from 999 to 900 to 800?
#
# Your posterior can do giant steps (you just gave it one), but it answers every one of them with a bell, and we saw
# two humps. DDIM (Song, Meng and Ermon, 2020) *leaves the dice out*. At $x_t$ the denoiser believes in a film
# $\hat x_0$ and in a noise $\hat\varepsilon$. If both were true, the same film with the same noise would stand, at
# any other step $s$, at $\sqrt{\bar\alpha_s}\,\hat x_0 + \sqrt{1 - \bar\alpha_s}\,\hat\varepsilon$. So go there,
# however far it is. That is your `q_sample`, with believed ingredients.
#
# And everything in between is allowed: replace a part of the believed noise by fresh noise $z$ with variance
# $\sigma^2$, and keep the total.
#
# $$x_s = \sqrt{\bar\alpha_s}\,\hat x_0 + \sqrt{1 - \bar\alpha_s - \sigma^2}\;\hat\varepsilon + \sigma z, \qquad
# \sigma = \eta\,\sqrt{\frac{1 - \bar\alpha_s}{1 - \bar\alpha_t}\left(1 - \frac{\bar\alpha_t}{\bar\alpha_s}\right)}.$$
#
# $\eta = 0$ throws no dice. At $\eta = 1$, $\sigma^2$ is the posterior's variance.
#
# ### Exercise 02.ddim_step (10 minutes)
#
# In code $s$ is called `t_prev`, and `t_prev = -1` is the clean film. (To Python, index −1 is the *last* entry.
# Beware.)


# %%
# exercise: 02.ddim_step
def ddim_step(
    x_t: Tensor, t: Tensor, t_prev: Tensor, noise_pred: Tensor, z: Tensor, alphas_cumprod: Tensor, eta: float
) -> Tensor:
    """From step t to t_prev, both (B,) long and any distance apart. Nothing is clipped."""
    ### BEGIN SOLUTION
    x0 = predict_x0(x_t, t, noise_pred, alphas_cumprod)
    a = extract(alphas_cumprod, t, x_t.shape)
    with_clean = torch.cat([torch.ones_like(alphas_cumprod[:1]), alphas_cumprod])
    a_prev = extract(with_clean, t_prev + 1, x_t.shape)
    sigma = eta * ((1 - a_prev) / (1 - a) * (1 - a / a_prev)).sqrt()
    return a_prev.sqrt() * x0 + (1 - a_prev - sigma**2).sqrt() * noise_pred + sigma * z
    ### END SOLUTION


# %%
# hint("02.ddim_step")
check("02.ddim_step", ddim_step)


# %%
def ddim_loop(predict, x: Tensor, steps: list[int], eta: float = 0.0, number: int = 33) -> Tensor:
    """From noise x (B, …) through the descending `steps` to data: all states, the noise first."""
    states, thrown = [x], dice(number)
    for step, step_prev in zip(steps, [*steps[1:], -1], strict=True):
        t, t_prev = torch.full((len(x),), step), torch.full((len(x),), step_prev)
        x = ddim_step(x, t, t_prev, predict(x, t), normal(*x.shape, dice=thrown), abar, eta)
        states.append(x)
    return torch.stack(states)


# %% [markdown]
# First a proof that this is one family. With a stride of one, $\eta = 1$ and the same dice, DDIM must *be* your
# `p_sample`, though the two formulas look nothing alike. A hundred grains, all the way:

# %%
all_steps = list(reversed(range(num_steps)))
one_way = p_sample_loop(perfect_noise, dust[:100], dice(33))
other_way = ddim_loop(perfect_noise, dust[:100], all_steps, eta=1.0, number=33)
print(f"farthest apart at any step: {(one_way - other_way).abs().max():.9f}")

# %% [markdown]
# Now, which steps? Say, 300 of the 1000.

# %% [markdown] tags=["predict"]
# **Predict first.** A sampler from well-known code takes every $k$-th step, with $k$ = 1000 // 300, and adds 1 to
# each of them. Ask it for 300 steps: how many do you get? Does anything else go wrong?
#
# *My guess: …*


# %%
def every_kth(num_steps: int, steps: int) -> list[int]:
    return [t + 1 for t in range(0, num_steps, num_steps // steps)]


for steps in (50, 300):
    taken = every_kth(1000, steps)
    print(f"asked for {steps:3d}: got {len(taken):3d}, up to {max(taken):4d}; abar ends at {len(abar) - 1}")


# %%
def spread(steps: int, first: int = 999) -> list[int]:
    """`steps` timesteps, spread evenly from `first` down to 0; any number of them."""
    return torch.linspace(first, 0, steps, dtype=torch.float64).round().long().tolist()


for steps in (50, 300):
    print(
        f"asked for {steps:3d}: got {len(set(spread(steps))):3d}, from {spread(steps)[0]} to {spread(steps)[-1]}"
    )

# %% [markdown]
# <details><summary>What went wrong</summary>
#
# 1000 // 300 is 3, and every third of a thousand is 334 steps: more than asked for, and slower. The last of them is
# 1000, which points behind the end of the table. With 50 steps, which divide 1000, nobody notices (except that the
# first step back starts at 981 instead of 999). Numbers spread evenly from the last step to the first work for
# every count.
# </details>
#
# Three grains on their way, from the same three places: with dice, without dice, and without dice in ten strides.

# %% tags=["nbval-ignore-output"]
three = torch.tensor([[-0.75, -1.8], [1.8, -1.0], [-1.4, 1.2]], dtype=torch.float64)
ways = {
    "p_sample, 1000 steps": p_sample_loop(perfect_noise, three, dice(34))[::5],
    "DDIM, 1000 steps": ddim_loop(perfect_noise, three, all_steps),
    "DDIM, 10 steps": ddim_loop(perfect_noise, three, spread(10)),
}
figure, panels = viz.figure(1, 3, width=9, height=3)
for panel, (name, way) in zip(panels, ways.items(), strict=True):
    panel.plot(*stars.T, ".", color=viz.DATA, markersize=9, alpha=0.5)
    panel.plot(way[..., 0], way[..., 1], color=viz.INK, linewidth=0.6, marker="." if len(way) < 20 else None)
    panel.plot(*three.T, "s", color=viz.NOISE, markersize=5)
    panel.plot(*way[-1].T, "o", color=viz.INK, markersize=5)
    panel.set(title=name, xticks=[], yticks=[], xlim=(-2.2, 2.2), ylim=(-2.2, 2.2), aspect="equal")
show(
    figure,
    "with dice three wild staggers; without dice three smooth curves; in ten strides nearly the same curves",
)

# %% [markdown]
# With dice the way is a stagger. Without dice it is a smooth curve, and a smooth curve can be followed in long
# strides, though not in arbitrarily long ones: with ten, the corners are cut. There is a second gift. Without dice
# the end depends on the beginning alone, so a noise *is* a film; keep the noise, and you can have the film again.
#
# How much dice is good? $\eta$ = 0, ½ and 1 in 20 steps, beside the data, and then the slider.


# %% tags=["nbval-ignore-output"]
def in_twenty(eta: float) -> Tensor:
    return photograph(ddim_loop(perfect_noise, dust, spread(20), eta)[-1])


pictures = [in_twenty(0.0), in_twenty(0.5), in_twenty(1.0), truth]
viz.player(
    pictures,
    ["η = 0", "η = 0.5", "η = 1", "the data"],
    scale=3,
    alt="with more dice the willow in 20 steps is more blurred",
)

# %% tags=["nbval-ignore-output"]
with_slider(
    lambda eta: viz.player([in_twenty(eta)], [f"η = {eta}"], scale=3),
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
    0.2,
    "η",
)

# %% [markdown]
# To measure instead of squinting: look at both clouds, samples and data, from 32 directions; from each, sort the
# grains of both from left to right, and take the mean distance of partners. (This is the *sliced Wasserstein
# distance*.) Two draws of the data set the lowest value to hope for.
#
# One more sampler joins us, as an outlook. DDIM follows the curve by straight strokes. **DPM-Solver++** (Lu and
# others, 2022) also remembers what it believed one step ago, sees how the belief changes, and bends the stroke. Its
# clock is $\lambda$, half the logarithm of the signal-to-noise ratio, and it takes its steps evenly on that clock:

# %%
clock = 0.5 * torch.log(abar / (1 - abar))


def even_on_the_clock(steps: int) -> list[int]:
    wanted = torch.linspace(clock[-1].item(), clock[0].item(), steps, dtype=torch.float64)
    return sorted({(clock - w).abs().argmin().item() for w in wanted}, reverse=True)


def dpmpp_loop(predict, x: Tensor, steps: list[int]) -> Tensor:
    """DPM-Solver++(2M): from noise x (B, …) to data, in the order of the descending `steps`."""
    believed, stride = None, None
    for step, target in zip(steps, [*steps[1:], -1], strict=True):
        t = torch.full((len(x),), step)
        before, believed = believed, predict_x0(x, t, predict(x, t), abar)
        if target == -1:
            return believed
        stride_before, stride = stride, clock[target] - clock[step]
        bent = believed if before is None else believed + (believed - before) * stride / (2 * stride_before)
        x = ((1 - abar[target]) / (1 - abar[step])).sqrt() * x - abar[target].sqrt() * torch.expm1(
            -stride
        ) * bent


# %%
angles = torch.linspace(0, math.pi, 33, dtype=torch.float64)[:-1]
directions = torch.stack([angles.cos(), angles.sin()])


def apart(one: Tensor, other: Tensor) -> float:
    """Sliced Wasserstein distance of two clouds (n, 2)."""
    return (
        ((one @ directions).sort(dim=0).values - (other @ directions).sort(dim=0).values).abs().mean().item()
    )


# %% tags=["nbval-ignore-output"]
reference, more_dust, counts = (
    draw_grains(4000, dice(35)),
    normal(4000, 2, dice=dice(44)),
    [3, 5, 10, 20, 50, 100, 300],
)
curves = {
    "DDIM, η = 1 (ancestral)": [ddim_loop(perfect_noise, more_dust, spread(n), eta=1.0)[-1] for n in counts],
    "DDIM, η = 0": [ddim_loop(perfect_noise, more_dust, spread(n))[-1] for n in counts],
    "DPM-Solver++(2M)": [dpmpp_loop(perfect_noise, more_dust, even_on_the_clock(n)) for n in counts],
}
figure, ax = viz.figure(width=7, height=3.2)
for (name, ends), style in zip(curves.items(), ("s:", "o-", "^--"), strict=True):
    ax.plot(counts, [apart(end, reference) for end in ends], style, color=viz.INK, label=name)
ax.axhline(apart(draw_grains(4000, dice(36)), reference), color=viz.DATA, label="data against data")
ax.set(xscale="log", yscale="log", xlabel="calls of the denoiser", ylabel="distance from the data")
ax.set_xticks(counts, counts)
ax.legend()
show(figure, "all three fall towards the data line: DPM-Solver++ fastest, then DDIM without dice, then with")

# %% [markdown]
# With hundreds of steps all are alike, and 300 work as well as any other number. With few, dice are expensive: each
# throw must be corrected later, and there is no later. So η = 0 where steps are few, and a solver that bends where
# they are very few.
#
# ## ε, x0 and v: one thing in three coats
#
# Given $x_t$, film and noise determine each other. So a network may as well be asked for the film, or for a third
# quantity called $v$ (Salimans and Ho, 2022). One picture makes sense of all three. Think of film and noise as two
# perpendicular directions. The squares of their two factors add up to 1, so they are the cosine and the sine of an
# angle: $x_t$ walks along a quarter circle from the film to the noise, and $v$ is the direction in which it walks.

# %% tags=["nbval-ignore-output"]
figure, ax = viz.figure(width=3.4, height=3.2)
angle = torch.linspace(0, math.pi / 2, 100)
ax.plot(angle.cos(), angle.sin(), color="#BBBBBB")
c, s = math.cos(0.9), math.sin(0.9)
arrows = [
    ("$x_0$", viz.DATA, (0, 0), (1, 0)),
    ("ε", viz.NOISE, (0, 0), (0, 1)),
    ("$x_t$", viz.INK, (0, 0), (c, s)),
    ("v", viz.INK, (c, s), (c - 0.6 * s, s + 0.6 * c)),
]
for name, colour, tail, head in arrows:
    ax.annotate("", head, tail, arrowprops=dict(arrowstyle="-|>", color=colour, linewidth=2))
    ax.text(head[0] + 0.05, head[1] + 0.05, name, color=colour, fontsize=13)
ax.set(xlim=(-0.1, 1.2), ylim=(-0.1, 1.2), aspect="equal")
ax.axis("off")
show(
    figure,
    "a quarter circle from x0 to ε; x_t points to a place on it, and v starts there, at a right angle, towards ε",
)

# %% [markdown]
# ### Exercise 02.predict_v (3 minutes)
#
# Read $v$ off the picture: the two factors of $x_t$, exchanged, and one of them negative.


# %%
# exercise: 02.predict_v
def predict_v(x0: Tensor, t: Tensor, noise: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """v, the direction in which x_t turns from the film to the noise. Shapes as in q_sample."""
    ### BEGIN SOLUTION
    a = extract(alphas_cumprod, t, x0.shape)
    return a.sqrt() * noise - (1 - a).sqrt() * x0
    ### END SOLUTION


# %%
# hint("02.predict_v")
check("02.predict_v", predict_v)

# %% [markdown]
# Turning back is as easy: $x_0 = \sqrt{\bar\alpha_t}\,x_t - \sqrt{1 - \bar\alpha_t}\,v$. Let the same perfect
# knowledge come in three coats, walk back three times with the same dice, and compare where a hundred grains end:


# %%
def perfect_v(x_t: Tensor, t: Tensor) -> Tensor:
    return predict_v(perfect_x0(x_t, t), t, perfect_noise(x_t, t), abar)


def step_from_x0(x_t, t, x0, z, betas, clip):
    mean, var, _ = q_posterior(x0, x_t, t, betas)
    return mean + var.sqrt() * z


def step_from_v(x_t, t, v, z, betas, clip):
    a = extract(abar, t, x_t.shape)
    return step_from_x0(x_t, t, a.sqrt() * x_t - (1 - a).sqrt() * v, z, betas, clip)


by_x0 = p_sample_loop(perfect_x0, dust[:100], dice(33), step_from_x0)
by_v = p_sample_loop(perfect_v, dust[:100], dice(33), step_from_v)
print(f"told the film instead of the noise: farthest apart at any step {(by_x0 - one_way).abs().max():.9f}")
print(f"told v instead of the noise:        farthest apart at any step {(by_v - one_way).abs().max():.9f}")

# %% [markdown]
# Whoever knows one of the three knows all three. So does it not matter which of them a network is trained on? It
# does, because a *loss* is not the knowledge. It counts mistakes, and each coat counts them differently.
#
# ## The floor under the loss
#
# A network is trained by an exam: guess the noise that is in $x_t$, and pay the squared error. How little can one
# pay?

# %% [markdown] tags=["predict"]
# **Predict first.** Let the *perfect* denoiser sit the exam, on grains of the willow. Is its loss zero? Where is
# the exam hard: near the data ($t = 0$) or near the noise ($t = 999$)? And how is it if the question is "what was
# $x_0$?" instead?
#
# *My guess: …*


# %%
def exam(n: int, thrown: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """n grains at random steps: x0 (n, 2), t (n,), noise (n, 2) and x_t (n, 2)."""
    x0, noise = draw_grains(n, thrown), normal(n, 2, dice=thrown)
    t = torch.randint(num_steps, (n,), generator=thrown)
    return x0, t, noise, q_sample(x0, t, noise, abar)


def by_step(values: Tensor, t: Tensor, parts: int = 40) -> tuple[list[float], list[float]]:
    """Mean t and mean of values (n, 2) in `parts` stretches of the schedule, for plotting."""
    order = t.argsort()
    stretches = zip(t[order].double().chunk(parts), values[order].mean(dim=1).chunk(parts), strict=True)
    return tuple(zip(*((when.mean().item(), value.mean().item()) for when, value in stretches), strict=True))


# %% tags=["nbval-ignore-output"]
x0, t, noise, x_t = exam(200_000, dice(37))
best = perfect_noise(x_t, t)
mistakes = {
    "asked for the noise": (best - noise, viz.NOISE, "-"),
    "asked for the film": (perfect_x0(x_t, t) - x0, viz.DATA, "-"),
    "asked for v": (perfect_v(x_t, t) - predict_v(x0, t, noise, abar), viz.INK, "--"),
}
figure, ax = viz.figure(width=7, height=3)
for name, (mistake, colour, style) in mistakes.items():
    ax.plot(*by_step(mistake**2, t), style, color=colour, linewidth=2, label=name)
ax.set(xlabel="t", ylabel="loss of the perfect denoiser", yscale="log")
ax.legend()
show(
    figure,
    "asked for noise the loss falls from 1 to 0.00001, asked for the film it rises; asked for v it is never small",
)

# %% [markdown]
# <details><summary>What the curves say</summary>
#
# Never zero. Near the data the *noise* cannot be told from the glow of a star, and a loss of 1 is as bad as not
# guessing at all; the film is plain to see. Near the end it is the other way round: $x_t$ *is* nearly the noise,
# and the film is anybody's guess. The curves differ only by known factors,
# $\mathcal L_{x_0} = \frac{1 - \bar\alpha_t}{\bar\alpha_t}\,\mathcal L_\varepsilon$ and
# $\mathcal L_v = \mathcal L_\varepsilon / \bar\alpha_t = \mathcal L_{x_0} / (1 - \bar\alpha_t)$. So $v$ always asks
# the harder of the two questions, and no step is a gift.
# </details>
#
# So there is a **floor**: what the perfect denoiser pays. Why can nobody pay less? Take any other answer
# $\hat\varepsilon$. What it pays falls into two parts, like the squares on the sides of a right triangle:
#
# $$\mathbb E\,\lVert\hat\varepsilon - \varepsilon\rVert^2 = \mathbb E\,\lVert\varepsilon^* - \varepsilon\rVert^2
# + \mathbb E\,\lVert\hat\varepsilon - \varepsilon^*\rVert^2, \qquad \varepsilon^* = \mathbb E[\varepsilon \mid x_t].$$
#
# The mixed term vanishes, since $\varepsilon - \varepsilon^*$ has mean zero at every $x_t$, and there
# $\hat\varepsilon - \varepsilon^*$ is just a number. The first part is the floor. The second says how far the
# answer is from perfect, and a square is never negative. Three bad answers, measured:

# %%
floor = (best - noise).square().mean().item()
bad = {
    "always 0": 0 * x_t,
    "x_t itself": x_t,
    "perfect, but for t + 100": perfect_noise(x_t, (t + 100).clamp(max=999)),
}
for name, answer in bad.items():
    loss, distance = (answer - noise).square().mean().item(), (answer - best).square().mean().item()
    print(
        f"{name:>24}: loss {loss:.3f} = floor {floor:.3f} + distance {distance:.3f} ({floor + distance:.3f})"
    )

# %% [markdown]
# ## A network learns towards it
#
# Three hidden layers of 128. It sees the place (also as a few waves, so that it can tell neighbouring places apart)
# and the step, on the clock $\lambda$. It never sees the stars; only grains, noised by your `q_sample`.


# %%
class Guess(nn.Module):
    """Guesses the noise in x_t (B, 2)."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        hidden = [layer for _ in range(3) for layer in (nn.LazyLinear(width), nn.SiLU())]
        self.layers = nn.Sequential(*hidden, nn.Linear(width, 2))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        waves = rearrange(x[..., None] * torch.tensor([1, 2, 4]) * math.pi, "b xy k -> b (xy k)")
        hands = clock[t].float()[:, None] * torch.arange(1, 7) * 0.3
        return self.layers(torch.cat([x, waves.sin(), waves.cos(), hands.sin(), hands.cos()], dim=1))


# %%
training_steps, batch = 6000, 512
torch.manual_seed(seed)
network = Guess()
network(
    torch.zeros(1, 2), torch.zeros(1, dtype=torch.long)
)  # the first call tells the lazy layers their sizes
optimiser = torch.optim.Adam(network.parameters(), lr=8e-3)
slow_down = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, training_steps)
print(f"{sum(p.numel() for p in network.parameters()):,} numbers to learn")


# %%
def train_step(thrown: torch.Generator) -> float:
    """One batch: guess, pay, learn. Returns the loss."""
    _, t, noise, x_t = exam(batch, thrown)
    loss = (network(x_t.float(), t) - noise.float()).square().mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    slow_down.step()
    return loss.item()


@torch.no_grad()
def network_noise(x_t: Tensor, t: Tensor) -> Tensor:
    """The network in the place of the perfect denoiser."""
    return network(x_t.float(), t).to(x_t.dtype)


# %% [markdown]
# Now and then the network sits a large exam, always the same one, which the perfect denoiser sits too: that is the
# floor. On the right is what it would draw at that moment, by your DDIM. (About 30 seconds. Watch it.)

# %%
_, exam_t, exam_noise, exam_x_t = exam(50_000, dice(38))
exam_best = perfect_noise(exam_x_t, exam_t)
floor = (exam_best - exam_noise).square().mean().item()
paid, results, drawn = [], {}, {}


def examine() -> None:
    """Let the network sit the large exam and draw a willow."""
    results[len(paid)] = (network_noise(exam_x_t, exam_t) - exam_noise).square().mean().item()
    drawn[len(paid)] = photograph(ddim_loop(network_noise, dust, spread(50))[-1])


# %%
def progress() -> HTML:
    figure, (left, right) = viz.figure(1, 2, width=8.5, height=3.2)
    left.plot(
        range(0, len(paid), 3), paid[::3], ".", color="#BBBBBB", markersize=2, label="every third batch"
    )
    left.plot(list(results), list(results.values()), "o-", color=viz.INK, label="the large exam")
    left.axhline(floor, color=viz.DATA, linewidth=2, label="the floor")
    left.set(xlabel="step", ylabel="loss", xlim=(0, training_steps), ylim=(0.8 * floor, 1.6 * floor))
    left.legend(loc="upper right", fontsize=8)
    right.imshow(rearrange(drawn[len(paid)] / 2 + 0.5, "c 1 h w -> h w c"))
    right.set(title=f"drawn after {len(paid)} steps", xticks=[], yticks=[])
    said = f"after {len(paid)} steps: left, the loss falls to its floor; right, what the network draws"
    return viz.picture(as_png(figure).data, said)


# %% tags=["nbval-ignore-output"]
examine()
live, thrown = display(progress(), display_id=True), dice(39)
for step in range(1, training_steps + 1):
    paid.append(train_step(thrown))
    if step in (30, 100) or step % 600 == 0:
        examine()
        live.update(progress())

# %% tags=["nbval-ignore-output"]
shown = [0, 30, 100, 1200, 6000]
pictures = [drawn[step] for step in shown] + [truth]
viz.player(
    pictures,
    [f"{step} steps" for step in shown] + ["the data"],
    scale=3,
    alt="from scattered dust to a willow",
)

# %% [markdown]
# The loss falls like a stone, then crawls along a line that only we can see. Without the floor one would wonder
# whether to go on, or believe that such a loss is bad. It is nearly as good as it gets.
#
# And look at the grey dots: many of them lie *below* the floor. Has the network beaten the perfect denoiser? No: a
# batch is a small exam, and small exams are sometimes easy. On the same easy one the perfect denoiser pays less
# still. Grain by grain, on the large exam:

# %% tags=["nbval-ignore-output"]
paid_by_network = (network_noise(exam_x_t, exam_t) - exam_noise).square().mean(dim=1)
paid_by_perfect = (exam_best - exam_noise).square().mean(dim=1)
more = paid_by_network - paid_by_perfect
print(
    f"network {paid_by_network.mean():.4f}, floor {paid_by_perfect.mean():.4f}: {more.mean() / floor:.1%} more"
)
print(f"the difference is {more.mean():.4f}, with a statistical error of {more.std() / len(more) ** 0.5:.4f}")
print(f"closest to the floor at any exam: {min(results.values()) - floor:.4f} above")

# %% [markdown]
# What is still missing, and where? By Pythagoras, the distance from the perfect answer. Once as it is, in noise,
# and once turned into what it means for the believed *film*:

# %% tags=["nbval-ignore-output"]
missing = (network_noise(exam_x_t, exam_t) - exam_best).square()
a = extract(abar, exam_t, missing.shape)
figure, ax = viz.figure(width=7, height=3)
ax.plot(*by_step(missing, exam_t), color=viz.NOISE, linewidth=2, label="in the noise")
ax.plot(*by_step(missing * (1 - a) / a, exam_t), color=viz.DATA, linewidth=2, label="in the film")
ax.set(xlabel="t", ylabel="squared distance from perfect", yscale="log")
ax.legend()
show(
    figure,
    "in the noise the distance is small everywhere, least at large t; in the film it grows to more than 1 at the end",
)

# %% [markdown]
# Said as noise, the network's answers are good everywhere, and best at the far end. Said as a film, its guess at
# the far end is worthless. It is section two again: a small mistake, multiplied more than a hundredfold. The noise
# exam charges next to nothing for it, so nobody learns to avoid it. That is why `p_sample` *clamps*, and why video
# models, ours in lesson 07 among them, are often trained on $v$. The noise exam does ask for the near end, and
# there the drawing above falls short too: the arms are there, the stars not quite parted. What is finest is learnt
# last.
#
# ## Films out of noise
#
# Your `optimal_denoiser` takes points with any number of coordinates. A film *is* a point. So take a small pile of
# films, let it be the whole world, and let nothing be missing:

# %%
shells = [Scene((willow_shell,)), *sample_scenes(63, generator=dice(40))]
pile = torch.cat([film, render(shells[1:], data.frames, data.size, generator=dice(41)).double()])
points = rearrange(pile, "b c t h w -> b (c t h w)")
print(f"a world of {points.shape[0]} points with {points.shape[1]:,} coordinates")


def film_x0(x_t: Tensor, t: Tensor) -> Tensor:
    """E[x0 | x_t], (B, C, T, H, W), in the world of the pile."""
    return optimal_denoiser(rearrange(x_t, "b c t h w -> b (c t h w)"), t, points, abar).reshape(x_t.shape)


def film_noise(x_t: Tensor, t: Tensor) -> Tensor:
    """The same knowledge, said as noise."""
    a = extract(abar, t, x_t.shape)
    return (x_t - a.sqrt() * film_x0(x_t, t)) / (1 - a).sqrt()


# %% [markdown]
# Eight throws of the dice, 50 steps of your DDIM.

# %% tags=["nbval-ignore-output"]
snow = normal(8, *film.shape[1:], dice=dice(42))
states = ddim_loop(film_noise, snow, spread(50))
viz.player(states[-1], columns=4, fps=5, alt="eight different fireworks, sharp and whole")

# %% [markdown]
# Fireworks out of snow, sharp to the last spark. What did the denoiser believe on the way? The first film, with the
# light of the belief turned up four times while it is still fog:

# %% tags=["nbval-ignore-output"]
moments = [(k, spread(50)[k]) for k in (0, 6, 9, 12, 15, 20)]
beliefs = [film_x0(states[k, :1], torch.tensor([step]))[0] for k, step in moments]
pictures = [(4 * (belief + 1) - 1).clamp(-1, 1) for belief in beliefs[:4]] + beliefs[4:]
labels = [f"t = {step}" + (", 4 × light" if k < 15 else "") for k, step in moments]
viz.player(pictures, labels, fps=5, alt="a fog of all fireworks at once, then of fewer, then one")

# %% [markdown]
# First everything that ever flew, at once; then fewer; then one. Lesson 01 measured in which order a film dies, and
# it is born in the reverse order.
#
# And our willow? Let it sink to some step, forget the noise, and let your sampler walk back. Both ways as one
# moving picture, the film playing all the while:


# %%
def there_and_back(turn: int) -> Tensor:
    """States of the willow: noised up to step `turn`, then brought back by DDIM in 14 steps; then 9 at rest."""
    up = sorted(spread(12, first=turn))
    there = q_sample(film.expand(12, -1, -1, -1, -1), torch.tensor(up), snow[:1], abar)
    back = ddim_loop(film_noise, there[-1:], spread(14, first=turn))[:, 0]
    return torch.cat([there, back, back[-1:].expand(9, -1, -1, -1, -1)])


turns = [600, 750, 999]
walks = [there_and_back(turn) for turn in turns]
for turn, walk in zip(turns, walks, strict=True):
    which = torch.cdist(walk[-1].reshape(1, -1), points).argmin()
    print(f"turned back at t = {turn}: {canonical(shells[which])}")

# %% tags=["nbval-ignore-output"]
moving = [
    torch.stack([x[:, k % data.frames] for k, x in enumerate(walk)], dim=1) for walk in (walks[0], walks[2])
]
viz.player(
    moving,
    ["to t = 600 and back", "to t = 999 and back"],
    fps=6,
    scale=5,
    alt="the willow sinks into snow and returns; from t = 999 something else returns",
)

# %% [markdown]
# As long as the snow still knows its film, the film returns, although nobody told the noise. Later the snow has
# forgotten, and the sampler makes up its mind anew. That is what *generating* means.
#
# Only, how new are these films? Here is, for each of the eight, the nearest film of the pile, and the pixel that
# differs most:

# %%
distance, which = torch.cdist(rearrange(states[-1], "b c t h w -> b (c t h w)"), points).min(dim=1)
for end, k in zip(states[-1], which.tolist(), strict=True):
    print(f"{(end - pile[k]).abs().max():.4f} from number {k:2d}, {canonical(shells[k])}")

# %% [markdown]
# They are *copies*. The perfect denoiser of a finite pile can do nothing else, since in its world nothing but the
# pile exists. Perfection on the training set is **memory**.
#
# So what we want from a network is stranger than it seemed: to come close to the perfect denoiser of all the
# fireworks that *could* fly, having seen only some, and to miss the perfect denoiser of those that it saw. It must
# be too small, or see too many films, to learn them by heart. Then, and only then, does a firework come out that
# never existed. In the plane we had that: fresh grains in every batch, and a floor for the whole willow.
#
# ## Where all this lives
#
# | yours | in the package |
# |---|---|
# | `extract` | `minivdm/diffusion/tables.py` |
# | `q_sample`, `predict_v`, `q_posterior`, `p_sample`, the loop | `GaussianDiffusion` in `minivdm/diffusion/gaussian.py` |
# | `predict_x0` | `GaussianDiffusion.predict_start_from_noise`, same file |
# | `ddim_step`, `spread` | `minivdm/diffusion/samplers.py` |
# | DPM-Solver++ | `minivdm/diffusion/dpm_solver.py` |
#
# Is it really the same?

# %%
package = GaussianDiffusion(betas, threshold=None, dtype=torch.float64)
x0, t, noise, x_t = exam(1000, dice(43))
same = {
    "q_sample": (x_t, package.q_sample(x0, t, noise)),
    "predict_x0": (predict_x0(x_t, t, noise, abar), package.predict_start_from_noise(x_t, t, noise)),
    "predict_v": (predict_v(x0, t, noise, abar), package.predict_v(x0, t, noise)),
    "q_posterior": (q_posterior(x0, x_t, t, betas)[0], package.q_posterior(x0, x_t, t).mean),
    "DDIM, 50 steps": (
        ddim_loop(perfect_noise, dust, spread(50))[-1],
        sample(package, perfect_noise, dust, "ddim", 50),
    ),
}
for name, (ours, theirs) in same.items():
    print(f"{name:>15}: the package gives the same: {torch.allclose(ours, theirs, atol=1e-9)}")

# %% [markdown]
# ## Reflection
#
# In your own words, a sentence or two each (there is a cell below for it):
#
# 1. To run the film backwards, what would you have to know? Say it to somebody who has not read this.
# 2. Why are small steps back bells, and giant ones not? What would a sampler do wrong that pretended they are?
# 3. The published formula lights only the inner stars, and every grain looks right. How would you have noticed it
#    on films?
# 4. A friend reports a loss of 0.03 and is proud of it. What do you have to ask before you congratulate?
# 5. Is a network that reaches the floor of its *training set* a good one?

# %% [markdown]
# *My answers: …*

# %% [markdown]
# ## What comes next
#
# Only the denoiser is missing, and now you know what it must compute, what it will be paid for, and what it can
# never reach. A network for films comes in lesson 07. Before that there is a question of thrift. The films above
# are points with 27,648 coordinates, most of them night, and a useful film has millions. **Lesson 03 asks: how few
# numbers are enough?**
#
# Your functions that passed are kept in `workbook/`; `minivdm progress` shows how far you are. In lesson 09 they
# run in the final pipeline.
#
# **Read on:** Ho, Jain and Abbeel, *Denoising Diffusion Probabilistic Models* (2020), sections 2 and 3. Song, Meng
# and Ermon, *Denoising Diffusion Implicit Models* (2020). Salimans and Ho, *Progressive Distillation* (2022),
# appendix D. Lu et al., *DPM-Solver++* (2022). Kadkhodaie et al., *Generalization in diffusion models arises from
# geometry-adaptive harmonic representations* (2023), on when networks stop learning by heart.
