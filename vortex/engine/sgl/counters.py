"""What one rank of a sparse engine has done, as its scheduler process counted it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class EngineCounters(BaseModel):
    """Counted since the flow was deployed; on rank 0, whose kv heads stand for those of the others.

    A row is one kv head of one request. `blocks_read` and `blocks_total` are what attention of the sparse
    layers read and what dense attention would have read, over steps, layers and rows; they leave out steps
    in which no request was long enough to be sparse. `summary_bytes` and `buffer_bytes` are memory beside
    the KV cache.
    """

    model_config = ConfigDict(extra="forbid")

    flow: str = ""
    """`module_name` of the config; "" for dense."""
    graph: str = ""
    """Hash of the flow's graph."""
    target: str = ""
    dense_backend: str = ""
    """Class of SGLang's backend that prefill, skipped layers and dense steps run on."""
    sparse_layers: int = 0
    decode_steps: int = 0
    sparse_steps: int = 0
    """Decode steps in which some request was sparse."""
    crossover_steps: int = 0
    """Steps that the policy made sparse and that ran densely, being faster so: `dense_crossover`."""
    rows_sparse: int = 0
    rows_dense: int = 0
    blocks_read: int = 0
    blocks_total: int = 0
    work_chunks: int = 0
    """Pieces of scoring work, `workload_chunk_size` blocks each, over steps and rows (not layers)."""
    blocks_summarised: int = 0
    """Runs of the cache stage, over layers and kv heads."""
    summary_bytes: int = 0
    buffer_bytes: int = 0
    """Of a GPU's memory: what the largest decode step is planned, scored and merged in."""
