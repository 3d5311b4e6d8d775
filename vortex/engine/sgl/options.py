"""From the engine's keyword arguments to a VortexConfig and the arguments that are SGLang's own.

Three forms mean the same: `vortex=VortexConfig(...)`, `vortex_config=` (the server's `--vortex-config`: JSON
or a file), and the older flat form, `enable_vortex_sparsity=True` with `vortex_topk_val=16` and so on. An
explicit object wins over flat keys. Flat keys alone turn sparsity on; `enable_vortex_sparsity=False` turns
them off.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from vortex.config import VortexConfig, faults, refusals
from vortex.errors import ConfigError

PREFIX, SWITCH, EXPLICIT = "vortex_", "enable_vortex_sparsity", ("vortex", "vortex_config")


@dataclass(frozen=True)
class Problem:
    """What is wrong with the value of one key, or with the whole ("")."""

    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.key}: {self.message}" if self.key else self.message


@dataclass(frozen=True)
class Options:
    """`config` is None for a dense engine, and where `problems` leave none. `engine`: the keys that are not
    Vortex's."""

    config: VortexConfig | None
    engine: Mapping[str, Any]
    problems: tuple[Problem, ...] = ()


def fold(options: Mapping[str, Any]) -> tuple[VortexConfig | None, dict[str, Any]]:
    """The VortexConfig that the engine's keyword arguments mean (None: dense), and the engine's own ones.
    Raises ConfigError naming every wrong key."""
    found = split(options)
    if found.problems:
        raise ConfigError("; ".join(map(str, found.problems)))
    return found.config, dict(found.engine)


def split(options: Mapping[str, Any]) -> Options:
    """`fold` that collects what is wrong instead of raising."""
    flat = {name.removeprefix(PREFIX): value for name, value in options.items() if _is_flat(name)}
    engine = {n: v for n, v in options.items() if not _is_flat(n) and n not in (SWITCH, *EXPLICIT)}
    switch = options.get(SWITCH, bool(flat))
    problems = [Problem(PREFIX + name, reason) for name, reason in refusals(flat, PREFIX).items()]
    if not isinstance(switch, bool):
        problems.append(Problem(SWITCH, f"must be true or false, got {switch!r}"))
    key = next((name for name in EXPLICIT if options.get(name) is not None), None)
    if key is not None:
        config, wrong = _explicit(key, options[key])
    elif flat or switch:
        config, wrong = _flat(flat)
    else:
        config, wrong = None, []
    problems += wrong
    dense = bool(problems) or (key is None and switch is False)
    return Options(None if dense else config, engine, tuple(problems))


def _is_flat(name: str) -> bool:
    return name.startswith(PREFIX) and name not in EXPLICIT


def _flat(values: Mapping[str, Any]) -> tuple[VortexConfig | None, list[Problem]]:
    known = {name: value for name, value in values.items() if name in VortexConfig.model_fields}
    try:
        return VortexConfig.model_validate(known), []
    except ValidationError as error:
        return None, [Problem(PREFIX + name if name else "", text) for name, text in faults(error)]


def _explicit(key: str, value: object) -> tuple[VortexConfig | None, list[Problem]]:
    try:
        if isinstance(value, str):
            return VortexConfig.from_text(value), []
        return VortexConfig.model_validate(value), []
    except ValidationError as error:
        return None, [Problem(f"{key}.{name}" if name else key, text) for name, text in faults(error)]
    except (OSError, json.JSONDecodeError) as error:
        return None, [Problem(key, f"cannot be read: {error}")]
