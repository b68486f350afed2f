"""Convolutions whose channels are spread over several processes, equal to the convolution in one.

The two sums of a chunked convolution, with a process for every chunk (tensor parallelism, Shoeybi et al. 2019):

    column parallel   every process makes some of the output channels; side by side they are the output   (all-gather)
    row parallel      every process takes some of the input channels; the sum of all is the output        (all-reduce)

Weights and arithmetic are divided by the number of processes. Between the layers of a drop-in every process holds the
whole clip, so nothing else of a network has to change. Gradients are those of the one convolution, on every process, if
all processes compute the same loss.
"""

import math
from typing import Self

import torch
import torch.distributed as dist
from einops import rearrange
from torch import Tensor, nn

from minivdm.errors import UserError
from minivdm.vae.chunked_conv import CONV3D_NUMEL_LIMIT, ChannelChunkConv3D, Triple, summable

Group = dist.ProcessGroup | None  # None: all processes


def share(channels: int, ranks: int, rank: int) -> slice:
    """Which channels a process takes: as even as possible, and the first ones take one more if need be."""
    size, rest = divmod(channels, ranks)
    start = rank * size + min(rank, rest)
    return slice(start, start + size + (rank < rest))


class _ToAll(torch.autograd.Function):
    """The same tensor on every process; backwards, what each has found about it is summed."""

    @staticmethod
    def forward(ctx, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return _summed(grad, ctx.group), None


class _SumOfAll(torch.autograd.Function):
    """All-reduce; backwards, the gradient of a sum is the same for all its terms."""

    @staticmethod
    def forward(ctx, x: Tensor, group: Group) -> Tensor:
        return _summed(x, group)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class _MyShare(torch.autograd.Function):
    """A process's own channels of a tensor that all have; backwards, the shares are put side by side."""

    @staticmethod
    def forward(ctx, x: Tensor, group: Group) -> Tensor:
        ctx.group, ctx.channels = group, x.shape[1]
        return x[:, share(x.shape[1], dist.get_world_size(group), dist.get_rank(group))].contiguous()

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return _side_by_side(grad, ctx.channels, ctx.group), None


class _AllShares(torch.autograd.Function):
    """All-gather along the channels; backwards, every process keeps the gradient of its own."""

    @staticmethod
    def forward(ctx, x: Tensor, channels: int, group: Group) -> Tensor:
        ctx.group = group
        return _side_by_side(x, channels, group)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        mine = share(grad.shape[1], dist.get_world_size(ctx.group), dist.get_rank(ctx.group))
        return grad[:, mine].contiguous(), None, None


class _ParallelConv3d(ChannelChunkConv3D):
    """What both kinds share: a process's part of a convolution's weights, cut along `axis` of (D, C, t, h, w)."""

    axis: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Triple,
        stride: int | Triple = 1,
        padding: int | Triple | str = 0,
        dilation: int | Triple = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        group: Group = None,
        paired: bool = False,
        numel_limit: int = CONV3D_NUMEL_LIMIT,
    ):
        whole = nn.Conv3d(in_channels, out_channels, kernel_size, stride, padding, dilation, 1, bias, padding_mode)
        self._take(whole, group, paired, numel_limit)

    @classmethod
    def from_conv(cls, conv: nn.Conv3d, group: Group = None, *, paired: bool = False) -> Self:
        """This process's part of `conv`. Weights should be the same everywhere; those of the first process count."""
        self = cls.__new__(cls)
        self._take(conv, group, paired, getattr(conv, "numel_limit", CONV3D_NUMEL_LIMIT))
        return self

    def _take(self, conv: nn.Conv3d, group: Group, paired: bool, limit: int) -> None:
        channels, side = ((conv.out_channels, "output"), (conv.in_channels, "input"))[self.axis]
        ranks = _ranks(group)
        if conv.groups > 1:
            raise UserError(f"a convolution of {conv.groups} groups cannot be spread over processes: use groups=1")
        if channels < ranks:
            raise UserError(f"{channels} {side} channels for {ranks} processes: split the other side, or use fewer")
        mine = share(channels, ranks, dist.get_rank(group))
        weight, bias = _from_first(conv, group)
        weight = weight[mine] if self.axis == 0 else weight[:, mine]
        if bias is not None and self.axis == 0:
            bias = bias[mine]
        out_channels, in_channels = weight.shape[:2]
        sizes = (in_channels, out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation)
        options = {"padding_mode": conv.padding_mode, "device": "meta", "numel_limit": limit}
        super().__init__(*sizes, bias=bias is not None, **options)
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels  # as seen from outside
        self.group, self.paired = group, paired
        self.weight = nn.Parameter(weight.clone(), conv.weight.requires_grad)
        if bias is not None:
            self.bias = nn.Parameter(bias.clone(), conv.bias.requires_grad)


class ColumnParallelConv3d(_ParallelConv3d):
    """A 3D convolution whose output channels are spread over the processes of a group.

    Every process holds weights (D / ranks, C, t, h, w). Input: the whole (B, C, T, H, W) on every process. Output: the
    whole (B, D, T', H', W') on every process.

    Args (besides those of nn.Conv3d):
        group: the processes that share the work; None for all. `torch.distributed` must be initialised.
        paired: leave every process with its own output channels, for a paired RowParallelConv3d to take (what stands
            between the two must act on every channel alone): one exchange for two layers.
        numel_limit: as in ChannelChunkConv3D, for the part that each process computes.

    Raises UserError when there are more processes than output channels.
    """

    axis = 0

    def forward(self, input: Tensor) -> Tensor:
        """input (B, C, T, H, W), the same on every process."""
        y = super().forward(_ToAll.apply(input, self.group))
        return y if self.paired else _AllShares.apply(y, self.out_channels, self.group)


class RowParallelConv3d(_ParallelConv3d):
    """A 3D convolution whose input channels are spread over the processes of a group.

    Every process holds weights (D, C / ranks, t, h, w) and the whole bias, which is added once, after the sum. Input:
    the whole (B, C, T, H, W), of which each process takes its share; if `paired`, that share, as a paired
    ColumnParallelConv3d leaves it. Output: the whole (B, D, T', H', W') on every process.

    Arguments as for ColumnParallelConv3d. Raises UserError when there are more processes than input channels.
    """

    axis = 1

    def forward(self, input: Tensor) -> Tensor:
        """input (B, C, T, H, W), the same on every process, or this process's share of it."""
        mine = input if self.paired else _MyShare.apply(input, self.group)
        y = _SumOfAll.apply(self._conv_forward(mine, self.weight, None), self.group)
        return y if self.bias is None else y + self.bias[:, None, None, None]


class _OfPictures(nn.Module):
    """A parallel 3D convolution of a single frame, in the place of a 2D one: (B, C, H, W) -> (B, D, H', W')."""

    def __init__(self, conv: _ParallelConv3d):
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return rearrange(self.conv(rearrange(x, "b c h w -> b c 1 h w")), "b c 1 h w -> b c h w")


def parallelize(module: nn.Module, group: Group = None, *, split: str = "column") -> nn.Module:
    """Spreads every 2D and 3D convolution inside `module`, such as a whole VAE decoder, over the processes of a group.

    Every process calls this on its own copy of the module, and then the module with the same input; each gets the whole
    output. `split` is "column" or "row"; a layer with fewer channels than processes on that side is split on the other,
    and one with too few on both, or with groups, stays whole. Changes `module` in place and returns it.
    """
    if split not in ("column", "row"):
        raise UserError(f'split is {split!r}: expected "column" (output channels) or "row" (input channels)')
    ranks = _ranks(group)
    kinds = [ColumnParallelConv3d, RowParallelConv3d]
    if split == "row":
        kinds.reverse()
    for parent in list(module.modules()):
        for name, conv in list(parent.named_children()):
            if type(conv) not in (nn.Conv2d, nn.Conv3d, ChannelChunkConv3D) or conv.groups > 1:
                continue
            channels = {ColumnParallelConv3d: conv.out_channels, RowParallelConv3d: conv.in_channels}
            kind = next((kind for kind in kinds if channels[kind] >= ranks), None)
            if kind is None:
                continue
            flat = type(conv) is nn.Conv2d
            layer = kind.from_conv(_as_3d(conv) if flat else conv, group)
            setattr(parent, name, (_OfPictures(layer) if flat else layer).train(conv.training))
    return module


def _as_3d(conv: nn.Conv2d) -> nn.Conv3d:
    """The same convolution, of clips, frame by frame; it shares the weights' memory."""
    padding = conv.padding if isinstance(conv.padding, str) else (0, *conv.padding)
    sizes = ((1, *conv.kernel_size), (1, *conv.stride), padding, (1, *conv.dilation))
    options = {"bias": conv.bias is not None, "padding_mode": conv.padding_mode, "device": "meta"}
    as_3d = nn.Conv3d(conv.in_channels, conv.out_channels, *sizes, **options)
    as_3d.weight = nn.Parameter(rearrange(conv.weight.detach(), "d c h w -> d c 1 h w"), conv.weight.requires_grad)
    as_3d.bias = conv.bias
    return as_3d


def _ranks(group: Group) -> int:
    if not dist.is_available() or not dist.is_initialized():
        raise UserError("no processes to share the work: call torch.distributed.init_process_group, or use torchrun")
    return dist.get_world_size(group)


def _from_first(conv: nn.Conv3d, group: Group) -> tuple[Tensor, Tensor | None]:
    """The weights and bias of the group's first process, on all of them."""
    numbers = [None if p is None else p.detach().clone() for p in (conv.weight, conv.bias)]
    for tensor in numbers:
        if tensor is not None:
            dist.broadcast(tensor, dist.get_global_rank(group, 0) if group else 0, group=group)
    return tuple(numbers)


def _summed(x: Tensor, group: Group) -> Tensor:
    """The sum over all processes; half precision is summed in float32."""
    total = summable(x.clone(memory_format=torch.contiguous_format))
    dist.all_reduce(total, group=group)
    return total.to(x.dtype)


def _side_by_side(mine: Tensor, channels: int, group: Group) -> Tensor:
    """The shares of all processes. Shares may differ by a channel, what is sent may not: short ones are filled up."""
    ranks = dist.get_world_size(group)
    most = math.ceil(channels / ranks)
    sent = mine.contiguous()
    if mine.shape[1] < most:
        sent = torch.cat([mine, mine.new_zeros(len(mine), most - mine.shape[1], *mine.shape[2:])], dim=1)
    received = [torch.empty_like(sent) for _ in range(ranks)]
    dist.all_gather(received, sent, group=group)
    sizes = [share(channels, ranks, rank) for rank in range(ranks)]
    return torch.cat([part[:, : size.stop - size.start] for part, size in zip(received, sizes, strict=True)], dim=1)
