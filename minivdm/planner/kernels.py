"""How a step computes on a CPU or a GPU, for tensors that are on neither.

On the meta device torch takes its slowest ways: attention that writes all scores down, no mixed precision. Here it is
led to those that the real device takes, since they keep other things for the backward pass.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from minivdm.denoisers import attention

# Torch's lists (docs "Autocast Op Reference"): as far as our networks use them.
HALVED = {F.linear, torch.conv1d, torch.conv2d, torch.conv3d, torch.conv_transpose2d, torch.conv_transpose3d}
HALVED |= {torch.matmul, torch.bmm, torch.baddbmm, torch.addmm, torch.einsum, Tensor.matmul, Tensor.__matmul__}
WIDENED = {F.layer_norm, F.group_norm, F.softmax, torch.softmax, Tensor.softmax, F.cross_entropy, F.softplus}
WIDENED |= {torch.exp, Tensor.exp, torch.log, Tensor.log, Tensor.pow, Tensor.__pow__, torch.pow, Tensor.sum, torch.sum}
WIDENED |= {F.mse_loss, F.l1_loss, torch.cumsum, Tensor.cumsum, torch.rsqrt, Tensor.rsqrt, F.normalize}
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Kernels(TorchFunctionMode):
    """Fused attention, mixed precision, and the attention along time that a kind of device takes.

    device: "cpu" or "gpu". precision: "fp32", "bf16" or "fp16".
    """

    def __init__(self, device: str, precision: str):
        super().__init__()
        self.device, self.half = device, HALVES.get(precision)
        self._copies: dict[int, tuple[Tensor, Tensor]] = {}  # weights and their half-precision copies, as autocast's
        self._patches = ExitStack()

    def __enter__(self) -> "Kernels":
        if self.device == "cpu":  # the module asks where its tensors are, and meta is not the CPU
            self._patches.enter_context(patch.object(attention, "_attend_at_once", attention._attend_by_head))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._patches.close()
        self._copies.clear()
        super().__exit__(*error)

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        fused = func is F.scaled_dot_product_attention
        if self.half is not None and (fused or func in HALVED):
            args = self._cast(args, self.half)
            kwargs = {name: self._as(value, self.half) for name, value in kwargs.items()}
        elif self.half is not None and func in WIDENED:
            args = self._cast(args, torch.float32)
        if fused:
            return self._attend(*args, **kwargs)
        return func(*args, **kwargs)

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
    ) -> Tensor:
        """Attention that never writes the scores down, where torch has a kernel for that."""
        scattered = any(part.stride(-1) != 1 for part in (query, key, value))
        if scattered or (attn_mask is not None and attn_mask.requires_grad and self.device == "cpu"):
            written = torch.ops.aten._scaled_dot_product_attention_math
            return written(query, key, value, attn_mask, dropout_p, is_causal, scale=scale)[0]
        if attn_mask is not None:
            attn_mask = torch.zeros(attn_mask.shape, dtype=query.dtype) if attn_mask.dtype == torch.bool else attn_mask
            attn_mask = attn_mask.detach().reshape((1,) * (4 - attn_mask.ndim) + attn_mask.shape)
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return fused(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]

    def _cast(self, values: Any, dtype: torch.dtype) -> tuple:
        return tuple(self._as(value, dtype) for value in values)

    def _as(self, value: Any, dtype: torch.dtype) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(self._as(part, dtype) for part in value)
        if not isinstance(value, Tensor) or value.dtype == dtype or value.dtype not in (torch.float32, self.half):
            return value
        if not (isinstance(value, torch.nn.Parameter) and value.requires_grad and dtype == self.half):
            return value.to(dtype)
        if id(value) not in self._copies:  # one copy of a weight serves until the step is over
            self._copies[id(value)] = value, value.to(dtype)
        return self._copies[id(value)][1]


def backward(loss: Tensor) -> None:
    """`loss.backward()`, during which the kernels stay in force: what is computed again takes the ways of before."""
    grad = torch.ones_like(loss)
    torch.autograd.Variable._execution_engine.run_backward(
        (loss,), (grad,), False, False, (), allow_unreachable=True, accumulate_grad=True
    )
