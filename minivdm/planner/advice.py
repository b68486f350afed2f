"""What to change when a training does not fit: the cheapest way first."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from minivdm.planner.memory import Extrapolated, Measured, Plan, largest_batch, measure
from minivdm.settings import Config

CHECKPOINTING = {"unet3d": "unet3d.gradient_checkpointing", "stdit3": "flow.gradient_checkpointing"}
LEAST = {"data.clips": 64, "data.frames": 5}


@dataclass(frozen=True)
class Change:
    """Settings to change, all at once: what the training then takes, and what that costs."""

    settings: dict[str, Any]
    plan: Plan
    cost: str

    @property
    def options(self) -> str:
        """As they are typed behind `minivdm train`."""
        return " ".join(f"--{name} {str(value).lower()}" for name, value in self.settings.items())


def with_settings(config: Config, settings: dict[str, Any]) -> Config:
    """A copy with some settings changed, by dotted name."""
    changed = copy.deepcopy(config)
    for name, value in settings.items():
        group, leaf = name.split(".")
        setattr(getattr(changed, group), leaf, value)
    return changed


def changes(config: Config, device: str, memory: float, measured: Measured | Extrapolated) -> Iterator[Change]:
    """Ways to save memory, each with those before it that it needs; the last is the first that fits, if any does.

    memory: bytes. measured: that of `config` on `device`, "cpu" or "gpu".
    """
    batch, settings = config.training.batch_size, {}
    flops = measured.plan(batch).flops
    while (times := measured.plan(batch).caching / memory) > 1 and config.data.clips >= 2 * LEAST["data.clips"]:
        settings["data.clips"] = max(LEAST["data.clips"], int(config.data.clips / max(2, times)))
        config = with_settings(config, settings)
        measured = measure(config, device)
    if settings:
        yield Change(dict(settings), measured.plan(batch), "fewer different clips are seen")
    switches = list(_switches(config, device))
    if not switches or switches[0][0] != "training.precision":  # that one costs nothing, and goes before all others
        switches.insert(0, (None, None, ""))
    for name, value, cost in switches:
        if name is not None:
            settings[name] = value
            measured = measure(with_settings(config, settings), device)
            plan = measured.plan(batch)
            yield Change(dict(settings), plan, cost or f"{plan.flops / flops - 1:.0%} more to compute")
        if measured.plan(batch).peak.total <= memory:
            return
        if largest := largest_batch(measured, memory):
            yield _in_smaller_batches(config, settings, measured, largest)
            return
        if batch > 1:
            yield _in_smaller_batches(config, settings, measured, 1)
    standing = measured.plan(1).standing
    while standing <= memory and config.data.frames >= 2 * LEAST["data.frames"]:
        frames = (config.data.frames + 1) // 2
        settings |= {"data.frames": frames, "training.batch_size": 1, "training.accumulate": _all_clips(config)}
        config = with_settings(config, settings)
        plan = measure(config, device).plan(1)
        yield Change(dict(settings), plan, "shorter films")
        if plan.peak.total <= memory:
            return


def _switches(config: Config, device: str) -> Iterator[tuple[str, Any, str]]:
    if device == "gpu" and config.training.precision == "fp32":
        yield "training.precision", "bf16", "nothing: it is faster too"
    if (name := CHECKPOINTING.get(config.task)) is not None:
        group, leaf = name.split(".")
        if not getattr(getattr(config, group), leaf):
            yield name, True, ""


def _in_smaller_batches(
    config: Config, settings: dict[str, Any], measured: Measured | Extrapolated, largest: int
) -> Change:
    """The same clips per step in batches of at most `largest`."""
    clips = _all_clips(config)
    size = max(size for size in range(1, min(largest, clips) + 1) if clips % size == 0)
    settings = settings | {"training.batch_size": size, "training.accumulate": clips // size}
    plan = measured.plan(size, accumulate=clips // size)
    return Change(settings, plan, "the same steps, a little slower: small batches keep a machine less busy")


def _all_clips(config: Config) -> int:
    return config.training.batch_size * config.training.accumulate
