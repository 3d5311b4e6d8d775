"""From the keyword arguments of a sparse engine to those of SGLang."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vortex.config import VortexConfig
from vortex.engine.sgl import rules
from vortex.engine.sgl.check_engine_config import inspect_options
from vortex.engine.sgl.model_shape import ModelShape
from vortex.engine.sgl.options import EXPLICIT, PREFIX, SWITCH
from vortex.engine.sgl.rank import KEY
from vortex.engine.sgl.target import device_of, runs_graphs
from vortex.errors import ConfigError
from vortex.flow.verify import GRAPH_ONLY

logger = logging.getLogger(__name__)


def is_ours(name: str) -> bool:
    """Whether an option is Vortex's."""
    return name in (SWITCH, *EXPLICIT) or name.startswith(PREFIX)


def for_sglang(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options without Vortex's, and with what they mean for SGLang. Raises ConfigError that names
    everything that is wrong."""
    given = {name: value for name, value in options.items() if value is not None}
    engine = {name: value for name, value in options.items() if not is_ours(name)}
    if not any(map(is_ours, given)):
        return engine
    found = inspect_options(given, targets=GRAPH_ONLY)
    if found.errors:
        raise ConfigError("; ".join(map(str, found.errors)))
    for remark in found.warnings:
        logger.warning("vortex: %s", remark)
    if found.config is None:
        return engine
    return engine | _changes(found.config, engine, found.model)


def _changes(config: VortexConfig, engine: Mapping[str, Any], model: ModelShape | None) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if not runs_graphs(engine):
        changes["disable_cuda_graph"] = True
        if device_of(engine) == "cuda":
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
