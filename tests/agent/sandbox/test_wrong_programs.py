"""Every wrong program fails in the jail as it does outside: same words, same line, same op and shapes."""

from __future__ import annotations

import pytest

from agent.sandbox import Limits, Rejected, Sandbox
from tests.vortex.flow.wrong_programs import mla, wrong_programs
from tests.vortex.flow.wrong_programs.program import WrongProgram
from vortex.errors import FlowTypeError, GraphError, VortexError
from vortex.flow import trace_source
from vortex.graph.geometry import Geometry


def check(sandbox: Sandbox, program: WrongProgram) -> None:
    with pytest.raises(VortexError) as outside:
        trace_source(program.source)
    error = outside.value
    with pytest.raises(Rejected) as inside:
        sandbox.trace_unchecked(program.source)
    verdict = inside.value
    assert verdict.reason == str(error)
    assert verdict.kind == ("resource" if isinstance(error, GraphError) else "type")
    assert verdict.line == program.line
    if isinstance(error, FlowTypeError):
        assert (verdict.op, verdict.shapes, verdict.hint) == (error.op, error.shapes, error.hint)


def test_the_jail_tells_the_author_what_a_trace_outside_says(sandbox: Sandbox) -> None:
    for program in wrong_programs():
        if program not in mla.PROGRAMS:
            check(sandbox, program)
    assert sandbox.restarts == 0


def test_flows_over_latents() -> None:
    with Sandbox(Limits(cpu_s=0.3, wall_s=2.0), geometry=Geometry.mla(16, 512, 64, 16)) as sandbox:
        for program in mla.PROGRAMS:
            check(sandbox, program)
