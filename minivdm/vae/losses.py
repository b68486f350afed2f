"""What a VAE is trained for: reconstruction, perceptual distance and divergence, for pictures and for films.

The critic's side is in `critic_losses.py`, and everything there can be imported from here as well.
"""

from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from minivdm.errors import UserError
from minivdm.vae.critic_losses import (
    CRITIC_LOSSES,
    AdversarialLoss,
    LeCam,
    adaptive_weight,
    adopt_weight,
    generator_loss,
    gradient_penalty,
    hinge_d_loss,
    sigmoid_cross_entropy,
    vanilla_d_loss,
    wgan_d_loss,
)
from minivdm.vae.lpips import LPIPS

__all__ = [
    "CRITIC_LOSSES", "AdversarialLoss", "CombinedVAELoss", "LeCam", "VAELoss", "VAELossTerms",
    "adaptive_weight", "adopt_weight", "batch_mean", "generator_loss", "gradient_penalty", "hinge_d_loss", "l1", "l2",
    "measure_perplexity", "sigmoid_cross_entropy", "vanilla_d_loss", "wgan_d_loss",
]  # fmt: skip


def l1(x: Tensor, y: Tensor) -> Tensor:
    """Elementwise |x - y|."""
    return (x - y).abs()


def l2(x: Tensor, y: Tensor) -> Tensor:
    """Elementwise (x - y)^2."""
    return (x - y).square()


def batch_mean(x: Tensor) -> Tensor:
    """The sum of everything over the length of the first axis, a scalar."""
    return x.sum() / len(x)


def measure_perplexity(indices: Tensor, n_embed: int) -> tuple[Tensor, Tensor]:
    """How many of `n_embed` codes are really in use: (perplexity, number of codes used), both 0-d.

    indices: long, any shape. The perplexity is e to the entropy of how often each code is chosen: n_embed when all are
    chosen equally often, 1 when there is only one. Falling towards 1 means that a codebook is collapsing.
    """
    counts = torch.bincount(indices.flatten(), minlength=n_embed)
    share = counts.float() / indices.numel()
    return torch.exp(-(share * torch.log(share + 1e-10)).sum()), (counts > 0).sum()


class VAELossTerms(NamedTuple):
    """Three scalars; `nll_weighted + kl` is what to minimise.

    nll: distance and perceptual distance under the learned noise level, summed over a frame. nll_weighted: the same,
    with the caller's weights. kl: the divergence, times its weight.
    """

    nll: Tensor
    nll_weighted: Tensor
    kl: Tensor


class VAELoss(nn.Module):
    """|x - y| + weight times LPIPS, under a noise level that is learned, and the divergence (Esser et al. 2021).

    The pixels' errors are taken to be Laplacian with log-scale `logvar`, a trainable scalar, so each counts
    |x - y| / e^logvar + logvar. Sums over pixels are divided by the number of frames: a loss is "per frame", and the
    same for one film of eight frames as for eight pictures.

    perceptual: the distance between frames (N, 3, H, W) -> (N, 1, 1, 1); without it ours, `LPIPS()`.
    kl_per: what the divergence is summed over. "clip": a latent of all frames (Open-Sora 1.2); "frame": a latent frame,
        so that it does not grow with the length of a clip (Open-Sora 2).
    """

    def __init__(
        self,
        perceptual_weight: float = 0.1,
        kl_weight: float = 1e-6,
        perceptual: nn.Module | None = None,
        logvar_init: float = 0.0,
        kl_per: Literal["clip", "frame"] = "clip",
    ):
        super().__init__()
        if kl_per not in ("clip", "frame"):
            raise UserError(f"kl_per is {kl_per!r}; expected 'clip' or 'frame'")
        self.perceptual_weight, self.kl_weight, self.kl_per = perceptual_weight, kl_weight, kl_per
        self.perceptual = (perceptual or LPIPS()) if perceptual_weight else None
        self.logvar = nn.Parameter(torch.tensor(float(logvar_init)))

    def forward(
        self, video: Tensor, reconstruction: Tensor, posterior: Any = None, nll_weights: Tensor | None = None
    ) -> VAELossTerms:
        """video, reconstruction: pictures (B, C, H, W) or films (B, C, T, H, W) in [-1, 1], C = 3 or 1.

        posterior: what `encode` gave, or None for no divergence. nll_weights: how much each place counts, of a shape
        that spreads to the video's, or (B * T, 1, 1, 1), one per frame. Raises UserError for shapes that do not match.
        """
        distance, perceptual = self._distances(video, reconstruction)
        likelihood = (distance + self.perceptual_weight * perceptual) / self.logvar.exp() + self.logvar
        weighted = likelihood
        if nll_weights is not None:
            if nll_weights.ndim == 5:
                nll_weights = to_frames(nll_weights.expand(-1, -1, video.shape[2], -1, -1))
            weighted = likelihood * nll_weights
        return VAELossTerms(batch_mean(likelihood), batch_mean(weighted), self._divergence(posterior, video))

    def terms(self, video: Tensor, reconstruction: Tensor, posterior: Any = None) -> dict[str, Tensor]:
        """The parts one by one, all per frame, for a log: nll_loss, kl_loss, recon_loss, perceptual_loss."""
        distance, perceptual = self._distances(video, reconstruction)
        nll = (distance + self.perceptual_weight * perceptual) / self.logvar.exp() + self.logvar
        return {
            "nll_loss": batch_mean(nll),
            "kl_loss": self._divergence(posterior, video),
            "recon_loss": batch_mean(distance),
            "perceptual_loss": perceptual.mean() * distance[0].numel(),
        }

    def _distances(self, video: Tensor, reconstruction: Tensor) -> tuple[Tensor, Tensor]:
        """|x - y| (B * T, C, H, W), and the perceptual distance (B * T, 1, 1, 1), or 0."""
        _check_alike(video, reconstruction)
        real, fake = to_frames(video), to_frames(reconstruction)
        if self.perceptual is None:
            return l1(real, fake), real.new_zeros(())
        return l1(real, fake), self.perceptual(_in_colour(real), _in_colour(fake))

    def _divergence(self, posterior: Any, video: Tensor) -> Tensor:
        if posterior is None:
            return video.new_zeros(())
        divergence = posterior.kl().mean()
        if self.kl_per == "frame" and posterior.mean.ndim == 5:
            divergence = divergence / posterior.mean.shape[2]
        return self.kl_weight * divergence


class CombinedVAELoss(nn.Module):
    """Mean squared error, with LPIPS from one step on and a small divergence from another: the plain recipe.

    Terms wait for their step so that a VAE first learns to copy at all: a perceptual distance to grey fog says little.
    """

    def __init__(
        self,
        perceptual: nn.Module | None = None,
        perceptual_weight: float = 1.0,
        perceptual_start: int = 1000,
        kl_weight: float = 1e-6,
        kl_start: int = 500,
    ):
        super().__init__()
        self.perceptual = perceptual or LPIPS()
        self.perceptual_weight, self.perceptual_start = perceptual_weight, perceptual_start
        self.kl_weight, self.kl_start = kl_weight, kl_start

    def forward(self, real: Tensor, fake: Tensor, posterior: Any, step: int) -> dict[str, Tensor]:
        """real, fake (B, C, H, W) or (B, C, T, H, W) in [-1, 1] -> total_loss, recon_loss, lpips_loss, kl_loss.

        The last three are without their weights. Raises UserError for shapes that do not match.
        """
        _check_alike(real, fake)
        recon_loss = F.mse_loss(fake, real)
        lpips_loss = self.perceptual(*(_in_colour(to_frames(x)) for x in (fake, real))).mean()
        kl_loss = posterior.kl().mean()
        perceptual_weight = adopt_weight(self.perceptual_weight, step, self.perceptual_start)
        kl_weight = adopt_weight(self.kl_weight, step, self.kl_start)
        total = recon_loss + perceptual_weight * lpips_loss + kl_weight * kl_loss
        return {"total_loss": total, "recon_loss": recon_loss, "lpips_loss": lpips_loss, "kl_loss": kl_loss}


def to_frames(x: Tensor) -> Tensor:
    """Films (B, C, T, H, W) as a batch of pictures (B * T, C, H, W); pictures stay as they are."""
    return rearrange(x, "b c t h w -> (b t) c h w") if x.ndim == 5 else x


def _in_colour(pictures: Tensor) -> Tensor:
    return repeat(pictures, "n 1 h w -> n 3 h w") if pictures.shape[1] == 1 else pictures


def _check_alike(video: Tensor, reconstruction: Tensor) -> None:
    if video.shape != reconstruction.shape or video.ndim not in (4, 5):
        raise UserError(
            f"video {tuple(video.shape)} and reconstruction {tuple(reconstruction.shape)}: expected one shape, "
            f"(B, C, H, W) or (B, C, T, H, W)"
        )
