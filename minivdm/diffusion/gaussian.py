"""Gaussian diffusion: noise a video step by step, learn to predict what was added, and walk back.

The equations are those of DDPM (Ho et al. 2020), with the v prediction of Salimans & Ho 2022. x_t is (B, …) of any
rank: videos (B, C, T, H, W) in [-1, 1], or points (B, 2). t is (B,) int64, 0-based: t = 0 has had one noising step,
t = N - 1 is all but noise. A *model* is any callable `model(x_t, t) -> prediction` of x_t's shape; bind conditions by a
closure.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from einops import reduce
from torch import Tensor, nn
from tqdm.auto import tqdm

from minivdm.diffusion.tables import diffusion_tables, extract, per_sample
from minivdm.diffusion.thresholding import dynamic_threshold, static_threshold
from minivdm.errors import UserError

Model = Callable[[Tensor, Tensor], Tensor]

PREDICTIONS = ("noise", "x0", "v")
LOSSES = ("l1", "l2")
THRESHOLDS = ("static", "dynamic", None)


class Gaussian(NamedTuple):
    """A normal distribution with independent elements; variance and log_variance are (B, 1, …), one per sample."""

    mean: Tensor
    variance: Tensor
    log_variance: Tensor


class GaussianDiffusion(nn.Module):
    """The forward process, its posterior, the training loss and ancestral sampling, for one noise schedule.

    Holds tables, no network. They are computed in float64, kept in `dtype`, and not saved with the module: the schedule
    is part of the configuration.

    betas       (N,), each in (0, 1]
    prediction  what the model's output means: "noise", "x0", or "v" = sqrt(abar) noise - sqrt(1 - abar) x0
    loss        "l1" or "l2"
    threshold   how an estimate of x0 is kept within ±clip_range while sampling: "static" clamps, "dynamic" shrinks a
                sample by the `percentile` quantile of |x0| first, None lets it be (latents, data without a range)
    shift_factor, scale_factor
                `normalize` takes clips x to (x - shift_factor) · scale_factor, in which everything below is said. With
                the mean and 1 / the standard deviation of the data, x0 and noise are of one size, which v assumes
    """

    def __init__(
        self,
        betas: Tensor,
        prediction: str = "noise",
        loss: str = "l2",
        threshold: str | None = "static",
        percentile: float = 0.9,
        clip_range: float = 1.0,
        shift_factor: float = 0.0,
        scale_factor: float = 1.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        _check_choice("prediction", prediction, PREDICTIONS)
        _check_choice("loss", loss, LOSSES)
        _check_choice("threshold", threshold, THRESHOLDS)
        if betas.ndim != 1 or len(betas) == 0 or not ((betas > 0) & (betas <= 1)).all():
            raise UserError(f"betas of shape {tuple(betas.shape)}: expected (N,), each above 0 and at most 1")
        if prediction == "noise" and betas[-1] == 1:
            raise UserError(
                "betas end at pure noise, where a noise prediction says nothing about x0: predict 'v' or 'x0'"
            )
        if not 0 < percentile <= 1 or not clip_range > 0:
            raise UserError(f"percentile {percentile}, clip_range {clip_range}: expected a share in (0, 1] and above 0")
        self.num_steps = len(betas)
        self.prediction, self.loss_name = prediction, loss
        self.threshold, self.percentile, self.clip_range = threshold, percentile, clip_range
        self.shift_factor, self.scale_factor = shift_factor, scale_factor

        tables = diffusion_tables(betas.double())
        self.alpha_bars = tables["alphas_cumprod"].cpu()  # float64 whatever happens to the buffers; samplers use it
        for name, table in tables.items():
            self.register_buffer(name, table.to(dtype), persistent=False)

    def alpha_bar(self, t: int) -> float:
        """abar_t in double precision; t = -1 is clean data, where it is 1."""
        return self.alpha_bars[t].item() if t >= 0 else 1.0

    def normalize(self, x: Tensor) -> Tensor:
        """Clips in [-1, 1] to what is noised and denoised."""
        return (x - self.shift_factor) * self.scale_factor

    def denormalize(self, x0: Tensor) -> Tensor:
        """The inverse of `normalize`."""
        return x0 / self.scale_factor + self.shift_factor

    # The forward process: from data to noise.

    def q_sample(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t in one jump: sqrt(abar_t) x0 + sqrt(1 - abar_t) noise (DDPM, equation 4)."""
        _check_pair(x0, noise)
        signal = extract(self.sqrt_alphas_cumprod, t, x0.shape) * x0
        return signal + extract(self.sqrt_one_minus_alphas_cumprod, t, x0.shape) * noise

    def q_mean_variance(self, x0: Tensor, t: Tensor) -> Gaussian:
        """q(x_t | x0), what t + 1 noising steps make of x0: the distribution that q_sample draws from."""
        mean = extract(self.sqrt_alphas_cumprod, t, x0.shape) * x0
        variance = 1 - extract(self.alphas_cumprod, t, x0.shape)
        return Gaussian(mean, variance, extract(self.log_one_minus_alphas_cumprod, t, x0.shape))

    def q_posterior(self, x0: Tensor, x_t: Tensor, t: Tensor) -> Gaussian:
        """q(x_{t-1} | x_t, x0), one step back when the destination is known (DDPM, equations 6 and 7).

        The factor of x_t holds sqrt(alpha_t), of this one step, not sqrt(abar_t): only then does a path without noise,
        x_t = sqrt(abar_t) x0, lead back to sqrt(abar_{t-1}) x0.
        """
        from_x0 = extract(self.posterior_mean_coef1, t, x_t.shape) * x0
        mean = from_x0 + extract(self.posterior_mean_coef2, t, x_t.shape) * x_t
        variance = extract(self.posterior_variance, t, x_t.shape)
        return Gaussian(mean, variance, extract(self.posterior_log_variance_clipped, t, x_t.shape))

    # Noise, x0 and v are three ways of saying the same thing: with x_t at hand, any of them gives the other two.

    def predict_start_from_noise(self, x_t: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """q_sample solved for x0 (DDPM, equation 15)."""
        whole = extract(self.sqrt_recip_alphas_cumprod, t, x_t.shape) * x_t
        return whole - extract(self.sqrt_recipm1_alphas_cumprod, t, x_t.shape) * noise

    def predict_noise_from_start(self, x_t: Tensor, t: Tensor, x0: Tensor) -> Tensor:
        """q_sample solved for the noise."""
        rest = x_t - extract(self.sqrt_alphas_cumprod, t, x_t.shape) * x0
        return rest / extract(self.sqrt_one_minus_alphas_cumprod, t, x_t.shape)

    def predict_v(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """v = sqrt(abar_t) noise - sqrt(1 - abar_t) x0 (Salimans & Ho 2022, appendix D)."""
        turned = extract(self.sqrt_alphas_cumprod, t, x0.shape) * noise
        return turned - extract(self.sqrt_one_minus_alphas_cumprod, t, x0.shape) * x0

    def predict_start_from_v(self, x_t: Tensor, t: Tensor, v: Tensor) -> Tensor:
        """x0 = sqrt(abar_t) x_t - sqrt(1 - abar_t) v: unlike with noise, nothing is divided by a vanishing signal."""
        turned = extract(self.sqrt_alphas_cumprod, t, x_t.shape) * x_t
        return turned - extract(self.sqrt_one_minus_alphas_cumprod, t, x_t.shape) * v

    def predict_noise_from_v(self, x_t: Tensor, t: Tensor, v: Tensor) -> Tensor:
        """noise = sqrt(abar_t) v + sqrt(1 - abar_t) x_t."""
        turned = extract(self.sqrt_alphas_cumprod, t, x_t.shape) * v
        return turned + extract(self.sqrt_one_minus_alphas_cumprod, t, x_t.shape) * x_t

    # Training.

    def target(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """What the model should answer to q_sample(x0, t, noise)."""
        if self.prediction == "v":
            return self.predict_v(x0, t, noise)
        return noise if self.prediction == "noise" else x0

    def loss(self, model: Model, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """(B,): the mean of |error| ("l1") or error² ("l2") over each sample (DDPM, equation 14)."""
        error = self.predict(model, self.q_sample(x0, t, noise), t) - self.target(x0, t, noise)
        return reduce(error.abs() if self.loss_name == "l1" else error**2, "b ... -> b", "mean")

    # The reverse process: from noise to data.

    def predict(self, model: Model, x_t: Tensor, t: Tensor) -> Tensor:
        """Call the model, and check that it answers in the shape of x_t."""
        prediction = model(x_t, t)
        if prediction.shape != x_t.shape:
            raise UserError(
                f"the model turned {tuple(x_t.shape)} into {tuple(prediction.shape)}: expected the same shape"
            )
        return prediction

    def to_x0(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The estimate of x0 that a prediction amounts to, kept in range."""
        if self.prediction == "noise":
            x0 = self.predict_start_from_noise(x_t, t, prediction)
        else:
            x0 = self.predict_start_from_v(x_t, t, prediction) if self.prediction == "v" else prediction
        return self.keep_in_range(x0)

    def to_noise(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The noise that a prediction amounts to, before any threshold."""
        if self.prediction == "noise":
            return prediction
        convert = self.predict_noise_from_v if self.prediction == "v" else self.predict_noise_from_start
        return convert(x_t, t, prediction)

    def to_x0_and_noise(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """x0, kept in range, and the noise that goes with exactly this x0: q_sample of the two is x_t again."""
        x0 = self.to_x0(prediction, x_t, t)
        if self.threshold is None:
            return x0, self.to_noise(prediction, x_t, t)
        return x0, self.predict_noise_from_start(x_t, t, x0)

    def keep_in_range(self, x0: Tensor) -> Tensor:
        """Apply the threshold to an estimate of x0."""
        if self.threshold == "static":
            return self.normalize(static_threshold(self.denormalize(x0), self.clip_range))
        if self.threshold == "dynamic":
            return self.normalize(dynamic_threshold(self.denormalize(x0), self.percentile, self.clip_range))
        return x0

    def p_mean_variance(self, model: Model, x_t: Tensor, t: Tensor) -> Gaussian:
        """p(x_{t-1} | x_t): the posterior, with the model's estimate in place of x0 (DDPM, equation 11)."""
        return self.q_posterior(self.to_x0(self.predict(model, x_t, t), x_t, t), x_t, t)

    def p_sample(self, model: Model, x_t: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """One step back, mean + sigma · noise (DDPM, algorithm 2). Samples at t = 0 arrive, and get no noise."""
        mean, _, log_variance = self.p_mean_variance(model, x_t, t)
        return mean + per_sample(t > 0, x_t.ndim) * (0.5 * log_variance).exp() * noise

    @torch.no_grad()
    def p_sample_loop(
        self,
        model: Model,
        x_T: Tensor,
        generator: torch.Generator | None = None,
        noises: Sequence[Tensor] | None = None,
        progress: bool = False,
        return_all: bool = False,
        first_step: int | None = None,
    ) -> Tensor:
        """Walk from x_T (B, …) to x_0 with one model call for each t = N - 1, …, 0 (DDPM, algorithm 2).

        generator   draws the noise of each step; `noises`, a sequence of one tensor per step, replaces the draws
        return_all  returns every state, (N + 1, B, …): x_T first, x_0 last
        first_step  the first t, when x_T is not pure noise but an x_t that is half-way; N - 1 by default
        """
        first_step = self.num_steps - 1 if first_step is None else first_step
        x, states = x_T, [x_T]
        for k, step in enumerate(tqdm(range(first_step, -1, -1), desc="ddpm", disable=not progress)):
            t = torch.full((len(x),), step, device=x.device)
            x = self.p_sample(model, x, t, draw_noise(x, generator) if noises is None else noises[k])
            if return_all:
                states.append(x)
        return torch.stack(states) if return_all else x

    def interpolate(
        self,
        model: Model,
        x0_a: Tensor,
        x0_b: Tensor,
        t: int,
        weight: float = 0.5,
        generator: torch.Generator | None = None,
        noises: Sequence[Tensor] | None = None,
        first_step: int | None = None,
    ) -> Tensor:
        """A clip between two: noise both to level t, mix them (1 - weight : weight), walk back (DDPM, section 4.4).

        `noises` holds the draws in their order: one for each end, then one per step. The walk begins at `first_step`,
        by default at t, the level that the mixture has; starting at t - 1 leaves one step's noise in the result.
        """
        level = torch.full((len(x0_a),), t, device=x0_a.device)
        if noises is None:
            a, b, rest = draw_noise(x0_a, generator), draw_noise(x0_b, generator), None
        else:
            a, b, rest = noises[0], noises[1], noises[2:]
        mixed = (1 - weight) * self.q_sample(x0_a, level, a) + weight * self.q_sample(x0_b, level, b)
        return self.p_sample_loop(model, mixed, generator, rest, first_step=t if first_step is None else first_step)


def draw_noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise of the shape, dtype and device of `like`, drawn on the generator's own device."""
    device = generator.device if generator else like.device
    return torch.randn(like.shape, generator=generator, device=device, dtype=like.dtype).to(like.device)


def _check_choice(name: str, value: str | None, known: Sequence[str | None]) -> None:
    if value not in known:
        raise UserError(f"unknown {name} {value!r}: use one of {', '.join(map(repr, known))}")


def _check_pair(x0: Tensor, noise: Tensor) -> None:
    if not x0.is_floating_point():
        raise UserError(f"x0 is {x0.dtype}, expected floats in [-1, 1]: convert bytes with x / 127.5 - 1")
    if x0.shape != noise.shape:
        raise UserError(f"x0 is {tuple(x0.shape)} and the noise {tuple(noise.shape)}: expected equal shapes")
