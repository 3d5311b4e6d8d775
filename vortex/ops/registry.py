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


class NoSuchOpError(FlowTypeError, AttributeError):
    """A stage has no op `name`; the error has the nearest name, or what to use instead in this stage."""

    def __init__(self, stage: Stage, name: str) -> None:
        other = Stage.INDEXER if stage is Stage.CACHE else Stage.CACHE
        found = OPS.get((other, name))
        if found is None:
            super().__init__(f"vortex.{stage}: {unknown('op', name, stage_ops(stage))}")
        else:
            message = f"{name} is an op of vortex.{other}, not of vortex.{stage}"
            super().__init__(message, hint=found.elsewhere or f"Use it in forward_{other}")


def find_op(stage: Stage, name: str) -> OpDef:
    """The op `name` of a stage. Raises NoSuchOpError."""
    found = OPS.get((stage, name))
    if found is None:
        raise NoSuchOpError(stage, name)
    return found
