"""Train an STDiT3 to turn noise into the latents of the film that a text asks for (Open-Sora 1.2's third stage).

VAE and text encoder are finished and frozen: films enter as cached latents, captions as cached embeddings. Some texts
are taken away, so that guidance has something to compare with; some clips have given frames, which are clean, so that
one model also continues a first frame, arrives at a last one, or fills in between.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minivdm.config import Config
from minivdm.data.bucketed import Bucketed
from minivdm.data.fireworks_dataset import FireworksDataset
from minivdm.data.folder import VideoFolder
from minivdm.denoisers.stdit3 import STDiT3
from minivdm.diffusion.masks import training_mask
from minivdm.diffusion.rectified_flow import RectifiedFlow, shift_ratio
from minivdm.pipelines.text_to_video import TextToVideoPipeline
from minivdm.pipelines.video_settings import VideoSettings
from minivdm.settings import GIVEN
from minivdm.training.films import latent_films
from minivdm.training.growing import load_or_grow
from minivdm.training.parts import find_denoiser_weights, find_text_encoder, find_video_vae
from minivdm.training.randomness import seeded_modules
from minivdm.training.tasks import FilmTask, make_dataset
from minivdm.training.texts import CachedTexts


def film_settings(config: Config) -> VideoSettings:
    """What a pipeline with the denoiser of this configuration makes when it is not told otherwise."""
    data, sampling = config.data, config.sampling
    film = {"frames": data.frames, "height": data.size, "width": data.size, "fps": data.fps}
    how = {"steps": sampling.steps, "guidance": sampling.guidance, "eta": sampling.eta}
    return VideoSettings(**film, **how, shift=config.flow.shift)


class Stdit3Task(FilmTask):
    """What the Trainer needs to train an `STDiT3`."""

    name = "stdit3"

    def __init__(self, config: Config, dataset: FireworksDataset | VideoFolder | Bucketed | None = None):
        """Raises UserError when a part named in `config.flow` is missing or does not fit."""
        self.config, flow = config, config.flow
        vae, embedder = find_video_vae(flow.vae), find_text_encoder(flow.text, flow.tokens)
        sizes = replace(
            config.stdit3,
            in_channels=vae.channels,
            caption_channels=embedder.dim,
            model_max_length=embedder.max_length,
            class_dropout_prob=config.training.null_cond_prob,
        )
        with seeded_modules(config.seed):
            self.model = STDiT3(sizes, gradient_checkpointing=flow.gradient_checkpointing)
        if flow.init is not None:
            load_or_grow(self.model, find_denoiser_weights(flow.init), flow.init)
        self.flow = RectifiedFlow(flow.t_sampling, flow.location, flow.spread)
        self.factor = vae.vae2d.downsampling
        if dataset is None:
            dataset = make_dataset(config, self.factor * self.model.config.patch_size[1])
        self.dataset = latent_films(dataset, vae, flow.cache)
        self.texts = CachedTexts(embedder, cache=flow.cache)
        if self.texts.folder is not None:
            self.texts.prepare(self.dataset.captions())
        self.pipeline = TextToVideoPipeline(self.model, embedder, vae, film_settings(config))

    def loss(self, model: nn.Module, batch: dict[str, Any], seeds: Sequence[int]) -> Tensor:
        """Loss of every clip, (B,). Each draws its own time, noise, given frames, and whether its text is dropped."""
        x0 = batch["latents"]
        draws = [self._draw(seed, x0.shape[1:]) for seed in seeds]
        t, noise, given, drop = (torch.stack(parts).to(x0.device) for parts in zip(*draws, strict=True))
        drop = drop | torch.tensor([not text.strip() for text in batch["caption"]], device=drop.device)
        y, mask = (part.to(x0.device) for part in self.texts(batch["caption"]))
        mask = mask | drop[:, None]  # what stands for no text is seen whole, here as in sampling: `no_text`
        frames = None if given.all() else given
        height, width = self._pixels(x0.shape[1:])
        size = {"height": torch.tensor([height]), "width": torch.tensor([width])}
        fps = torch.tensor([self.config.data.fps])

        def velocity(x_t: Tensor, t: Tensor, frames: Tensor | None) -> Tensor:
            out = model(x_t, t, y, mask, frames, fps=fps, **size, drop_text=drop)
            return out[:, : x0.shape[1]]

        return self.flow.loss(velocity, x0, t, noise, frames)

    def _draw(self, seed: int, shape: torch.Size) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Time (), noise, mask of the frames to generate (T',) and whether the text is dropped ()."""
        generator = torch.Generator().manual_seed(seed)
        ratio = shift_ratio(*self._pixels(shape), shape[1]) if self.config.flow.shift else None
        t = self.flow.sample_t(1, ratio, generator)[0]
        luck = torch.rand(2, generator=generator)
        shares = torch.tensor([getattr(self.config.flow, kind) for kind in GIVEN])
        kind = (*GIVEN, "identity")[int((luck[0] >= shares.cumsum(0)).sum())]
        mask = training_mask(kind, shape[1], generator)
        drop = luck[1] < self.config.training.null_cond_prob
        return t, torch.randn(shape, generator=generator), mask, drop

    def _pixels(self, shape: torch.Size) -> tuple[float, float]:
        """Height and width of the films with latents of this shape (C, T', h, w)."""
        return float(shape[2] * self.factor), float(shape[3] * self.factor)

    def metrics(self) -> dict[str, float]:
        """The loss says little enough: see `prompt_accuracy` for what counts."""
        return {}

    def alarm(self) -> str | None:
        """Nothing that the Trainer does not notice by itself."""
        return None

    def sample(self, model: nn.Module, seed: int, progress: bool = False) -> tuple[Tensor, list[str]]:
        """`sampling.clips` films from `model`, with captions taken from the data."""
        shown = range(min(self.config.sampling.clips, len(self.dataset)))
        prompts = [self.dataset.caption(index) for index in shown]
        pipeline = TextToVideoPipeline(model, self.pipeline.text, self.pipeline.vae, self.pipeline.settings)
        return pipeline.to(next(model.parameters()).device)(prompts, seed=seed, progress=progress), prompts

    def save(self, folder: Path) -> None:
        """Write the configuration, which names the other parts."""
        self.config.save(folder / "config.yaml")
