"""What a wrong program is, the frames that statements are put into, and the reader of the tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.vortex.flow.flows import flow
from vortex.errors import FlowTypeError, VortexError

HERE = "  # <- here"


@dataclass(frozen=True)
class WrongProgram:
    """A whole flow file, wrong in one way. `op` and `shapes` are what the error names, `says` and `fix` parts
    of its text; the line at fault ends in HERE."""

    name: str
    source: str
    op: str | None
    says: str
    fix: str
    shapes: tuple[str, ...] = ()
    error: type[VortexError] = FlowTypeError

    @property
    def line(self) -> int | None:
        """The line at fault; None for a file that is wrong as a whole."""
        found = [number for number, line in enumerate(self.source.split("\n"), 1) if line.endswith(HERE)]
        assert len(found) <= 1, self.name
        return found[0] if found else None


SETUP = """mean = Mean()(q, ctx=ctx); loaded = Load()(cache['c'], ctx=ctx)
        score = GeMM()(mean, cache['c'], ctx=ctx); heads = GeMM()(q, cache['c'], ctx=ctx)
        first, second = TopK(8)(score, ctx=ctx), TopK(4)(score, ctx=ctx)
        """
"""q and mean are BATCHED, loaded, score and heads RAGGED, first and second selections."""
FIELDS = '{"c": (1, head_dim), "d": (2, head_dim), "n": (1, 2), "s": (1, 1)}'
REQUEST = """    def create_request_cache(self, block_size, head_dim):
        return {"r": (1, head_dim)}

    def forward_cache"""
CREATE = "def create_cache(self, block_size, head_dim):"
FORWARD_CACHE = "def forward_cache(self, cache, loc, ctx):"
FORWARD_INDEXER = "def forward_indexer(self, q, o, cache, ctx):"


def changed(old: str, new: str, source: str | None = None) -> str:
    """A source, by default the frame, with one part changed."""
    source = flow() if source is None else source
    assert source.count(old) == 1, old
    return source.replace(old, new)


def with_request(source: str) -> str:
    """The flow with a request field r."""
    return changed("    def forward_cache", REQUEST, source)


def in_indexer(statement: str) -> str:
    return with_request(flow(indexer=SETUP + statement + HERE, fields=FIELDS))


def in_cache(statement: str) -> str:
    return with_request(flow(cache=statement + HERE, fields=FIELDS))


def in_frame(statement: str) -> str:
    """In forward_indexer, without SETUP."""
    return flow(indexer=statement + HERE, fields=FIELDS)


def returning(fields: str) -> str:
    """From create_cache."""
    return changed(CREATE, CREATE + HERE, flow(fields=fields))


def at_the_top(line: str) -> str:
    return flow(head=line + HERE)


def read(table: str, program: Callable[[str], str]) -> Iterator[WrongProgram]:
    """The entries of a table; `program` makes a flow file of a statement.

    A line is a statement, and the indented lines under it say `op | message | fix | shapes`: the op that the
    error names ("-" for none), a part of its message, a part of the hint, and the operands.
    """
    for entry in re.split(r"\n+(?=\S)", table.strip()):
        statement, *expected = entry.split("\n")
        op, says, fix, *shapes = " ".join(line.strip() for line in expected).split(" | ")
        named = tuple(shapes[0].split("; ")) if shapes else ()
        yield WrongProgram(statement, program(statement), None if op == "-" else op, says, fix, named)
