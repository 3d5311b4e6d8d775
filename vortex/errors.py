"""Every error that Vortex raises on purpose, and nearest-name suggestions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self


class VortexError(Exception):
    """Base of all errors that are about the user's input, not about a fault in Vortex. `line`: of the user's
    file, where an error is about one and knows it."""

    line: int | None = None

    def in_line(self, line: int | None) -> Self:
        """The same error with its line, unless it has one."""
        self.line = self.line or line
        return self


class FlowTypeError(VortexError):
    """A flow's program is ill-typed.

    Attributes: `op` (name of the op, if one is involved), `line` (of the user's file), `shapes` (operands in
    symbols, as `x [S, 1, head_dim]`) and `hint` (what would fit).
    """

    def __init__(
        self,
        message: str,
        *,
        op: str | None = None,
        line: int | None = None,
        shapes: tuple[str, ...] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(message, op, line, shapes, hint)
        self.message, self.op, self.line, self.shapes, self.hint = message, op, line, shapes, hint

    def __str__(self) -> str:
        where = ", ".join(part for part in (self.op, f"line {self.line}" if self.line else None) if part)
        text = f"{where}: {self.message}" if where else self.message
        if self.shapes:
            text += f" (got {', '.join(self.shapes)})"
        return f"{text}. {self.hint}" if self.hint else text

    def at(
        self, op: str | None = None, line: int | None = None, shapes: tuple[str, ...] = ()
    ) -> FlowTypeError:
        """The same error with what was still unknown filled in."""
        return FlowTypeError(
            self.message,
            op=self.op or op,
            line=self.line or line,
            shapes=self.shapes or shapes,
            hint=self.hint,
        )


class RegistryError(VortexError):
    """A flow name is registered twice, or unknown."""


class FlowLoadError(VortexError):
    """A flow file cannot be read or executed, or does not register the flow asked for."""


class FlowInitError(VortexError):
    """A flow class could not be constructed, or its `create_cache` failed."""


class FlowAdvice(UserWarning):
    """A flow is legal, and something in it is probably not meant."""


class GraphError(VortexError):
    """A serialised graph is malformed, ill-typed, or too large to be real."""


class GuardError(VortexError):
    """A graph does not serve the geometry it is asked for."""


class PolicyError(VortexError):
    """A `schedule_policy` is outside the checked subset, or does not compile. `row`, `column` start at 1."""

    def __init__(self, message: str, row: int = 1, column: int = 1) -> None:
        super().__init__(message, row, column)
        self.message, self.row, self.column = message, row, column

    def __str__(self) -> str:
        return f"row {self.row}, column {self.column}: {self.message}"


class ConfigError(VortexError, ValueError):
    """A configuration field is unknown, out of range, or not supported."""


def nearest(name: str, known: Iterable[str], cutoff: float = 0.5) -> str | None:
    """The known name closest to `name`, or None when nothing is close. `cutoff`: the least likeness."""
    import difflib

    by_lower = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[found[0]] if found else None


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """One sentence for an unknown name: what it was, the nearest known name, and what exists."""
    names = sorted(known)
    close = nearest(name, names)
    meant = f"; did you mean {close!r}?" if close else ""
    listed = ", ".join(names) if names else "none"
    return f"unknown {what} {name!r}{meant} (known: {listed})"


def shown(value: object) -> str:
    """A value of the user's in a message: its repr, or its class where that says no more."""
    try:
        text = repr(value)
    except Exception:
        text = ""
    return f"a {type(value).__name__}" if not text or " at 0x" in text else text[:80]
