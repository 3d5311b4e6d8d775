"""Transforms of pictures, as functions."""

from torchvision.missing import __getattr__

__all__ = ["__getattr__"]
