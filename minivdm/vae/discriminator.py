"""Critics that look at patches (PatchGAN, Isola et al. 2017): one score for every place, not one for the whole.

A score depends on a patch of the input only, as large as the critic's `receptive_field`. A critic of pictures judges
each frame alone and cannot know their order; a critic of films has patches in time as well.
"""

from collections.abc import Sequence
from math import gcd, prod

from einops import rearrange
from torch import Tensor, nn

from minivdm.errors import UserError

LEAK = 0.2  # slope of the activations below 0
NORMS = ("batch", "group")


def receptive_field(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """How many inputs, along one axis, one output of a stack of convolutions depends on; layers from input to output.

    A layer adds kernel - 1 steps, each as long as all strides before it together.
    """
    return 1 + sum((kernel - 1) * prod(strides[:layer]) for layer, kernel in enumerate(kernels))


def weights_init(module: nn.Module) -> None:
    """DCGAN's start (Radford et al. 2015), for `critic.apply(weights_init)`: convolutions N(0, 0.02), gains N(1, 0.02).

    Biases of norms become 0; those of convolutions are left as they are.
    """
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def weights_init_conv(module: nn.Module) -> None:
    """`weights_init` that also reaches a convolution that a wrapper holds as `.conv`."""
    weights_init(module.conv if hasattr(module, "conv") else module)


class _PatchCritic(nn.Module):
    """Convolutions that halve the picture, with norms between them, and a last one to a single channel: `main`."""

    def __init__(
        self, conv: type, batch_norm: type, input_nc: int, ndf: int, kernel: int, strides: list, options: dict
    ):
        super().__init__()
        norm, dropout = options["norm"], options["dropout"]
        if norm not in NORMS:
            raise UserError(f"norm is {norm!r}; choose one of {', '.join(NORMS)}")
        widths = [ndf * min(2**layer, 8) for layer in range(len(strides) - 1)]
        layers: list[nn.Module] = [conv(input_nc, ndf, kernel, strides[0], padding=1), nn.LeakyReLU(LEAK, True)]
        for before, after, stride in zip(widths, widths[1:], strides[1:-1], strict=False):
            # A norm follows and takes the mean away, so these need no bias.
            layers.append(conv(before, after, kernel, stride, padding=1, bias=False))
            layers.append(batch_norm(after) if norm == "batch" else nn.GroupNorm(gcd(8, after), after))
            layers.append(nn.LeakyReLU(LEAK, True))
            if dropout is not None:
                layers.append(nn.Dropout(dropout))
        layers.append(conv(widths[-1], 1, kernel, strides[-1], padding=1))
        self.main = nn.Sequential(*layers)
        self.apply(weights_init)

    @property
    def convolutions(self) -> list[nn.Module]:
        """The convolutions, from input to output."""
        return [layer for layer in self.main if isinstance(layer, nn.Conv2d | nn.Conv3d)]

    @property
    def receptive_field(self) -> tuple[int, ...]:
        """Size of the patch behind one score: (frames, rows, columns), or (rows, columns)."""
        kernels = zip(*(conv.kernel_size for conv in self.convolutions), strict=True)
        strides = zip(*(conv.stride for conv in self.convolutions), strict=True)
        return tuple(receptive_field(*axis) for axis in zip(kernels, strides, strict=True))

    def _smallest(self) -> tuple[int, ...]:
        """The smallest input that gets one score."""
        smallest = [1] * len(self.convolutions[0].kernel_size)
        for conv in reversed(self.convolutions):
            for axis, needed in enumerate(smallest):
                kernel, stride, padding = conv.kernel_size[axis], conv.stride[axis], conv.padding[axis]
                smallest[axis] = max(1, (needed - 1) * stride + kernel - 2 * padding)
        return tuple(smallest)

    def _check(self, x: Tensor, layout: str) -> None:
        channels, size, smallest = self.convolutions[0].in_channels, tuple(x.shape[2:]), self._smallest()
        if x.shape[1] != channels:
            raise UserError(f"the critic was built for {channels} channels, got {tuple(x.shape)}, {layout}")
        if any(side < least for side, least in zip(size, smallest, strict=True)):
            raise UserError(
                f"the critic got {'x'.join(map(str, size))} and needs {'x'.join(map(str, smallest))} or more for one "
                f"score: give it larger inputs, or build it with fewer n_layers"
            )


class NLayerDiscriminator2D(_PatchCritic):
    """A critic of pictures: (N, C, H, W) in [-1, 1] -> scores (N, 1, h, w), each about one patch.

    ndf: width of the first layer; it doubles up to 8 times that. n_layers: how many convolutions halve the sides.
    norm: "batch" as published, or "group", whose scores do not depend on the rest of the batch, as the gradient penalty
    needs it. Kernel 4 throughout. Films (B, C, T, H, W) are judged frame by frame: scores (B, 1, T, h, w).
    """

    def __init__(self, input_nc: int = 3, ndf: int = 64, n_layers: int = 3, norm: str = "batch"):
        options = {"norm": norm, "dropout": None}
        super().__init__(nn.Conv2d, nn.BatchNorm2d, input_nc, ndf, 4, [2] * n_layers + [1, 1], options)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim not in (4, 5):
            raise UserError(f"the 2D critic takes (N, C, H, W) or (B, C, T, H, W), got {tuple(x.shape)}")
        frames = rearrange(x, "b c t h w -> (b t) c h w") if x.ndim == 5 else x
        self._check(frames, "(N, C, H, W)")
        scores = self.main(frames)
        return rearrange(scores, "(b t) 1 h w -> b 1 t h w", b=len(x)) if x.ndim == 5 else scores


class NLayerDiscriminator3D(_PatchCritic):
    """A critic of films: (B, C, T, H, W) in [-1, 1] -> scores (B, 1, t, h, w), each about one patch of space and time.

    The defaults are Open-Sora 2's. Open-Sora 1.2's has `kernel_size=4, halve_time=1, dropout=None`, n_layers 3, and
    needs ten frames or more, because each unstrided convolution of kernel 4 shortens a clip by one.

    input_nc, ndf, n_layers, norm: as in `NLayerDiscriminator2D`. conv_cls: "conv3d" is the only kind there is.
    dropout: share of channels' values dropped while training, or None for no such layers.
    kernel_size: 3 or 4. halve_time: how many of the first layers halve time; all n_layers of them halve space.
    """

    def __init__(
        self,
        input_nc: int = 1,
        ndf: int = 64,
        n_layers: int = 5,
        conv_cls: str = "conv3d",
        dropout: float | None = 0.30,
        kernel_size: int = 3,
        halve_time: int = 2,
        norm: str = "batch",
    ):
        assert conv_cls == "conv3d", f"conv_cls is {conv_cls!r}; expected 'conv3d'"
        strides: list = [(2 if layer < halve_time else 1, 2, 2) for layer in range(n_layers)]
        options = {"norm": norm, "dropout": dropout}
        super().__init__(nn.Conv3d, nn.BatchNorm3d, input_nc, ndf, kernel_size, [*strides, 1, 1], options)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 5:
            raise UserError(f"the 3D critic takes films (B, C, T, H, W), got {tuple(x.shape)}")
        self._check(x, "(B, C, T, H, W)")
        return self.main(x)
