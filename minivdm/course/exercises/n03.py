"""Exercises of notebook 03, the 2D VAE: drawing a latent, its price, looking everywhere at once, and honest numbers."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from minivdm.course.exercise import Case, Exercise
from minivdm.course.exercises import n03_latent_mistakes as latent_mistakes
from minivdm.course.exercises import n03_picture_mistakes as picture_mistakes
from minivdm.course.inputs import randn, uniform

PICTURES, CLIP, VECTORS = (3, 2, 5, 4), (2, 4, 3, 6, 5), (4, 7)


def reparameterize(mean: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    return mean + torch.exp(logvar / 2) * noise


def kl_to_standard_normal(mean: Tensor, logvar: Tensor) -> Tensor:
    return 0.5 * (mean**2 + logvar.exp() - 1 - logvar).flatten(1).sum(dim=1)


def spatial_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    height, width = q.shape[2:]
    q, k, v = (rearrange(each, "b c h w -> b (h w) c") for each in (q, k, v))
    weights = torch.softmax(q @ rearrange(k, "b n c -> b c n") * q.shape[2] ** -0.5, dim=2)
    return rearrange(weights @ v, "b (h w) c -> b c h w", h=height, w=width)


def downsample_pad(x: Tensor) -> Tensor:
    return F.pad(x, (0, 1, 0, 1))


def nll(x: Tensor, x_rec: Tensor, logvar: Tensor, kl: Tensor, kl_weight: float) -> Tensor:
    reconstruction = (x - x_rec).abs() * torch.exp(-logvar) + logvar
    return (reconstruction.sum() + kl_weight * kl.sum()) / len(x)


def latent_scale(latents: Tensor) -> float:
    return 1 / float(latents.std())


def psnr_lit(x: Tensor, x_rec: Tensor, threshold: float) -> float:
    lit = x.amax(dim=1) > threshold  # a pixel shines when any of its colours does
    error = ((x - x_rec) ** 2).mean(dim=1)[lit].mean()
    return 10 * float(torch.log10(4 / error))  # black and white are 2 apart in [−1, 1]


def _reparameterize_cases(g: torch.Generator) -> list[Case]:
    def case(shape: tuple[int, ...], low: float, high: float, size: float, note: str, **dtype: torch.dtype) -> Case:
        mean, noise = size * randn(g, *shape, **dtype), randn(g, *shape, **dtype)
        return Case({"mean": mean, "logvar": uniform(g, low, high, *shape, **dtype), "noise": noise}, note)

    return [
        case(PICTURES, -3, 2, 1.0, "a batch of pictures"),
        case(CLIP, -4, 1, 1.0, "a batch of clips in float64", dtype=torch.float64),
        case((1, 3, 2), 21, 24, 1.0, "very large variances"),
        case((2, 5), -40, -34, 1e-8, "very small variances"),
    ]


def _kl_cases(g: torch.Generator) -> list[Case]:
    def case(shape: tuple[int, ...], dtype: torch.dtype, note: str) -> Case:
        mean, logvar = randn(g, *shape, dtype=dtype), uniform(g, -3, 1.5, *shape, dtype=dtype)
        return Case({"mean": mean, "logvar": logvar}, note)

    return [
        case(PICTURES, torch.float32, "pictures (B, C, H, W)"),
        case(CLIP, torch.float32, "clips (B, C, T, H, W)"),
        case(VECTORS, torch.float64, "vectors (B, D) in float64"),
        case((1, 2, 3), torch.float32, "a single sample"),
    ]


def _attention_cases(g: torch.Generator) -> list[Case]:
    def case(shape: tuple[int, ...], dtype: torch.dtype, note: str) -> Case:
        return Case({name: 1.3 * randn(g, *shape, dtype=dtype) for name in ("q", "k", "v")}, note)

    return [
        case((2, 6, 3, 5), torch.float32, "a batch of pictures"),
        case((1, 5, 4, 2), torch.float64, "one picture in float64"),
        case((3, 8, 1, 4), torch.float32, "pictures of one row"),
    ]


def _pad_cases(g: torch.Generator) -> list[Case]:
    def case(shape: tuple[int, ...], dtype: torch.dtype, note: str) -> Case:
        return Case({"x": 3 + randn(g, *shape, dtype=dtype)}, note)

    return [
        case((2, 3, 4, 6), torch.float32, "even height and width"),
        case((3, 2, 5, 7), torch.float64, "odd height and width, float64"),
        case((1, 4, 6, 3), torch.float32, "one picture, even height and odd width"),
    ]


def _nll_cases(g: torch.Generator) -> list[Case]:
    def case(shape: tuple[int, ...], logvar: float, kl_weight: float, note: str, **dtype: torch.dtype) -> Case:
        x, x_rec = uniform(g, -1, 1, *shape, **dtype), uniform(g, -1, 1, *shape, **dtype)
        kl = uniform(g, 20, 60, shape[0], **dtype)
        spread = torch.tensor(logvar, **dtype)
        return Case({"x": x, "x_rec": x_rec, "logvar": spread, "kl": kl, "kl_weight": kl_weight}, note)

    return [
        case(PICTURES, -0.7, 0.25, "a batch of pictures"),
        case(CLIP, 0.4, 1.5, "a batch of clips in float64", dtype=torch.float64),
        case((1, 3, 6, 2), -1.2, 0.5, "one picture"),
    ]


def _latent_cases(g: torch.Generator) -> list[Case]:
    """Enough numbers that n and n − 1 are the same to 0.1 %; mean, channels and samples all differ."""

    def case(shape: tuple[int, ...], size: float, dtype: torch.dtype, note: str) -> Case:
        spread, centre = uniform(g, 0.4, 2.5, 1, shape[1], 1, 1, dtype=dtype), randn(g, 1, shape[1], 1, 1, dtype=dtype)
        louder = torch.linspace(0.5, 2, shape[0], dtype=dtype).reshape(-1, 1, 1, 1)
        latents = louder * (spread * randn(g, *shape, dtype=dtype) + centre) + 1.5
        return Case({"latents": size * latents}, note)

    return [
        case((5, 4, 8, 7), 1.0, torch.float32, "latents off zero, channels and samples unlike each other"),
        case((6, 3, 9, 8), 4.0, torch.float64, "larger latents in float64"),
        case((3, 5, 11, 10), 0.2, torch.float32, "small latents"),
    ]


def _psnr_cases(g: torch.Generator) -> list[Case]:
    """A night sky: one pixel in three shines, often in one colour only; the others glimmer and are easy to rebuild."""

    def case(shape: tuple[int, ...], threshold: float, note: str, **dtype: torch.dtype) -> Case:
        pixels = (shape[0], 1, *shape[2:])
        lit = uniform(g, 0, 1, *pixels) < 0.35
        colour = uniform(g, 0, 1, *shape) < 0.5
        night = uniform(g, -1, 0.9 * threshold - 0.1, *shape, **dtype)
        x = torch.where(lit & colour, uniform(g, threshold + 0.03, 1, *shape, **dtype), night)
        faults = uniform(g, 0.1, 0.5, shape[0], *[1] * (len(shape) - 1), **dtype)
        x_rec = x + faults * randn(g, *shape, **dtype) * torch.where(lit, 1.0, 0.2)
        x_rec = torch.where(lit & (uniform(g, 0, 1, *pixels) < 0.2), -torch.ones_like(x), x_rec)  # sparks lost
        return Case({"x": x, "x_rec": x_rec, "threshold": threshold}, note)

    return [
        case((3, 4, 6, 7), -0.8, "pictures"),
        case((2, 3, 5, 4, 7), -0.6, "clips in float64", dtype=torch.float64),
        case((1, 3, 8, 5), -1.0, "the darkest threshold, −1: black itself is not lit"),
    ]


EXERCISES = (
    Exercise(
        "03.reparameterize",
        reparameterize,
        _reparameterize_cases,
        latent_mistakes.REPARAMETERIZE,
        (
            "A draw from any Gaussian is a standard draw, stretched and moved. Written so, the dice stand outside and "
            "the gradient can pass through the stretch and the move.",
            "z = mean + σ · noise with σ = √(e^logvar) = e^(logvar/2)",
            "`mean + torch.exp(0.5 * logvar) * noise`",
        ),
        gradients=("mean", "logvar"),
    ),
    Exercise(
        "03.kl_to_standard_normal",
        kl_to_standard_normal,
        _kl_cases,
        latent_mistakes.KL_TO_STANDARD_NORMAL,
        (
            "How many nats does it cost to say where the latent is, when everybody expects a standard normal? Each "
            "number of the latent adds its own price, and every sample has its own bill.",
            "KL_b = ½ Σ (mean² + e^logvar − 1 − logvar), the sum over all axes but the first",
            "`0.5 * (mean**2 + logvar.exp() - 1 - logvar).flatten(1).sum(dim=1)`",
        ),
        gradients=("mean", "logvar"),
    ),
    Exercise(
        "03.spatial_attention",
        spatial_attention,
        _attention_cases,
        picture_mistakes.SPATIAL_ATTENTION,
        (
            "Lay the pixels of a picture out in a row: each is a vector with one number per channel. Every pixel asks "
            "all pixels of its picture and takes home a weighted average.",
            "softmax over keys of (q·kᵀ/√C), times v, with q, k, v as (B, H·W, C); then back to (B, C, H, W)",
            '`q, k, v = (rearrange(a, "b c h w -> b (h w) c") for a in (q, k, v))`, then '
            '`rearrange(out, "b (h w) c -> b c h w", h=h)` of '
            "`torch.softmax(q @ k.transpose(1, 2) * q.shape[2] ** -0.5, dim=2) @ v`",
        ),
    ),
    Exercise(
        "03.downsample_pad",
        downsample_pad,
        _pad_cases,
        picture_mistakes.DOWNSAMPLE_PAD,
        (
            "A 3×3 window that moves in steps of two needs one more row and one more column to halve a picture of even "
            "size. This code adds them at one end only.",
            "(H, W) becomes (H + 1, W + 1): zeros in the last row and in the last column",
            "`F.pad(x, (0, 1, 0, 1))`: the numbers stand for left, right, top, bottom",
        ),
    ),
    Exercise(
        "03.nll",
        nll,
        _nll_cases,
        latent_mistakes.NLL,
        (
            "How surprised are we by the true picture, if each number of it scatters around the rebuilt one? Large "
            "errors cost, and so does claiming to know nothing. The price of the latent is added, per sample.",
            "Σ(|x − x_rec| · e^(−logvar) + logvar)/B + kl_weight · Σ kl/B, the first sum over all of the batch",
            "`((x - x_rec).abs() * torch.exp(-logvar) + logvar).sum() / len(x)`, then add `kl_weight * kl.sum() / "
            "len(x)`",
        ),
        gradients=("x_rec", "logvar", "kl"),
    ),
    Exercise(
        "03.latent_scale",
        latent_scale,
        _latent_cases,
        latent_mistakes.LATENT_SCALE,
        (
            "Diffusion ends in noise of size 1, so its clean data should have size 1 as well. One number for the whole "
            "latent space, measured once.",
            "1 / √(mean of (z − mean of z)²), both means over all elements",
            "`1 / latents.std()`",
        ),
        rtol=5e-3,
        atol=0.0,
    ),
    Exercise(
        "03.psnr_lit",
        psnr_lit,
        _psnr_cases,
        picture_mistakes.PSNR_LIT,
        (
            "Anyone can paint a black sky. Judge the reconstruction only where the true picture shines, in at least "
            "one colour.",
            "10 · log10(2² / mse), mse = mean of (x − x_rec)² over all colours of the pixels with max over colours of "
            "x > threshold",
            "`lit = x.amax(dim=1) > threshold`, then `((x - x_rec) ** 2).mean(dim=1)[lit].mean()`",
        ),
    ),
)
