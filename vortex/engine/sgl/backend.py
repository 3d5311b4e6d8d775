"""SGLang's attention backend with sparse decode: wraps the dense one, which keeps its name and its tasks.

Imports SGLang. Prefill is dense; summaries are made from the pool after every write, and lie under the
numbers of physical blocks, so that a shared prefix brings its summaries along.
"""

from __future__ import annotations

from typing import Any

import torch
from sglang.srt.layers.attention.base_attn_backend import AttentionBackend

from vortex.engine.sgl.deployed import DecodeStep
from vortex.engine.sgl.rank import SparseRank
from vortex.errors import ConfigError


class VortexBackend(AttentionBackend):  # type: ignore[misc]
    """What is not defined here, settable attributes included, is the dense backend's."""

    needs_cpu_seq_lens = True
    """The plan is made from lengths that the host has, whatever the dense backend needs."""

    def __init__(self, dense: Any, rank: SparseRank) -> None:
        self.dense, self.rank = dense, rank
        rank.dense_backend = type(dense).__name__
        self.step: DecodeStep | None = None
        self.finished: torch.Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        if name == "dense":
            raise AttributeError(name)
        return getattr(self.dense, name)

    def init_forward_metadata(self, forward_batch: Any) -> None:
        self.dense.init_forward_metadata(forward_batch)
        self._begin(forward_batch)

    def init_forward_metadata_out_graph(self, forward_batch: Any, in_capture: bool = False) -> None:
        if in_capture and forward_batch.forward_mode.is_decode():
            raise ConfigError("the torch target plans on the host: start SGLang with disable_cuda_graph=True")
        self.dense.init_forward_metadata_out_graph(forward_batch, in_capture)
        self._begin(forward_batch)

    def _begin(self, batch: Any) -> None:
        """Plan the step once for all layers: nothing later reads `req_to_token` or lengths on the device."""
        self.step = self.finished = None
        deployed = self.rank.deployed
        if deployed is None or batch.forward_mode.is_idle():
            return
        if not batch.forward_mode.is_decode():
            deployed.start_requests(batch.req_pool_indices)
            self.finished = deployed.finished_blocks(batch.out_cache_loc)
            return
        seq_len = batch.seq_lens_cpu.numpy().astype("int64")
        table = self.req_to_token_pool.req_to_token
        self.step = deployed.plan(seq_len, batch.req_pool_indices, batch.out_cache_loc, table)
        self.finished = self.step.finished

    def forward(
        self,
        q: Any,
        k: Any,
        v: Any,
        layer: Any,
        forward_batch: Any,
        save_kv_cache: bool = True,
        **kwargs: Any,
    ) -> Any:
        mode = forward_batch.forward_mode
        deployed = self.rank.deployed
        if mode.is_idle() or deployed is None or layer.layer_id not in deployed.layers:
            return self.dense.forward(q, k, v, layer, forward_batch, save_kv_cache, **kwargs)
        if not mode.is_decode() or self.step is None or self.step.rows is None:
            out = self.dense.forward(q, k, v, layer, forward_batch, save_kv_cache, **kwargs)
            deployed.summarise(layer.layer_id, self.finished)
            return out
        return self.forward_decode(q, k, v, layer, forward_batch, save_kv_cache, **kwargs)

    def forward_extend(
        self,
        q: Any,
        k: Any,
        v: Any,
        layer: Any,
        forward_batch: Any,
        save_kv_cache: bool = True,
        **kwargs: Any,
    ) -> Any:
        return self.forward(q, k, v, layer, forward_batch, save_kv_cache, **kwargs)

    def forward_decode(
        self,
        q: Any,
        k: Any,
        v: Any,
        layer: Any,
        forward_batch: Any,
        save_kv_cache: bool = True,
        q_rope: Any = None,
        k_rope: Any = None,
        **kwargs: Any,
    ) -> Any:
        deployed, step = self.rank.deployed, self.step
        assert deployed is not None
        assert step is not None
        asked = [name for name, value in kwargs.items() if value is not None]
        if asked:
            raise ConfigError(f"layer {layer.layer_id} needs {', '.join(asked)}: add it to layers_skip")
        if save_kv_cache and k is not None:
            loc = forward_batch.out_cache_loc
            if k_rope is not None:
                self.token_to_kv_pool.set_mla_kv_buffer(layer, loc, k, k_rope)
            else:
                self.token_to_kv_pool.set_kv_buffer(layer, loc, k, v)
        deployed.summarise(layer.layer_id, step.finished)
        heads, batch = layer.tp_q_head_num, len(step.plan.n)
        if q_rope is not None:
            parts = (q.view(-1, heads, layer.v_head_dim), q_rope.reshape(q_rope.shape[0], heads, -1))
            q = torch.cat(parts, -1)
        q = q.reshape(-1, heads, layer.qk_head_dim)
        found = deployed.attend(step, layer.layer_id, q[:batch], layer.scaling).reshape(batch, -1)
        if len(q) == batch:
            return found
        return torch.cat((found, found.new_zeros(len(q) - batch, found.shape[1])))


def _of_dense(name: str) -> property:
    """An attribute that the abstract class defines, and that `__getattr__` is therefore never asked for."""

    def get(self: VortexBackend) -> Any:
        return getattr(self.dense, name)

    def put(self: VortexBackend, value: Any) -> None:
        setattr(self.dense, name, value)

    return property(get, put)


for _name in vars(AttentionBackend):
    if not _name.startswith("_") and _name not in vars(VortexBackend):
        setattr(VortexBackend, _name, _of_dense(_name))
