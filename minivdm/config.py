"""Presets: the YAML files that fill the dataclasses of `settings.py`, and errors that name the fix.

A preset is data. `presets/base.yaml` holds every default, each other file states only its difference from it, or from
the preset that it names as `like`, and any value can be overridden by its dotted name, on the command line
(`--training.steps 500`) or in code (`load_preset("toy", {"training.steps": 500})`). What differs between the tasks of
one preset stands under `tasks`. Unknown names and impossible values are one-line `UserError`s.
"""

import dataclasses
import difflib
import functools
import reprlib
import typing
from pathlib import Path
from typing import Any

import jsonargparse
import yaml

from minivdm.errors import UserError
from minivdm.paths import PACKAGE
from minivdm.settings import Config, check

__all__ = ["Config", "differences", "load_config", "load_preset", "parse_overrides", "preset_names"]

PRESETS = PACKAGE / "presets"


def preset_names() -> list[str]:
    """Names that `--preset` takes."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml") if path.stem != "base")


def load_preset(
    name: str, overrides: dict[str, Any] | None = None, task: str = "unet3d", chain: bool = False
) -> Config:
    """`base.yaml`, then the preset's differences, then `overrides` by dotted name; checked.

    In both files the values under `tasks` that stand under the name of `task` go before the others, and with `chain`,
    where all tasks are trained one after another, those under `chain` before these.
    Raises UserError for an unknown preset, an unknown name (with the nearest known one) or an impossible value.
    """
    if name not in preset_names():
        raise UserError(
            f"unknown preset {name!r}{_nearest(name, preset_names())}; presets: {', '.join(preset_names())}"
        )
    presets = _read_preset("base", task, chain) | _read_preset(name, task, chain)
    return _build(presets | {"preset": name} | (overrides or {}))


def load_config(path: Path, overrides: dict[str, Any] | None = None) -> Config:
    """A configuration saved by `Config.save`, with `overrides` by dotted name.

    Settings that the file lacks, because they did not exist when it was written, are as in `base.yaml`.
    """
    return _build(_read_preset("base", "") | _flatten(_read_yaml(path)) | (overrides or {}))


def differences(config: Config) -> dict[str, Any]:
    """The settings of `config` that are not those of its preset for its task, by dotted name."""
    usual = _flatten(dataclasses.asdict(load_preset(config.preset, task=config.task)))
    own = _flatten(dataclasses.asdict(config))
    return {name: value for name, value in own.items() if value != usual.get(name)}


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
        try:
            overrides[name] = _from_yaml(value) if value else value
        except ValueError as error:
            raise UserError(f"option --{name} is {value!r}, which is no YAML ({error}); put text in quotes") from None
    return overrides


def _build(values: dict[str, Any]) -> Config:
    """Check names and types, make the dataclasses, then check what types cannot say."""
    for name in values:
        if name not in _known():
            raise UserError(
                f"unknown setting {name!r}{_nearest(name, _known())}; known settings are listed in presets/base.yaml"
            )
        _refuse(name, values[name])
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *groups, leaf = name.split(".")
        place = nested
        for group in groups:
            place = place.setdefault(group, {})
        place[leaf] = value
    try:
        parsed = _parser().parse_object(nested)
    except jsonargparse.ArgumentError as error:
        raise UserError(_explain(values, error)) from None
    groups = {field.name: field.type for field in dataclasses.fields(Config) if dataclasses.is_dataclass(field.type)}
    for name, group in groups.items():
        try:
            group(**vars(parsed[name]))
        except UserError as error:  # the sizes of networks check themselves, and do not know where they stand
            raise UserError(f"setting {name}.{error}") from None
    config = Config(**vars(_parser().instantiate_classes(parsed)))
    check(config)
    return config


@functools.cache
def _known() -> tuple[str, ...]:
    """The names of all settings."""
    return (*_read_preset("base", ""), "preset")


@functools.cache
def _parser() -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Config)
    return parser


@functools.cache
def _types() -> dict[str, Any]:
    """The type of every setting."""
    types = {"preset": str}
    for group in dataclasses.fields(Config):
        if dataclasses.is_dataclass(group.type):
            types |= {f"{group.name}.{leaf.name}": leaf.type for leaf in dataclasses.fields(group.type)}
        else:
            types[group.name] = group.type
    return types


def _refuse(name: str, value: Any) -> None:
    """Raise UserError for two values that the parser lets pass: nothing at all, and an int too long for a float."""
    if value is None and type(None) not in typing.get_args(_types()[name]):
        raise UserError(f"setting {name} has no value; expected {_printed(_types()[name])}")
    if isinstance(value, int) and value.bit_length() > 64:
        raise UserError(f"setting {name} is a whole number of {value.bit_length()} bits; expected at most 64")


def _printed(kind: Any) -> str:
    plain = isinstance(kind, type) and not hasattr(kind, "__args__")
    return kind.__name__ if plain else str(kind).replace("typing.", "")


def _explain(values: dict[str, Any], error: Exception) -> str:
    """The setting whose value has the wrong type, in one line."""
    text = " ".join(str(error).split())
    for name, value in values.items():
        if f'"{name}"' in text or f'"{name.rpartition(".")[2]}"' in text:
            return f"setting {name} is {reprlib.repr(value)}; expected {_printed(_types()[name])}"
    return f"impossible setting: {text}"


def _read_preset(name: str, task: str, chain: bool = False) -> dict[str, Any]:
    """The values of one preset file by dotted name, those of the task last."""
    values = _read_yaml(PRESETS / f"{name}.yaml")
    like = values.pop("like", None)
    below = _read_preset(like, task, chain) if like else {}
    tasks, chained = values.pop("tasks", {}), values.pop("chain", {})
    flat = below | _flatten(values) | ({"task": task} if task else {}) | _flatten(tasks.get(task, {}))
    return flat | (_flatten(chained.get(task, {})) if chain else {})


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = _from_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    if values is not None and not isinstance(values, dict):
        raise UserError(f"{path} holds a {type(values).__name__}; expected settings such as 'seed: 0'")
    return values or {}


class _PlainLoader(yaml.SafeLoader):
    """Without aliases, by which ten lines can stand for more values than a machine has memory."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases such as *name are not taken; write the value out")
        return super().compose_node(parent, index)


def _from_yaml(text: str) -> Any:
    """What a text says in YAML. Raises ValueError, in one line."""
    try:
        return yaml.load(text, _PlainLoader)
    except Exception as error:  # beside its own errors, whatever its readers of numbers and dates raise
        raise ValueError(" ".join(f"{error}".split()) or type(error).__name__) from None


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
