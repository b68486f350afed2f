"""The settings of a run as dataclasses, and the values that cannot work.

`presets/base.yaml` holds every default; `config.py` reads the files and fills these.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Literal

import yaml

from minivdm.data.buckets import BucketConfig, check_buckets
from minivdm.denoisers.stdit3 import STDiT3Config
from minivdm.errors import UserError
from minivdm.vae.autoencoder2d import AutoEncoderConfig
from minivdm.vae.temporal import TemporalVAEConfig


@dataclass
class DataConfig:
    """Where clips come from and what shape they are given."""

    folder: str | None  # your own GIFs, MP4s or WebPs; None renders fireworks in memory
    clips: int  # how many fireworks are rendered when there is no folder
    level: Literal["single", "scene"]
    open_places: float  # share of full captions of lone shells that leave the place open
    size: int  # height and width in pixels
    frames: int
    fit: Literal["cut", "stride", "loop", "repeat"]  # what to do with clips of another length
    flip: bool  # mirror half of the clips (all frames of a clip together)
    fps: float  # speed at which samples are written
    workers: int  # processes that decode clips beside the training
    buckets: list[BucketConfig]  # stdit3: clips of several sizes and lengths, see `data.buckets`; none: all are alike


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
class VaeLossConfig:
    """What a VAE is trained for: see `training.vae_tasks`."""

    lit: float  # how many times a lit pixel counts: an empty sky is easy, and most of every clip
    perceptual: float  # weight of LPIPS
    perceptual_trunk: Literal["fireworks", "vgg16"]
    kl: float
    frames_per_clip: int  # vae2d: pictures taken from each clip of a batch
    images: float  # temporal_vae: share of batches that are single pictures; the others have any length from 2 on
    vae2d: str | None  # temporal_vae: the 2D VAE below, a run folder, a folder with weights, or "toy"
    init: str | None  # weights to begin with, of the same size or smaller: "toy", a run of the same task, or a folder
    decoder_only: bool  # keep the encoder as it is: the latents stay those that a denoiser has learnt
    critic: Literal["hinge", "vanilla", "wgan"] | None
    critic_weight: float  # times the adaptive weight
    critic_penalty: float  # weight of the gradient penalty
    critic_width: int
    critic_layers: int
    plateau_steps: int  # the critic is switched on when the reconstruction gained less than `plateau_gain`
    plateau_gain: float  # over that many steps, as a share of itself


@dataclass
class ToyT5Config:
    """Sizes of the toy T5, and what it learns language from."""

    objective: Literal["reading", "listing", "spans"]  # see `text.toy_t5`
    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_heads: int
    num_decoder_layers: int  # the decoder only asks the questions: it is not shipped


GIVEN = ("image_head", "image_tail", "image_head_tail")  # kinds of `diffusion.masks` that training can mix in


@dataclass
class FlowConfig:
    """Rectified flow, and the finished parts that an STDiT3 stands on."""

    text: str  # text encoder: "toy", a run of `minivdm train toy_t5`, a folder, or a name on the Hugging Face Hub
    tokens: int  # every text is brought to this length
    vae: str  # video VAE: "toy", a run of `minivdm train temporal_vae`, or a folder of `VideoAutoencoder`
    init: str | None  # weights to begin with, of the same size or smaller: a run of `minivdm train stdit3`, a pipeline
    t_sampling: Literal["uniform", "logit-normal"]
    location: float  # of the logit-normal
    spread: float
    shift: bool  # move times towards noise for larger and longer clips
    gradient_checkpointing: bool  # less memory, a third more time
    image_head: float  # share of the clips whose first frame is given, and not generated
    image_tail: float  # the last one
    image_head_tail: float  # both
    cache: str | None  # folder that keeps latents between runs


@dataclass
class TrainingConfig:
    """One optimiser step is `accumulate` batches of `batch_size` clips, whatever the number of processes."""

    steps: int
    batch_size: int
    accumulate: int
    optimizer: Literal["adam", "muon"]  # muon: for transformers, fewer steps
    learning_rate: float
    warmup: int  # steps over which the learning rate rises from 0
    decay_from: float  # fraction of `steps` after which the learning rate falls to 0 along a cosine
    clip_grad: float  # largest gradient norm
    ema_decay: float
    null_cond_prob: float  # how often a caption is dropped, so that guidance has something to compare with
    prob_focus_present: float  # how often a clip is learnt as unrelated pictures
    precision: Literal["auto", "fp32", "bf16", "fp16"]  # auto: bf16 where the device is fast at it; a run records which
    not_finite: Literal["stop", "skip"]  # a batch whose loss or gradient is not finite ends the run, or is left out
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
    task: Literal["unet3d", "vae2d", "temporal_vae", "toy_t5", "stdit3"]
    seed: int
    data: DataConfig
    unet3d: Unet3DConfig
    vae2d: AutoEncoderConfig
    temporal_vae: TemporalVAEConfig
    vae_loss: VaeLossConfig
    toy_t5: ToyT5Config
    stdit3: STDiT3Config
    flow: FlowConfig
    diffusion: DiffusionConfig
    training: TrainingConfig
    sampling: SamplingConfig

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dict: what `config.yaml` of a run folder holds."""
        return _without_tuples(dataclasses.asdict(self))

    def save(self, path: Path) -> None:
        """Write the whole configuration as YAML."""
        path.write_text(yaml.safe_dump(self.to_dict(), sort_keys=False), encoding="utf-8")


# What a number may be, and the settings of which that is asked. Lists are asked entry by entry; None is no number.
MAX_FPS = 50  # of a GIF, in which samples are written
RANGES: tuple[tuple[str, Callable[[float], bool], str], ...] = (
    (
        "a number above 0",
        lambda value: 0 < value < math.inf,
        "data.clips data.size data.frames unet3d.dim unet3d.dim_mults unet3d.channels unet3d.patch unet3d.attn_heads "
        "unet3d.attn_dim_head unet3d.spatial_dim_head unet3d.init_dim unet3d.init_kernel_size vae2d.resolution "
        "vae2d.scale_factor vae_loss.lit vae_loss.frames_per_clip vae_loss.critic_width vae_loss.critic_layers "
        "vae_loss.plateau_steps toy_t5.d_model toy_t5.d_kv toy_t5.d_ff toy_t5.num_layers toy_t5.num_heads "
        "toy_t5.num_decoder_layers stdit3.mlp_ratio flow.tokens flow.spread diffusion.num_steps diffusion.scale_factor "
        "training.steps training.batch_size training.accumulate training.learning_rate training.clip_grad "
        "training.log_every training.milestone_every training.keep_checkpoints sampling.steps sampling.clips",
    ),
    (
        "a number from 0 on",
        lambda value: 0 <= value < math.inf,
        "data.workers training.warmup vae_loss.perceptual vae_loss.kl vae_loss.critic_weight vae_loss.critic_penalty "
        "vae_loss.plateau_gain sampling.guidance",
    ),
    (
        "a share from 0 to 1",
        lambda value: 0 <= value <= 1,
        "vae_loss.images training.decay_from training.ema_decay training.null_cond_prob training.prob_focus_present "
        "data.open_places sampling.eta " + " ".join(f"flow.{kind}" for kind in GIVEN),
    ),
    ("a finite number", math.isfinite, "vae2d.shift_factor diffusion.shift_factor flow.location"),
    (f"frames per second above 0, at most {MAX_FPS}", lambda value: 0 < value <= MAX_FPS, "data.fps"),
    ("a whole number from 0 on, below 2**63", lambda value: 0 <= value < 2**63, "seed"),
)


def check(config: Config) -> None:
    """Values that have the right type and still cannot work. (The sizes of networks check themselves as well.)"""
    for expected, holds, names in RANGES:
        for name in names.split():
            value = reduce(getattr, name.split("."), config)
            entries = value if isinstance(value, list | tuple) else [value]
            if not entries or not all(entry is None or holds(entry) for entry in entries):
                each = " in every place" if isinstance(value, list | tuple) else ""
                raise UserError(f"setting {name} is {value}; expected {expected}{each}")
    if sum(getattr(config.flow, kind) for kind in GIVEN) > 1:
        raise UserError(f"flow.{', flow.'.join(GIVEN)} add up to more than 1; expected shares of at most 1 in all")
    if config.data.buckets:
        check_buckets(config.data.buckets)
        if config.task != "stdit3" or config.data.folder is None:
            found = f"task {config.task}, " + ("no folder" if config.data.folder is None else "a folder")
            raise UserError(f"data.buckets with {found}; expected task stdit3, and a folder of clips with --data")
    if config.task == "unet3d":
        patch = config.unet3d.patch
        reason = f"the {len(config.unet3d.dim_mults)} levels of unet3d.dim_mults and unet3d.patch {patch} need"
        _check_size(config.data.size, 2 ** (len(config.unet3d.dim_mults) - 1) * patch, reason)
    if config.task == "vae2d":
        reason = f"the {len(config.vae2d.ch_mult)} levels of vae2d.ch_mult need"
        _check_size(config.data.size, 2 ** (len(config.vae2d.ch_mult) - 1), reason)
    steps, most = config.sampling.steps, config.diffusion.num_steps
    if steps > most:
        raise UserError(f"setting sampling.steps is {steps}; expected 1 to diffusion.num_steps = {most}")
    if config.unet3d.init_kernel_size % 2 == 0:
        raise UserError(
            f"setting unet3d.init_kernel_size is {config.unet3d.init_kernel_size}; expected an odd number, so that the "
            f"padding is the same on both sides: {config.unet3d.init_kernel_size + 1}"
        )


def _check_size(size: int, factor: int, reason: str) -> None:
    if size % factor:
        down = max(factor, size // factor * factor)
        raise UserError(f"data.size {size} is not divisible by {factor}, which {reason}; use {down} or {down + factor}")


def _without_tuples(value: Any) -> Any:
    """YAML has lists only."""
    if isinstance(value, dict):
        return {name: _without_tuples(part) for name, part in value.items()}
    return [_without_tuples(part) for part in value] if isinstance(value, tuple | list) else value
