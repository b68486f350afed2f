"""Half precision where it pays, and single precision where it has to be.

Under autocast products are taken in 16 bits, which is where the time goes. Norms, softmaxes and losses stay in 32:
their sums run over thousands of numbers, of which a sum in bf16 keeps three digits.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch.overrides import TorchFunctionMode

from minivdm.errors import UserError

FAST_ON_CPU = {"avx512_bf16", "amx_bf16"}  # without either, bf16 on a CPU is tens of times slower than fp32
# What autocast keeps in float32 on a GPU, but lets pass in 16 bits on a CPU.
IN_FLOAT32 = {
    torch.softmax, torch.Tensor.softmax, F.softmax, torch.log_softmax, torch.Tensor.log_softmax, F.log_softmax,
    torch.layer_norm, F.layer_norm, torch.group_norm, F.group_norm, F.rms_norm, F.cross_entropy,
    F.scaled_dot_product_attention,  # for its softmax; and backwards its kernel for CPUs is slower in 16 bits by far
}  # fmt: skip


def choose_precision(setting: str) -> tuple[str, str]:
    """(precision, why) for "auto", "fp32", "bf16" or "fp16": "auto" takes bf16 on machines that are fast at it.

    Raises UserError for fp16 without a GPU: the CPU would train in fp32 and not say so.
    """
    device = device_type()
    if setting == "fp16" and device == "cpu":
        raise UserError("training.precision is fp16, which needs a GPU, and there is none; use auto, fp32 or bf16")
    if setting != "auto":
        return setting, "as set"
    if device == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bf16", "this GPU computes in it") if fast else ("fp32", "this GPU has no bf16")
    if device == "cpu" and (found := FAST_ON_CPU & cpu_flags()):
        return "bf16", f"this CPU has {' and '.join(sorted(found))}"
    return "fp32", f"on this {'machine' if device == 'mps' else 'CPU'} bf16 is not faster"


def device_type() -> str:
    """Where training runs: "cuda", "mps" or "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def cpu_flags(path: Path = Path("/proc/cpuinfo")) -> set[str]:
    """What the processor can do, in Linux's words; nothing where the system does not say."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())


def forget_precision(precision: str) -> None:
    """Accelerate keeps the precision of a process's first training, and refuses any other; let the next one choose."""
    wanted = "no" if precision == "fp32" else precision
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != wanted:
        AcceleratorState._reset_state()


@contextlib.contextmanager
def autocast(accelerator: Accelerator) -> Iterator[None]:
    """The precision of a training, within: half for products only, on every device."""
    uneven = accelerator.native_amp and accelerator.device.type == "cpu"
    with accelerator.autocast(), _Float32() if uneven else contextlib.nullcontext():
        yield


class _Float32(TorchFunctionMode):
    """Hands the functions of IN_FLOAT32 their 16-bit arguments in 32."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func not in IN_FLOAT32:
            return func(*args, **kwargs)
        wide = [_wide(value) for value in args], {name: _wide(value) for name, value in kwargs.items()}
        with torch.autocast("cpu", enabled=False):  # which would narrow them again
            return func(*wide[0], **wide[1])


def _wide(value: Any) -> Any:
    half = isinstance(value, torch.Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if half else value
