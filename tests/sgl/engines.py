"""Starts SGLang on the CPU: one engine at a time, kept for as long as the next test can use it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from vortex.config import VortexConfig
from vortex.engine.sgl import control
from vortex.engine.sgl.target import VARIABLE

VARIABLES = {"SGLANG_USE_CPU_ENGINE": "1", "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
"""Inherited by the processes of an engine. Triton's interpreter runs the allocator of pages."""
OPTIONS: dict[str, Any] = {
    "device": "cpu",
    "attention_backend": "torch_native",
    "dtype": "float32",
    "skip_tokenizer_init": True,
    "max_running_requests": 8,
    "max_total_tokens": 4096,
    "page_size": 16,
    "sleep_on_idle": True,
}
"""What a GPU's defaults become here."""


Kind = tuple[bool, dict[str, Any], str | None]
"""Of an engine: whether it is sparse, its options, and the target that the environment names."""


def _kind(sparse: bool, options: dict[str, Any]) -> Kind:
    return sparse, options, os.environ.get(VARIABLE)


class Engines:
    """A start takes ten seconds and an engine 1.5 GB; another flow in a running engine, milliseconds.

    An engine that shuts down ends every child of this process (SGLang's way), so there is never a second.
    """

    def __init__(self, model: Path) -> None:
        self.model = model
        self._engine: Any = None
        self._kind: Kind | None = None

    def dense(self, **options: Any) -> Any:
        """An engine without Vortex."""
        return self._running(_kind(False, options), {})

    def sparse(self, config: VortexConfig, **options: Any) -> Any:
        """An engine with this config and these options; its counters are at zero. One that ran already keeps
        its prefix cache."""
        kind = _kind(True, options)
        if kind == self._kind:
            control.deploy(self._engine, config)
        return self._running(kind, {"vortex": config})

    def close(self) -> None:
        if self._engine is not None:
            self._engine.shutdown()
        self._engine = self._kind = None

    def _running(self, kind: Kind, vortex: dict[str, VortexConfig]) -> Any:
        if kind == self._kind:
            return self._engine
        self.close()
        os.environ.update(VARIABLES)
        import sglang

        self._engine = sglang.Engine(model_path=str(self.model), **{**OPTIONS, **kind[1], **vortex})
        self._kind = kind
        return self._engine
