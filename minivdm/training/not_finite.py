"""Where a training stopped being finite: its batch is taken again, and every module and weight is watched."""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from accelerate.utils import gather_object
from torch import Tensor, nn

from minivdm.training.batches import Batch, Batches

SHOWN = 8  # clips named in a message


def first_broken(model: nn.Module, loss_of: Callable[[], Tensor]) -> tuple[str | None, Tensor]:
    """What first stopped being finite while `loss_of()` is computed and taken back, and that loss.

    The first module, in the order in which they finish, whose output is not finite, else the first weight, in the order
    of the backward pass, whose gradient is not; None when all are. Gradients are cleared, buffers as they were.
    """
    outputs: list[str] = []
    gradients: list[str] = []

    def watch_output(name: str) -> Callable[..., None]:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            if not all(tensor.isfinite().all() for tensor in _tensors(output)):
                outputs.append(f"the output of {name or type(module).__name__}")

        return look

    def watch_gradient(name: str) -> Callable[[Tensor], None]:
        def look(weight: Tensor) -> None:
            if not weight.grad.isfinite().all():
                gradients.append(f"the gradient of {name}")

        return look

    model.zero_grad(set_to_none=True)
    buffers = [buffer.clone() for buffer in model.buffers()]
    hooks = [module.register_forward_hook(watch_output(name)) for name, module in model.named_modules()]
    hooks += [
        weight.register_post_accumulate_grad_hook(watch_gradient(name))
        for name, weight in model.named_parameters()
        if weight.requires_grad
    ]
    try:
        loss = loss_of()
        loss.mean().backward()  # in any case: where a model is shared out, its processes have to stay in step
    finally:
        for hook in hooks:
            hook.remove()
        model.zero_grad(set_to_none=True)
        restore(model, buffers)
    loss = loss.detach()
    itself = [] if loss.isfinite().all() else ["the loss"]
    return next(iter(outputs + itself + gradients), None), loss


def restore(model: nn.Module, buffers: list[Tensor]) -> None:
    """Give the buffers of `model` values that they had before."""
    for buffer, value in zip(model.buffers(), buffers, strict=True):
        buffer.copy_(value)


def blame(model: nn.Module, batches: Batches, numbers: Iterable[int], loss_of: Callable[[Batch], Tensor]) -> str | None:
    """Which module or weight of `model` broke, at which clips of these batches, or None. All processes must call it."""
    found = []
    for number in numbers:
        batch, names = batches.again(number)
        broken, loss = first_broken(model, functools.partial(loss_of, batch))
        if broken:
            found.append(f"{broken} is not finite at {_some(names, loss)}")
    everywhere = found if batches.accelerator.num_processes == 1 else gather_object(found)
    return next(iter(everywhere), None)


def _some(names: list[str], loss: Tensor) -> str:
    """The clips of a batch, only those whose loss is not finite where each has one of its own: `loss` (B,) or ()."""
    if loss.ndim and not loss.isfinite().all():
        names = [name for name, good in zip(names, loss.isfinite().tolist(), strict=True) if not good]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _tensors(output: Any) -> Iterator[Tensor]:
    """The floating-point tensors anywhere in what a module returned."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, dict):
        yield from _tensors(list(output.values()))
    elif isinstance(output, list | tuple):
        for part in output:
            yield from _tensors(part)
