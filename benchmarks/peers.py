"""The other projects, in the versions that the `bench` extra of pyproject.toml names.

They are imported inside the functions that use them: without them everything that has no peer can still be measured.
"""

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import torch

VIDEO_DIFFUSION = "video-diffusion-pytorch"
DIFFUSERS = "diffusers"


def installed(peer: str | None) -> bool:
    """Whether a row can be compared; rows without a peer always can."""
    return peer is None or find_spec(peer.replace("-", "_")) is not None


def versions() -> dict[str, str]:
    """Every package that decides a number, and its version."""
    found = {}
    for name in ("minivdm", "torch", VIDEO_DIFFUSION, DIFFUSERS):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def video_diffusion():
    """The module of video-diffusion-pytorch.

    It needs torchvision for its pictures. The wheel of the package index is built for another torch than a CPU one and
    stops at the first of its own operators; none of those is used here, so declarations are enough.
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        declared = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        video_diffusion.declared = declared  # it is undone when this object goes
    from video_diffusion_pytorch import video_diffusion_pytorch

    return video_diffusion_pytorch
