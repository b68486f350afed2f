"""The networks that remove noise."""

from minivdm.denoisers.unet3d import Unet3D

__all__ = ["Unet3D"]
