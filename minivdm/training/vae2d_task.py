"""Train the 2D VAE: single pictures out of clips, reconstructed through a few numbers (Rombach et al. 2022).

Loss per picture: reconstruction, with lit pixels counted more often than night; a perceptual distance; the divergence
of the posterior from a standard normal; and, once the reconstruction has stopped getting better, a critic of patches.
"""

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.data import Dataset

from minivdm.config import Config
from minivdm.settings import VaeLossConfig
from minivdm.training.adversary import Adversary
from minivdm.training.growing import load_or_grow
from minivdm.training.latents import find_vae2d
from minivdm.training.randomness import seeded_modules
from minivdm.training.tasks import make_dataset
from minivdm.training.vae_task import VaeTask
from minivdm.vae.autoencoder2d import AutoEncoder2D
from minivdm.vae.discriminator import NLayerDiscriminator2D
from minivdm.vae.losses import VAELoss
from minivdm.vae.lpips import LPIPS
from minivdm.vae.metrics import likeness, lit

SHOWN = 4  # clips reconstructed at a milestone


class Vae2dTrainee(nn.Module):
    """The VAE and its critic, as one module with one loss."""

    def __init__(self, vae: AutoEncoder2D, config: VaeLossConfig):
        super().__init__()
        self.vae, self.config = vae, config
        self.distance = VAELoss(
            perceptual_weight=config.perceptual,
            kl_weight=config.kl,
            perceptual=LPIPS(config.perceptual_trunk) if config.perceptual else None,
        ).requires_grad_(False)
        critic = NLayerDiscriminator2D(vae.config.in_channels, config.critic_width, config.critic_layers, norm="group")
        self.adversary = Adversary(critic, config) if config.critic else None
        self.seen: tuple[Tensor, Tensor] | None = None  # the last batch and its reconstruction, for the log

    def forward(self, pictures: Tensor, noise: Tensor, alpha: Tensor) -> tuple[Tensor, dict[str, float]]:
        """pictures (N, C, H, W) in [-1, 1], noise of the latents' shape, alpha (N,) -> loss per pixel, numbers."""
        reconstruction, posterior, _ = self.vae(pictures, sample=True, noise=noise)
        weights = 1 + (self.config.lit - 1) * lit(pictures)
        pixels = pictures[0].numel()
        distance, weighted, divergence = (
            term / pixels for term in self.distance(pictures, reconstruction, posterior, nll_weights=weights)
        )
        numbers = {
            "reconstruction": distance.item(),
            "kl": posterior.kl().mean().item(),  # nats per picture
            "silent": posterior.silent(),  # channels, which should be none
        }
        self.seen = pictures, reconstruction.detach().float()
        total = weighted + divergence
        if self.adversary is not None:
            extra, more = self.adversary(pictures, reconstruction, weighted, self.vae.last_layer, alpha)
            total, numbers = total + extra, numbers | more
        return total, numbers


class Vae2dTask(VaeTask):
    """What the Trainer needs to train an `AutoEncoder2D`."""

    name = "vae2d"

    def __init__(self, config: Config, dataset: Dataset | None = None):
        super().__init__()
        self.config = config
        self.dataset = make_dataset(config) if dataset is None else dataset
        with seeded_modules(config.seed):
            self.model = Vae2dTrainee(AutoEncoder2D(config.vae2d), config.vae_loss)
        if (init := config.vae_loss.init) is not None:
            load_or_grow(self.model.vae, find_vae2d(init).state_dict(), init)
        self._keep_encoder()

    def loss(self, model: nn.Module, batch: dict[str, Any], seeds: Sequence[int]) -> Tensor:
        """Mean loss of some pictures of each clip; which ones, and all noise, come from the clips' seeds."""
        video, count = batch["video"], self.config.vae_loss.frames_per_clip
        pictures, noise, alpha = [], [], []
        latent = self.model.vae.get_latent_size(video.shape[-2:])
        for clip, seed in zip(video, seeds, strict=True):
            generator = torch.Generator().manual_seed(seed)
            chosen = torch.randperm(clip.shape[1], generator=generator)[:count]
            pictures.append(rearrange(clip[:, chosen.to(clip.device)], "c t h w -> t c h w"))
            shape = (len(chosen), self.config.vae2d.z_channels, *latent)
            noise.append(torch.randn(shape, generator=generator))
            alpha.append(torch.rand(len(chosen), generator=generator))
        total, self.numbers = model(
            torch.cat(pictures), torch.cat(noise).to(video.device), torch.cat(alpha).to(video.device)
        )
        return total

    def metrics(self) -> dict[str, float]:
        """Numbers of the last batch, and how near its reconstruction is: dB, and structural similarity."""
        return self.numbers | likeness(*self.model.seen)

    @torch.no_grad()
    def sample(self, model: nn.Module, seed: int, progress: bool = False) -> tuple[Tensor, list[str]]:
        """Clips of the data, and below each its reconstruction."""
        device = next(model.parameters()).device
        clips = torch.stack([self.dataset[index]["video"] for index in range(min(SHOWN, len(self.dataset)))])
        again = model.vae(clips.to(device), sample=False)[0].clamp(-1, 1).cpu()
        return torch.cat([clips, again]), ["data"] * len(clips) + ["reconstruction"] * len(clips)
