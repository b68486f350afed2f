"""How much memory a training takes, part by part, and how much it computes, before it runs.

The highest moment of a training is one of these:

    caching      the clips are rendered, and where another network reads them first, turned into latents
    step         somewhere in the forward or backward pass
    optimizer    all gradients are there, and Adam takes one copy of the weights for a moment
"""

import dataclasses
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
from torch import nn

from minivdm.planner.kernels import Kernels, backward
from minivdm.planner.ledger import Affine, Ledger, prime_for, without_contents
from minivdm.planner.workloads import ENCODED_AT_ONCE, workload
from minivdm.settings import Config
from minivdm.training.ema import EMA

# What a training on a CPU takes beside its tensors: measured by benchmarks/planner_accuracy.py.
RUNTIME = 15 * 2**20  # the log, the batches of clips on their way
RUNTIME_OF_TEXTS = 8 * 2**20  # the same where batches are sentences
CONVOLUTION_KERNELS = 22 * 2**20  # made by oneDNN for every size that it meets
KEPT_FREE = 0.33 if sys.platform.startswith("linux") else 0.0  # of the activations: holes, see minivdm/allocator.py
SHORT = (1, 2)  # depths at which an STDiT3 is run: each further pair of blocks adds what the second added


@dataclass(frozen=True)
class Moment:
    """Bytes in use by part at the highest moment of a phase."""

    name: str
    parts: dict[str, float]

    @property
    def total(self) -> float:
        """Bytes in all."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Plan:
    """What a training takes with one batch size.

    parameters: of each part. flops: of one optimizer step, forward and backward, all its batches.
    moments: phases on the device that trains; for a CPU the caching too. ram: phases in RAM beside a GPU.
    """

    parameters: dict[str, float]
    flops: float
    moments: tuple[Moment, ...]
    ram: tuple[Moment, ...]

    @property
    def peak(self) -> Moment:
        """The highest moment on the device."""
        return max(self.moments, key=lambda moment: moment.total)

    @property
    def standing(self) -> float:
        """Bytes that are in use whatever the batch: without activations."""
        return max(moment.total for moment in self.moments if moment.name == "optimizer")

    @property
    def caching(self) -> float:
        """Bytes on the device at the highest moment of the caching; 0 where that is done in other memory."""
        return max((moment.total for moment in self.moments if moment.name == "caching"), default=0)


class Measured:
    """A training that was gone through without contents; `plan` then costs nothing for any batch size.

    device: "cpu" or "gpu".
    """

    def __init__(self, config: Config, device: str):
        self.config, self.device = config, device
        ledger = Ledger()
        with without_contents(ledger, Kernels(device, config.training.precision)):
            work = workload(config)
            before = ledger.in_use()
            average = EMA(work.model, config.training.ema_decay)
            self.average = ledger.in_use() - before
            ledger.clips = clips = prime_for(sizes_in(config, work.model, *work.frozen.values()))
            started = len(ledger.events)
            backward(work.step(clips))
            gradients = ledger.numbers_of(weight.grad for weight in work.model.parameters() if weight.grad is not None)
            self.whole, self.gradients = ledger.course(started), ledger.course(started, gradients)
            self.flops = ledger.flop_count()
            self.encoding = Affine()
            if work.encode is not None:
                with torch.no_grad():
                    started = len(ledger.events)
                    work.encode(clips)
                course = ledger.course(started)
                self.encoding = Affine(course.fixed, course.per_clip)
            del average
        self.weights, self.kept = byte_size(work.model), work.kept
        convolves = any(isinstance(module, nn.Conv2d | nn.Conv3d) for module in work.model.modules())
        self.runtime = RUNTIME_OF_TEXTS if config.task == "toy_t5" else RUNTIME
        self.runtime += CONVOLUTION_KERNELS if convolves else 0
        self.trained = byte_size(work.model, trained=True)
        self.frozen = {name: byte_size(module) for name, module in work.frozen.items()}
        self.parameters = {name: count(module) for name, module in _named_parts(work.model)} | {
            f"{name} (frozen)": count(module) for name, module in work.frozen.items()
        }

    def plan(self, batch: int, accumulate: int | None = None) -> Plan:
        """What batches of so many clips take, `accumulate` of them in a step (by default as configured)."""
        accumulate = self.config.training.accumulate if accumulate is None else accumulate
        standing = {"weights": self.weights, "moving average": self.average, "optimizer": 2 * self.trained}
        beside = self.frozen | {"clips, latents and texts": self.kept}
        # films drawn at a milestone need the frozen parts on the device, and there they stay
        here = standing | (beside | {"runtime": self.runtime} if self.device == "cpu" else self.frozen)
        whole, gradients = self.whole(batch), self.gradients(batch)
        held = gradients[-1] if accumulate > 1 else 0  # of the batches before
        highest = int(np.argmax(whole - gradients if held else whole))
        grad = max(gradients[highest], held)
        activations = whole[highest] - gradients[highest]
        step = here | {"gradients": grad, "activations": activations}
        if self.device == "cpu":
            step["free memory that is kept"] = KEPT_FREE * activations
        optimizer = here | {"gradients": gradients[-1], "passing copies": self.trained}
        moments = (Moment("step", step), Moment("optimizer", optimizer))
        caching = (self._caching(), Moment("training", beside))
        return Plan(
            self.parameters,
            self.flops(batch) * accumulate,
            (self._caching(), *moments) if self.device == "cpu" else moments,
            () if self.device == "cpu" else caching,
        )

    def _caching(self) -> Moment:
        clips = min(ENCODED_AT_ONCE, self.config.data.clips)
        highest = np.max(self.encoding(clips), initial=0)
        parts = {"weights": self.weights, "clips, latents and texts": self.kept}
        return Moment("caching", self.frozen | parts | {"activations": highest})


class Extrapolated:
    """An STDiT3 of many blocks, from two of few: everything grows evenly with their number."""

    def __init__(self, config: Config, device: str):
        self.depth = config.stdit3.depth
        self.few, self.more = (
            Measured(replace(config, stdit3=replace(config.stdit3, depth=depth)), device) for depth in SHORT
        )

    def plan(self, batch: int, accumulate: int | None = None) -> Plan:
        """As `Measured.plan`."""
        few, more = self.few.plan(batch, accumulate), self.more.plan(batch, accumulate)
        return Plan(
            self._grow(few.parameters, more.parameters),
            self._on(few.flops, more.flops),
            self._moments(few.moments, more.moments),
            self._moments(few.ram, more.ram),
        )

    def _moments(self, few: tuple[Moment, ...], more: tuple[Moment, ...]) -> tuple[Moment, ...]:
        return tuple(Moment(a.name, self._grow(a.parts, b.parts)) for a, b in zip(few, more, strict=True))

    def _grow(self, few: dict[str, float], more: dict[str, float]) -> dict[str, float]:
        return {name: self._on(few[name], more[name]) for name in few}

    def _on(self, few: float, more: float) -> float:
        return few + (more - few) * (self.depth - SHORT[0]) / (SHORT[1] - SHORT[0])


def measure(config: Config, device: str) -> Measured | Extrapolated:
    """Go through a training of `config` without contents, on a "cpu" or a "gpu"."""
    deep = config.task == "stdit3" and config.stdit3.depth > SHORT[-1]
    return (Extrapolated if deep else Measured)(config, device)


def largest_batch(measured: Measured | Extrapolated, memory: float) -> int:
    """How many clips fit in so many bytes at once; 0 if not even one."""
    if measured.plan(1).peak.total > memory:
        return 0
    low, high = 1, 2
    while high < 2**20 and measured.plan(high).peak.total <= memory:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if measured.plan(middle).peak.total <= memory else (low, middle)
    return low


def _named_parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The parts that a reader knows by name: one level down, or two where a task wraps its network."""
    for name, module in model.named_children():
        if name in ("vae", "t5", "unet"):
            yield from ((f"{name}.{inner}", part) for inner, part in module.named_children() if count(part))
        elif count(module):
            yield name, module


def count(module: nn.Module) -> int:
    """Parameters."""
    return sum(weight.numel() for weight in module.parameters())


def byte_size(module: nn.Module, trained: bool = False) -> int:
    """Bytes of parameters and buffers, or only of the parameters that train."""
    tensors = module.parameters() if trained else chain(module.parameters(), module.buffers())
    return sum(tensor.nbytes for tensor in tensors if tensor.requires_grad or not trained)


def sizes_in(config: Config, *modules: nn.Module) -> set[int]:
    """Every whole number of the configuration, and every side of every weight: what the number of clips must not be."""

    def numbers(value: object) -> Iterator[int]:
        if isinstance(value, dict | list | tuple):
            for part in value.values() if isinstance(value, dict) else value:
                yield from numbers(part)
        elif isinstance(value, int):
            yield int(value)

    sides = (side for module in modules for weight in module.parameters() for side in weight.shape)
    return {*numbers(dataclasses.asdict(config)), *sides}
