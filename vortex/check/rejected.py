"""Why a flow's source did not become a graph."""

from __future__ import annotations

from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["syntax", "forbidden", "type", "resource", "protocol"]

MAX_REASON = 2000


class Rejected(Exception):  # noqa: N818 - a verdict on the candidate, not a fault of ours
    """The verdict on a candidate, fit to be shown to its author.

    `kind`: "syntax" (not Python), "forbidden" (outside the allow-list), "type" (the flow is wrong: repair
    it), "resource" (too large, too slow), "protocol" (it misbehaved inside the jail). `line` is of the
    candidate's file; `op`, `shapes` and `hint` come with type errors.
    """

    def __init__(
        self,
        reason: str,
        kind: Kind,
        line: int | None = None,
        *,
        op: str | None = None,
        shapes: tuple[str, ...] = (),
        hint: str | None = None,
    ) -> None:
        reason = printable(reason)
        super().__init__(reason)
        self.reason, self.kind, self.line = reason, kind, line
        self.op, self.shapes, self.hint = op, shapes, hint


def printable(text: str) -> str:
    """`text` cut and without control characters: a candidate wrote it, and terminals and prompts show it."""
    clean = "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
    return clean if len(clean) <= MAX_REASON else clean[: MAX_REASON - 3] + "..."
