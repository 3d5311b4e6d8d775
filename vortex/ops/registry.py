"""The table of ops. `define` adds one; everything else looks up."""

from __future__ import annotations

from vortex.errors import FlowTypeError, unknown
from vortex.graph.model import Stage
from vortex.ops.base import OpDef

OPS: dict[tuple[Stage, str], OpDef] = {}


def define(op: OpDef) -> OpDef:
    """Adds `op` to the stages it names. Raises ValueError for a name that is taken."""
    for stage in op.stages:
        if (stage, op.name) in OPS:
            raise ValueError(f"vortex.{stage} already has an op {op.name}")
        OPS[stage, op.name] = op
    return op


def stage_ops(stage: Stage) -> dict[str, OpDef]:
    """Name -> op, for one stage, in the order of definition."""
    return {name: op for (where, name), op in OPS.items() if where is stage}


def no_such_op(stage: Stage, name: str) -> str:
    """Why `vortex.<stage>` has no op `name`, and what to use instead."""
    other = Stage.INDEXER if stage is Stage.CACHE else Stage.CACHE
    found = OPS.get((other, name))
    if found is not None:
        advice = found.elsewhere or f"Use it in forward_{other}"
        return f"{name} is an op of vortex.{other}, not of vortex.{stage}. {advice}"
    return f"vortex.{stage}: {unknown('op', name, stage_ops(stage))}"


def find_op(stage: Stage, name: str) -> OpDef:
    """The op `name` of a stage. Raises FlowTypeError with the nearest name or the other stage's way."""
    found = OPS.get((stage, name))
    if found is None:
        raise FlowTypeError(no_such_op(stage, name))
    return found
