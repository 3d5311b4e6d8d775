"""One SGLang engine in this process, whose flow is swapped between candidates."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import psutil
from pydantic import BaseModel, ConfigDict, Field

from evaluators.measure.gpus import gpus
from evaluators.serving.errors import ServingError
from vortex.config import VortexConfig

if TYPE_CHECKING:
    from vortex.engine.sgl.counters import EngineCounters
    from vortex.graph.model import FlowGraph

WATCH_SECONDS = 0.25
GRAPH = "graph.json"
MULTICAST = ("disable_custom_all_reduce", "enforce_disable_flashinfer_allreduce_fusion")
"""Set for engines on several GPUs: what they turn off may use NVLink multicast, which not every host allows.
So may what the variable turns off."""
TP_VARIABLES = {"SGLANG_OPT_USE_CUSTOM_ALL_REDUCE_V2": "0"}
CPU_VARIABLES = {"SGLANG_USE_CPU_ENGINE": "1", "TRITON_INTERPRET": "1"}


class ServingOptions(BaseModel):
    """What starts an engine. None leaves a choice to SGLang; `extra` are more of its keyword arguments."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Literal["cuda", "cpu"] = "cuda"
    attention_backend: str = "flashinfer"
    dtype: str = "bfloat16"
    kv_cache_dtype: str = "auto"
    page_size: int = Field(default=16, ge=1)
    tp_size: int = Field(default=1, ge=1)
    mem_fraction_static: float | None = Field(default=None, gt=0, lt=1)
    max_total_tokens: int | None = Field(default=None, ge=1)
    context_length: int | None = Field(default=None, ge=1)
    load_format: str = "auto"
    extra: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def for_machine(cls, **given: Any) -> ServingOptions:
        """FlashInfer in bfloat16 where there is a GPU; otherwise a CPU engine in float32. What is `given` and
        not None stays."""
        cpu = {"device": "cpu", "attention_backend": "torch_native", "dtype": "float32"}
        values = {} if gpus().names else cpu
        return cls.model_validate(
            values | {name: value for name, value in given.items() if value is not None}
        )

    @property
    def gpus(self) -> int:
        """How many GPUs the engine needs."""
        return self.tp_size if self.device == "cuda" else 0

    @property
    def device_name(self) -> str:
        """For example "NVIDIA H200"; "cpu" without a GPU."""
        return next(iter(gpus().names), "no GPU") if self.device == "cuda" else "cpu"

    @property
    def label(self) -> str:
        """For example "SGLang 0.5.16, flashinfer"."""
        return f"SGLang {version('sglang')}, {self.attention_backend}"

    @property
    def identity(self) -> str:
        """All that greedy answers depend on beside the model."""
        cache = "" if self.kv_cache_dtype == "auto" else f", KV in {self.kv_cache_dtype}"
        ranks = f" x {self.tp_size}" if self.tp_size > 1 else ""
        return f"{self.device_name}{ranks}, {self.label}, {self.dtype}{cache}"

    @property
    def variables(self) -> dict[str, str]:
        """Of the environment that SGLang is imported in."""
        return (CPU_VARIABLES if self.device == "cpu" else {}) | (TP_VARIABLES if self.tp_size > 1 else {})

    def arguments(self, model: Path, config: VortexConfig | None) -> dict[str, Any]:
        """Keyword arguments of `sglang.Engine`; of a dense one without a config."""
        chosen = self.model_dump(exclude={"extra"}, exclude_none=True)
        sparse = {} if config is None else {"vortex": config}
        several = dict.fromkeys(MULTICAST, True) if self.tp_size > 1 else {}
        fixed = {"model_path": str(model), "skip_tokenizer_init": True}
        return fixed | chosen | several | sparse | self.extra


class ServingEngine:
    """`config` None: SGLang as it is, which takes no flow later. `sgl` is the `sglang.Engine`.

    A scheduler that dies ends this process, which could not use it any more: with exit status 1, and the
    reason on standard error.
    """

    def __init__(self, model: Path, config: VortexConfig | None, options: ServingOptions) -> None:
        for name, value in options.variables.items():
            os.environ.setdefault(name, value)
        import sglang

        self.options = options
        self._closing = threading.Event()
        self._folder = tempfile.TemporaryDirectory(prefix="vortex-")
        self.sgl: Any = sglang.Engine(**options.arguments(model, config))
        watch = threading.Thread(target=self._watch, name="engine-watch", daemon=True)
        watch.start()
        self.label = self._read_label()

    @property
    def device(self) -> str:
        return self.options.device_name

    def deploy(self, graph: FlowGraph | None, config: VortexConfig) -> None:
        """Go on with a graph (None: densely), which reaches the engine as data. Counters restart.

        Raises ConfigError where it does not fit; the engine then goes on with what it had."""
        from vortex.engine.sgl import control

        if graph is None:
            control.deploy(self.sgl, None)
            return
        path = Path(self._folder.name) / GRAPH
        path.write_text(graph.to_json(), encoding="utf-8")
        named = {"module_path": str(path), "module_name": config.module_name or "candidate"}
        control.deploy(self.sgl, config.model_copy(update=named))

    def generate(
        self, prompts: Sequence[Sequence[int]], limits: Sequence[int], *, ignore_eos: bool = False
    ) -> list[list[int]]:
        """Greedy new tokens of each prompt (token ids), at most `limits` of them. All are one batch."""
        if not prompts:
            return []
        sampling = [
            {"temperature": 0.0, "max_new_tokens": limit, "ignore_eos": ignore_eos} for limit in limits
        ]
        answers = self.sgl.generate(input_ids=[list(p) for p in prompts], sampling_params=sampling)
        for answer in answers:
            reason = answer["meta_info"].get("finish_reason") or {}
            if reason.get("type") == "abort":
                raise ServingError(f"the engine gave up a request: {reason.get('message', reason)}")
        return [list(answer["output_ids"]) for answer in answers]

    def counters(self) -> EngineCounters:
        """What the engine did since the flow was deployed. Raises ConfigError for a dense engine."""
        from vortex.engine.sgl import control

        return control.counters(self.sgl)

    def close(self) -> None:
        """Ends the engine's processes. May be called twice."""
        if not self._closing.is_set():
            self._closing.set()
            self.sgl.shutdown()
            self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_label(self) -> str:
        """What really runs. Raises ServingError where it is not what was asked for."""
        info = self.sgl.get_server_info()
        running = f"SGLang {info['version']}, {info['attention_backend']}"
        if running != self.options.label:
            self.close()
            raise ServingError(f"the engine runs {running}, asked for was {self.options.label}")
        return running

    def _watch(self) -> None:
        """SGLang's own watchdog needs a second, and the main thread to be in Python."""
        processes = [psutil.Process(pid) for pid in self.sgl.get_all_child_pids()]
        while not self._closing.wait(WATCH_SECONDS):
            dead = [process.pid for process in processes if not _runs(process)]
            if dead and not self._closing.is_set():
                os.write(2, f"\nthe engine's process {dead[0]} died: this worker cannot go on\n".encode())
                os._exit(1)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD))
    except psutil.NoSuchProcess:
        return False
