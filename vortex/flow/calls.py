"""Calls the methods that an author wrote. Whatever goes wrong there becomes an error with the line of the
author's file, and with a hint where the cause is a common one."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

from vortex.errors import FlowTypeError, VortexError, nearest
from vortex.flow.where import raising_line

_BASES = "vortex.flow.base"


def call(flow: object, method: str, arguments: tuple[object, ...], sizes: Mapping[str, int]) -> Any:
    """`flow.method(*arguments)`. `sizes`: what the flow is traced at. Raises FlowTypeError."""
    cls, function = type(flow), getattr(type(flow), method)
    documented = next(c for c in cls.__mro__ if c.__module__ == _BASES and method in vars(c))
    form = f"Define {method}({', '.join(inspect.signature(getattr(documented, method)).parameters)})"
    if not _fits(getattr(flow, method), arguments):
        given = ", ".join(inspect.signature(function).parameters)
        raise FlowTypeError(f"{method} takes ({given})", line=first_line(cls, method), hint=form)
    try:
        return getattr(flow, method)(*arguments)
    except FlowTypeError as error:
        raise error.in_line(raised_in(error, cls, method)) from None
    except VortexError:
        raise
    except Exception as error:
        if isinstance(error, NotImplementedError) and function is getattr(documented, method):
            missing = f"{cls.__name__} does not define {method}"
            raise FlowTypeError(missing, line=class_line(cls), hint=form) from None
        raise FlowTypeError(
            f"{method} raised {described(error)}",
            line=raised_in(error, cls, method) or first_line(cls, method),
            hint=hint_for(error, cls, method, sizes),
        ) from error


def _fits(method: Any, arguments: tuple[object, ...]) -> bool:
    try:
        inspect.signature(method).bind(*arguments)
    except TypeError:
        return False
    return True


def described(error: Exception) -> str:
    """An exception in one line: its class, and what it says."""
    said = re.sub(r" at 0x[0-9a-f]+", "", " ".join(str(error).split()))[:300]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def hint_for(
    error: Exception, cls: type, method: str = "", sizes: Mapping[str, int] | None = None
) -> str | None:
    """What may help against an exception of the author's own code."""
    if isinstance(error, AssertionError) and sizes:
        return f"The flow was traced at {', '.join(f'{name}={size:d}' for name, size in sizes.items())}"
    if isinstance(error, ZeroDivisionError) and method.startswith("forward_"):
        return "x.shape[0] is 0 while a flow is traced; sizes are x.shape[1] and x.shape[2]"
    name = getattr(error, "name", None) or ""
    if isinstance(error, AttributeError) and isinstance(error.obj, cls):
        close = nearest(name, vars(error.obj))
        return f"Did you mean self.{close}?" if close else f"Create self.{name} in __init__"
    if isinstance(error, NameError):
        close = nearest(name, _names(error), cutoff=0.7)
        return f"Did you mean {close}?" if close else f"Define or import {name}"
    return None


def _names(error: NameError) -> set[str]:
    """The names that could be meant where a NameError was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return set()
    frame = trace.tb_frame
    found = {*frame.f_globals, *frame.f_locals, *frame.f_builtins}
    return {name for name in found if not name.startswith("_")}


def raised_in(error: BaseException, cls: type, method: str) -> int | None:
    """The last line of the file of a method in the error's traceback."""
    code = getattr(getattr(cls, method), "__code__", None)
    return raising_line(error.__traceback__, code.co_filename) if code is not None else None


def first_line(cls: type, method: str) -> int | None:
    """Where a method is defined."""
    code = getattr(getattr(cls, method), "__code__", None)
    return code.co_firstlineno if code is not None else None


def class_line(cls: type) -> int | None:
    """Where a flow class is defined."""
    line = vars(cls).get("_line")
    return line if isinstance(line, int) else None
