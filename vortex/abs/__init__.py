"""Names that flow files use in annotations."""

from vortex.abs.context import ContextBase

__all__ = ["ContextBase"]
