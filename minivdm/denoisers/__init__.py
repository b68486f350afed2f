"""The networks that remove noise."""

from minivdm.denoisers.stdit3 import STDIT3_SIZES, STDiT3, STDiT3Config
from minivdm.denoisers.unet3d import Unet3D

__all__ = ["STDIT3_SIZES", "STDiT3", "STDiT3Config", "Unet3D"]
