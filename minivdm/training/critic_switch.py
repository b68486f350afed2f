"""When to switch the critic of a VAE on, and how to notice that it does harm.

A critic that starts while the reconstruction is still poor has an easy job, wins, and then teaches nothing. So it waits
until the reconstruction has stopped getting better: a rule that is measured, not a step number that is guessed.
"""

import torch
from torch import Tensor, nn

OFF = -1
SMOOTHING = 0.98
BEATEN = 0.95  # the critic is right about this share of real and generated patches: it no longer helps
WORSE = 1.3  # the reconstruction may grow to this multiple of what it was when the critic came


class CriticSwitch(nn.Module):
    """Off until the smoothed reconstruction loss has gained less than a share `gain` of itself over `window` steps.

    All it remembers is in buffers, so that it is saved, resumed and shared between processes with the weights.
    """

    def __init__(self, window: int, gain: float):
        super().__init__()
        self.window, self.gain = window, gain
        for name, value in {"steps": 0.0, "smooth": 0.0, "earlier": 0.0, "at_start": 0.0, "right": 0.5}.items():
            self.register_buffer(name, torch.tensor(value))
        self.register_buffer("started", torch.tensor(float(OFF)))

    @property
    def is_on(self) -> bool:
        """Whether the critic takes part."""
        return self.started.item() != OFF

    @torch.no_grad()
    def watch(self, reconstruction: Tensor) -> None:
        """Take note of a step's reconstruction loss, and switch on at the end of a window without gain."""
        self.smooth.copy_(reconstruction if self.steps == 0 else self.smooth.lerp(reconstruction, 1 - SMOOTHING))
        self.steps += 1
        if self.steps % self.window == 0:
            if not self.is_on and self.steps > self.window and self.smooth > (1 - self.gain) * self.earlier:
                self.started.copy_(self.steps)
                self.at_start.copy_(self.smooth)
            self.earlier.copy_(self.smooth)

    @torch.no_grad()
    def watch_critic(self, real: Tensor, fake: Tensor) -> None:
        """Take note of the critic's scores: it is right when real ones are above 0 and generated ones below."""
        right = ((real > 0).float().mean() + (fake < 0).float().mean()) / 2
        self.right.lerp_(right, 1 - SMOOTHING)

    def alarm(self) -> str | None:
        """What has gone wrong, in one line, or None."""
        if not self.is_on:
            return None
        if self.smooth > WORSE * self.at_start:
            return (
                f"since the critic came the reconstruction loss rose from {self.at_start.item():.3g} to "
                f"{self.smooth.item():.3g}: lower vae_loss.critic_weight"
            )
        if self.right > BEATEN:
            return (
                f"the critic is right about {self.right.item():.0%} of all patches and teaches nothing any more: "
                f"narrow it (vae_loss.critic_width) or add a penalty (vae_loss.critic_penalty)"
            )
        return None
