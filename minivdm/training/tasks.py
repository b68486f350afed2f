"""What is trained: a task owns the network, its loss on a batch, and how samples are drawn from it.

The Trainer owns everything else. A batch is `{"video": (B, 3, T, H, W) in [-1, 1], "caption": list of B strings}`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.data import Dataset

from minivdm.config import Config
from minivdm.data.bucketed import bucketed_folder
from minivdm.data.buckets import Buckets
from minivdm.data.fireworks_dataset import FireworksDataset
from minivdm.data.folder import VideoFolder
from minivdm.data.io import write_video
from minivdm.pipelines import UnetPipeline
from minivdm.text.words import BagOfWords
from minivdm.training.randomness import seeded_modules


class Task(Protocol):
    """The contract between the Trainer and what it trains."""

    name: str  # as in `minivdm train NAME`
    model: nn.Module
    dataset: Dataset

    def loss(self, model: nn.Module, batch: dict[str, Any], seeds: Sequence[int]) -> Tensor:
        """Loss of every clip, (B,), or their mean. `seeds` has one seed per clip: all randomness comes from them."""
        ...

    def metrics(self) -> dict[str, float]:
        """Numbers of the last batch, for the log."""
        ...

    def alarm(self) -> str | None:
        """What goes wrong in this training, in one line, or None."""
        ...

    def show(self, model: nn.Module, path: Path, seed: int) -> None:
        """Write what the model can do by now, for a person to look at; `path` has no suffix yet."""
        ...

    def save(self, folder: Path) -> None:
        """Write what is needed beside the weights to use the model."""
        ...


def make_dataset(config: Config, multiple: int = 16) -> Dataset:
    """The folder of the configuration, or fireworks rendered in memory.

    multiple: of how many pixels the sides of clips in buckets have to be.
    """
    data = config.data
    if data.folder is not None:
        folder = VideoFolder(
            data.folder, size=data.size, frames=data.frames, fit=data.fit, flip=data.flip, seed=config.seed
        )
        return (
            bucketed_folder(folder, Buckets(data.buckets, multiple=multiple), config.seed) if data.buckets else folder
        )
    return FireworksDataset(
        data.clips, data.level, "train", data.frames, data.size, seed=config.seed, open_places=data.open_places
    )


class FilmTask:
    """A task that is looked at as films: clips side by side in one GIF."""

    config: Config

    def sample(self, model: nn.Module, seed: int, progress: bool = False) -> tuple[Tensor, list[str]]:
        """Clips (B, 3, T, H, W) in [-1, 1] and a label for each."""
        raise NotImplementedError

    def show(self, model: nn.Module, path: Path, seed: int) -> None:
        """Write the GIF."""
        videos, _ = self.sample(model, seed)
        write_video(path.with_suffix(".gif"), tile(videos.cpu()), fps=self.config.data.fps)


class NoisePredictionTask(FilmTask):
    """Train a Unet3D to see the noise in a film (Ho et al. 2020; Ho et al. 2022, "Video Diffusion Models").

    The network hears the captions as a bag of words, when the data has captions and `unet3d.captions` is on.
    """

    name = "unet3d"

    def __init__(self, config: Config, dataset: Dataset | None = None, words: BagOfWords | None = None):
        """`dataset` is by default what the configuration names, `words` the words of its captions."""
        self.config = config
        self.dataset = make_dataset(config) if dataset is None else dataset
        self.words = words or BagOfWords.from_captions(self.dataset.captions() if config.unet3d.captions else [])
        with seeded_modules(config.seed):
            self.pipeline = UnetPipeline.from_config(config, self.words)
        self.model = self.pipeline.unet

    def loss(self, model: nn.Module, batch: dict[str, Any], seeds: Sequence[int]) -> Tensor:
        """Each clip draws its own timestep, noise, and whether its caption is dropped. Returns (B,)."""
        diffusion, training = self.pipeline.diffusion, self.config.training
        x0 = diffusion.to(batch["video"].device).normalize(batch["video"])
        draws = [self._draw(seed, x0.shape[1:], x0.device) for seed in seeds]
        t, drop, focus = (torch.stack([draw[i] for draw in draws]).to(x0.device) for i in range(3))
        noise = torch.stack([draw[3] for draw in draws])
        arguments: dict[str, Tensor] = {}
        if self.words.dim:
            arguments["cond"] = self.words.encode(batch["caption"]).to(x0.device)
            arguments["null_cond"] = drop < training.null_cond_prob
        if training.prob_focus_present:
            arguments["focus_present_mask"] = focus < training.prob_focus_present
        return diffusion.loss(lambda x_t, t: model(x_t, t, **arguments), x0, t, noise)

    def _draw(self, seed: int, shape: torch.Size, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        t = torch.randint(self.pipeline.diffusion.num_steps, (), generator=generator)
        drop, focus = torch.rand(2, generator=generator)
        if device.type != "cpu":  # big draws are made where they are needed
            generator = torch.Generator(device).manual_seed(seed)
        return t, drop, focus, torch.randn(shape, generator=generator, device=device)

    def metrics(self) -> dict[str, float]:
        """The loss says it all."""
        return {}

    def alarm(self) -> str | None:
        """Nothing that the Trainer does not notice by itself."""
        return None

    def sample(self, model: nn.Module, seed: int, progress: bool = False) -> tuple[Tensor, list[str]]:
        """`sampling.clips` clips from `model`, with captions taken from the data."""
        count = self.config.sampling.clips
        prompts = self.dataset.captions()[:count] if self.words.dim else [""] * count
        pipeline = UnetPipeline(model, self.pipeline.diffusion, self.words, self.config)
        return pipeline(prompts, seed=seed, progress=progress), prompts

    def save(self, folder: Path) -> None:
        """Write the configuration and the vocabulary: with the weights, all that a pipeline needs."""
        self.pipeline.save_settings(folder)


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Stack clips, and their latents where they have any, into a batch; captions and answers stay lists."""
    tensors = {name: torch.stack([item[name] for item in items]) for name in ("video", "latents") if name in items[0]}
    lists = {name: [item[name] for item in items] for name in ("caption", "answers") if name in items[0]}
    return tensors | lists


def tile(videos: Tensor, columns: int = 4) -> Tensor:
    """(B, C, T, H, W) clips side by side in one film (C, T, rows·H, columns·W); missing places are black."""
    missing = -len(videos) % columns
    padded = torch.cat([videos, videos.new_full((missing, *videos.shape[1:]), -1.0)])
    return rearrange(padded, "(r k) c t h w -> c t (r h) (k w)", k=columns)
