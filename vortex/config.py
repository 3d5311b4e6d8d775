"""The settings of a sparse deployment, with the published names, defaults and checks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    ValidationError,
    field_validator,
    model_validator,
)

from vortex.errors import ConfigError, unknown

if TYPE_CHECKING:
    from vortex.graph.geometry import Geometry
    from vortex.graph.model import FlowGraph

Dtype = Literal["bfloat16", "float16", "float32", "fp8_e4m3", "fp8_e5m2"]

UNSUPPORTED = ("host_kv_gb", "host_kv_pool_blocks", "host_kv_policy", "kv_int4")
"""Fields of later published versions. Any value but "off" is refused by name."""


class VortexConfig(BaseModel):
    """A checked, immutable set of knobs. `pydantic.ValidationError` (a ValueError) names every bad field.

    Blocks are counted in units of `block_size` tokens; `topk_val` excludes the reserved blocks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    module_path: str | None = None
    """Flow file, or `graph.json` of a traced one; relative to the working directory, or to the JSON file the
    config was read from."""
    module_name: str | None = None
    """Registered name of the flow; of a `graph.json` only what it is called."""
    topk_val: StrictInt = Field(default=30, ge=1, le=2**30)
    topk_ratio: StrictFloat = Field(default=0.0, ge=0.0, le=1.0)
    max_topk_val: StrictInt | None = Field(default=None, ge=1)
    layers_skip: tuple[StrictInt, ...] | None = None
    block_reserved_bos: StrictInt = Field(default=1, ge=1, le=2**20)
    block_reserved_eos: StrictInt = Field(default=1, ge=1, le=2**20)
    max_seq_lens: StrictInt = -1
    block_size: StrictInt | None = None
    workload_chunk_size: StrictInt = 32
    dtype: Dtype = "bfloat16"
    compilation_cache_dir: str | None = None
    schedule_policy: str | None = None
    attention_backend: Literal["flashinfer", "trtllm"] = "flashinfer"
    impl_backend: Literal["triton", "cuda"] = "triton"
    use_tensor_core: StrictBool = False
    dense_crossover: StrictBool = True
    """Ours, not published: a decode step that would take longer sparse than dense, as measured on the GPU, is
    dense. `False`: always as the policy says. Flows that keep state are never changed."""

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        refused = refusals(data)
        if refused:
            raise ValueError("; ".join(refused.values()))
        return {name: value for name, value in data.items() if name not in UNSUPPORTED}

    @field_validator("layers_skip", mode="after")
    @classmethod
    def _layer_ids(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if not value:
            return None
        if min(value) < 0:
            raise ValueError(f"layer ids start at 0, got {min(value)}")
        return tuple(sorted(set(value)))

    @field_validator("block_size", "workload_chunk_size", mode="after")
    @classmethod
    def _power_of_two(cls, value: int | None) -> int | None:
        if value is not None and (value < 1 or value & (value - 1)):
            raise ValueError(f"must be a positive power of 2, got {value}")
        return value

    @field_validator("max_seq_lens", mode="after")
    @classmethod
    def _length(cls, value: int) -> int:
        if value != -1 and value < 1:
            raise ValueError(f"must be at least 1, or -1 for the model's context length, got {value}")
        return value

    @field_validator("schedule_policy", mode="after")
    @classmethod
    def _body(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("is empty: leave it out for the default policy")
        return value

    @model_validator(mode="after")
    def _together(self) -> VortexConfig:
        if self.module_path is not None and self.module_name is None:
            raise ValueError("module_path needs module_name: the name that the flow is registered under")
        if self.max_topk_val is not None and self.max_topk_val < self.topk_val:
            raise ValueError(f"max_topk_val={self.max_topk_val} is below topk_val={self.topk_val}")
        if self.use_tensor_core and self.impl_backend != "triton":
            raise ValueError(f"use_tensor_core needs impl_backend='triton', got {self.impl_backend!r}")
        return self

    @classmethod
    def from_file(cls, path: str | Path) -> VortexConfig:
        """Read a JSON file; a relative `module_path` that is not in the working directory is the file's
        neighbour.
        """
        path = Path(path)
        return cls.model_validate(json.loads(path.read_text())).found_from(path.parent)

    @classmethod
    def from_text(cls, text: str) -> VortexConfig:
        """The value of `--vortex-config`: a JSON object, or the path of a file with one."""
        if text.lstrip().startswith("{"):
            return cls.model_validate_json(text)
        return cls.from_file(text)

    def found_from(self, folder: Path) -> VortexConfig:
        """The same settings; a relative `module_path` that is not in the working directory is in `folder`."""
        module = self.module_path
        if module is None or Path(module).is_absolute() or Path(module).exists():
            return self
        return self.model_copy(update={"module_path": str(folder / module)})

    def load_graph(self, geometry: Geometry | None = None) -> FlowGraph:
        """Trace the flow that `module_name` (and `module_path`) name, with FlowAdvice, at a model's sizes if
        they are known. Trusted code only: a flow file is imported; a `.json` file is read as data.
        """
        from vortex.flow import build_vflow, load_graph, trace_flow
        from vortex.flow.loader import advise

        if self.module_name is None:
            raise ConfigError("module_name is missing: name the registered flow to run")
        if self.module_path is not None and self.module_path.endswith(".json"):
            return load_graph(self.module_path, geometry=geometry)
        flow = build_vflow(self.module_name, user_file=self.module_path)
        graph = trace_flow(flow, block_size=self.block_size or 16, geometry=geometry)
        return advise(graph, self.module_path or self.module_name)


def refusals(values: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Names that are no field of VortexConfig, or one of a later version in use -> why each is refused.
    `prefix`: what the names of fields start with where the user wrote them."""
    refused = {}
    for name, value in values.items():
        if name in UNSUPPORTED:
            if value not in (None, 0, False):
                refused[name] = f"{prefix}{name} is not supported: leave it out"
        elif name not in VortexConfig.model_fields:
            refused[name] = unknown(
                "field", f"{prefix}{name}", [prefix + known for known in VortexConfig.model_fields]
            )
    return refused


def faults(error: ValidationError) -> list[tuple[str, str]]:
    """(field, what is wrong with it) for each fault; "" for what several fields do together."""
    found = []
    for fault in error.errors(include_url=False, include_context=False):
        text = fault["msg"].removeprefix("Value error, ")
        got = f", got {fault['input']!r:.60}" if fault["loc"] and " got " not in text else ""
        found.append((str(fault["loc"][0]) if fault["loc"] else "", text + got))
    return found
