"""What is sparse on one rank: SGLang's pools as the runtime sees them, and the flow deployed on them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Any

import torch

from vortex.config import VortexConfig
from vortex.engine.sgl import rules
from vortex.engine.sgl.counters import EngineCounters
from vortex.engine.sgl.deployed import Deployed, Room, check_block_size, summary_bytes
from vortex.engine.sgl.model_shape import shape_of
from vortex.engine.sgl.options import PREFIX, Problem
from vortex.engine.sgl.plain_attention import layer_faults
from vortex.engine.sgl.target import KERNELS, target_name
from vortex.errors import ConfigError
from vortex.graph.geometry import Geometry
from vortex.runtime.pool import KVPool

KEY = "vortex"
"""Where the config travels to every rank: `json_model_override_args`."""


def config_of(model_config: Any) -> VortexConfig | None:
    """The config that this engine was started with; None: SGLang is left alone. The model's own files are not
    asked for it: a VortexConfig may name code to run."""
    found = model_config.model_override_args.get(KEY)
    return None if found is None else VortexConfig.model_validate(found)


@dataclass(frozen=True)
class RankShape:
    """Kv heads and query heads a kv head of this rank, and the sizes of a key or latent."""

    heads: int
    group: int
    head_dim: int
    kv_lora_rank: int = 0

    @classmethod
    def of(cls, model_config: Any, latent: bool, ranks: int) -> RankShape:
        queries = model_config.num_attention_heads // ranks
        if latent:
            rank, rope = model_config.kv_lora_rank, model_config.qk_rope_head_dim
            return cls(1, queries, rank + rope, rank)
        heads = model_config.get_num_kv_heads(ranks)
        return cls(heads, queries // heads, model_config.head_dim)

    def geometry(self, block_size: int) -> Geometry:
        if self.kv_lora_rank:
            rope = self.head_dim - self.kv_lora_rank
            return Geometry.mla(block_size, self.kv_lora_rank, rope, self.group)
        return Geometry(block_size, self.head_dim, self.group)


def bytes_per_token(config: VortexConfig, shape: RankShape, page_size: int, layers: int) -> int:
    """What the summaries of one token take on this rank, rounded up."""
    geometry = shape.geometry(check_block_size(config, page_size))
    sparse = layers - len(config.layers_skip or ())
    block = summary_bytes(config.load_graph(geometry), geometry, config)
    return -(-block * shape.heads * sparse // geometry.block_size)


class SparseRank:
    """Made once for a rank's KV pool. `deployed` None: everything is dense."""

    def __init__(self, runner: Any, config: VortexConfig) -> None:
        if runner.is_hybrid_swa or runner.sliding_window_size is not None:
            raise ConfigError("the model has layers with a sliding window: they are not supported")
        self.target = target_name(torch.device(runner.device).type)
        self.page_size = int(runner.page_size)
        self.shape = RankShape.of(runner.model_config, runner.use_mla_backend, ranks())
        self.model = shape_of(runner.model_config.hf_config.to_dict())
        self.runner = runner
        self.pools = self._pools(runner.token_to_kv_pool)
        self.dense_backend = ""
        self.requests = itertools.count()
        """Numbers for requests that are kept apart: a user may choose their ids."""
        self.deployed: Deployed | None = self._made(config)
        self.candidate: Deployed | None = None
        """What `deploy` is about to go on with, and then what it had."""
        if self.deployed.saved and not runner.server_args.disable_radix_cache:
            _raise(rules.flow_errors(self.deployed.graph, {"disable_radix_cache": False}, None))
        self._fill_contexts(self.deployed)

    @property
    def keeps_apart(self) -> bool:
        """Whether requests must not share cached prefixes, though the engine has a prefix cache."""
        return self.deployed is not None and bool(self.deployed.saved)

    @property
    def plans_on_host(self) -> bool:
        return self.target != KERNELS

    @property
    def decodes_alone(self) -> bool:
        """Whether no layer of a decode step is ever left to the dense backend."""
        found = self.deployed
        return found is not None and not self.plans_on_host and found.layers.keys() == self.pools.keys()

    def prepare(self, config: VortexConfig | None) -> None:
        """Make `config` (None: dense) the candidate, and summarise for it what is cached. Raises VortexError,
        or what the device raises, and leaves all as it was."""
        self.drop()
        found = None if config is None else self._made(config)
        if found is not None:
            found.summarise_all()
        self.candidate = found

    def switch(self) -> None:
        """Go on with the candidate; what ran until now is the candidate then. Another call takes it back."""
        self.deployed, self.candidate = self.candidate, self.deployed
        if self.deployed is not None:
            self._fill_contexts(self.deployed)

    def drop(self) -> None:
        """Free the candidate."""
        if self.candidate is not None and self.runner.device == "cuda":
            torch.cuda.synchronize()  # its buffers may be in use on a stream that the allocator ignores
        self.candidate = None

    def _made(self, config: VortexConfig) -> Deployed:
        engine = {"page_size": self.page_size, "disable_radix_cache": True}
        engine["enable_mixed_chunk"] = self.runner.server_args.enable_mixed_chunk
        _raise(rules.config_errors(config, self.target), rules.size_errors(config, engine, self.model))
        context = int(self.runner.model_config.context_len)
        if 0 < config.max_seq_lens < context:
            raise ConfigError(
                f"{PREFIX}max_seq_lens: {config.max_seq_lens} is below the engine's {context} tokens, "
                "which are set when it starts"
            )
        geometry = self.shape.geometry(check_block_size(config, self.page_size))
        graph = config.load_graph(geometry)
        _raise(rules.flow_errors(graph, engine, self.model))
        skipped = set(config.layers_skip or ())
        _raise(self._layer_errors(skipped))
        pools = {index: pool for index, pool in self.pools.items() if index not in skipped}
        room = Room(
            requests=self.runner.req_to_token_pool.req_to_token.shape[0],
            heads=self.shape.heads,
            page_size=self.page_size,
            context=context,
            dtype=self.runner.dtype,
            device=self.runner.req_to_token_pool.req_to_token.device,
        )
        return _kind(self.target)(config, graph, geometry, pools, room)

    def _layer_errors(self, skipped: Set[int]) -> Iterator[Problem]:
        """What layers of the loaded model ask of attention that decode through blocks does not do."""
        from sglang.srt.layers.radix_attention import RadixAttention

        heads = self.shape.heads * self.shape.group
        for layer in self.runner.model.modules():
            if not isinstance(layer, RadixAttention) or layer.layer_id in skipped:
                continue
            asked = layer_faults(layer)
            if layer.tp_q_head_num != heads:
                asked.append(f"{layer.tp_q_head_num} query heads where the model's config says {heads}")
            if asked:
                yield Problem(
                    f"{PREFIX}layers_skip", f"layer {layer.layer_id} needs {', '.join(asked)}: add it"
                )

    def report(self) -> EngineCounters:
        counters = EngineCounters() if self.deployed is None else self.deployed.report()
        return counters.model_copy(update={"dense_backend": self.dense_backend})

    def _fill_contexts(self, deployed: Deployed) -> None:
        from vortex.cache.context import get_ctx as cache_context
        from vortex.indexer.context import get_ctx as indexer_context

        for context in (cache_context(), indexer_context()):
            context.create(deployed, self.runner, overwrite=True)

    def _pools(self, pool: Any) -> dict[int, KVPool]:
        """Views of SGLang's buffers, which stay where they are."""
        found = {}
        for index in range(pool.start_layer, pool.start_layer + pool.layer_num):
            stored = [pool.get_key_buffer(index)]
            if not self.shape.kv_lora_rank:
                stored.append(pool.get_value_buffer(index))
            if any(part.shape[-1] != self.shape.head_dim for part in stored):
                shapes = [tuple(part.shape) for part in stored]
                raise ConfigError(f"layer {index} stores {shapes}: keys and values must be equally wide")
            found[index] = KVPool(*map(self._whole_pages, stored), kv_lora_rank=self.shape.kv_lora_rank)
        return found

    def _whole_pages(self, stored: torch.Tensor) -> torch.Tensor:
        whole = stored[: stored.shape[0] // self.page_size * self.page_size]
        return whole.squeeze(1) if whole.shape[1] == 1 else whole


def _kind(target: str) -> type[Deployed]:
    if target == KERNELS:
        from vortex.engine.sgl.on_device import DeviceDeployed

        return DeviceDeployed
    from vortex.engine.sgl.on_host import HostDeployed

    return HostDeployed


def _raise(*found: Iterator[Problem]) -> None:
    wrong = [problem for problems in found for problem in problems]
    if wrong:
        raise ConfigError("; ".join(map(str, wrong)))


def ranks() -> int:
    from sglang.srt.runtime_context import get_parallel

    return int(get_parallel().attn_tp_size)
