"""Where trained weights lie: in a run of `minivdm train`, in one of its checkpoints, or in a folder of their own."""

from pathlib import Path

from torch import Tensor

from minivdm.errors import UserError
from minivdm.training.checkpoint import load_newest, read_tensors


def trained_weights(source: Path) -> tuple[Path, Path]:
    """The folder that holds config.yaml, and the weights in it: averaged (EMA) ones where there are any.

    Of a run, its newest whole checkpoint. Raises UserError when there is none.
    """
    folder = load_newest(source)[0] if (source / "checkpoints").is_dir() else source
    for weights in (folder / "ema.safetensors", folder / "model.safetensors"):
        if weights.is_file() and (folder / "config.yaml").is_file():
            return folder, weights
    raise UserError(
        f"no trained model in {folder}; expected a run folder of `minivdm train`, or a folder with "
        f"config.yaml and model.safetensors"
    )


def read_single(weights: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file in single precision, whatever they were stored in."""
    return {name: tensor.float() for name, tensor in read_tensors(weights).items()}
