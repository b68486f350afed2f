"""Lesson 10 as a learner meets it: wrong answers that no exercise lists, and right ones of every sort."""

import torch

from minivdm.course.exercise import get
from minivdm.training.randomness import stream_seed

WRONG, RIGHT = [], []


def wrong(exercise_id):
    return lambda answer: WRONG.append((exercise_id, answer)) or answer


def right(exercise_id):
    return lambda answer: RIGHT.append((exercise_id, answer)) or answer


def several(exercise_id, *answers):
    """Short wrong answers."""
    WRONG.extend((exercise_id, answer) for answer in answers)


several(
    "10.memory_plan",
    lambda trained, frozen, kept, batch: 4 * (5 * trained + 2 * frozen + batch * kept),
    lambda trained, frozen, kept, batch: 4 * (6 * trained + frozen + batch * kept),
    lambda trained, frozen, kept, batch: 4 * (5 * trained + frozen + 2 * batch * kept),
    lambda trained, frozen, kept, batch: 4 * (5 * trained + frozen) + batch * kept,
    lambda trained, frozen, kept, batch: 5 * (4 * trained + frozen + batch * kept),
    lambda trained, frozen, kept, batch: 4.0 * (5 * trained + frozen + batch * kept),
    lambda trained, frozen, kept, batch: 4 * (5 * trained + frozen + batch * kept) / 2**30,
    lambda trained, frozen, kept, batch: 4 * (5 * trained * batch + frozen + kept),
    lambda trained, frozen, kept, batch: 4 * max(5 * trained + frozen, batch * kept),
    lambda trained, frozen, kept, batch: 4 * (5 * trained + frozen + (batch + 1) * kept),
)


def permutation(num_clips, number):
    return torch.randperm(num_clips, generator=torch.Generator().manual_seed(number))


several(
    "10.clip_order",
    lambda k, n, seed: permutation(n, stream_seed(seed, "order", k // n))[k % n].item(),
    lambda k, n, seed: (k // n, permutation(n, stream_seed(seed, "order", k // n))[k % n].item()),
    lambda k, n, seed: (permutation(n, stream_seed(seed, "order", k // n))[k % n].item(), k % n),
    lambda k, n, seed: (permutation(n, stream_seed(k // n, "order", seed))[k % n].item(), k // n),
    lambda k, n, seed: (permutation(n, stream_seed(seed, "order", k // n))[k - 1 - k // n * n].item(), k // n),
    lambda k, n, seed: (permutation(n, stream_seed(seed, "sample", k // n))[k % n].item(), k // n),
    lambda k, n, seed: (permutation(n, 1000 * seed + k // n)[k % n].item(), k // n),
    lambda k, n, seed: (permutation(n, stream_seed(seed, "order", k // n)).argsort()[k % n].item(), k // n),
    lambda k, n, seed: (permutation(n, stream_seed(seed, "order", (k + 1) // n))[k % n].item(), (k + 1) // n),
    lambda k, n, seed: (permutation(n, stream_seed(seed, "order", k // n)).flip(0)[k % n].item(), k // n),
    lambda k, n, seed: (permutation(n + 1, stream_seed(seed, "order", k // n))[k % n].item(), k // n),
)


@wrong("10.clip_order")
def moves_the_common_generator(k, num_clips, seed):
    torch.manual_seed(stream_seed(seed, "order", k // num_clips))
    return torch.randperm(num_clips)[k % num_clips].item(), k // num_clips


several(
    "10.ema_warmup",
    lambda ema, value, decay, step: min(decay, (1 + step) / (10 + step)) * ema + (1 - decay) * value,
    lambda ema, value, decay, step: decay * ema + (1 - min(decay, (1 + step) / (10 + step))) * value,
    lambda ema, value, decay, step: torch.lerp(ema, value, min(decay, (1 + step) / (10 + step))),
    lambda ema, value, decay, step: ema.lerp(value, 1 - min(decay, step / (10 + step))),
    lambda ema, value, decay, step: ema.lerp(value, 1 - min(decay, (1 + step) / 10)),
    lambda ema, value, decay, step: ema.lerp(value, 1 - min(decay, 1 - 1 / (1 + step))),
    lambda ema, value, decay, step: ema.lerp(value, 1 - min(decay, (1 + step) / (100 + step))),
    lambda ema, value, decay, step: ema.lerp(value, 1 - decay**(1 / (1 + step))),
    lambda ema, value, decay, step: ema.lerp_(value, 1 - min(decay, (1 + step) / (10 + step))),
    lambda ema, value, decay, step: ema.lerp(value, 1 - min(decay, (1 + step) / (10 + step))).float(),
    lambda ema, value, decay, step: min(decay, (1 + step) / (10 + step)) * ema + value,
)  # fmt: skip

several(
    "10.accumulate",
    lambda gradients, sizes: (sizes[:, None] * gradients).sum(1) / sizes.sum(),
    lambda gradients, sizes: (sizes[:, None] * gradients).sum() / sizes.sum(),
    lambda gradients, sizes: ((sizes**2)[:, None] * gradients).sum(0) / (sizes**2).sum(),
    lambda gradients, sizes: (sizes.sqrt()[:, None] * gradients).sum(0) / sizes.sqrt().sum(),
    lambda gradients, sizes: (sizes.softmax(0)[:, None] * gradients).sum(0),
    lambda gradients, sizes: gradients.median(0).values,
    lambda gradients, sizes: (sizes // sizes.sum() * gradients.T).sum(1),
    lambda gradients, sizes: (sizes[:, None] * gradients).sum(0) / (sizes.sum() - 1),
    lambda gradients, sizes: (sizes[:, None] * gradients).sum(0, keepdim=True) / sizes.sum(),
    lambda gradients, sizes: (sizes.flip(0)[:, None] * gradients).sum(0) / sizes.sum(),
    lambda gradients, sizes: ((sizes / sizes.sum())[:, None] * gradients).sum(0).float(),
    lambda gradients, sizes: gradients[sizes.argmax()] + 0,
)


def scaled(gradients, scale, good, patience):
    return get("10.loss_scale_step").reference(gradients, scale, good, patience)


several(
    "10.loss_scale_step",
    lambda g, scale, good, patience: scaled(g, scale, good, patience)[:2],
    lambda g, scale, good, patience: (scaled(g, scale, good, patience)[0] * 2, *scaled(g, scale, good, patience)[1:]),
    lambda g, scale, good, patience: scaled(g.nan_to_num(), scale, good, patience),
    lambda g, scale, good, patience: scaled(g, scale, good, patience + 1),
    lambda g, scale, good, patience: scaled(g, scale, good, patience - 1),
    lambda g, scale, good, patience: scaled(g, scale, 0, patience),
    lambda g, scale, good, patience: scaled(g.clamp(-65504, 65504), scale, good, patience),
    lambda g, scale, good, patience: (g / scale, *scaled(g, scale, good, patience)[1:]),
    lambda g, scale, good, patience: (scaled(g, scale, good, patience)[0], scale, good + 1),
    lambda g, scale, good, patience: scaled(g[:1].expand_as(g), scale, good, patience),
    lambda g, scale, good, patience: (
        (None, scale / 2, 0) if not g.isfinite().all() else scaled(g, scale, good, patience)
    ),
    lambda g, scale, good, patience: (
        (0 * g, scale / 2, 0) if not g.isfinite().all() else scaled(g, scale, good, patience)
    ),
    lambda g, scale, good, patience: (
        (torch.zeros_like(g), scale - 2, 0) if not g.isfinite().all() else scaled(g, scale, good, patience)
    ),
    lambda g, scale, good, patience: (
        (g / scale, scale + 2.0, 0) if good + 1 == patience else scaled(g, scale, good, patience)
    ),
    lambda g, scale, good, patience: (
        (g / scale, scale * 2, 0) if g.isfinite().all() and good + 1 != patience else scaled(g, scale, good, patience)
    ),
)


def listening(model, x, kinds=lambda module: True, look_at="output", broken=lambda t: not t.isfinite().all(), none=-1):
    found, hooks = [], []
    for number, module in enumerate(model.modules()):
        if kinds(module):

            def look(module, inputs, output, number=number):
                if broken(output if look_at == "output" else inputs[0]):
                    found.append(number)

            hooks.append(module.register_forward_hook(look))
    model(x)
    for hook in hooks:
        hook.remove()
    return found[0] if found else none


several(
    "10.first_not_finite",
    lambda model, x: listening(model, x, look_at="input"),
    lambda model, x: listening(model, x, none=None),
    lambda model, x: listening(model, x, broken=lambda t: t.isfinite().all()),
    lambda model, x: listening(model, x, broken=lambda t: bool((t.abs() > 1e4).any())),
    lambda model, x: listening(model, x, kinds=lambda module: not list(module.children())) - 1,
    lambda model, x: listening(model, x, kinds=lambda module: module is not model) + 1,
    lambda model, x: listening(model, x, kinds=lambda module: bool(list(module.children()))),
    lambda model, x: listening(model, torch.ones_like(x)),
    lambda model, x: listening(model, x.nan_to_num()),
    lambda model, x: -1 if model(x).isfinite().all() else listening(model, x),
    lambda model, x: [name for name, _ in model.named_modules()][listening(model, x)],
    lambda model, x: 2,
)


@wrong("10.first_not_finite")
def keeps_a_wrapped_forward(model, x):
    found = []
    for number, module in enumerate(model.modules()):

        def watched(*args, number=number, inner=module.forward):
            output = inner(*args)
            if not output.isfinite().all():
                found.append(number)
            return output

        module.forward = watched
    model(x)
    return found[0] if found else -1


@wrong("10.first_not_finite")
def keeps_hooks_that_listen_before(model, x):
    for module in model.modules():
        module.register_forward_pre_hook(lambda module, inputs: None)
    return listening(model, x)


@wrong("10.atomic_save")
def half_first(disk, name, data):
    disk.write(name + ".new", data[: len(data) // 2])
    disk.flush(name + ".new")
    disk.rename(name + ".new", name)
    disk.write(name, data)
    disk.flush(name)
    return len(data)


@wrong("10.atomic_save")
def renames_first(disk, name, data):
    if name in disk.files:
        disk.rename(name, name + ".old")
    disk.write(name + ".new", data)
    disk.flush(name + ".new")
    disk.rename(name + ".new", name)
    if name + ".old" in disk.files:
        disk.delete(name + ".old")
    return len(data)


@wrong("10.atomic_save")
def flushes_another_file(disk, name, data):
    disk.write(name + ".new", data)
    for other in [other for other in disk.files if other != name + ".new"]:
        disk.flush(other)
    disk.rename(name + ".new", name)
    return len(data)


@wrong("10.atomic_save")
def flushes_before_it_writes(disk, name, data):
    disk.write(name + ".new", b"")
    disk.flush(name + ".new")
    disk.write(name + ".new", data)
    disk.rename(name + ".new", name)
    return len(data)


@wrong("10.atomic_save")
def clears_the_disk(disk, name, data):
    for other in [other for other in disk.files if other != name]:
        disk.delete(other)
    disk.write(name + ".new", data)
    disk.flush(name + ".new")
    disk.rename(name + ".new", name)
    return len(data)


@wrong("10.atomic_save")
def leaves_the_draft(disk, name, data):
    for each in (name + ".new", name + ".draft"):
        disk.write(each, data)
        disk.flush(each)
    disk.rename(name + ".new", name)
    return len(data)


@wrong("10.atomic_save")
def changes_the_text(disk, name, data):
    disk.write(name + ".new", data.strip() + b"\n")
    disk.flush(name + ".new")
    disk.rename(name + ".new", name)
    return len(data)


@wrong("10.atomic_save")
def says_the_wrong_number(disk, name, data):
    get("10.atomic_save").reference(disk, name, data)
    return len(disk.files)


@wrong("10.atomic_save")
def does_nothing(disk, name, data):
    return len(data)


@wrong("10.atomic_save")
def works_around_the_disk(disk, name, data):
    disk.files[name] = data
    return len(data)


@wrong("10.atomic_save")
def copies_over(disk, name, data):
    disk.write(name + ".new", data)
    disk.flush(name + ".new")
    disk.write(name, disk.read(name + ".new"))
    disk.flush(name)
    disk.delete(name + ".new")
    return len(data)


@wrong("10.atomic_save")
def writes_and_hopes(disk, name, data):
    return disk.write(name, data)


@right("10.clip_order")
def as_tensors(k, num_clips, seed):
    epoch = torch.tensor(k) // num_clips
    return permutation(num_clips, stream_seed(seed, "order", int(epoch)))[k % num_clips], epoch


@right("10.memory_plan")
def in_parts(trained, frozen, kept, batch):
    weights = gradients = mean = square = average = trained * 4
    return weights + gradients + mean + square + average + 4 * frozen + batch * (kept * 4)


@right("10.atomic_save")
def in_two_files(disk, name, data):
    """A first try that is thrown away."""
    disk.write("try", data[::-1])
    disk.delete("try")
    return get("10.atomic_save").reference(disk, name, data)
