"""What a preset may say: the dataclasses, the YAML files that fill them, and errors that name the fix.

A preset is data. `presets/base.yaml` holds every default (the dataclasses have none), each other file states only its
difference from it, and any value can be overridden by its dotted name, on the command line (`--training.steps 500`) or
in code (`load_preset("toy", {"training.steps": 500})`). Unknown names and impossible values are one-line `UserError`s.
"""

import dataclasses
import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jsonargparse
import yaml

from minivdm.errors import UserError
from minivdm.paths import PACKAGE

PRESETS = PACKAGE / "presets"


@dataclass
class DataConfig:
    """Where clips come from and what shape they are given."""

    folder: str | None  # your own GIFs, MP4s or WebPs; None renders fireworks in memory
    clips: int  # how many fireworks are rendered when there is no folder
    level: Literal["single", "scene"]
    size: int  # height and width in pixels
    frames: int
    fit: Literal["cut", "stride", "loop", "repeat"]  # what to do with clips of another length
    flip: bool  # mirror half of the clips (all frames of a clip together)
    fps: float  # speed at which samples are written
    workers: int  # processes that decode clips beside the training


@dataclass
class Unet3DConfig:
    """Arguments of `denoisers.Unet3D`, what is folded around it, and whether it listens to the captions."""

    dim: int
    dim_mults: tuple[int, ...]
    channels: int
    patch: int  # squares of patch x patch pixels are folded into channels: 2 makes every layer four times cheaper
    attn_heads: int
    attn_dim_head: int
    spatial_dim_head: int
    init_dim: int | None
    init_kernel_size: int
    use_sparse_linear_attn: bool
    gradient_checkpointing: bool
    captions: bool  # condition on the words of the captions, where the data has captions


@dataclass
class DiffusionConfig:
    """The noising process and what the network is asked for."""

    num_steps: int
    schedule: Literal["linear", "cosine", "scaled_linear"]
    prediction: Literal["noise", "x0", "v"]
    loss: Literal["l1", "l2"]
    threshold: Literal["static", "dynamic"] | None
    shift_factor: float  # clips x are noised as (x - shift_factor) * scale_factor
    scale_factor: float


@dataclass
class TrainingConfig:
    """One optimiser step is `accumulate` batches of `batch_size` clips, whatever the number of processes."""

    steps: int
    batch_size: int
    accumulate: int
    learning_rate: float
    warmup: int  # steps over which the learning rate rises from 0
    decay_from: float  # fraction of `steps` after which the learning rate falls to 0 along a cosine
    clip_grad: float  # largest gradient norm
    ema_decay: float
    null_cond_prob: float  # how often a caption is dropped, so that guidance has something to compare with
    prob_focus_present: float  # how often a clip is learnt as unrelated pictures
    precision: Literal["fp32", "bf16", "fp16"]
    log_every: int
    milestone_every: int  # a checkpoint, sample clips and the loss curve
    keep_checkpoints: int


@dataclass
class SamplingConfig:
    """How clips are drawn from the trained network."""

    method: Literal["ddpm", "ddim", "dpmpp"]
    steps: int
    eta: float
    guidance: float
    clips: int  # at milestones


@dataclass
class Config:
    """Everything a run needs to be repeated exactly."""

    preset: str
    seed: int
    data: DataConfig
    unet3d: Unet3DConfig
    diffusion: DiffusionConfig
    training: TrainingConfig
    sampling: SamplingConfig

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dict: what `config.yaml` of a run folder holds."""
        plain = dataclasses.asdict(self)
        plain["unet3d"]["dim_mults"] = list(self.unet3d.dim_mults)
        return plain

    def save(self, path: Path) -> None:
        """Write the whole configuration as YAML."""
        path.write_text(yaml.safe_dump(self.to_dict(), sort_keys=False), encoding="utf-8")


def preset_names() -> list[str]:
    """Names that `--preset` takes."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml") if path.stem != "base")


def load_preset(name: str, overrides: dict[str, Any] | None = None) -> Config:
    """`base.yaml`, then the preset's differences, then `overrides` by dotted name; checked.

    Raises UserError for an unknown preset, an unknown name (with the nearest known one) or an impossible value.
    """
    if name not in preset_names():
        raise UserError(
            f"unknown preset {name!r}{_nearest(name, preset_names())}; presets: {', '.join(preset_names())}"
        )
    values = _flatten(_read_yaml(PRESETS / "base.yaml")) | _flatten(_read_yaml(PRESETS / f"{name}.yaml"))
    return _build(values | {"preset": name} | (overrides or {}))


def load_config(path: Path, overrides: dict[str, Any] | None = None) -> Config:
    """A configuration saved by `Config.save`, with `overrides` by dotted name."""
    return _build(_flatten(_read_yaml(path)) | (overrides or {}))


def parse_overrides(arguments: list[str]) -> dict[str, Any]:
    """`["--training.steps", "500", "--data.flip=true"]` to a dict of dotted names. Raises UserError when unpaired."""
    overrides, rest = {}, list(arguments)
    while rest:
        name = rest.pop(0)
        if not name.startswith("--") or len(name) == 2:
            raise UserError(f"found {name!r} where an option was expected; options look like --training.steps 500")
        name, equals, value = name[2:].partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise UserError(f"option --{name} has no value; write --{name} VALUE")
            value = rest.pop(0)
        overrides[name] = yaml.safe_load(value) if value else value
    return overrides


def _build(values: dict[str, Any]) -> Config:
    """Check names and types, make the dataclasses, then check what types cannot say."""
    known = _flatten(_read_yaml(PRESETS / "base.yaml")) | {"preset": "base"}
    for name in values:
        if name not in known:
            raise UserError(
                f"unknown setting {name!r}{_nearest(name, known)}; known settings are listed in presets/base.yaml"
            )
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Config)
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *groups, leaf = name.split(".")
        place = nested
        for group in groups:
            place = place.setdefault(group, {})
        place[leaf] = value
    try:
        config = Config(**vars(parser.instantiate_classes(parser.parse_object(nested))))
    except jsonargparse.ArgumentError as error:
        raise UserError(_explain(values, error)) from None
    _check(config)
    return config


def _explain(values: dict[str, Any], error: Exception) -> str:
    """The setting whose value has the wrong type, in one line."""
    fields = {
        f"{group.name}.{leaf.name}": leaf
        for group in dataclasses.fields(Config)
        if dataclasses.is_dataclass(group.type)
        for leaf in dataclasses.fields(group.type)
    }
    text = " ".join(str(error).split())
    for name, value in values.items():
        if f'"{name}"' in text or f'"{name.rpartition(".")[2]}"' in text:
            kind = fields[name].type if name in fields else "another type"
            expected = kind.__name__ if isinstance(kind, type) and not hasattr(kind, "__args__") else str(kind)
            expected = expected.replace("typing.", "")
            return f"setting {name} is {value!r}; expected {expected}"
    return f"impossible setting: {text}"


def _check(config: Config) -> None:
    """Values that have the right type and still cannot work."""
    positive = {
        "data.clips": config.data.clips,
        "data.size": config.data.size,
        "data.frames": config.data.frames,
        "data.fps": config.data.fps,
        "unet3d.dim": config.unet3d.dim,
        "unet3d.patch": config.unet3d.patch,
        "unet3d.attn_heads": config.unet3d.attn_heads,
        "training.steps": config.training.steps,
        "training.batch_size": config.training.batch_size,
        "training.accumulate": config.training.accumulate,
        "training.learning_rate": config.training.learning_rate,
        "training.clip_grad": config.training.clip_grad,
        "training.log_every": config.training.log_every,
        "training.milestone_every": config.training.milestone_every,
        "sampling.clips": config.sampling.clips,
        "diffusion.scale_factor": config.diffusion.scale_factor,
        "training.keep_checkpoints": config.training.keep_checkpoints,
        "diffusion.num_steps": config.diffusion.num_steps,
    }
    for name, value in positive.items():
        if value <= 0:
            raise UserError(f"setting {name} is {value}; expected a number above 0")
    shares = {
        "training.ema_decay": config.training.ema_decay,
        "training.null_cond_prob": config.training.null_cond_prob,
        "training.prob_focus_present": config.training.prob_focus_present,
        "training.decay_from": config.training.decay_from,
        "sampling.eta": config.sampling.eta,
    }
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise UserError(f"setting {name} is {value}; expected a share from 0 to 1")
    levels, patch = len(config.unet3d.dim_mults), config.unet3d.patch
    factor = 2 ** (levels - 1) * patch
    if config.data.size % factor:
        down = max(factor, config.data.size // factor * factor)
        raise UserError(
            f"data.size {config.data.size} is not divisible by {factor}, which the {levels} levels of "
            f"unet3d.dim_mults and unet3d.patch {patch} need; use {down} or {down + factor}"
        )
    if not 1 <= config.sampling.steps <= config.diffusion.num_steps:
        most = config.diffusion.num_steps
        raise UserError(f"sampling.steps is {config.sampling.steps}; expected 1 to diffusion.num_steps = {most}")
    if config.unet3d.init_kernel_size % 2 == 0:
        raise UserError(
            f"unet3d.init_kernel_size is {config.unet3d.init_kernel_size}; expected an odd number, so that the "
            f"padding is the same on both sides: {config.unet3d.init_kernel_size + 1}"
        )


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"cannot read {path}: {' '.join(str(error).split())}") from None
    if values is not None and not isinstance(values, dict):
        raise UserError(f"{path} holds a {type(values).__name__}; expected settings such as 'seed: 0'")
    return values or {}


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _nearest(name: str, known: Any) -> str:
    leaf = {option.rpartition(".")[2]: option for option in known}
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    close = close or [
        leaf[hit] for hit in difflib.get_close_matches(name.rpartition(".")[2], list(leaf), n=1, cutoff=0.75)
    ]
    return f" (did you mean {close[0]!r}?)" if close else ""
