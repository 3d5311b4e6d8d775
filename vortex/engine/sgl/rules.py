"""What is wrong with the settings of a sparse engine: said by the preflight, and when an engine is started.

`engine` holds SGLang's own arguments; None means that one is not set.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from vortex.config import VortexConfig
from vortex.engine.sgl.model_shape import ModelShape
from vortex.engine.sgl.options import PREFIX, Problem
from vortex.engine.sgl.refused import KV_DTYPES, PACKED_KV_DTYPES, refused_options
from vortex.engine.sgl.target import KERNELS
from vortex.errors import ConfigError, PolicyError, unknown
from vortex.graph.model import FlowGraph, Format
from vortex.ops import find_op

MLA_NAME = "trtllm_mla"
ATTENTION_BACKENDS = (
    "triton", "torch_native", "flex_attention", "fa3", "fa4", "flashinfer", "cutlass_mla", "flashmla",
    "cutedsl_mla", "trtllm_mha", MLA_NAME, "intel_amx",
)  # fmt: skip
"""Names of SGLang 0.5.16 for dense attention on NVIDIA GPUs and CPUs; prefill runs on it."""


def engine_errors(engine: Mapping[str, Any]) -> Iterator[Problem]:
    """Values of SGLang's own arguments that a sparse engine cannot start with."""
    given = {name: value for name, value in engine.items() if value is not None}
    for key in ("page_size", "tp_size"):
        if not is_size(given.get(key, 1)):
            yield Problem(key, f"must be an integer of at least 1, got {given[key]!r}")
    fraction = given.get("mem_fraction_static", 0.5)
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 < fraction < 1:
        yield Problem("mem_fraction_static", f"must be a number between 0 and 1, got {fraction!r}")
    for key in ("disable_radix_cache", "disable_cuda_graph"):
        if not isinstance(given.get(key, False), bool):
            yield Problem(key, f"must be true or false, got {given[key]!r}")
    for key, kind, names in (
        ("kv_cache_dtype", "number format of the KV cache", (*KV_DTYPES, *PACKED_KV_DTYPES)),
        ("attention_backend", "attention backend", ATTENTION_BACKENDS),
        ("prefill_attention_backend", "attention backend", ATTENTION_BACKENDS),
        ("decode_attention_backend", "attention backend", ATTENTION_BACKENDS),
    ):
        if key in given and given[key] not in names:
            known = KV_DTYPES if names[0] == KV_DTYPES[0] else names
            yield Problem(key, unknown(kind, str(given[key]), known))
    if model_changes(given) is None:
        key = "json_model_override_args"
        yield Problem(key, f"must be a JSON object as text, got {given[key]!r}")
    if not isinstance(given.get("model_path", ""), str):
        yield Problem("model_path", f"must be a path or a name, got {given['model_path']!r}")
    yield from refused_options(given)


def config_errors(config: VortexConfig, target: str) -> Iterator[Problem]:
    """What is wrong with a config for whatever model: unsupported values, a policy that does not compile."""
    yield from unsupported(config, target)
    if config.schedule_policy is None and config.compilation_cache_dir is None:
        return
    from vortex.budget.compiled import policy_of
    from vortex.build_cache import cache_folder

    try:
        cache_folder(config.compilation_cache_dir)
        policy_of(config)
    except PolicyError as error:
        yield Problem(f"{PREFIX}schedule_policy", str(error))
    except ConfigError as error:
        yield Problem(f"{PREFIX}compilation_cache_dir", str(error).removeprefix("compilation_cache_dir: "))


def size_errors(
    config: VortexConfig, engine: Mapping[str, Any], model: ModelShape | None
) -> Iterator[Problem]:
    """Settings that contradict the engine's page size or the model."""
    page, block = engine.get("page_size"), config.block_size
    if engine and page is None and block is None:
        yield Problem("page_size", f"is missing, and so is {PREFIX}block_size: a block needs a size")
    elif engine and (page or block) == 1:
        yield Problem("page_size", "is 1: a block lies within a page, and has more than one token; set 16")
    elif block is not None and is_size(page) and page % block:
        yield Problem(f"{PREFIX}block_size", f"must divide page_size={page}, got {block}")
    elif block is None and is_size(page) and page & (page - 1):
        yield Problem("page_size", f"is the block size here and must be a positive power of 2, got {page}")
    if model is None:
        return
    for fault in model.faults:
        yield Problem("model_path", f"the model {fault}; it can only be served densely")
    if config.layers_skip and config.layers_skip[-1] >= model.layers:
        last = model.layers - 1
        yield Problem(
            f"{PREFIX}layers_skip", f"the model has layers 0 to {last}, got {config.layers_skip[-1]}"
        )
    elif len(config.layers_skip or ()) == model.layers:
        yield Problem(
            f"{PREFIX}layers_skip",
            "skips every layer, so nothing would be sparse: leave a layer, or Vortex, out",
        )
    if config.max_seq_lens > model.context:
        yield Problem(
            f"{PREFIX}max_seq_lens",
            f"the model's context is {model.context} tokens, got {config.max_seq_lens}",
        )
    try:
        model.geometry(16, attention_ranks(engine))
    except ConfigError as error:
        yield Problem("tp_size", str(error))


def flow_errors(graph: FlowGraph, engine: Mapping[str, Any], model: ModelShape | None) -> Iterator[Problem]:
    """Settings that contradict what the flow does."""
    saves = [node for stage, node in graph.nodes() if find_op(stage, node.op).side_effect]
    if saves and engine.get("disable_radix_cache") is not True:
        at = f" (line {saves[0].line})" if saves[0].line else ""
        yield Problem(
            "disable_radix_cache",
            f"must be true: {saves[0].op}{at} writes {saves[0].output!r} while a request decodes, "
            "which requests of one prefix must not share",
        )
    request_fields = [field.name for field in graph.fields if field.format is Format.SLOTTED]
    if engine.get("enable_mixed_chunk") and (saves or request_fields):
        kept = saves[0].output if saves else request_fields[0]
        yield Problem(
            "enable_mixed_chunk",
            f"must be off: a decode step that shares its batch with a prefill is dense, so {kept!r} "
            "would miss that step",
        )
    if engine.get("attention_backend") == MLA_NAME and graph.kind != "mla":
        yield Problem("attention_backend", f"{MLA_NAME} is for a vFlowMLA; this flow is a vFlow (k and v)")
    if model is not None and model.kind != graph.kind:
        needs = {"gqa": "a vFlow (k and v)", "mla": "a vFlowMLA (latent)"}
        yield Problem(
            f"{PREFIX}module_name",
            f"the flow is {needs[graph.kind]}, but the model needs {needs[model.kind]}",
        )


def remarks(config: VortexConfig, engine: Mapping[str, Any], model: ModelShape | None) -> Iterator[Problem]:
    """What is legal and worth knowing."""
    if engine and engine.get("page_size") is None and config.block_size is not None:
        yield Problem("page_size", f"is not set: a page is one block of {config.block_size} tokens then")
    if engine.get("enable_mixed_chunk"):
        yield Problem("enable_mixed_chunk", "decode steps that share their batch with a prefill are dense")
    if engine.get("attention_backend") == MLA_NAME:
        yield Problem("attention_backend", f"{MLA_NAME} means Vortex's own MLA decode, on any supported GPU")
    if model is None and engine:
        yield Problem("model_path", "is no local model: the flow is compiled for a sweep of shapes instead")


def attention_ranks(engine: Mapping[str, Any]) -> int:
    """Over how many ranks the heads are split; 1 where the arguments are wrong."""
    ranks = engine.get("tp_size") or 1
    copies = engine.get("dp_size") or 1
    if not is_size(ranks):
        return 1
    return max(1, ranks // copies) if engine.get("enable_dp_attention") and is_size(copies) else ranks


def model_changes(engine: Mapping[str, Any]) -> dict[str, Any] | None:
    """What SGLang changes in the model's config; None where the argument is wrong."""
    try:
        found = json.loads(engine.get("json_model_override_args") or "{}")
    except (TypeError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def is_size(value: object) -> TypeGuard[int]:
    """Whether a value of JSON is a number of tokens, heads or ranks."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def unsupported(config: VortexConfig, target: str) -> Iterator[Problem]:
    """Values of fields that this version cannot honour."""
    if config.impl_backend == "cuda":
        yield Problem(
            f"{PREFIX}impl_backend", "'cuda' is not supported, kernels are generated in Triton: use 'triton'"
        )
    if config.use_tensor_core and target != KERNELS:
        yield Problem(
            f"{PREFIX}use_tensor_core", f"True is not supported: the {target} target generates no kernels"
        )
    if config.attention_backend == "trtllm" and target != KERNELS:
        yield Problem(
            f"{PREFIX}attention_backend", f"'trtllm' is not supported: the {target} target does not run XQA"
        )
