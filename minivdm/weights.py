"""Weights of a model, read and checked: safetensors only, every tensor accounted for, mistakes told in one line."""

import json
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from minivdm.errors import UserError

# what the weights are called: by us and huggingface_hub, and by diffusers
WEIGHT_FILES = ("model.safetensors", "diffusion_pytorch_model.safetensors")


class SafeHubMixin(PyTorchModelHubMixin):
    """`save_pretrained` and `from_pretrained` as everywhere, but weights that do not fit are an error.

    (huggingface_hub leaves missing ones at random without a word, and falls back to pickles.)
    """

    @classmethod
    def _from_pretrained(cls, *, model_id: str, cache_dir: str | Path | None, local_files_only: bool, **options):
        for name in ("revision", "force_download", "token"):
            options.pop(name, None)
        device = options.pop("map_location", "cpu")
        strict = options.pop("strict", True)
        model = cls(**options)
        weights = read_weights(model_id, cache_dir, local_files_only=local_files_only)
        if not strict:
            weights = {key: value for key, value in weights.items() if key in model.state_dict()}
            weights = model.state_dict() | weights
        load_weights(model, weights, model_id)
        return model.to(device).eval()


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str = "the state dict") -> None:
    """Copy weights into a model. UserError names the first that is missing, unknown or of another shape."""
    expected = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    found = {key: tuple(tensor.shape) for key, tensor in weights.items()}
    name, advice = type(model).__name__, "build the model with the sizes that these weights were trained with"
    for key, shape in expected.items():
        if key not in found:
            missing = sum(other not in found for other in expected)
            raise UserError(
                f"{source} lacks {missing} of {len(expected)} tensors of {name}, first {key} {shape}: {advice}"
            )
        if found[key] != shape:
            raise UserError(f"{key} in {source} has shape {found[key]}, {name} expects {shape}: {advice}")
    if unknown := [key for key in found if key not in expected]:
        first = f"{unknown[0]} {found[unknown[0]]}"
        raise UserError(f"{source} has {len(unknown)} tensors too many for {name}, first {first}: {advice}")
    model.load_state_dict(dict(weights))


def read_weights(
    source: str | Path, cache_dir: str | Path | None = None, *, subfolder: str = "", local_files_only: bool = False
) -> dict[str, Tensor]:
    """The tensors of a safetensors file, of a folder that holds one, or of such a folder on the Hugging Face Hub."""
    path = Path(source)
    if not path.is_file():
        path = _find(source, WEIGHT_FILES, cache_dir, subfolder, local_files_only)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} is not a readable safetensors file ({reason}); convert pickles first") from None


def read_config(source: str | Path, subfolder: str = "", cache_dir: str | Path | None = None) -> dict:
    """config.json of a folder, here or on the Hugging Face Hub."""
    path = _find(source, ("config.json",), cache_dir, subfolder, False)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON ({error}): expected the configuration of a model") from None


def _find(
    source: str | Path, names: tuple[str, ...], cache_dir: str | Path | None, subfolder: str, local_files_only: bool
) -> Path:
    folder = Path(source)
    if folder.is_dir():
        found = [folder / subfolder / name for name in names if (folder / subfolder / name).is_file()]
        if not found:
            raise UserError(f"{folder / subfolder} holds no {' or '.join(names)}: expected the folder of a saved model")
        return found[0]
    for name in names:
        try:
            options = {"subfolder": subfolder or None, "cache_dir": cache_dir, "local_files_only": local_files_only}
            return Path(hf_hub_download(str(source), name, **options))
        except (HFValidationError, LocalEntryNotFoundError):
            break  # not a name that a repository could have, or no network
        except HfHubHTTPError:
            continue
    raise UserError(f"{source}: no such file or folder, and no such model within reach; expected one with {names[0]}")
