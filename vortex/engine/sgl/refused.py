"""What SGLang 0.5.16 offers and a sparse engine refuses, each with its reason and what to do instead."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vortex.engine.sgl.options import Problem
from vortex.engine.sgl.target import runs_graphs


@dataclass(frozen=True)
class Refused:
    """An argument of SGLang, or an environment variable, with any value that is not in `fine` (or None)."""

    name: str
    reason: str
    fix: str = "leave it out"
    fine: tuple[object, ...] = (False,)

    def problem(self, value: object) -> Problem:
        shown = "" if value is True else f"{value!r} "
        return Problem(self.name, f"{shown}is refused: {self.reason}; {self.fix}")


_FOREIGN_PAGES = "it brings KV pages without a forward pass, so nothing makes their summaries"
_SHARDED = "the tokens of a request lie on several ranks, and each would choose among its own alone"
_LAYOUT = "blocks are read from one buffer a layer, [tokens, kv heads, head_dim]"
_BACKENDS = "it runs several attention backends at once, and a decode step has one plan"
_UNSEEN = "nothing asks its schedulers whether they are sparse"
_GRAPHS = "the torch target plans on the host, so CUDA graphs are off"
_WHOLE_PREFILL = "summaries of a prompt are made between the graphs of its layers"
_PACKED = "keys are packed with scales of their own, which summaries are not made from"

OPTIONS = (
    Refused("enable_hierarchical_cache", _FOREIGN_PAGES),
    Refused("enable_lmcache", _FOREIGN_PAGES),
    Refused("enable_flexkv", _FOREIGN_PAGES),
    Refused("radix_cache_backend", _FOREIGN_PAGES, fine=()),
    Refused("disaggregation_mode", _FOREIGN_PAGES, "prefill and decode in one engine", ("null",)),
    Refused("enable_hisparse", "it is another sparse attention", "choose one of the two"),
    Refused("prefill_only_disable_kv_cache", "without a KV cache there are no blocks to choose from"),
    Refused("enable_page_major_kv_layout", _LAYOUT),
    Refused("enable_unified_memory", _LAYOUT),
    Refused("dcp_size", _SHARDED, "use tp_size, which splits heads", (1,)),
    Refused("attn_cp_size", _SHARDED, "use tp_size, which splits heads", (1,)),
    Refused(
        "pp_size", "layers on several ranks are not supported yet", "use tp_size, which splits heads", (1,)
    ),
    Refused("dp_size", _UNSEEN, "start an engine for each copy", (1,)),
    Refused("nnodes", _UNSEEN, "use the GPUs of one machine", (1,)),
    Refused("use_ray", _UNSEEN),
    Refused("smg_grpc_mode", _UNSEEN, "use the HTTP server"),
    Refused("grpc_mode", _UNSEEN, "use the HTTP server"),
    Refused("dllm_algorithm", "a diffusion model has no decode steps", fine=()),
    Refused(
        "speculative_algorithm",
        "its verification steps are dense, so nothing would be sparse",
        fine=(),
    ),
    Refused(
        "cuda_graph_backend_prefill",
        _WHOLE_PREFILL,
        "use breakable",
        ("breakable", "tc_piecewise", "disabled"),
    ),
    Refused("enable_torch_compile", "it would trace attention, which launches kernels of its own"),
    Refused("enable_pdmux", _BACKENDS),
    Refused("enable_two_batch_overlap", _BACKENDS),
)
WITHOUT_GRAPHS = tuple(
    Refused(name, _GRAPHS, fine=("disabled",))
    for name in ("cuda_graph_config", "cuda_graph_backend_decode", "cuda_graph_backend_prefill")
)
KV_DTYPES = ("auto", "bf16", "bfloat16", "fp8_e4m3", "fp8_e5m2")
PACKED_KV_DTYPES = ("mxfp8", "nvfp4", "fp4_mx_block16", "fp4_e2m1")
ENVIRONMENT = (
    Refused("SGLANG_USE_HND_KVCACHE", _LAYOUT, "unset it"),
    Refused(
        "SGLANG_ENABLE_POST_CAPTURE_KV_SIZING",
        "it replaces the KV buffers after the summaries were laid beside them",
        "unset it",
    ),
)


def refused_options(engine: Mapping[str, Any]) -> Iterator[Problem]:
    """What is refused of an engine's arguments and of this process's environment."""
    for rule in OPTIONS if runs_graphs(engine) else (*OPTIONS, *WITHOUT_GRAPHS):
        value = engine.get(rule.name)
        if value is not None and value not in rule.fine:
            yield rule.problem(value)
    prefill = _part(engine.get("cuda_graph_config"), "prefill")
    if _part(prefill, "backend") == "full":
        yield Refused("cuda_graph_config", _WHOLE_PREFILL, "use breakable for prefill").problem("full")
    if engine.get("kv_cache_dtype") in PACKED_KV_DTYPES:
        packed = Refused("kv_cache_dtype", _PACKED, f"use one of {', '.join(KV_DTYPES)}")
        yield packed.problem(engine["kv_cache_dtype"])
    for rule in ENVIRONMENT:
        if os.environ.get(rule.name, "").lower() in ("true", "1", "yes", "y"):  # as SGLang reads it
            yield rule.problem(os.environ[rule.name])


def _part(config: Any, name: str) -> Any:
    """A member of SGLang's graph settings, which are an object or what JSON makes of one."""
    return config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
