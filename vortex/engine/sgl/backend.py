"""SGLang's attention backend with sparse decode: wraps the dense one, which keeps its name and its tasks.

Imports SGLang. Prefill is dense; summaries are made from the pool after every write, and lie under the
numbers of physical blocks, so that a shared prefix brings its summaries along.
"""

from __future__ import annotations

from typing import Any

import torch
from sglang.srt.layers.attention.base_attn_backend import AttentionBackend

from vortex.engine.sgl.rank import SparseRank
from vortex.errors import ConfigError


class VortexBackend(AttentionBackend):  # type: ignore[misc]
    """What is not defined here, settable attributes included, is the dense backend's."""

    def __init__(self, dense: Any, rank: SparseRank) -> None:
        self.dense, self.rank = dense, rank
        rank.dense_backend = type(dense).__name__

    def __getattr__(self, name: str) -> Any:
        if name == "dense":
            raise AttributeError(name)
        return getattr(self.dense, name)

    @property
    def needs_cpu_seq_lens(self) -> bool:
        """Whether something plans from lengths that the host has."""
        return bool(self.rank.plans_on_host or self.dense.needs_cpu_seq_lens)

    def init_forward_metadata(self, forward_batch: Any) -> None:
        if self._needs_dense(forward_batch):
            self.dense.init_forward_metadata(forward_batch)
        self._begin(forward_batch, forward_batch.batch_size)

    def init_forward_metadata_out_graph(self, forward_batch: Any, in_capture: bool = False) -> None:
        decode = forward_batch.forward_mode.is_decode()
        if in_capture and decode and self.rank.plans_on_host:
            raise ConfigError("the torch target plans on the host: start SGLang with disable_cuda_graph=True")
        if self._needs_dense(forward_batch):
            self.dense.init_forward_metadata_out_graph(forward_batch, in_capture)
        padding = getattr(forward_batch, "num_padding", 0)
        self._begin(forward_batch, 0 if in_capture else forward_batch.batch_size - padding)

    def init_forward_metadata_in_graph(self, forward_batch: Any) -> None:
        if self._needs_dense(forward_batch):
            self.dense.init_forward_metadata_in_graph(forward_batch)

    def _needs_dense(self, batch: Any) -> bool:
        """Whether the dense backend may have to serve a layer of this batch."""
        return not (batch.forward_mode.is_decode() and self.rank.decodes_alone)

    def _begin(self, batch: Any, requests: int) -> None:
        """Once for all layers, outside of a CUDA graph. `requests` of the batch are real."""
        if self.rank.deployed is not None:
            self.rank.deployed.begin(batch, requests, self.req_to_token_pool.req_to_token)

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
        deployed = self.rank.deployed
        if deployed is None or layer.layer_id not in deployed.layers:
            return self.dense.forward(q, k, v, layer, forward_batch, save_kv_cache, **kwargs)
        if forward_batch.forward_mode.is_decode() and deployed.decodes:
            return self.forward_decode(q, k, v, layer, forward_batch, save_kv_cache, **kwargs)
        out = self.dense.forward(q, k, v, layer, forward_batch, save_kv_cache, **kwargs)
        deployed.summarise_finished(layer.layer_id)
        return out

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
        deployed = self.rank.deployed
        assert deployed is not None
        asked = [name for name, value in kwargs.items() if value is not None]
        if asked:
            raise ConfigError(f"layer {layer.layer_id} needs {', '.join(asked)}: add it to layers_skip")
        if save_kv_cache and k is not None:
            loc = forward_batch.out_cache_loc
            if k_rope is not None:
                self.token_to_kv_pool.set_mla_kv_buffer(layer, loc, k, k_rope)
            else:
                self.token_to_kv_pool.set_kv_buffer(layer, loc, k, v)
        heads = layer.tp_q_head_num
        if q_rope is not None:
            parts = (q.view(-1, heads, layer.v_head_dim), q_rope.reshape(q_rope.shape[0], heads, -1))
            q = torch.cat(parts, -1)
        q = q.reshape(-1, heads, layer.qk_head_dim)
        return deployed.attend(layer.layer_id, q, layer.scaling).flatten(1)


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
