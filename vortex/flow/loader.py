"""Flow files -> flow classes -> graphs. This module executes the files it is given: the trusted path.

Candidates go through the sandbox, which runs `load_source` inside its jail.
"""

from __future__ import annotations

import builtins
import hashlib
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from vortex.errors import (
    FlowAdvice,
    FlowInitError,
    FlowLoadError,
    FlowTypeError,
    GraphError,
    RegistryError,
    VortexError,
    unknown,
)
from vortex.flow.base import FlowBase
from vortex.flow.calls import described, first_line, hint_for, raised_in
from vortex.flow.registry import Entry, Source, add, collecting, get, has, list_keys
from vortex.flow.torch_standin import torch_for
from vortex.flow.trace import trace
from vortex.flow.where import raising_line
from vortex.graph.advice import advice
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph, Stage
from vortex.ops import NoSuchOpError

MAX_SOURCE = 2**20
_loaded: dict[tuple[str, str], tuple[str, ...]] = {}


def load_source(
    source: str, filename: str = "flow.py", *, trusted: bool = False, scope: Mapping[str, Any] | None = None
) -> dict[str, type[FlowBase]]:
    """Executes a flow file and returns what it registers, without touching the process's registry.

    trusted: whether torch functions may reach the real torch. scope: builtins instead of Python's own.
    Raises FlowLoadError, or the VortexError that the file's own code runs into.
    """
    digest = hashlib.sha256(source.encode(errors="replace")).hexdigest()
    return {
        name: entry.cls for name, entry in _execute(source, Source(filename, digest), trusted, scope).items()
    }


def _execute(source: str, origin: Source, trusted: bool, scope: Mapping[str, Any] | None) -> dict[str, Entry]:
    if len(source) > MAX_SOURCE:
        raise FlowLoadError(f"{origin.file} has more than {MAX_SOURCE} characters")
    try:
        code = compile(source, origin.file, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _not_python(source, origin.file, error) from None
    module = ModuleType(f"vortex_flow_{origin.digest[:12]}")
    module.__file__ = origin.file
    names = dict(vars(builtins) if scope is None else scope)
    names["__import__"] = _importer(names.get("__import__", builtins.__import__), torch_for(trusted))
    module.__dict__["__builtins__"] = names
    sys.modules[module.__name__] = module
    try:
        with collecting(origin) as found:
            exec(code, module.__dict__)
    except FlowTypeError as error:
        raise error.in_line(raising_line(error.__traceback__, origin.file)) from None
    except RegistryError as error:
        raise _located(RegistryError, origin.file, error, str(error)) from None
    except VortexError:
        raise
    except ImportError as error:
        message = _no_such_name(error) or described(error)
        raise _located(FlowLoadError, origin.file, error, message) from error
    except Exception as error:
        hint = hint_for(error, FlowBase)
        message = f"{described(error)}{f'. {hint}' if hint else ''}"
        raise _located(FlowLoadError, origin.file, error, message) from error
    return found


def _not_python(source: str, file: str, error: Exception) -> FlowLoadError:
    line = error.lineno if isinstance(error, SyntaxError) else None
    if "\0" in source:
        line = source.count("\n", 0, source.index("\0")) + 1
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    at = f"{file}, line {line}" if line else file
    return FlowLoadError(f"{at}: {type(error).__name__}: {said}").in_line(line)


def _importer(real: Any, torch: ModuleType) -> Any:
    def import_(
        name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> Any:
        if name == "torch" and level == 0:
            return torch
        return real(name, globals, locals, fromlist, level)

    return import_


E = TypeVar("E", bound=VortexError)


def _located(kind: type[E], file: str, error: Exception, message: str) -> E:
    """An error in the line of `file` where `error` was raised."""
    line = raising_line(error.__traceback__, file)
    return kind(f"{file}, line {line}: {message}" if line else f"{file}: {message}").in_line(line)


def _no_such_name(error: ImportError) -> str:
    """Why a module of Vortex lacks the name that was to be imported; "" where it is about another module."""
    module, name = (error.name or "").replace("vortex_torch", "vortex"), getattr(error, "name_from", None)
    name = name or str(error).partition("cannot import name '")[2].partition("'")[0]
    if not name:
        return ""
    stages = {f"vortex.{stage}": stage for stage in Stage}
    if module in stages:
        return str(NoSuchOpError(stages[module], name))
    public = getattr(sys.modules.get(module), "__all__", ()) if module.startswith("vortex.") else ()
    return f"{module}: {unknown('name', name, public)}" if public else ""


def no_flow(what: object) -> FlowLoadError:
    """The error for a file that registers nothing."""
    return FlowLoadError(
        f'{what} registers no flow: it does not contain @register. Put @register("name") above its class'
    )


def load_file(path: str | Path) -> tuple[str, ...]:
    """Executes the flow file `path`, registers its flows and returns their names. Loading an unchanged file
    again is free. Raises FlowLoadError or RegistryError."""
    file = Path(path).expanduser().resolve()
    try:
        data = file.read_bytes()
        source = data.decode("utf-8-sig")
    except OSError as error:
        raise FlowLoadError(f"cannot read the flow file {path}: {error}") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FlowLoadError(
            f"cannot read the flow file {path}, line {line}: it is not UTF-8. Save it as UTF-8"
        ).in_line(line) from None
    origin = Source(str(file), hashlib.sha256(data).hexdigest())
    key = (origin.file, origin.digest)
    if key not in _loaded:
        found = _execute(source, origin, trusted=True, scope=None)
        if not found:
            raise no_flow(path)
        for name, entry in found.items():
            add(name, entry)
        _loaded[key] = tuple(found)
    return _loaded[key]


def build_vflow(
    name: str, init_kwargs: Mapping[str, Any] | None = None, user_file: str | Path | None = None
) -> FlowBase:
    """An instance of the flow `name`, after loading `user_file` if one is given. Raises FlowLoadError (with
    the names that exist) or FlowInitError."""
    if user_file is not None:
        load_file(user_file)
    if not has(name):
        where = f" in {user_file} or shipped" if user_file is not None else ""
        raise FlowLoadError(f"{unknown('flow', name, list_keys())}{where and f'; looked{where}'}")
    return construct(get(name), init_kwargs)


def construct(cls: type[FlowBase], init_kwargs: Mapping[str, Any] | None = None) -> FlowBase:
    """An instance of a flow class. Raises FlowTypeError for a wrong op constructor, FlowInitError for
    anything else."""
    try:
        return cls(**(init_kwargs or {}))
    except FlowTypeError as error:
        raise error.in_line(raised_in(error, cls, "__init__")) from None
    except Exception as error:
        line, hint = raised_in(error, cls, "__init__"), hint_for(error, cls)
        if line is None:  # the call itself failed
            line, hint = first_line(cls, "__init__"), "Its parameters need defaults, or values in init_kwargs"
        message = f"{cls.__name__}.__init__{f' (line {line})' if line else ''} raised {described(error)}"
        raise FlowInitError(f"{message}. {hint}" if hint else message).in_line(line) from error


def trace_flow(
    flow: FlowBase | type[FlowBase],
    *,
    block_size: int = 16,
    head_dim: int = 128,
    group: int | None = None,
    geometry: Geometry | None = None,
) -> FlowGraph:
    """The graph of a flow object or class. The sizes are hints: the graph serves every geometry that its
    guards allow. An MLA flow is traced at 512 + 64 features and 16 heads unless `geometry=Geometry.mla(...)`
    says otherwise.
    Raises FlowTypeError, FlowInitError, or GraphError for a graph that is too large to be real."""
    built = construct(flow) if isinstance(flow, type) else flow
    if geometry is None:
        if built.kind == "mla":
            geometry = Geometry.mla(block_size, 512, 64, group or 16)
        else:
            geometry = Geometry(block_size, head_dim, group or 4)
    return trace(built, geometry)


def trace_source(
    source: str,
    filename: str = "flow.py",
    *,
    scope: Mapping[str, Any] | None = None,
    geometry: Geometry | None = None,
) -> FlowGraph:
    """The graph of the one flow that `source` registers, torch being the stand-in. For use inside the
    sandbox. A flow that asserts a size needs a `geometry` of that size. Raises VortexError."""
    found = load_source(source, filename, scope=scope)
    if not found:
        raise no_flow(filename)
    if len(found) > 1:
        raise FlowLoadError(f"the file must register exactly one flow, not {len(found)}: {', '.join(found)}")
    (cls,) = found.values()
    return trace_flow(cls, geometry=geometry)


def load_graph(path_or_name: str | Path, *, geometry: Geometry | None = None) -> FlowGraph:
    """The graph of a registered flow, of a flow file (`flow.py`, or `flow.py:name` if it registers
    several), or of a `graph.json`. Warns of what is probably not meant. Raises VortexError."""
    return advise(_load_graph(str(path_or_name), geometry), path_or_name)


def advise(graph: FlowGraph, source: object) -> FlowGraph:
    """Warns (FlowAdvice) of what is probably not meant in a graph, and returns it."""
    for sentence in advice(graph):
        warnings.warn(f"{source}: {sentence}", FlowAdvice, stacklevel=3)
    return graph


def _load_graph(text: str, geometry: Geometry | None) -> FlowGraph:
    if has(text):
        return trace_flow(get(text), geometry=geometry)
    if text.endswith(".json"):
        try:
            return FlowGraph.from_json(Path(text).read_bytes())
        except OSError as error:
            raise FlowLoadError(f"cannot read the graph {text}: {error}") from None
        except GraphError as error:
            raise GraphError(f"{text}: {error}") from None
    path, _, name = text.partition(".py:")
    if name:
        load_file(path + ".py")
        return trace_flow(build_vflow(name), geometry=geometry)
    if text.endswith(".py") or Path(text).is_file():
        names = load_file(text)
        if len(names) > 1:
            raise FlowLoadError(
                f"{text} registers several flows; choose one, as {text}:{names[0]} ({', '.join(names)})"
            )
        return trace_flow(build_vflow(names[0]), geometry=geometry)
    raise FlowLoadError(unknown("flow", text, list_keys()))
