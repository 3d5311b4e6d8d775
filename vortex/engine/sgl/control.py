"""A running sparse engine, from the process that started it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from vortex.config import VortexConfig
from vortex.engine.sgl.counters import EngineCounters
from vortex.engine.sgl.scheduler import BUSY
from vortex.errors import ConfigError

IDLE_SECONDS = 5.0
"""How long a scheduler may take to notice that its last request has ended."""


def deploy(engine: Any, config: VortexConfig | None) -> None:
    """Go on with another flow (None: densely) in an engine that was started with a VortexConfig.

    No request may be running. Prefixes stay cached, unless the flow saves fields: then requests share none
    until the next flow. Counters restart. Raises ConfigError; the engine goes on with the flow it had.
    """
    settings = None
    if config is not None:
        if config.module_path is not None:
            config = config.model_copy(update={"module_path": str(Path(config.module_path).resolve())})
        settings = config.model_dump_json(exclude_defaults=True)
    deadline = time.monotonic() + IDLE_SECONDS
    while True:
        try:
            engine.collective_rpc("vortex_deploy", settings=settings)
            return
        except AssertionError as error:
            if str(error) != BUSY or time.monotonic() > deadline:
                raise ConfigError(str(error)) from None
            time.sleep(0.02)


def counters(engine: Any) -> EngineCounters:
    """What rank 0 has counted since the flow was deployed. Raises ConfigError for a dense engine."""
    state = engine.get_server_info()["internal_states"][0]
    if "vortex" not in state:
        raise ConfigError("the engine is dense: start it with vortex=VortexConfig(...)")
    return EngineCounters.model_validate(state["vortex"])
