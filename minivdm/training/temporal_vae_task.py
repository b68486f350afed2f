"""Train the temporal VAE on the latents of a finished 2D VAE (Open-Sora 1.2's second stage).

Batches have any length from one frame on, so that pictures and clips of all lengths are reconstructed by the same
weights. The loss is taken between latents, where most of a clip's meaning is and where a step costs a tenth; with a
perceptual weight or a critic the latents are decoded as well, and the films compared.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.data import Dataset

from minivdm.config import Config
from minivdm.settings import VaeLossConfig
from minivdm.training.adversary import Adversary
from minivdm.training.growing import load_or_grow
from minivdm.training.latents import LatentClips, find_temporal_vae, find_vae2d
from minivdm.training.randomness import seeded_modules
from minivdm.training.tasks import make_dataset
from minivdm.training.vae_task import VaeTask
from minivdm.vae.autoencoder2d import AutoEncoder2D
from minivdm.vae.discriminator import NLayerDiscriminator3D
from minivdm.vae.lpips import LPIPS
from minivdm.vae.metrics import likeness, lit
from minivdm.vae.temporal import TemporalVAE

SHOWN = 4  # clips reconstructed at a milestone
MEASURED = 2  # clips of a batch that are decoded for the log


class TemporalTrainee(nn.Module):
    """The temporal VAE and its critic, as one module with one loss. The 2D VAE is at hand but not part of it."""

    def __init__(self, vae: TemporalVAE, vae2d: AutoEncoder2D, config: VaeLossConfig):
        super().__init__()
        self.vae, self.config = vae, config
        self.tools: dict[str, nn.Module] = {"vae2d": vae2d}  # a plain dict: frozen, so neither trained nor saved
        if config.perceptual:
            self.tools["lpips"] = LPIPS(config.perceptual_trunk).requires_grad_(False)
        critic = NLayerDiscriminator3D(
            vae2d.config.in_channels, config.critic_width, config.critic_layers, dropout=None, norm="group"
        )
        self.adversary = Adversary(critic, config) if config.critic else None
        self.seen: tuple[Tensor, Tensor] | None = None  # some clips of the last batch and their latents come back

    def forward(
        self, latents: Tensor, video: Tensor, noise: Tensor, alpha: Tensor, whole: bool
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss, a scalar, and numbers for the log.

        latents (B, C, T, h, w) of video (B, 3, T, H, W); noise of the shape that they are shrunk to; alpha (B,); whole:
        whether these are the clips in full, which a critic of space and time needs: it has no answer for a few frames.
        """
        posterior = self.vae.encode(latents, sample=False, return_posterior=True)[1]
        again = self.vae.decode(posterior.sample(noise=noise), num_frames=latents.shape[2])
        difference = again - latents
        cells = 1 + (self.config.lit - 1) * self._lit_cells(video, latents.shape[-2:])
        reconstruction = (cells * (0.5 * difference.abs() + difference.square())).mean()
        divergence = posterior.kl().mean()
        numbers = {"reconstruction": reconstruction.item(), "kl": divergence.item(), "frames": latents.shape[2]}
        numbers["silent"] = posterior.silent()  # channels, which should be none
        self.seen = video[:MEASURED], again[:MEASURED].detach()
        total = reconstruction + self.config.kl * divergence / noise[0].numel()
        if self.config.perceptual or self.adversary is not None:
            extra, more = self._in_pixels(video, again, reconstruction, alpha, whole)
            total, numbers = total + extra, numbers | more
        return total, numbers

    def _in_pixels(
        self, video: Tensor, latents: Tensor, reconstruction: Tensor, alpha: Tensor, whole: bool
    ) -> tuple[Tensor, dict[str, float]]:
        film, numbers = self.tools["vae2d"].to(latents.device).decode(latents), {}
        total = film.new_zeros(())
        if self.config.perceptual:
            real, fake = (rearrange(clips, "b c t h w -> (b t) c h w") for clips in (video, film))
            total = total + self.config.perceptual * self.tools["lpips"].to(film.device)(real, fake).mean()
        if self.adversary is not None and whole:
            extra, more = self.adversary(video, film, reconstruction + total, self.vae.last_layer, alpha)
            total, numbers = total + extra, numbers | more
        return total, numbers

    @staticmethod
    def _lit_cells(video: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, 1, T, h, w): 1 where any pixel under a latent cell shows light, else 0."""
        frames = rearrange(lit(video).float(), "b 1 t h w -> (b t) 1 h w")
        return rearrange(F.adaptive_max_pool2d(frames, tuple(size)), "(b t) 1 h w -> b 1 t h w", t=video.shape[2])


class TemporalVaeTask(VaeTask):
    """What the Trainer needs to train a `TemporalVAE`."""

    name = "temporal_vae"

    def __init__(self, config: Config, dataset: Dataset | None = None):
        super().__init__()
        self.config = config
        self.vae2d = find_vae2d(config.vae_loss.vae2d)
        self.dataset = LatentClips(make_dataset(config) if dataset is None else dataset, self.vae2d)
        with seeded_modules(config.seed):
            self.model = TemporalTrainee(TemporalVAE(config.temporal_vae), self.vae2d, config.vae_loss)
        if (init := config.vae_loss.init) is not None:
            load_or_grow(self.model.vae, find_temporal_vae(init).state_dict(), init)
        self._keep_encoder()

    def loss(self, model: nn.Module, batch: dict[str, Any], seeds: Sequence[int]) -> Tensor:
        """Mean loss of the beginnings of the clips; noise comes from the clips' seeds, the length from the batch's."""
        longest = batch["latents"].shape[2]
        length = self._length(longest, torch.Generator().manual_seed(batch["seed"] ^ 1))
        latents, video = batch["latents"][:, :, :length], batch["video"][:, :, :length]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        shape = (self.config.temporal_vae.embed_dim, *self.model.vae.get_latent_size(latents.shape[2:]))
        noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
        alpha = torch.cat([torch.rand(1, generator=generator) for generator in generators])
        device, whole = latents.device, length == longest
        total, self.numbers = model(latents, video, noise.to(device), alpha.to(device), whole)
        return total

    def _length(self, longest: int, generator: torch.Generator) -> int:
        """One frame, or any number up to all of them; half of the clips are whole."""
        kind, length = torch.rand(2, generator=generator).tolist()
        images = self.config.vae_loss.images
        if kind < images or longest == 1:
            return 1
        return longest if kind < images + (1 - images) / 2 else 2 + int(length * (longest - 1))

    def metrics(self) -> dict[str, float]:
        """Numbers of the last batch, and how near some of its films are: dB, and structural similarity."""
        video, latents = self.model.seen
        with torch.no_grad():
            film = self.vae2d.to(latents.device).decode(latents.float())
        return self.numbers | likeness(video, film)

    @torch.no_grad()
    def sample(self, model: nn.Module, seed: int, progress: bool = False) -> tuple[Tensor, list[str]]:
        """Clips of the data, and below each its reconstruction."""
        device = next(model.parameters()).device
        items = [self.dataset[index] for index in range(min(SHOWN, len(self.dataset)))]
        clips, latents = (torch.stack([item[name] for item in items]) for name in ("video", "latents"))
        again = model.vae(latents.to(device), sample_posterior=False)[0]
        films = self.vae2d.to(device).decode(again).clamp(-1, 1).cpu()
        return torch.cat([clips, films]), ["data"] * len(clips) + ["reconstruction"] * len(clips)
