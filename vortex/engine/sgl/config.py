"""The published import path of the configuration."""

from vortex.config import VortexConfig

__all__ = ["VortexConfig"]
