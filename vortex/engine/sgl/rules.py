"""What a preflight says of the settings of an engine, before any model is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from vortex.config import VortexConfig
from vortex.engine.sgl.model_shape import ModelShape
from vortex.engine.sgl.options import PREFIX, Problem
from vortex.errors import ConfigError, PolicyError, unknown
from vortex.graph.model import FlowGraph
from vortex.ops import find_op

MLA_NAME = "trtllm_mla"
ATTENTION_BACKENDS = (
    "triton", "torch_native", "flex_attention", "fa3", "fa4", "flashinfer", "cutlass_mla", "flashmla",
    "cutedsl_mla", "trtllm_mha", MLA_NAME, "intel_amx",
)  # fmt: skip
"""Names of SGLang 0.5.16 for dense attention on NVIDIA GPUs and CPUs; prefill runs on it."""
KV_DTYPES = ("auto", "bf16", "bfloat16", "fp8_e4m3", "fp8_e5m2")


def engine_errors(engine: Mapping[str, Any]) -> Iterator[Problem]:
    """Values of SGLang's own keys that a sparse engine cannot start with."""
    for key in ("page_size", "tp_size"):
        value = engine.get(key, 1)
        if not is_size(value):
            yield Problem(key, f"must be an integer of at least 1, got {value!r}")
    fraction = engine.get("mem_fraction_static", 0.5)
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 < fraction < 1:
        yield Problem("mem_fraction_static", f"must be a number between 0 and 1, got {fraction!r}")
    for key in ("disable_radix_cache", "disable_cuda_graph"):
        if not isinstance(engine.get(key, False), bool):
            yield Problem(key, f"must be true or false, got {engine[key]!r}")
    for key, kind, names in (
        ("kv_cache_dtype", "number format of the KV cache", KV_DTYPES),
        ("attention_backend", "attention backend", ATTENTION_BACKENDS),
    ):
        if engine.get(key) is not None and engine[key] not in names:
            yield Problem(key, unknown(kind, str(engine[key]), names))
    if not isinstance(engine.get("model_path", ""), str):
        yield Problem("model_path", f"must be a path or a name, got {engine['model_path']!r}")


def size_errors(
    config: VortexConfig, engine: Mapping[str, Any], model: ModelShape | None
) -> Iterator[Problem]:
    """Settings that contradict the engine's page size or the model."""
    page, block = engine.get("page_size"), config.block_size
    if engine and page is None and block is None:
        yield Problem("page_size", f"is missing, and so is {PREFIX}block_size: a block needs a size")
    elif block is not None and is_size(page) and page % block:
        yield Problem(f"{PREFIX}block_size", f"must divide page_size={page}, got {block}")
    elif block is None and is_size(page) and page & (page - 1):
        yield Problem("page_size", f"is the block size here and must be a positive power of 2, got {page}")
    if model is None:
        return
    if config.layers_skip and config.layers_skip[-1] >= model.layers:
        last = model.layers - 1
        yield Problem(
            f"{PREFIX}layers_skip", f"the model has layers 0 to {last}, got {config.layers_skip[-1]}"
        )
    if config.max_seq_lens > model.context:
        yield Problem(
            f"{PREFIX}max_seq_lens",
            f"the model's context is {model.context} tokens, got {config.max_seq_lens}",
        )
    ranks = engine.get("tp_size", 1)
    if is_size(ranks):
        try:
            model.geometry(16, ranks)
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
        yield Problem(
            "page_size", f"is not set; it must be a multiple of {PREFIX}block_size={config.block_size}"
        )
    if engine.get("attention_backend") == MLA_NAME:
        yield Problem("attention_backend", f"{MLA_NAME} means Vortex's own MLA decode, on any supported GPU")
    if model is None and engine:
        yield Problem("model_path", "is no local model: the flow is compiled for a sweep of shapes instead")
    if model is not None and set(config.layers_skip or ()) >= set(range(model.layers)):
        yield Problem(f"{PREFIX}layers_skip", "skips every layer: nothing is sparse")
    if config.schedule_policy is not None:
        from vortex.budget import parse_policy

        try:
            parse_policy(config.schedule_policy)
        except PolicyError as error:
            yield Problem(
                f"{PREFIX}schedule_policy",
                f"is outside of the checked subset, so only a CUDA compiler can judge it: {error}",
            )


def is_size(value: object) -> TypeGuard[int]:
    """Whether a value of JSON is a number of tokens, heads or ranks."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def unsupported(config: VortexConfig) -> Iterator[Problem]:
    """Values of fields that this version cannot honour."""
    if config.impl_backend == "cuda":
        yield Problem(f"{PREFIX}impl_backend", "'cuda' is not supported: there are no CUDA kernels yet")
    if config.use_tensor_core:
        yield Problem(f"{PREFIX}use_tensor_core", "True is not supported: there are no generated kernels yet")
    if config.attention_backend == "trtllm":
        yield Problem(
            f"{PREFIX}attention_backend", "'trtllm' is not supported: there is no block-table kernel yet"
        )
