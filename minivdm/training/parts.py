"""Finished parts that another part stands on: found by "toy", by the folder of a run, or by that of a saved model."""

from pathlib import Path

from torch import Tensor

from minivdm.config import load_config
from minivdm.errors import UserError
from minivdm.paths import checkpoint_dir
from minivdm.pipelines.trained import read_single, trained_weights
from minivdm.pipelines.video_vae import load_video_autoencoder
from minivdm.settings import Config
from minivdm.text.encoder import TextEmbedder
from minivdm.vae.video import VideoAutoencoder
from minivdm.weights import read_weights


def is_run(folder: Path) -> bool:
    """Whether `folder` is a run of `minivdm train`."""
    return (folder / "checkpoints").is_dir()


def averages(run: Path, task: str) -> tuple[Config, dict[str, Tensor]]:
    """Configuration and averaged weights of the newest checkpoint of a run. UserError if it trained something else."""
    folder, weights = trained_weights(run)
    config = load_config(folder / "config.yaml")
    if config.task != task:
        raise UserError(f"{run} is a run of {config.task}; expected one of `minivdm train {task}`")
    return config, read_single(weights)


def vae_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The VAE's own out of those of a training of it, which hold its critic's and its loss's as well."""
    return {name[4:]: weight for name, weight in weights.items() if name.startswith("vae.")}


def find_text_encoder(source: str, tokens: int) -> TextEmbedder:
    """A text encoder: "toy", a run of `minivdm train toy_t5`, a folder of transformers, or a name on the Hub."""
    folder = checkpoint_dir("toy/t5") if source == "toy" else Path(source)
    if is_run(folder):
        from minivdm.training.toy_t5_task import export_encoder  # it imports transformers

        folder = export_encoder(folder)
    return TextEmbedder(str(folder) if folder.is_dir() else source, tokens)


def find_video_vae(source: str) -> VideoAutoencoder:
    """A frozen video VAE: "toy", a run of `minivdm train temporal_vae`, a folder, or Open-Sora 1.2's on the Hub."""
    if source != "toy" and is_run(Path(source)):
        from minivdm.training.publish_vae import trained_video_vae

        vae = trained_video_vae(Path(source))
    else:
        vae = load_video_autoencoder(source)
    return vae.eval().requires_grad_(False)


def find_denoiser_weights(source: str) -> dict[str, Tensor]:
    """Weights of an STDiT3 to begin with: from a run of `minivdm train stdit3`, a saved pipeline, or a saved model."""
    folder = Path(source)
    if is_run(folder):
        return averages(folder, "stdit3")[1]
    weights = read_weights(folder / "denoiser" if (folder / "denoiser").is_dir() else source)
    return {name: weight.float() for name, weight in weights.items()}
