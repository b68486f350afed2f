"""Every setting of every preset group refuses what cannot work, when it is loaded and not hours later."""

import dataclasses
import math
from functools import reduce
from typing import Any

import pytest

from minivdm.config import Config, load_preset, parse_overrides
from minivdm.errors import UserError
from minivdm.settings import MAX_FPS, RANGES

# Any value of the right type will do: switches, and names of things that are looked for only when they are needed.
ANYTHING_GOES = set(
    "preset data.folder data.flip unet3d.use_sparse_linear_attn unet3d.gradient_checkpointing unet3d.captions "
    "vae2d.from_pretrained vae2d.cache_dir vae2d.sample temporal_vae.shortcut vae_loss.vae2d vae_loss.init "
    "vae_loss.decoder_only stdit3.qk_norm stdit3.pred_sigma stdit3.double_modulate stdit3.first_size_only flow.text "
    "flow.vae flow.init flow.shift flow.gradient_checkpointing flow.cache".split()
)
COUNT, SIZE, POSITIVE = (0, -1), (0, -1), (0.0, math.nan)
NOT_NEGATIVE, SHARE, FINITE = (-0.1, math.inf), (1.5, math.nan), (math.nan, -math.inf)
CHOICE = ("another",)
BUCKET = {"size": "32px", "frames": 9, "batch": 16}
BY_HAND: dict[str, tuple] = {  # of the right type, and out of range
    "task": CHOICE,
    "seed": (-1, 2**63),
    "data.fps": (0.0, -8.0, MAX_FPS + 0.5, math.nan, math.inf),
    "data.size": (*COUNT, 30),
    "data.workers": (-1,),
    "data.buckets": ([BUCKET | {"frames": 0}], [BUCKET | {"batch": -1}], [BUCKET | {"keep": 1.5}], [BUCKET, BUCKET]),
    "unet3d.dim_mults": ([], [0], [1, -2]),
    "unet3d.init_dim": SIZE,
    "unet3d.init_kernel_size": (0, -1, 4),
    "vae2d.scale_factor": POSITIVE,
    "vae2d.ch_mult": ([], [0], [1, -2]),
    "temporal_vae.channel_multipliers": ([], [0, 1, 2], [1, 2]),
    "temporal_vae.temporal_downsample": ([], [True]),
    "temporal_vae.num_groups": (*COUNT, 7),
    "stdit3.patch_size": ([1, 2], [0, 2, 2], [1, 2, -2]),
    "stdit3.hidden_size": (*COUNT, 1150),
    "stdit3.num_heads": (*COUNT, 7),
    "stdit3.mlp_ratio": POSITIVE,
    "stdit3.class_dropout_prob": SHARE,
    "training.warmup": (-1,),
    "sampling.steps": (*COUNT, 2000),
    "vae2d.shift_factor": FINITE,
    "diffusion.shift_factor": FINITE,
    "flow.location": FINITE,
}


def leaves() -> dict[str, dataclasses.Field]:
    """Every setting by its dotted name."""
    found = {}
    for group in dataclasses.fields(Config):
        inner = dataclasses.fields(group.type) if dataclasses.is_dataclass(group.type) else None
        found |= {group.name: group} if inner is None else {f"{group.name}.{leaf.name}": leaf for leaf in inner}
    return found


def refused(name: str, field: dataclasses.Field) -> tuple:
    """Values that a setting must not take: by hand, or else by its type and the range that it stands in."""
    if name in BY_HAND:
        return BY_HAND[name]
    if "Literal" in str(field.type):
        return CHOICE
    if field.type is int:
        return COUNT
    expected = {setting: words for words, _, names in RANGES for setting in names.split()}.get(name, "")
    return {"a number above 0": POSITIVE, "a number from 0 on": NOT_NEGATIVE, "a share from 0 to 1": SHARE}.get(
        expected, ()
    )


CASES = [(name, value) for name, field in leaves().items() for value in refused(name, field)]


@pytest.mark.parametrize("name", sorted(leaves()))
def test_every_setting_refuses_something_or_takes_anything(name):
    assert bool(refused(name, leaves()[name])) != (name in ANYTHING_GOES)


def load(overrides: dict[str, Any]) -> Config:
    return load_preset("toy", overrides, task=overrides.get("task", "unet3d"))


@pytest.mark.parametrize(("name", "value"), CASES, ids=str)
def test_what_cannot_work_is_refused_in_a_line_that_says_what_can(name, value):
    with pytest.raises(UserError) as caught:
        load({name: value})
    told = str(caught.value)
    assert "\n" not in told and name.rpartition(".")[2].removesuffix("s") in told
    assert "expected" in told or "divi" in told  # what is expected, or what it has to divide or be divisible by
    assert shows(told, value)


def shows(told: str, value: Any) -> bool:
    """Whether a line tells the value, or of a list one of its entries or their number."""
    if isinstance(value, list):
        return value == [] or str(len(value)) in told or any(shows(told, part) for part in value)
    if isinstance(value, dict):
        return all(shows(told, value[key]) for key in ("size", "frames"))
    return repr(value).strip("'") in told or (isinstance(value, float) and f"{value:g}" in told)


@pytest.mark.parametrize(
    "name", ["training.steps", "training.learning_rate", "training.ema_decay", "data.level", "seed"]
)
def test_the_command_line_refuses_it_too(name):
    for value in refused(name, leaves()[name]):
        with pytest.raises(UserError):
            load(parse_overrides([f"--{name}", f".{value}".replace(".-", "-.") if _odd(value) else str(value)]))


def _odd(value: Any) -> bool:
    """What YAML writes with a dot in front: .nan, .inf, -.inf."""
    return isinstance(value, float) and not math.isfinite(value)


def test_the_ends_of_the_ranges_are_taken():
    taken = {
        "training.ema_decay": 0.0, "training.decay_from": 0.0, "training.null_cond_prob": 1.0, "sampling.eta": 1.0,
        "training.warmup": 0, "data.workers": 0, "training.steps": 1, "training.batch_size": 1, "sampling.steps": 1000,
        "seed": 2**63 - 1, "data.fps": float(MAX_FPS), "flow.location": -3.0, "unet3d.init_dim": None,
    }  # fmt: skip
    config = load(taken)
    assert {name: reduce(getattr, name.split("."), config) for name in taken} == taken


@pytest.mark.parametrize(
    "value", ["many", "", [], [1, 2], {"a": 1}, True, 2.5, b"3", "9" * 5000], ids=lambda value: repr(value)[:20]
)
def test_a_number_of_steps_is_a_whole_number(value):
    with pytest.raises(UserError) as caught:
        load({"training.steps": value})
    assert "training.steps" in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 200
