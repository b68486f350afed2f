"""A step taken without contents: tensors have shapes and no numbers, and a ledger notes when memory comes and goes.

On the "meta" device torch computes shapes only. The step that is planned is the very step that will run (its network,
its loss, its backward pass), so gradient checkpointing, kept activations and passing copies are all seen, each when it
lives. One run serves all batch sizes: it is taken with a prime number of clips that divides no other size, so what that
number divides grows with the batch, and the rest does not.
"""

import weakref
from collections.abc import Callable, Iterable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from minivdm.planner.kernels import Kernels

aten = torch.ops.aten
_META = torch.device("meta")


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(grad: torch.Size, query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any):
    return sdpa_backward_flop_count(grad, query, key, value)


# Formulas of shapes, beside torch's own, which know the fused attention of GPUs only.
FUSED = {
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


@dataclass(frozen=True)
class Affine:
    """`fixed + per_clip · batch`, of numbers or of arrays of them."""

    fixed: Any = 0
    per_clip: Any = 0

    def __call__(self, batch: int) -> Any:
        return self.fixed + self.per_clip * batch


class Ledger(TorchDispatchMode):
    """Notes all memory that is taken and given back inside `with`, and counts the floating-point operations.

    clips: the prime number of clips that the step is taken with (`prime_for`), to be set before the ledger is read;
        else everything counts as fixed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clips = 2**61 - 1
        self.sizes: list[int] = []  # bytes of each storage, by its number
        self.events: list[int] = []  # number + 1 of a storage that came, -(number + 1) of one that went
        self.flops: list[int] = []
        self._alive: dict[int, int] = {}  # address of a storage -> its number
        self._watching: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is aten._local_scalar_dense.default:
            return 1.0  # a tensor without contents is asked for its number: any will do, and critics are switched on
        if "device" in kwargs:
            kwargs["device"] = _META  # what would go to the CPU stays without contents
        out = func(*args, **kwargs)
        formula = FUSED.get(func._overloadpacket)
        if formula is not None:
            self.flops.append(formula(*(arg.shape for arg in args if isinstance(arg, Tensor))))
        elif func._overloadpacket in flop_registry:
            self.flops.append(flop_registry[func._overloadpacket](*args, **kwargs, out_val=out))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._note(leaf)
        return out

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self._alive:
            return
        number = len(self.sizes)
        self.sizes.append(storage.nbytes())
        self.events.append(number + 1)
        self._alive[address] = number

        def gone(_: weakref.ref) -> None:
            self.events.append(-(number + 1))
            del self._alive[address], self._watching[address]

        self._watching[address] = weakref.ref(storage, gone)

    def numbers_of(self, tensors: Iterable[Tensor]) -> set[int]:
        """The numbers of the storages that these tensors have."""
        found = {self._alive.get(tensor.untyped_storage()._cdata) for tensor in tensors}
        return {number for number in found if number is not None}

    def in_use(self) -> int:
        """Bytes in use now."""
        return sum(self.sizes[number] for number in self._alive.values())

    def course(self, start: int = 0, only: set[int] | None = None) -> Affine:
        """Bytes in use after each event from number `start` on, above those before it; `only` of some storages."""
        events = np.array(self.events[start:], dtype=np.int64)
        sizes = np.array(self.sizes, dtype=np.int64)
        numbers = np.abs(events) - 1
        changes = np.sign(events) * sizes[numbers]
        if only is not None:
            changes = np.where(np.isin(numbers, list(only)), changes, 0)
        return self._grown(changes, np.cumsum)

    def flop_count(self, start: int = 0) -> Affine:
        """Floating-point operations (a multiplication and an addition are two) since entry `start` of `flops`."""
        return self._grown(np.array(self.flops[start:], dtype=np.int64), np.sum)

    def _grown(self, amounts: np.ndarray, gather: Callable[[np.ndarray], Any]) -> Affine:
        grows = amounts % self.clips == 0
        return Affine(gather(np.where(grows, 0, amounts)), gather(np.where(grows, amounts // self.clips, 0)))


@contextmanager
def without_contents(ledger: Ledger, kernels: Kernels):
    """Inside, everything that is built and computed has shapes only, and the ledger notes it."""
    with ExitStack() as stack:
        for part in (_META, kernels, ledger):
            stack.enter_context(part)
        yield ledger


def prime_for(sizes: Iterable[int], least: int = 11) -> int:
    """The smallest prime from 11 on that divides none of the sizes."""
    sizes = {size for size in sizes if size}
    candidate = least
    while any(candidate % divisor == 0 for divisor in range(2, candidate)) or any(s % candidate == 0 for s in sizes):
        candidate += 1
    return candidate
