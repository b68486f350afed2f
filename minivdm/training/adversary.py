"""The critic beside a VAE: what it adds to the loss, when it starts, and what it reports."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from minivdm.settings import VaeLossConfig
from minivdm.training.critic_switch import CriticSwitch
from minivdm.vae.critic_losses import CRITIC_LOSSES, adaptive_weight, generator_loss, gradient_penalty


class Adversary(nn.Module):
    """A critic that is trained in the same step as the VAE, with the same optimizer.

    Its loss and the VAE's are added up, and neither reaches the other's weights: the VAE is judged by a critic whose
    weights are held still, and the critic sees reconstructions that are detached. So one backward pass serves both, and
    a checkpoint is one set of weights. Several processes weigh the critic each by its own share of the batch, as
    Stable Diffusion's training does.
    """

    def __init__(self, critic: nn.Module, config: VaeLossConfig):
        super().__init__()
        self.critic, self.config = critic, config
        self.switch = CriticSwitch(config.plateau_steps, config.plateau_gain)

    def forward(
        self, real: Tensor, fake: Tensor, reconstruction: Tensor, last_layer: Tensor, alpha: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """What to add to the loss, a scalar, and numbers for the log.

        real, fake: clips or pictures and their reconstructions. reconstruction: its loss, a scalar. last_layer: the
        weight at which the two gradients are compared. alpha (B,): shares of the real ones in the mixtures at which the
        gradient penalty is taken.
        """
        self.switch.watch(reconstruction.detach())
        if not self.switch.is_on:
            # Weights that no loss reaches would make several processes wait for each other for ever.
            return 0.0 * sum(weight.sum() for weight in self.critic.parameters()), {}
        with _held_still(self.critic):
            seen = self._scores(fake)
        blame = generator_loss(seen, self.config.critic)
        weight = adaptive_weight(reconstruction, blame, last_layer)
        scores, fake_scores = self._scores(real), self._scores(fake.detach())
        critic_loss = CRITIC_LOSSES[self.config.critic](scores, fake_scores)
        if self.config.critic_penalty:
            penalty = gradient_penalty(self._scores, real, fake.detach(), alpha)
            critic_loss = critic_loss + self.config.critic_penalty * penalty
        self.switch.watch_critic(scores, fake_scores)
        numbers = {
            "critic_loss": critic_loss.item(),
            "critic_right": self.switch.right.item(),
            "adaptive_weight": weight.item(),
        }
        return self.config.critic_weight * weight * blame + critic_loss, numbers

    def _scores(self, clips: Tensor) -> Tensor:
        """The critic's opinion in float32: losses are means over all patches."""
        return self.critic(clips).float()


@contextmanager
def _held_still(module: nn.Module) -> Iterator[None]:
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)
