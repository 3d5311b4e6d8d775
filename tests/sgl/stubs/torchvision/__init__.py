"""Stands in for torchvision, whose published builds need CUDA: SGLang and transformers take names from it at
import. Whoever calls one of its functions is told that they are not here."""

__version__ = "0.28.0"
