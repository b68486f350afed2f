"""What the training of both VAEs shares: numbers for the log, the alarm of the critic, what is saved."""

from pathlib import Path

from torch import nn

from minivdm.config import Config
from minivdm.training.tasks import FilmTask


class VaeTask(FilmTask):
    """A task whose `model` has an `adversary`, a critic beside the VAE or None, and returns numbers with its loss."""

    config: Config
    model: nn.Module

    def __init__(self) -> None:
        self.numbers: dict[str, float] = {}  # of the last batch

    def _keep_encoder(self) -> None:
        """With `vae_loss.decoder_only`: what stands before the latent does not learn."""
        if self.config.vae_loss.decoder_only:
            for name, weight in self.model.vae.named_parameters():
                weight.requires_grad_(not name.startswith(("encoder.", "quant_conv.", "shortcut_in.")))

    def alarm(self) -> str | None:
        """What has gone wrong between VAE and critic, or None."""
        return self.model.adversary.switch.alarm() if self.model.adversary is not None else None

    def save(self, folder: Path) -> None:
        """Write the configuration."""
        self.config.save(folder / "config.yaml")
