"""The plan of a preset in words and tables."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from minivdm.config import load_config
from minivdm.errors import UserError
from minivdm.paths import checkpoint_dir
from minivdm.pipelines.device import pick_device
from minivdm.pipelines.write_films import GROUP
from minivdm.planner.advice import changes, with_settings
from minivdm.planner.machine import CUDA_CONTEXT, GIB, matmul_rate, memory_at_hand
from minivdm.planner.memory import Extrapolated, Measured, Moment, largest_batch, measure
from minivdm.planner.probe import seconds_per_step
from minivdm.planner.sampling import plan_films
from minivdm.settings import Config
from minivdm.training.precision import choose_precision

# What is said elsewhere of models of this family; none of it was measured here.
UPSTREAM_SIZES = (
    "  elsewhere    STDiT3 1.1B (Open-Sora reports 03 and 04; 11B is the MMDiT of its version 2.0)",
    "               T5 v1.1 XXL: 'about 3B' is often said; VAE 384M (Open-Sora 1.2), of which 83M are the 2D VAE",
)
UPSTREAM_FILMS = (
    "  elsewhere    often quoted for Open-Sora, without a measurement: 32 GB at 256px, 80 GB at 768px",
    "               Open-Sora's README, for the 11B MMDiT of version 2.0 and 50 steps, on H100s:",
    "               256px: 52.5 GB and 60 s on one, with offloading; 768px: 60.3 GB on one, 44.3 GB and 276 s on eight",
)
NOMINAL = 100e12  # operations per second of an imagined GPU
WITHOUT_GPU = "on a GPU that keeps up 100 TFLOP per second; there is none here to be timed"
# A training is refused only when even this share of what is planned would not fit: plans are off by up to 15 %.
MARGIN = 0.8


def training_lines(config: Config, memory: int | None, probe: bool = False) -> Iterator[str]:
    """The plan of a training. memory: bytes of a GPU to plan for; None: this machine's GPU, or its RAM."""
    here, device = place(memory)
    memory = here if memory is None else memory - CUDA_CONTEXT
    config = _with_precision(config, device)
    training = config.training
    measured = measure(config, device)
    plan = measured.plan(training.batch_size)
    batches = f"{training.batch_size} clips" + (f" x {training.accumulate} batches" if training.accumulate > 1 else "")
    size = f"{config.data.frames} frames of {config.data.size}x{config.data.size}"
    yield f"{config.task}, preset {config.preset}: {batches} of {size}, {training.precision}, on a {device.upper()}"
    yield _parameters(plan.parameters)
    in_all = f"{_flops(plan.flops * training.steps)} in {training.steps:,} steps"
    yield f"  compute      {_flops(plan.flops)} per step, {in_all}"
    yield from _moments(plan.moments, "memory")
    yield from _moments(plan.ram, "RAM beside")
    most = largest_batch(measured, memory)
    if config.preset == "full" and config.task == "stdit3":
        yield from UPSTREAM_SIZES
    yield f"  there are    {_gb(memory)}: " + (f"batches of up to {most:,} clips fit" if most else "not one clip fits")
    if plan.peak.total > memory:
        yield from _advice(config, device, memory, measured)
    yield from _time(config, plan.flops, device, probe)


def film_lines(config: Config, memory: int | None) -> Iterator[str]:
    """The plan of one film."""
    here, device = place(memory)
    memory = here if memory is None else memory - CUDA_CONTEXT
    plan, sampling = plan_films(config, device), config.sampling
    size = f"{config.data.frames} frames of {config.data.size}x{config.data.size}"
    yield f"one film of {config.task}, preset {config.preset}: {size}, {sampling.steps} steps, on a {device.upper()}"
    yield _parameters(plan.parameters)
    yield "  compute      " + ", ".join(f"{name} {_flops(flops)}" for name, flops in plan.flops.items())
    yield from _moments(plan.moments, "memory")
    if config.preset == "full" and config.task == "stdit3":
        yield from UPSTREAM_FILMS
    fits = "fits" if plan.peak.total <= memory else f"does not fit: {_shortage(plan.moments, memory)}"
    yield f"  there are    {_gb(memory)}: it {fits}"
    flops = sum(plan.flops.values())
    if device == "gpu" and pick_device().type == "cpu":
        yield f"  time         {_duration(flops / NOMINAL)} {WITHOUT_GPU}"
        return
    seconds = flops / matmul_rate(pick_device(), "fp32")
    yield f"  time         {_duration(seconds)} at least, as if all were matrix products, which were timed just now"


def check_training(config: Config, processes: int = 1) -> str:
    """A line about the training that is about to start; UserError when it cannot fit in the memory at hand.

    processes: that share the batches. Where no plan can be made the line says so, and nothing is refused.
    """
    memory, device = place(None)
    config = _with_precision(config, device)
    batch = max(1, config.training.batch_size // processes)
    config = with_settings(config, {"training.batch_size": batch})
    try:
        measured = measure(config, device)
    except (UserError, RuntimeError, NotImplementedError) as error:
        return f"no plan of its memory: {' '.join(str(error).split())[:120]}"
    plan = measured.plan(batch)
    needed = plan.peak.total
    if MARGIN * needed <= memory:
        return f"plan: {_gb(needed)} of {_gb(memory)}, {_flops(plan.flops)} per step"
    *_, last = [None, *changes(config, device, memory, measured)]
    found = f"training {config.task} takes about {_gb(needed)}, and {_gb(memory)} are free here"
    if last is None or last.plan.peak.total > memory:
        raise UserError(f"{found}; expected {_gb(MARGIN * needed)} at least: take a smaller preset or a larger machine")
    raise UserError(f"{found}; with {last.options} it takes {_gb(last.plan.peak.total)}")


def check_films(config: Config, films: int) -> str:
    """A line about the films that are about to be drawn together; UserError when they cannot fit in the memory here."""
    memory, device = place(None)
    try:
        plan = plan_films(config, device, films, streaming=False)
    except (UserError, RuntimeError, NotImplementedError) as error:
        return f"no plan of its memory: {' '.join(str(error).split())[:120]}"
    needed = plan.peak.total
    if MARGIN * needed <= memory:
        return f"plan: {_gb(needed)} of {_gb(memory)}, {_flops(sum(plan.flops.values()))} for {films} at once"
    raise UserError(
        f"{films} films of {config.data.frames} frames of {config.data.size}x{config.data.size} take about "
        f"{_gb(needed)}, and {_gb(memory)} are free here; {_shortage(plan.moments, memory)}"
    )


def check_sampling(source: str, model: str | None, films: int, asked: Mapping[str, Any]) -> str | None:
    """`check_films` for a trained model, found as `minivdm sample` finds it; None where its configuration is not there.

    asked: what `minivdm sample` was told of frames and size, as text.
    """
    shipped = "toy/unet3d" if model == "unet3d" else "toy/text_to_video"
    try:
        config = load_config((checkpoint_dir(shipped) if source == "toy" else Path(source)) / "config.yaml")
    except UserError:
        return None
    told = {"data.frames": asked.get("frames"), "data.size": asked.get("size")}
    numbers = {name: int(value) for name, value in told.items() if value is not None and str(value).isdecimal()}
    return check_films(with_settings(config, numbers), min(films, GROUP) if config.task == "stdit3" else films)


def _with_precision(config: Config, device: str) -> Config:
    """What "auto" will be: half precision on a GPU; on a CPU, where it is fast."""
    if config.training.precision != "auto":
        return config
    return with_settings(config, {"training.precision": "bf16" if device == "gpu" else choose_precision("auto")[0]})


def place(memory: int | None) -> tuple[int, str]:
    """Bytes free here, and the kind of device that is planned for: a GPU where `memory` is given."""
    device = pick_device()
    return memory_at_hand(device), "cpu" if memory is None and device.type == "cpu" else "gpu"


def _advice(config: Config, device: str, memory: float, measured: Measured | Extrapolated) -> Iterator[str]:
    before = measured.plan(config.training.batch_size).peak.total
    fits = False
    for change in changes(config, device, memory, measured):
        after = change.plan.peak.total
        fits = after <= memory
        saved = f"{_gb(after)}, saves {_gb(before - after)}; costs {change.cost}"
        yield f"  {'fits' if fits else 'not yet':<13}{change.options}: {saved}"
    if not fits:
        yield "  nothing here makes it fit: take a smaller preset, or a larger machine"


def _parameters(parts: dict[str, float]) -> str:
    total = sum(parts.values())
    large = {name: number for name, number in parts.items() if number >= 0.005 * total}
    named = [f"{name} {_count(number)}" for name, number in sorted(large.items(), key=lambda part: -part[1])]
    rest = total - sum(large.values())
    return f"  parameters   {_count(total)}: {', '.join(named + ([f'others {_count(rest)}'] if rest else []))}"


def _moments(moments: tuple[Moment, ...], label: str) -> Iterator[str]:
    for moment in moments:
        parts = sorted(moment.parts.items(), key=lambda part: -part[1])
        named = ", ".join(f"{name} {_gb(size)}" for name, size in parts if size >= 0.005 * moment.total)
        yield f"  {label:<13}{_gb(moment.total):>9}  {moment.name}: {named}"


def _shortage(moments: tuple[Moment, ...], memory: float) -> str:
    over = [moment for moment in moments if moment.total > memory]
    if any(moment.name == "decoding whole" for moment in over) and len(over) == 1:
        return "decode it streaming, with vae.decode_stream"
    return "take fewer frames or a smaller size"


def _time(config: Config, flops: float, device: str, probe: bool) -> Iterator[str]:
    here, steps = pick_device(), config.training.steps
    if probe:
        seconds = seconds_per_step(config, here)
        how = "of ten real steps on this machine, with random clips"
    elif device == "gpu" and here.type == "cpu":
        yield f"  time         {_duration(flops * steps / NOMINAL)} in all {WITHOUT_GPU}"
        return
    else:
        seconds = flops / matmul_rate(here, "fp32" if here.type == "cpu" else config.training.precision)
        how = "at least: as if all were matrix products, which were timed just now; --probe takes real steps"
    yield f"  time         {_duration(seconds)} per step, {_duration(seconds * steps)} in all ({how})"


def _gb(size: float) -> str:
    return f"{size / GIB:.1f} GB" if size >= 0.995 * GIB else f"{size / 2**20:.0f} MB"


def _count(number: float) -> str:
    return f"{number / 1e9:.2f}B" if number >= 1e9 else f"{number / 1e6:.2f}M"


def _flops(number: float) -> str:
    for unit, size in (("EFLOP", 1e18), ("PFLOP", 1e15), ("TFLOP", 1e12)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 1e9:.3g} GFLOP"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.2g} s"
