"""What is known of a file without running a model. `as_dict` gives the JSON of `--json`: one key for each
attribute below, in nested objects and lists, None as null. `version` grows when a key changes its meaning.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

VERSION = 1


@dataclass(frozen=True)
class Finding:
    """Why a source is not a flow.

    `kind`: "syntax", "forbidden" or "resource" (by the allow-list, before anything runs), "load" (the file or
    the flow's constructor fails), "type" (the program is ill-typed), "size" (too large to be real, or it does
    not serve the stated shape). `line` is of the file. `op`, `shapes`, `hint` come with most type errors.
    """

    kind: str
    message: str
    line: int | None = None
    op: str | None = None
    shapes: tuple[str, ...] = ()
    hint: str | None = None


@dataclass(frozen=True)
class Value:
    """A tensor: its name in the report ("q", a field, "#3" for the result of op 3) and its shape in symbols.
    "S" counts the blocks of a row."""

    name: str
    shape: str


@dataclass(frozen=True)
class OpReport:
    """One op call. `stage`: "cache" (once a finished block) or "indexer" (every step). `result` is None where
    the op claims the output. `writes`: the field that it writes."""

    number: int
    stage: str
    line: int | None
    op: str
    operands: tuple[Value, ...]
    result: Value | None
    writes: str | None = None


@dataclass(frozen=True)
class FieldReport:
    """A declared field. `per`: "block", or "row" for a request field. `bytes`: of one entry, stored."""

    name: str
    shape: str
    per: str
    bytes: int


@dataclass(frozen=True)
class Part:
    """Bytes moved and operations of one part of a decode step."""

    bytes: float
    flops: float


@dataclass(frozen=True)
class CostReport:
    """One decode step of one row (request x kv head) of one layer.

    `geometry`: block_size, head_dim, group, kv_lora_rank, qk_rope_head_dim. `context`: tokens of the row;
    `blocks`: how many that is; `chosen`: how many are attended to. `parts`: summaries, scores, selection,
    attention, as in `vortex.graph.cost`. `dense`: the same row attending to everything.
    """

    geometry: dict[str, int]
    context: int
    blocks: int
    chosen: int
    parts: dict[str, Part]
    total: Part
    dense: Part


@dataclass(frozen=True)
class FlowReport:
    """One registered flow. Everything but `name` and `error` is empty where `error` keeps it from tracing.

    `kind`: "gqa" or "mla". `hash`: of the algorithm. `guards`: facts about sizes that the flow relies on.
    `advice`: what is legal and probably not meant.
    """

    name: str
    error: Finding | None = None
    kind: str | None = None
    hash: str | None = None
    fields: tuple[FieldReport, ...] = ()
    ops: tuple[OpReport, ...] = ()
    guards: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    cost: CostReport | None = None


@dataclass(frozen=True)
class Note:
    """A remark on the value of one key of a configuration; "" for the whole."""

    key: str
    message: str


@dataclass(frozen=True)
class ConfigReport:
    """`path` is None for a configuration that was given as text. `compiled` of `combinations`: shapes that
    the flow traces for; both None where there is no flow to try."""

    path: str | None
    errors: tuple[Note, ...] = ()
    warnings: tuple[Note, ...] = ()
    compiled: int | None = None
    combinations: int | None = None


@dataclass(frozen=True)
class Report:
    """`file`: the flow file, or None for a shipped flow that a configuration names. `source`: why the
    allow-list refuses the file. `trusted`: the file was executed all the same."""

    file: str | None
    source: Finding | None = None
    trusted: bool = False
    flows: tuple[FlowReport, ...] = ()
    error: Finding | None = None
    config: ConfigReport | None = None
    version: int = VERSION

    @property
    def ok(self) -> bool:
        refused = self.source is not None and not self.trusted
        wrong = self.config is not None and self.config.errors
        return not (refused or wrong or self.error or any(flow.error for flow in self.flows))

    def as_dict(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}
