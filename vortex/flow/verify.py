"""Does a flow compile? `verify_flow_compilable` tries every shape of a sweep, `python -m vortex.flow.verify`
prints what it finds.

A combination compiles when the flow traces for it, its graph gets numbers for all its sizes, and every target
builds its program. Nothing is executed, no model is needed; targets import torch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vortex.errors import ConfigError, FlowLoadError, RegistryError, VortexError, unknown
from vortex.flow.base import FlowBase
from vortex.flow.loader import build_vflow, construct, load_graph, load_source, trace_flow
from vortex.flow.registry import get, has
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph

if TYPE_CHECKING:
    from vortex.config import Dtype
    from vortex.targets.base import Target

BLOCK_SIZES = (8, 16, 32, 64, 128)
GROUPS = (1, 2, 4, 5, 8, 16)
HEAD_DIMS = (64, 96, 128, 256)
MLA_GROUPS = (8, 16, 32, 128)
LATENTS = ((256, 32), (512, 64))
DTYPES: tuple[Dtype, ...] = ("bfloat16", "float16", "float32", "fp8_e4m3", "fp8_e5m2")
GRAPH_ONLY: tuple[str, ...] = ()
_SHIPPED = "vortex.flow.algorithms"


class VerifyError(VortexError):
    """No combination of a sweep compiles. `report` has the error of each."""

    def __init__(self, report: CompileReport) -> None:
        super().__init__(f"{report.flow} does not compile for any shape: {report.attempts[0].error}")
        self.report = report


@dataclass(frozen=True)
class Attempt:
    """One combination; `error` is None when it compiles. `dtype` and `target` are "" where no target is
    asked."""

    geometry: Geometry
    dtype: str
    target: str
    error: str | None = None

    def __str__(self) -> str:
        sizes = ", ".join(f"{name}={value}" for name, value in vars(self.geometry).items() if value)
        return " ".join(part for part in (sizes, self.dtype, self.target) if part)


@dataclass(frozen=True)
class CompileReport:
    """What came of a sweep."""

    flow: str
    kind: str
    attempts: tuple[Attempt, ...] = field(repr=False)

    @property
    def compiled(self) -> tuple[Attempt, ...]:
        return tuple(attempt for attempt in self.attempts if attempt.error is None)

    @property
    def failed(self) -> tuple[Attempt, ...]:
        return tuple(attempt for attempt in self.attempts if attempt.error is not None)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: flow, kind, compiled and failed (counts), attempts (geometry, dtype, target, error)."""
        counts = {"compiled": len(self.compiled), "failed": len(self.failed)}
        return {
            "flow": self.flow,
            "kind": self.kind,
            **counts,
            "attempts": [asdict(a) for a in self.attempts],
        }


def shapes(
    kind: str,
    block_sizes: Iterable[int] | None = None,
    head_dims: Iterable[int] | None = None,
    groups: Iterable[int] | None = None,
    latents: Iterable[tuple[int, int]] | None = None,
) -> Iterator[Geometry]:
    """The geometries of a sweep. A "gqa" flow has head dims, an "mla" flow latents (kv_lora_rank,
    qk_rope_head_dim)."""
    groups = tuple(groups or (MLA_GROUPS if kind == "mla" else GROUPS))
    for block in block_sizes or BLOCK_SIZES:
        if kind == "mla":
            for rank, rope in latents or LATENTS:
                yield from (Geometry.mla(block, rank, rope, group) for group in groups)
        else:
            for head_dim in head_dims or HEAD_DIMS:
                yield from (Geometry(block, head_dim, group) for group in groups)


def verify_flow_compilable(
    flow: FlowBase | type[FlowBase] | FlowGraph | str | Path,
    *,
    init_kwargs: dict[str, Any] | None = None,
    block_sizes: Iterable[int] | None = None,
    head_dims: Iterable[int] | None = None,
    groups: Iterable[int] | None = None,
    latents: Iterable[tuple[int, int]] | None = None,
    dtypes: Sequence[Dtype] = DTYPES,
    targets: Sequence[str] | None = None,
) -> CompileReport:
    """Compiles a flow (object, class, graph, name, `graph.json`, `flow.py`, or `flow.py:name` where a
    file registers several) for every combination of these sizes, formats and targets.

    targets: names, by default all that exist; `GRAPH_ONLY` asks none of them and needs no torch.
    Raises VerifyError when nothing compiles, FlowLoadError or FlowInitError when there is no flow,
    ConfigError for a target or number format that does not exist.
    """
    for dtype in dtypes:
        if dtype not in DTYPES:
            raise ConfigError(unknown("number format", dtype, DTYPES))
    name, built = _resolve(flow, init_kwargs)
    geometries = list(shapes(built.kind, block_sizes, head_dims, groups, latents))
    report = CompileReport(name, built.kind, tuple(_attempts(built, geometries, dtypes, _targets(targets))))
    if not report.compiled:
        raise VerifyError(report)
    return report


def _resolve(
    flow: FlowBase | type[FlowBase] | FlowGraph | str | Path, init_kwargs: dict[str, Any] | None
) -> tuple[str, FlowBase | FlowGraph]:
    if isinstance(flow, FlowBase):
        return type(flow).__name__, flow
    if isinstance(flow, FlowGraph):
        return f"graph {flow.hash[:12]}", flow
    if isinstance(flow, type):
        return flow.__name__, construct(flow, init_kwargs)
    if str(flow).endswith(".json"):
        return str(flow), load_graph(flow)
    path, _, name = str(flow).partition(".py:")
    if name:
        return read_flow(path + ".py", name, init_kwargs)
    if isinstance(flow, Path) or flow.endswith(".py"):
        return read_flow(flow, None, init_kwargs)
    return flow, build_vflow(flow, init_kwargs)


def read_flow(
    file: str | Path, name: str | None = None, init_kwargs: dict[str, Any] | None = None
) -> tuple[str, FlowBase]:
    """Executes a flow file: its one flow, or the one called `name`, built and not registered in this process.
    Raises FlowLoadError, FlowInitError, or RegistryError for a name that a shipped flow has taken."""
    path = Path(file)
    try:
        classes = load_source(path.read_text(), str(path), trusted=True)
    except (OSError, UnicodeDecodeError) as error:
        raise FlowLoadError(f"cannot read the flow file {path}: {error}") from None
    if name is None and len(classes) == 1:
        (name,) = classes
    if name is None and classes:
        raise FlowLoadError(f"{path} registers several flows; choose one, as {path}:{next(iter(classes))}")
    if name is None or name not in classes:
        raise FlowLoadError(f"{path}: {unknown('flow', name or '', classes)}")
    if is_taken(name, path):
        raise RegistryError(f"{path}: the package ships a flow named {name!r}; choose another name")
    return name, construct(classes[name], init_kwargs)


def is_taken(name: str, path: Path) -> bool:
    """Whether a shipped flow in another file has this name, so that no process could register both."""
    if not has(name):
        return False
    module = sys.modules[get(name).__module__]
    return module.__name__.startswith(_SHIPPED) and not path.samefile(module.__file__ or "")


def _targets(names: Sequence[str] | None) -> list[Target]:
    if names is not None and not names:
        return []
    from vortex.targets import TARGETS, get_target

    return list(TARGETS.values()) if names is None else [get_target(name) for name in names]


def _attempts(
    flow: FlowBase | FlowGraph, geometries: list[Geometry], dtypes: Sequence[Dtype], targets: list[Target]
) -> Iterator[Attempt]:
    graph: FlowGraph | None = None
    programs = [(target, dtype) for target in targets for dtype in dtypes]
    for geometry in geometries:
        try:
            graph, error = _graph_at(flow, graph, geometry), None
        except VortexError as fault:
            error = str(fault)
        if not programs:
            yield Attempt(geometry, "", "", error)
        for target, dtype in programs:
            fault_of_target = error or _fault(target, graph, geometry, dtype)
            yield Attempt(geometry, dtype, target.name, fault_of_target)


def _fault(target: Target, graph: FlowGraph | None, geometry: Geometry, dtype: Dtype) -> str | None:
    """What keeps a target from building the program."""
    assert graph is not None
    try:
        target.program(graph, geometry, dtype)
    except VortexError as error:
        return str(error)
    except Exception as error:  # whatever a compiler raises is a finding
        return f"{type(error).__name__}: {error}"
    return None


def _graph_at(flow: FlowBase | FlowGraph, known: FlowGraph | None, geometry: Geometry) -> FlowGraph:
    """A graph that serves `geometry`: the one of earlier shapes if it does, else a new trace."""
    if isinstance(flow, FlowGraph):
        flow.instantiate(geometry)
        return flow
    if known is not None:
        try:
            known.instantiate(geometry)
            return known
        except VortexError:
            pass
    graph = trace_flow(flow, geometry=geometry)
    graph.instantiate(geometry)
    return graph


if __name__ == "__main__":
    from vortex.check.verify_command import app

    app(prog_name="python -m vortex.flow.verify")
