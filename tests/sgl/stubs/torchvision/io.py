"""Decoding of pictures."""

from torchvision.missing import __getattr__

__all__ = ["__getattr__"]
