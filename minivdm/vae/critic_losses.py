"""What a critic is paid for, what the critic costs the VAE, and how much of that the VAE should listen to.

A critic gives every patch of a film a score, high for real ones. The three losses differ in what they do with it: the
hinge stops caring once a score is on the right side by 1, the vanilla loss takes it for the logarithm of odds, and
Wasserstein's takes it as it is, which needs a penalty on the critic's slope to be bounded at all.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from minivdm.errors import UserError

CriticKind = Literal["hinge", "vanilla", "wgan"]


def hinge_d_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The critic's hinge loss (Lim and Ye 2017), a scalar: half of mean relu(1 - real) + mean relu(1 + fake).

    real, fake: scores of any shapes, which may differ. 0 when all real scores are above 1 and all others below -1.
    """
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def vanilla_d_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The critic's loss of the first GAN (Goodfellow et al. 2014), a scalar: half of two cross-entropies.

    real, fake: scores of any shapes, read as logarithms of odds. log 2 for a critic that knows nothing; finite for any
    score.
    """
    return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())


def wgan_d_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The critic's Wasserstein loss (Arjovsky et al. 2017), a scalar: half of mean fake - mean real.

    real, fake: scores of any shapes. It has no lower end: a critic that doubles its weights doubles its gain. Published
    code calls this very formula "WGAN-GP"; the GP is `gradient_penalty`, and has to be added.
    """
    return 0.5 * (fake.mean() - real.mean())


CRITIC_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "hinge": hinge_d_loss,
    "vanilla": vanilla_d_loss,
    "wgan": wgan_d_loss,
}


def generator_loss(fake: Tensor, kind: CriticKind) -> Tensor:
    """What the critic's scores of generated patches cost the one who made them, a scalar.

    Minus the mean score, and for "vanilla" the mean of softplus(-score), the form that does not saturate: its slope is
    steepest where the critic is sure. Raises UserError for an unknown kind.
    """
    _check_kind(kind)
    return F.softplus(-fake).mean() if kind == "vanilla" else -fake.mean()


def sigmoid_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Elementwise cross-entropy between labels in [0, 1] and sigmoid(logits), finite for any logits."""
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none")


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    """How far the critic's slope is from 1 between real and generated samples, a scalar (Gulrajani et al. 2017).

    real, fake (B, ...) of one shape; alpha (B,), the share of the real one in each mixture. The critic's scores may
    have any shape: they are summed. The slope's norm is taken over a whole sample, then (norm - 1)^2 averaged over B.
    No factor lambda (the paper multiplies by 10). The graph is kept, so that the penalty can be trained.

    A critic with batch norm has no slope per sample, since its samples depend on each other: use another norm.
    """
    if real.shape != fake.shape:
        raise UserError(f"real has shape {tuple(real.shape)}, fake {tuple(fake.shape)}; the penalty mixes equal shapes")
    share = alpha.reshape(-1, *[1] * (real.ndim - 1))
    mixed = share * real + (1 - share) * fake
    if not mixed.requires_grad:
        mixed.requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
    return (rearrange(slope, "b ... -> b (...)").norm(dim=1) - 1).square().mean()


def adopt_weight(weight: float, step: int, threshold: int = 0, value: float = 0.0) -> float:
    """`value` before step `threshold`, `weight` from it on."""
    return weight if step >= threshold else value


def adaptive_weight(rec_loss: Tensor, gan_loss: Tensor, last_layer: Tensor) -> Tensor:
    """The factor that makes the critic pull as hard as the reconstruction does (Esser et al. 2021, equation 7).

    The norms of both losses' gradients at the weight `last_layer` are compared. Returns a detached scalar, clamped to
    [0, 1e4]: the GAN's gradient may vanish. Both graphs are kept, and no `.grad` changes.
    """
    (by_rec,) = torch.autograd.grad(rec_loss, last_layer, retain_graph=True)
    (by_gan,) = torch.autograd.grad(gan_loss, last_layer, retain_graph=True)
    return (by_rec.norm() / (by_gan.norm() + 1e-4)).clamp(0, 1e4).detach()


class AdversarialLoss:
    """Both sides of the game, from step `start` on.

    kind: "hinge", "vanilla" or "wgan". weight: of the generator's side, times `adaptive_weight`. factor: of both sides.
    Before `start` both losses are 0 times themselves, so that every weight still gets a gradient.
    """

    def __init__(self, kind: CriticKind = "hinge", weight: float = 0.5, factor: float = 1.0, start: int = 0):
        _check_kind(kind)
        self.kind, self.weight, self.factor, self.start = kind, weight, factor, start

    def generator(self, fake: Tensor, rec_loss: Tensor, last_layer: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """What to add to the VAE's loss, and the same without any weight. fake: scores of reconstructions."""
        raw = generator_loss(fake, self.kind)
        factor = adopt_weight(self.factor, step, self.start)
        if not self.factor:
            return 0.0 * raw, raw
        return self.weight * factor * adaptive_weight(rec_loss, raw, last_layer) * raw, raw

    def discriminator(self, real: Tensor, fake: Tensor, step: int) -> Tensor:
        """The critic's loss. Give it scores of detached reconstructions."""
        return adopt_weight(self.factor, step, self.start) * CRITIC_LOSSES[self.kind](real, fake)


class LeCam(nn.Module):
    """Regulariser for critics with little data (Tseng et al. 2021): scores may not run away from their own past.

    Keeps running means of real and generated scores, with `decay`, starting at 0.
    """

    def __init__(self, decay: float = 0.999):
        super().__init__()
        self.decay = decay
        self.register_buffer("real", torch.zeros(()))
        self.register_buffer("fake", torch.zeros(()))

    @torch.no_grad()
    def update(self, real: Tensor, fake: Tensor) -> None:
        """Take note of a step's scores, of any shapes."""
        self.real.lerp_(real.mean(), 1 - self.decay)
        self.fake.lerp_(fake.mean(), 1 - self.decay)

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        """relu(mean real - usual fake)^2 + relu(usual real - mean fake)^2, a scalar."""
        return F.relu(real.mean() - self.fake).square() + F.relu(self.real - fake.mean()).square()


def _check_kind(kind: str) -> None:
    if kind not in CRITIC_LOSSES:
        raise UserError(f"unknown kind of critic {kind!r}; choose one of {', '.join(CRITIC_LOSSES)}")
