"""Flow files that are wrong, each in one way, and what the error must say."""

from __future__ import annotations

from dataclasses import replace

from tests.vortex.flow.wrong_programs import files, mla, native, ops, structure
from tests.vortex.flow.wrong_programs.program import (
    WrongProgram,
    at_the_top,
    in_cache,
    in_frame,
    in_indexer,
    read,
    returning,
)
from vortex.errors import FlowLoadError


def wrong_programs() -> list[WrongProgram]:
    """All of them, under different names."""
    found = [
        *read(ops.INDEXER, in_indexer),
        *read(ops.CACHE, in_cache),
        *read(native.NATIVE, in_frame),
        *read(native.PYTHON, in_frame),
        *read(files.RETURNED, returning),
        *(replace(program, error=FlowLoadError) for program in read(files.FILES, at_the_top)),
        *structure.PROGRAMS,
        *mla.PROGRAMS,
    ]
    assert len({program.name for program in found}) == len(found)
    return found
