"""Exercises of notebook 10: what a training needs, how it goes on as if nothing had happened, what keeps it whole."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from minivdm.course.exercise import Case, Exercise
from minivdm.course.exercises import n10_counting_mistakes as counting
from minivdm.course.exercises import n10_keeping_mistakes as keeping
from minivdm.course.exercises import n10_saving_mistakes as saving
from minivdm.course.exercises.n10_disk import Disk, disk_with, survives_a_power_cut, with_own_disk
from minivdm.course.exercises.n10_parts import (
    Backwards,
    leaves_no_hooks,
    logarithm,
    overflow,
    shift,
    squash,
    with_own_model,
)
from minivdm.course.inputs import randn, uniform
from minivdm.training.randomness import stream_seed


def memory_plan(trained: int, frozen: int, kept: int, batch: int) -> int:
    copies = 5  # weights, gradients, two averages of Adam, the moving average
    return 4 * (copies * trained + frozen + batch * kept)


def clip_order(k: int, num_clips: int, seed: int) -> tuple[int, int]:
    epoch, position = divmod(k, num_clips)
    generator = torch.Generator().manual_seed(stream_seed(seed, "order", epoch))
    return torch.randperm(num_clips, generator=generator)[position].item(), epoch


def ema_warmup(ema: Tensor, value: Tensor, decay: float, step: int) -> Tensor:
    now = min(decay, (1 + step) / (10 + step))
    return now * ema + (1 - now) * value


def accumulate(gradients: Tensor, sizes: Tensor) -> Tensor:
    shares = sizes / sizes.sum()
    return (shares[:, None] * gradients).sum(0)


def loss_scale_step(gradients: Tensor, scale: float, good: int, patience: int) -> tuple[Tensor, float, int]:
    if not gradients.isfinite().all():
        return torch.zeros_like(gradients), scale / 2, 0
    if good + 1 == patience:
        return gradients / scale, scale * 2, 0
    return gradients / scale, scale, good + 1


def first_not_finite(model: nn.Module, x: Tensor) -> int:
    broken: list[int] = []

    def listener(number: int) -> Callable[..., None]:
        def look(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            if not output.isfinite().all():
                broken.append(number)

        return look

    hooks = [module.register_forward_hook(listener(number)) for number, module in enumerate(model.modules())]
    model(x)
    for hook in hooks:
        hook.remove()
    return broken[0] if broken else -1


def atomic_save(disk: Disk, name: str, data: bytes) -> int:
    aside = name + ".partial"
    disk.write(aside, data)
    disk.flush(aside)
    disk.rename(aside, name)
    return len(data)


def _memory_cases(g: torch.Generator) -> list[Case]:
    def case(trained: int, frozen: int, kept: int, batch: int, note: str) -> Case:
        return Case({"trained": trained, "frozen": frozen, "kept": kept, "batch": batch}, note)

    return [
        case(1_300_000, 0, 900_000, 16, "a network on its own"),
        case(7_100, 23_000, 41, 3, "a network, and a frozen one beside it"),
        case(250, 31, 7, 1, "a single clip"),
        case(0, 5_000, 300, 4, "nothing but a frozen network"),
    ]


def _order_cases(g: torch.Generator) -> list[Case]:
    def case(k: int, num_clips: int, seed: int, note: str) -> Case:
        return Case({"k": k, "num_clips": num_clips, "seed": seed}, note)

    return [
        case(0, 11, 3, "the very first clip"),
        case(29, 61, 3, "a clip of the first epoch"),
        case(61, 61, 5, "the first clip of the second epoch"),
        case(60, 61, 5, "the last clip of the first epoch"),
        case(3 * 97 + 50, 97, 0, "a clip of the fourth epoch, with seed 0"),
    ]


def _ema_cases(g: torch.Generator) -> list[Case]:
    def case(shape: tuple[int, ...], decay: float, step: int, note: str, **dtype: torch.dtype) -> Case:
        tensors = {"ema": randn(g, *shape, **dtype), "value": 1.5 + randn(g, *shape, **dtype)}
        return Case({**tensors, "decay": decay, "step": step}, note)

    return [
        case((3, 5, 2), 0.995, 0, "the first step"),
        case((4, 7), 0.999, 3, "the fourth step"),
        case((6,), 0.9, 5000, "a late step"),
        case((2, 5), 0.98, 200, "a step in between", dtype=torch.float64),
    ]


def _accumulate_cases(g: torch.Generator) -> list[Case]:
    def case(sizes: list[int], weights: int, note: str, **dtype: torch.dtype) -> Case:
        return Case({"gradients": randn(g, len(sizes), weights, **dtype), "sizes": torch.tensor(sizes)}, note)

    return [
        case([8, 8, 8], 5, "three batches of one size"),
        case([9, 2, 5, 1], 7, "batches of many sizes"),
        case([6, 1], 4, "a last batch of a single clip", dtype=torch.float64),
        case([5], 3, "one batch"),
    ]


def _scale_cases(g: torch.Generator) -> list[Case]:
    def case(
        scale: float, good: int, patience: int, note: str, spoil: float | None = None, **dtype: torch.dtype
    ) -> Case:
        gradients = scale * uniform(g, -2, 2, 7, **dtype)
        if spoil is not None:
            gradients[3] = spoil
        return Case({"gradients": gradients, "scale": scale, "good": good, "patience": patience}, note)

    return [
        case(1024.0, 4, 9, "an ordinary step"),
        case(512.0, 8, 9, "the last good step of the nine"),
        case(64.0, 7, 9, "the last but one"),
        case(2048.0, 5, 9, "an infinite gradient", spoil=float("inf")),
        case(256.0, 3, 9, "a gradient that is no number", spoil=float("nan")),
        case(128.0, 8, 9, "minus infinity, when the scale was about to grow", spoil=float("-inf")),
        case(32.0, 2, 4, "float64", dtype=torch.float64),
    ]


def _broken_cases(g: torch.Generator) -> list[Case]:
    def case(model: nn.Module, x: Tensor, note: str) -> Case:
        return Case({"model": model, "x": x}, note, with_own_model)

    x = uniform(g, 0.5, 1.5, 3, 4)
    healthy = nn.Sequential(shift(1.0), nn.Sequential(logarithm(), squash()), shift(2.0))
    inner = nn.Sequential(shift(-1.0), nn.Sequential(squash(), logarithm(), shift(1.0)))
    reverse = Backwards(shift(2.0), logarithm(), shift(0.3), shift(-7.0))
    return [
        case(healthy, x, "all is well"),
        case(nn.Sequential(shift(0.0), inner, shift(0.3)), x, "a logarithm of a few negative numbers, two levels down"),
        case(nn.Sequential(shift(0.5), overflow(), shift(1.0), squash()), x, "an overflow that is squashed again"),
        case(reverse, x.double(), "layers that run from last to first"),
        case(nn.Sequential(nn.Sequential(shift(0.1)), squash()), x / 0, "an input that is not finite"),
    ]


def _save_cases(g: torch.Generator) -> list[Case]:
    def case(files: dict[str, bytes], name: str, data: bytes, note: str) -> Case:
        return Case({"disk": disk_with(files), "name": name, "data": data}, note, with_own_disk)

    return [
        case({"model": b"old weights"}, "model", b"the new weights", "a file that is there"),
        case({}, "log", b"first line", "the first file"),
        case({"a": b"some bytes", "b": b"other ones"}, "b", b"longer than the old ones", "a file among others"),
    ]


EXERCISES = (
    Exercise(
        "10.memory_plan",
        memory_plan,
        _memory_cases,
        counting.MEMORY,
        (
            "Which numbers are there once for every trained weight? The weight itself is only the first. A frozen "
            "network has nothing but its weights. What is kept for the backward pass is there for every clip.",
            "4 · (5 · trained + frozen + batch · kept): weights, gradients, Adam's two averages, the moving average",
            "`4 * (5 * trained + frozen + batch * kept)`",
        ),
    ),
    Exercise(
        "10.clip_order",
        clip_order,
        _order_cases,
        counting.ORDER,
        (
            "How often has the whole set been seen before clip k, and how many clips since then? Each round has its "
            "own shuffle, and that depends on the seed and on the number of the round, on nothing else.",
            "epoch = ⌊k / num_clips⌋, position = k mod num_clips, index = (permutation of that epoch)[position]",
            '`torch.randperm(num_clips, generator=torch.Generator().manual_seed(stream_seed(seed, "order", epoch)))`, '
            "with `epoch, position = divmod(k, num_clips)`",
        ),
        outputs=("index", "epoch"),
        makes_inputs=True,
    ),
    Exercise(
        "10.ema_warmup",
        ema_warmup,
        _ema_cases,
        keeping.EMA,
        (
            "In the first steps the average holds little but the random beginning. Let it forget quickly then, and as "
            "slowly as it should only later.",
            "d = min(decay, (1 + step) / (10 + step)); ema ← d · ema + (1 − d) · value",
            "`d = min(decay, (1 + step) / (10 + step))`, then `d * ema + (1 - d) * value`",
        ),
    ),
    Exercise(
        "10.accumulate",
        accumulate,
        _accumulate_cases,
        keeping.ACCUMULATE,
        (
            "Each row is the mean over its own clips. In the mean over all clips, a batch of eight has eight times the "
            "say of a batch of one.",
            "Σ_m (sizes_m / Σ sizes) · gradients_m",
            "`(sizes[:, None] * gradients).sum(0) / sizes.sum()`",
        ),
    ),
    Exercise(
        "10.loss_scale_step",
        loss_scale_step,
        _scale_cases,
        keeping.SCALE,
        (
            "A gradient that overflowed is worth nothing: leave the step out and be more careful. After many good "
            "steps in a row, dare more. And whoever multiplied the loss has to divide the gradients.",
            "not finite: (0, scale/2, 0). Else step = gradients/scale, and when good + 1 reaches patience the scale "
            "doubles and the count starts anew",
            "`if not gradients.isfinite().all(): return torch.zeros_like(gradients), scale / 2, 0`, and then "
            "`grows = good + 1 == patience`",
        ),
        outputs=("step", "scale", "good"),
    ),
    Exercise(
        "10.first_not_finite",
        first_not_finite,
        _broken_cases,
        counting.BROKEN,
        (
            "Let every layer report as soon as it has finished. The first to report something that is not finite is "
            "the culprit; those after it only pass it on. And send the listeners home afterwards.",
            "a forward hook is called with (module, inputs, output) when its module has finished; the answer is the "
            "number of the first one whose output has an infinity or a NaN, −1 without any",
            "`module.register_forward_hook(look)` for every `number, module in enumerate(model.modules())`, "
            "`model(x)`, then `hook.remove()` for each",
        ),
        rule=leaves_no_hooks,
    ),
    Exercise(
        "10.atomic_save",
        atomic_save,
        _save_cases,
        saving.SAVE,
        (
            "Never touch the good file. Make the new one beside it, be sure that all of it is on the disk, and only "
            "then let it take the name.",
            "write under another name → flush → rename; return the number of bytes",
            '`disk.write(name + ".partial", data)`, `disk.flush(…)`, `disk.rename(…, name)`, in this order',
        ),
        rule=survives_a_power_cut,
    ),
)
