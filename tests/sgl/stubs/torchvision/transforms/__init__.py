"""Transforms of pictures. The members of the enumeration are read at import."""

import enum

from torchvision.missing import __getattr__

__all__ = ["InterpolationMode", "__getattr__"]


class InterpolationMode(enum.Enum):
    """Named as in torchvision."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"
