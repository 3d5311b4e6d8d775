"""From the keyword arguments of a sparse engine to those of SGLang."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vortex.config import VortexConfig
from vortex.engine.sgl import rules
from vortex.engine.sgl.check_engine_config import settings
from vortex.engine.sgl.model_shape import ModelShape
from vortex.engine.sgl.options import EXPLICIT, PREFIX, SWITCH
from vortex.engine.sgl.rank import KEY
from vortex.errors import ConfigError

logger = logging.getLogger(__name__)
GRAPHS = ("cuda_graph_config", "cuda_graph_backend_decode", "cuda_graph_backend_prefill")


def is_ours(name: str) -> bool:
    """Whether an option is Vortex's."""
    return name in (SWITCH, *EXPLICIT) or name.startswith(PREFIX)


def for_sglang(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options without Vortex's, and with what they mean for SGLang. Raises ConfigError that names
    everything that is wrong."""
    if not any(is_ours(name) for name in options):
        return dict(options)
    found = settings({name: value for name, value in options.items() if value is not None})
    engine = {name: value for name, value in options.items() if not is_ours(name)}
    config = found.config
    if config is None and not found.errors:
        return engine
    errors = list(found.errors)
    if config is not None and config.module_name is not None:
        graph = config.load_graph(_geometry(config, found.model, engine))
        errors += rules.flow_errors(graph, engine, found.model)
    if errors or config is None:
        raise ConfigError("; ".join(map(str, errors)))
    return engine | _changes(config, engine, found.model)


def _geometry(config: VortexConfig, model: ModelShape | None, engine: Mapping[str, Any]) -> Any:
    block = config.block_size or engine.get("page_size")
    if model is None or not rules.is_size(block):
        return None
    try:
        return model.geometry(block, engine.get("tp_size") or 1)
    except ConfigError:
        return None  # said already


def _changes(config: VortexConfig, engine: Mapping[str, Any], model: ModelShape | None) -> dict[str, Any]:
    for name in GRAPHS:
        if engine.get(name) is not None:
            raise ConfigError(f"{name}: the torch target runs without CUDA graphs; leave it out")
    changes: dict[str, Any] = {"disable_cuda_graph": True}
    logger.warning("vortex: CUDA graphs are off, the torch target plans on the host")
    if engine.get("page_size") is None:
        changes["page_size"] = config.block_size
    if engine.get("attention_backend") == rules.MLA_NAME:
        shape = (model.kv_lora_rank, model.qk_rope_head_dim) if model else (512, 64)
        changes["attention_backend"] = "flashinfer" if shape == (512, 64) else "triton"
        logger.warning(
            "vortex: %s means Vortex's own MLA decode; prefill runs on %s",
            rules.MLA_NAME,
            changes["attention_backend"],
        )
    if config.max_seq_lens > 0:
        asked = engine.get("context_length")
        changes["context_length"] = min(config.max_seq_lens, asked or config.max_seq_lens)
    if config.module_path is not None:
        config = config.model_copy(update={"module_path": str(Path(config.module_path).resolve())})
    override = json.loads(engine.get("json_model_override_args") or "{}")
    override[KEY] = config.model_dump(mode="json", exclude_defaults=True)
    changes["json_model_override_args"] = json.dumps(override)
    return changes
