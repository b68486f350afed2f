"""How different do two pictures look? The distance between what a trained network sees in them (Zhang et al. 2018).

Squared differences of pixels ask for the average of everything that could be there, which is a blur. Features ask
whether there is a sparkle of that kind at about that place.

    distance = LPIPS()              # "fireworks": a small network of ours, trained on rendered frames, shipped
    distance(frames, other)         # (N, 1, 1, 1)

"vgg16" is the published network with its published weights, for photographs; they are read from files of yours.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from safetensors.torch import load_file
from torch import Tensor, nn

from minivdm.errors import UserError
from minivdm.paths import checkpoint_dir, repo_root

FIREWORKS = "toy/perceptual"  # its folder among the shipped checkpoints
VGG16 = "vgg16"  # likewise, for your files
# Convolutions of VGG16 by their place in the published `features`, and the five after which features are taken.
VGG16_LAYERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
VGG16_WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
VGG16_TAPS = (2, 7, 14, 21, 28)
VGG16_POOLED = (5, 10, 17, 24)  # convolutions that see a picture of half the size


class ConvTrunk(nn.Module):
    """3x3 convolutions with ReLU, each of which halves the picture from the second on; the features after each.

    widths: channels of each. in [N, 3, H, W]; out: one tensor (N, width, H / 2^k, W / 2^k) per layer, sizes rounded up.
    """

    def __init__(self, widths: Sequence[int] = (16, 24, 32, 48, 64)):
        super().__init__()
        self.widths = tuple(widths)
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=1 if first else 2, padding=1)
            for first, before, after in zip((True, *[False] * len(widths)), (3, *widths), widths, strict=False)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for conv in self.convs:
            x = F.relu(conv(x))
            features.append(x)
        return features


class Vgg16Trunk(nn.Module):
    """The convolutions of VGG16 (Simonyan and Zisserman 2014), named as in the published weights.

    in (N, 3, H, W), at least 16 pixels a side; out: features after the last convolution of each of the five blocks.
    """

    def __init__(self):
        super().__init__()
        self.widths = tuple(VGG16_WIDTHS[VGG16_LAYERS.index(tap)] for tap in VGG16_TAPS)
        before = (3, *VGG16_WIDTHS)
        self.features = nn.ModuleDict(
            {
                str(place): nn.Conv2d(before[index], VGG16_WIDTHS[index], 3, padding=1)
                for index, place in enumerate(VGG16_LAYERS)
            }
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        if min(x.shape[-2:]) < 16:
            raise UserError(f"VGG16 halves pictures four times: {x.shape[-2]}x{x.shape[-1]} is too small, 16x16 is not")
        features = []
        for place in VGG16_LAYERS:
            if place in VGG16_POOLED:
                x = F.max_pool2d(x, 2)
            x = F.relu(self.features[str(place)](x))
            if place in VGG16_TAPS:
                features.append(x)
        return features


class LPIPS(nn.Module):
    """Perceptual distance, frozen: features of length 1 at every place, squared difference, weighted sum, spatial mean.

    trunk: "fireworks", "vgg16", or a module that maps (N, 3, H, W) to a list of features and has `.widths`.
    files: for "vgg16", the files with the published weights: `features.*` of torchvision's VGG16 and LPIPS's
        `lin*.model.1.weight` (.pth or .safetensors; in one or several). Without it, what lies in `checkpoints/vgg16/`.

    Raises UserError for an unknown trunk, and for missing files or weights. Nothing is ever downloaded.
    """

    def __init__(self, trunk: str | nn.Module = "fireworks", files: Sequence[str | Path] = ()):
        super().__init__()
        if isinstance(trunk, str) and trunk not in ("fireworks", "vgg16"):
            raise UserError(f"unknown trunk {trunk!r}; choose fireworks (ours, shipped) or vgg16 (from your files)")
        folder = checkpoint_dir(FIREWORKS) if trunk == "fireworks" else None
        if folder:
            self.trunk = ConvTrunk(json.loads((folder / "config.json").read_text(encoding="utf-8"))["widths"])
        else:
            self.trunk = Vgg16Trunk() if trunk == "vgg16" else trunk
        # What is subtracted from a picture and what it is divided by; these are of photographs in [-1, 1].
        self.register_buffer("shift", rearrange(torch.tensor([-0.030, -0.088, -0.188]), "c -> 1 c 1 1"))
        self.register_buffer("scale", rearrange(torch.tensor([0.458, 0.448, 0.450]), "c -> 1 c 1 1"))
        self.heads = nn.ParameterList(torch.ones(width) for width in self.trunk.widths)  # how much each channel counts
        if folder:
            self.load_state_dict({name: x.float() for name, x in load_file(folder / "lpips.safetensors").items()})
        elif trunk == "vgg16":
            self.load_state_dict(self.state_dict() | _published(files))
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "LPIPS":
        """A frozen network has one mode."""
        return super().train(False)

    def features(self, x: Tensor) -> list[Tensor]:
        """What the trunk sees in pictures (N, 3, H, W) in [-1, 1]: one tensor per level, not yet of length 1."""
        seen = self.trunk((x - self.shift) / self.scale)
        return [level.to(torch.promote_types(level.dtype, torch.float32)) for level in seen]  # to be summed over

    def unit_features(self, x: Tensor) -> list[Tensor]:
        """The same, of length 1 at every place: which way they point is what is compared."""
        # vector_norm has a slope of 0 at 0; the square root of a sum makes NaN of a place without features.
        return [seen / (torch.linalg.vector_norm(seen, dim=1, keepdim=True) + 1e-10) for seen in self.features(x)]

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The distance between pictures, (N, 1, 1, 1): 0 for equal ones.

        x, y: (N, C, H, W) or films (B, C, T, H, W), whose frames are N = B * T pictures, in [-1, 1]; C = 3, or 1 for
        grey. Raises UserError for other shapes.
        """
        if x.shape != y.shape or x.ndim not in (4, 5) or x.shape[1] not in (1, 3):
            raise UserError(
                f"LPIPS compares two (N, 3, H, W) or two (B, 3, T, H, W); got {tuple(x.shape)} and {tuple(y.shape)}"
            )
        if x.ndim == 5:
            x, y = (rearrange(film, "b c t h w -> (b t) c h w") for film in (x, y))
        if x.shape[1] == 1:
            x, y = (repeat(grey, "n 1 h w -> n 3 h w") for grey in (x, y))
        total = x.new_zeros(len(x))
        for head, seen, other in zip(self.heads, self.unit_features(x), self.unit_features(y), strict=True):
            total = total + ((seen - other).square() * rearrange(head, "c -> 1 c 1 1")).sum(1).mean((1, 2))
        return rearrange(total, "n -> n 1 1 1")


def _published(files: Sequence[str | Path]) -> dict[str, Tensor]:
    """The public weights of VGG16 and of LPIPS on it, under our names."""
    folder = repo_root() / "checkpoints" / VGG16
    paths = [Path(file) for file in files] or sorted(folder.glob("*.pth")) + sorted(folder.glob("*.safetensors"))
    needed = "torchvision's vgg16 and the LPIPS heads for it (vgg.pth)"
    if not paths:
        raise UserError(f"no weights for VGG16 in {folder}: put {needed} there, or use trunk 'fireworks'")
    weights: dict[str, Tensor] = {}
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path}: no such file; expected weights of {needed}")
        try:
            weights |= load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        except Exception as error:  # of a pickle that would run code, or is damaged, there are many kinds
            raise UserError(f"cannot read {path} ({type(error).__name__}); expected weights of {needed}") from None
    ours = {
        f"trunk.features.{place}.{part}": f"features.{place}.{part}"
        for place in VGG16_LAYERS
        for part in ("weight", "bias")
    }
    heads = {f"heads.{level}": f"lin{level}.model.1.weight" for level in range(len(VGG16_TAPS))}
    missing = [theirs for theirs in (ours | heads).values() if theirs not in weights]
    if missing:
        raise UserError(f"{', '.join(map(str, paths))}: no {missing[0]}; expected the weights of {needed}")
    loaded = {name: weights[theirs] for name, theirs in ours.items()}
    return loaded | {name: weights[theirs].flatten() for name, theirs in heads.items()}
