"""Right answers to the exercises of lesson 10 written in another way. Every one must pass its check."""

import torch
from torch import nn

from minivdm.training.randomness import clip_order as clips_of_a_run
from minivdm.training.randomness import stream_seed


def memory_plan(trained, frozen, kept, batch):
    numbers = {"weights": trained + frozen, "gradients": trained, "adam": 2 * trained, "average": trained}
    numbers["activations"] = sum(kept for _ in range(batch))
    return sum(torch.finfo(torch.float32).bits // 8 * count for count in numbers.values())


def clip_order_walked(k, num_clips, seed):
    """By counting down."""
    epoch = 0
    while k >= num_clips:
        k, epoch = k - num_clips, epoch + 1
    generator = torch.Generator()
    generator.manual_seed(stream_seed(seed, "order", epoch))
    return torch.randperm(num_clips, generator=generator).tolist()[k], epoch


def clip_order_packaged(k, num_clips, seed):
    """The package's own, which gives a list of (index, epoch)."""
    return clips_of_a_run(num_clips, seed, k, 1)[0]


def ema_warmup(ema, value, decay, step):
    return torch.lerp(ema, value, 1 - min(decay, 1 - 9 / (10 + step)))


def ema_warmup_step(ema, value, decay, step):
    grown = (step + 1) / (step + 10)
    share = 1 - (grown if grown < decay else decay)
    return ema + share * (value - ema)


def accumulate(gradients, sizes):
    return torch.einsum("m,mp->p", sizes.to(gradients.dtype), gradients) / sizes.sum()


def accumulate_loop(gradients, sizes):
    total, seen = torch.zeros_like(gradients[0]), 0
    for gradient, size in zip(gradients, sizes.tolist(), strict=True):
        seen += size
        total = total + (gradient - total) * size / seen
    return total


def loss_scale_step(gradients, scale, good, patience):
    if torch.isfinite(gradients).logical_not().any():
        return gradients.new_zeros(gradients.shape), 0.5 * scale, 0
    good = good + 1
    step = gradients * (1 / scale)
    return (step, 2 * scale, 0) if good >= patience else (step, scale, good)


def loss_scale_step_sum(gradients, scale, good, patience):
    """A sum is finite only when all its terms are."""
    whole = gradients.double().sum().isfinite().item()
    grown = whole and good + 1 == patience
    step = gradients.div(scale) if whole else 0 * torch.nan_to_num(gradients)
    return step, scale * (2.0 if grown else 1.0 if whole else 0.5), good + 1 if whole and not grown else 0


def first_not_finite_global(model, x):
    """One listener for all modules of the process."""
    numbers, found = {module: number for number, module in enumerate(model.modules())}, []

    def look(module, inputs, output):
        if not torch.isfinite(output).all():
            found.append(numbers[module])

    handle = nn.modules.module.register_module_forward_hook(look)
    try:
        model(x)
    finally:
        handle.remove()
    return next(iter(found), -1)


class Found(Exception):
    """Carries the number out of the network."""


def first_not_finite_raised(model, x):
    """Stops the network at the culprit."""
    hooks = []
    for number, module in enumerate(model.modules()):

        def look(module, inputs, output, number=number):
            if (output.isnan() | output.isinf()).any():
                raise Found(number)

        hooks.append(module.register_forward_hook(look))
    try:
        model(x)
    except Found as found:
        return found.args[0]
    finally:
        for hook in hooks:
            hook.remove()
    return -1


def atomic_save(disk, name, data):
    """With a look at what was written before it takes the name, and through a number of its own."""
    attempt = f".{name}.{len(disk.files)}"
    written = disk.write(attempt, data)
    disk.flush(attempt)
    assert disk.read(attempt) == data
    disk.rename(attempt, name)
    return written


def atomic_save_twice_flushed(disk, name, data):
    disk.write("scratch", data)
    disk.flush("scratch")
    disk.flush("scratch")
    disk.rename("scratch", name)
    disk.flush(name)
    return len(disk.read(name))


ALTERNATIVES = {
    "10.memory_plan": [memory_plan],
    "10.clip_order": [clip_order_walked, clip_order_packaged],
    "10.ema_warmup": [ema_warmup, ema_warmup_step],
    "10.accumulate": [accumulate, accumulate_loop],
    "10.loss_scale_step": [loss_scale_step, loss_scale_step_sum],
    "10.first_not_finite": [first_not_finite_global, first_not_finite_raised],
    "10.atomic_save": [atomic_save, atomic_save_twice_flushed],
}

EQUIVALENT = {"10.clip_order": r"\[position\], epoch"}  # a 0-d tensor is a whole number too
