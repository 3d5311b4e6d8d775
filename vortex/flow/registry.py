"""Flows by name."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vortex.errors import RegistryError, unknown
from vortex.flow.base import FlowBase
from vortex.flow.where import user_line

T = TypeVar("T", bound=type[FlowBase])


@dataclass(frozen=True)
class Source:
    """Where a flow's code comes from: a file, and the hash of its content."""

    file: str
    digest: str

    @staticmethod
    def of(cls: type) -> Source:
        try:
            path = Path(inspect.getfile(cls)).resolve()
            return Source(str(path), hashlib.sha256(path.read_bytes()).hexdigest())
        except (OSError, TypeError):
            return Source(f"<{cls.__module__}>", cls.__qualname__)


@dataclass(frozen=True)
class Entry:
    cls: type[FlowBase]
    source: Source
    line: int | None = None


_flows: dict[str, Entry] = {}
_SHIPPED = "vortex.flow.algorithms"
_scope: ContextVar[dict[str, Entry] | None] = ContextVar("scope", default=None)
_source: ContextVar[Source | None] = ContextVar("source", default=None)


@contextmanager
def collecting(source: Source) -> Iterator[dict[str, Entry]]:
    """Registrations inside this block go into the yielded dict instead of the process's registry."""
    found: dict[str, Entry] = {}
    tokens = _scope.set(found), _source.set(source)
    try:
        yield found
    finally:
        _scope.reset(tokens[0])
        _source.reset(tokens[1])


def register(name: str) -> Callable[[T], T]:
    """Class decorator: makes a flow known as `name`. Raises RegistryError for a name that other code has
    taken; the same unchanged file may register again."""
    if not isinstance(name, str) or not name:
        raise RegistryError('register needs a name: @register("my_flow")').in_line(user_line())

    def decorate(cls: T) -> T:
        if not (isinstance(cls, type) and issubclass(cls, FlowBase)):
            shown = getattr(cls, "__name__", type(cls).__name__)
            raise RegistryError(
                f"@register({name!r}) needs a subclass of vFlow or vFlowMLA: write class {shown}(vFlow)"
            ).in_line(user_line())
        add(name, Entry(cls, _source.get() or Source.of(cls), user_line()), _scope.get())
        return cls

    return decorate


def add(name: str, entry: Entry, target: dict[str, Entry] | None = None) -> None:
    """Adds one registration to `target`, by default the process's registry."""
    if target is None and not entry.cls.__module__.startswith(_SHIPPED):
        load_shipped()
    flows = _flows if target is None else target
    earlier = flows.get(name)
    again = earlier is not None and (earlier.source, earlier.line) == (entry.source, entry.line)
    if earlier is not None and (target is not None or not again):
        where = f" by {earlier.source.file}" if target is None else ""
        changed = (
            " (the file has changed since)"
            if earlier.source.file == entry.source.file and earlier.source != entry.source and target is None
            else ""
        )
        raise RegistryError(
            f"a flow named {name!r} is already registered{where}{changed}; choose another name"
        )
    flows[name] = entry


def load_shipped() -> None:
    """Registers the flows that come with the package. They import the ops, which import this package: hence
    not at import."""
    importlib.import_module(_SHIPPED)


def get(name: str) -> type[FlowBase]:
    """The class registered as `name`. Raises RegistryError with the nearest name."""
    if not has(name):
        raise RegistryError(unknown("flow", name, _flows))
    return _flows[name].cls


def has(name: str) -> bool:
    load_shipped()
    return name in _flows


def list_keys() -> list[str]:
    """All registered names, sorted."""
    load_shipped()
    return sorted(_flows)
