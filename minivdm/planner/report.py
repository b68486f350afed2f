"""The plan of a preset in words and tables."""

from collections.abc import Iterator

from minivdm.errors import UserError
from minivdm.pipelines.device import pick_device
from minivdm.planner.advice import changes
from minivdm.planner.machine import CUDA_CONTEXT, GIB, matmul_rate, memory_at_hand
from minivdm.planner.memory import Extrapolated, Measured, Moment, largest_batch, measure
from minivdm.planner.probe import seconds_per_step
from minivdm.planner.sampling import plan_films
from minivdm.settings import Config

# A training is refused only when even this share of what is planned would not fit: plans are off by up to 15 %.
MARGIN = 0.8


def training_lines(config: Config, memory: int | None, probe: bool = False) -> Iterator[str]:
    """The plan of a training. memory: bytes of a GPU to plan for; None: this machine's GPU, or its RAM."""
    here, device = place(memory)
    memory = here if memory is None else memory - CUDA_CONTEXT
    training = config.training
    measured = measure(config, device)
    plan = measured.plan(training.batch_size)
    batches = f"{training.batch_size} clips" + (f" x {training.accumulate} batches" if training.accumulate > 1 else "")
    size = f"{config.data.frames} frames of {config.data.size}x{config.data.size}"
    yield f"{config.task}, preset {config.preset}: {batches} of {size}, {training.precision}, on a {device.upper()}"
    yield _parameters(plan.parameters)
    yield f"  compute      {_flops(plan.flops)} per step, {_flops(plan.flops * training.steps)} in {training.steps:,} steps"
    yield from _moments(plan.moments, "memory")
    yield from _moments(plan.ram, "RAM beside")
    most = largest_batch(measured, memory)
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
    fits = "fits" if plan.peak.total <= memory else f"does not fit: {_shortage(plan.moments, memory)}"
    yield f"  there are    {_gb(memory)}: it {fits}"
    seconds = sum(plan.flops.values()) / matmul_rate(pick_device(), "fp32")
    yield f"  time         at least {_duration(seconds)} on this machine, whose matrix products were timed just now"


def refuse_if_too_large(config: Config) -> str:
    """A line about the training that is about to start; UserError when it cannot fit in the memory at hand."""
    memory, device = place(None)
    measured = measure(config, device)
    plan = measured.plan(config.training.batch_size)
    said = f"plan: {_gb(plan.peak.total)} of {_gb(memory)}, {_flops(plan.flops)} per step"
    if MARGIN * plan.peak.total <= memory:
        return said
    *_, last = [None, *changes(config, device, memory, measured)]
    way = "use a smaller preset" if last is None else f"{last.options} takes {_gb(last.plan.peak.total)}"
    raise UserError(
        f"training {config.task} with preset {config.preset} takes about {_gb(plan.peak.total)}, and {_gb(memory)} are "
        f"free here; {way}; see `minivdm plan --preset {config.preset} --task {config.task}`"
    )


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
        yield f"  {'fits' if fits else 'not yet'}{'' if fits else ''}".ljust(15) + (
            f"{change.options}: {_gb(after)}, saves {_gb(before - after)}; costs {change.cost}"
        )
    if not fits:
        yield "  no change of these makes it fit: take a smaller preset, or a larger machine"


def _parameters(parts: dict[str, float]) -> str:
    named = ", ".join(f"{name} {_count(number)}" for name, number in sorted(parts.items(), key=lambda part: -part[1]))
    return f"  parameters   {_count(sum(parts.values()))}: {named}"


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
    here = pick_device()
    if probe:
        seconds = seconds_per_step(config, here)
        how = "of ten real steps on this machine, with random clips"
    else:
        seconds = flops / matmul_rate(here, "fp32" if here.type == "cpu" else config.training.precision)
        how = (
            "at least, on this machine: as if all were matrix products, which were timed just now; --probe takes steps"
        )
    yield f"  time         {_duration(seconds)} per step, {_duration(seconds * config.training.steps)} in all ({how})"


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
