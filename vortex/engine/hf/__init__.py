"""Decoder models of transformers, decoded through Vortex."""

from vortex.engine.hf.cache import VortexCache
from vortex.engine.hf.decode import DecodeResult, decode
from vortex.engine.hf.engine import Engine
from vortex.engine.hf.store import PromptStore

__all__ = ["DecodeResult", "Engine", "PromptStore", "VortexCache", "decode"]
