"""`Sandbox`: candidate source in, a checked graph or `Rejected` out."""

from __future__ import annotations

import signal
import threading
import warnings
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from agent.sandbox.jail import Answer, Jail, start
from agent.sandbox.limits import Limits
from vortex.check.allowlist import check_source
from vortex.check.rejected import Rejected
from vortex.errors import GraphError
from vortex.graph.geometry import Geometry

if TYPE_CHECKING:
    from vortex.graph.model import FlowGraph


class Failure(BaseModel):
    """An error inside the trace, as the jail reports it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Literal["type", "resource", "forbidden"]
    message: str
    line: int | None = None
    op: str | None = None
    shapes: list[str] = []
    hint: str | None = None


class Document(BaseModel):
    """The one document that a trace sends: a graph as JSON text, or an error."""

    model_config = ConfigDict(extra="forbid", strict=True)

    graph: str | None = None
    error: Failure | None = None


class Sandbox:
    """A warm jail, restarted when a candidate misbehaved in it. Threads may share it: one trace at a time.

    `geometry`: of the model that candidates are for; a flow may hold its numbers instead of its symbols.
    `isolation` is "bubblewrap", or "plain limits" where bubblewrap cannot run; entering then warns with the
    reason.
    """

    def __init__(
        self, limits: Limits | None = None, *, geometry: Geometry | None = None, bwrap: str = "bwrap"
    ) -> None:
        self.limits = limits or Limits()
        self.geometry = geometry or Geometry()
        self.bwrap = bwrap
        self.isolation = "closed"
        self.restarts = 0
        self._jail: Jail | None = None
        self._lock = threading.Lock()
        self._told = False

    def __enter__(self) -> Sandbox:
        with self._lock:
            self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kills the jail. The sandbox may be used again, and then starts another."""
        with self._lock:
            self._drop()
            self.isolation = "closed"

    def trace(self, source: str) -> FlowGraph:
        """The graph of the one flow that `source` registers. Raises Rejected, whatever the source does."""
        check_source(source)
        return self.trace_unchecked(source)

    def trace_unchecked(self, source: str) -> FlowGraph:
        """`trace` without the allow-list, for showing that the jail holds without it."""
        with self._lock:
            if self._jail is not None and not self._jail.alive:
                self._drop()  # the machine or the thread that started it ended it, no candidate did
            jail = self._jail or self._open()
            try:
                answer = jail.ask(source)
            finally:
                if jail.broken:
                    self._drop()
                    self.restarts += 1
        return read(answer, self.limits)

    def _open(self) -> Jail:
        self._jail, why = start(self.limits, self.geometry, self.bwrap)
        self.isolation = "bubblewrap" if why is None else "plain limits"
        if why is not None and not self._told:
            self._told = True
            warnings.warn(
                f"candidates are traced under plain limits, not in a jail: {why}. Code that gets past the "
                "allow-list reaches this machine's files and network. Install it: apt-get install bubblewrap",
                RuntimeWarning,
                stacklevel=3,
            )
        return self._jail

    def _drop(self) -> None:
        if self._jail is not None:
            self._jail.close()
            self._jail = None


def read(answer: Answer, limits: Limits) -> FlowGraph:
    """The graph in an answer. Types are inferred afresh and sizes checked: a forged one is a valid one."""
    if answer.code:
        raise Rejected(_death(-answer.code, limits), "resource")
    if not answer.payload:
        raise Rejected("the trace ended without an answer", "protocol")
    try:
        document = Document.model_validate_json(answer.payload)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise Rejected(f"the answer is not the one document expected: {first['msg']}", "protocol") from None
    if (document.graph is None) == (document.error is None):
        raise Rejected("the answer is neither a graph nor an error, or both", "protocol")
    if document.error is not None:
        e = document.error
        raise Rejected(e.message, e.kind, e.line, op=e.op, shapes=tuple(e.shapes), hint=e.hint)
    from vortex.graph.limits import check_size
    from vortex.graph.model import FlowGraph

    try:
        graph = FlowGraph.from_json(document.graph or "")
        check_size(graph)
    except (GraphError, RecursionError, MemoryError) as error:
        raise Rejected(f"the answer is not a valid graph: {error}", "protocol") from None
    return graph


def _death(number: int, limits: Limits) -> str:
    if number in (signal.SIGPROF, signal.SIGXCPU):
        return f"the trace used more than {limits.cpu_s:g} s of CPU time"
    try:
        return f"the trace was killed by {signal.Signals(number).name}"
    except ValueError:
        return f"the trace ended with exit code {-number}"
