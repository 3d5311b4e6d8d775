"""`vFlow` and `vFlowMLA`: what an author subclasses."""

from __future__ import annotations

from typing import Any

from vortex.errors import FlowInitError
from vortex.flow.torch_standin import DTYPES, NAMES, itemsize
from vortex.flow.torch_standin import dtype as _dtype
from vortex.flow.trace import trace
from vortex.flow.where import user_line
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph, Format


def _dtype_of(given: Any) -> Any:
    """A dtype as it is, a name as the dtype. Raises FlowInitError for what is neither."""
    name = NAMES.get(given, given) if isinstance(given, str) else given
    if isinstance(name, str) and name in DTYPES:
        return _dtype(name)
    if not hasattr(given, "itemsize"):
        raise FlowInitError(f"{given!r} is no dtype; give one of torch's, or a name: {', '.join(DTYPES)}")
    return given


class FlowBase:
    """A sparse-attention program for one sequence and one kv head.

    Subclasses create op instances in `__init__`, one per call site, and define `create_cache`,
    `forward_cache` and `forward_indexer`. Tracing (`vortex.flow.trace_flow`) turns an object into a
    FlowGraph.
    """

    kind = "gqa"
    graph: FlowGraph | None = None
    _dtypes: tuple[Any, Any] = ("bfloat16", "bfloat16")
    _line: int | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._line = user_line()  # of the class statement, for errors

    def __init__(self) -> None:
        pass

    def forward_cache(self, cache: Any, loc: Any, ctx: Any) -> None:
        """Summarises the finished block: `cache[name]` is `[1, rows, cols]`."""
        raise NotImplementedError

    def forward_indexer(self, q: Any, o: Any, cache: Any, ctx: Any) -> None:
        """Scores blocks: `q` is `[1, group, head_dim]`, `cache[name]` is `[S, rows, cols]`; ends in one op
        that claims `o`."""
        raise NotImplementedError

    def _traced(self) -> FlowGraph:
        if self.graph is None:
            raise FlowInitError(f"{type(self).__name__} is not initialised: call initialize(...) first")
        return self.graph

    def _start(self, geometry: Geometry, kv_cache_dtype: Any, intermediate_dtype: Any) -> None:
        self.graph = trace(self, geometry)
        self._dtypes = (
            _dtype_of(kv_cache_dtype),
            _dtype_of("bfloat16" if intermediate_dtype is None else intermediate_dtype),
        )

    def get_cache_meta_info(self) -> dict[str, tuple[tuple[int, int], Any]]:
        """Field name -> ((rows, cols), dtype): the flow's fields in their order, then the engine's."""
        graph, (kv, own) = self._traced(), self._dtypes
        groups = ((graph.fields, own), (graph.injected, kv))
        return {
            f.name: ((f.rows.hint, f.cols.hint), dtype)
            for fields, dtype in groups
            for f in fields
            if f.format is Format.PAGED
        }

    def get_request_cache_meta_info(self) -> dict[str, tuple[tuple[int, int], Any]]:
        """Request field name -> ((rows, cols), dtype): one entry per request and kv head."""
        return {
            f.name: ((f.rows.hint, f.cols.hint), self._dtypes[1])
            for f in self._traced().fields
            if f.format is Format.SLOTTED
        }

    def get_token_ratio(self) -> float:
        """Bytes of all fields of a block over the bytes of its `k`."""
        return self._bytes(own_only=False) / self._k_bytes()

    def get_aux_token_ratio(self) -> float:
        """Bytes of the flow's own fields of a block over the bytes of its `k`."""
        return self._bytes(own_only=True) / self._k_bytes()

    def _bytes(self, own_only: bool) -> int:
        graph = self._traced()
        names = {f.name for f in graph.fields} if own_only else set(self.get_cache_meta_info())
        return sum(
            rows * cols * itemsize(dtype)
            for name, ((rows, cols), dtype) in self.get_cache_meta_info().items()
            if name in names
        )

    def _k_bytes(self) -> int:
        return self._traced().injected[0].type.numel * itemsize(self._dtypes[0])


class vFlow(FlowBase):
    """A flow over `k` and `v`, each (block_size, head_dim) per block."""

    def create_cache(self, block_size: int, head_dim: int) -> dict[str, tuple[int, int]]:
        """Field name -> (rows, cols) per block. `k` and `v` are not declared."""
        raise NotImplementedError

    def create_request_cache(self, block_size: int, head_dim: int) -> dict[str, tuple[int, int]]:
        """Request field name -> (rows, cols) per request and kv head. Optional."""
        return {}

    def initialize(
        self,
        block_size: int,
        head_dim: int,
        kv_cache_dtype: Any = "bfloat16",
        q_data_type: Any = "bfloat16",
        intermediate_dtype: Any = None,
        *,
        group: int = 4,
    ) -> None:
        """Traces the flow for these sizes; may be called again. Raises FlowTypeError."""
        self._start(Geometry(block_size, head_dim, group), kv_cache_dtype, intermediate_dtype)


class vFlowMLA(FlowBase):
    """A flow over `latent`, (block_size, kv_lora_rank + qk_rope_head_dim) per block, laid out [kv_c |
    k_pe]."""

    kind = "mla"

    def create_cache(
        self, block_size: int, kv_lora_rank: int, qk_rope_head_dim: int
    ) -> dict[str, tuple[int, int]]:
        """Field name -> (rows, cols) per block. `latent` is not declared."""
        raise NotImplementedError

    def create_request_cache(
        self, block_size: int, kv_lora_rank: int, qk_rope_head_dim: int
    ) -> dict[str, tuple[int, int]]:
        """Request field name -> (rows, cols) per request. Optional."""
        return {}

    def initialize(
        self,
        block_size: int,
        kv_lora_rank: int,
        qk_rope_head_dim: int,
        kv_cache_dtype: Any = "bfloat16",
        q_data_type: Any = "bfloat16",
        intermediate_dtype: Any = None,
        *,
        group: int = 16,
    ) -> None:
        """Traces the flow for these sizes; may be called again. Raises FlowTypeError."""
        geometry = Geometry.mla(block_size, kv_lora_rank, qk_rope_head_dim, group)
        self._start(geometry, kv_cache_dtype, intermediate_dtype)
