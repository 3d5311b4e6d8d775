"""Draws constructor arguments for any op, by the kinds and names of its parameters."""

from __future__ import annotations

import random

from search_spaces.expr import Apply, Attrs
from search_spaces.motifs import RANK, scale, weight
from vortex.dims import Dim
from vortex.errors import FlowTypeError
from vortex.graph.model import Attr, Stage, TensorType
from vortex.ops import OpDef, find_op
from vortex.ops.params import AxesParam, AxisParam, FloatParam, IntParam, Param

_GROUPS = (2, 4, 8)


def draw_attrs(definition: OpDef, stage: Stage, x: TensorType | None, rng: random.Random) -> Attrs | None:
    """Arguments for an op whose first operand has type `x`; None where there is no way to draw them.

    They are drafts: the op's type rule decides whether they fit.
    """
    drawn: dict[str, Attr] = {}
    for param in definition.params:
        value = _draw(param, definition, stage, x, rng, drawn)
        if value is not None:
            drawn[param.name] = value
        elif param.required:
            return None
    try:
        return tuple(definition.bind((), drawn, stage).items())
    except FlowTypeError:
        return None


def perturbed(
    expr: Apply, stage: Stage, x: TensorType | None, rng: random.Random
) -> tuple[str, Apply] | None:
    """The op with one argument changed, and that argument's name; None where nothing can change."""
    definition = find_op(stage, expr.op)
    movable = [
        p for p in definition.params if not p.ignored and not (isinstance(p, IntParam) and p.name == "lead")
    ]
    if not movable:
        return None
    param = rng.choice(movable)
    attrs = dict(expr.attrs)
    value = _draw(param, definition, stage, x, rng, attrs)
    if value is None:
        return None
    if isinstance(param, FloatParam) and isinstance(attrs[param.name], float) and rng.random() < 0.7:
        value = _near(float(attrs[param.name] or 0.0), param, rng)  # type: ignore[arg-type]
    try:
        bound = definition.bind((), {**attrs, param.name: value}, stage)
    except FlowTypeError:
        return None
    changed = Apply(expr.op, tuple(bound.items()), expr.operands)
    return (param.name, changed) if changed != expr else None


def _near(value: float, param: Param, rng: random.Random) -> float:
    moved = value * rng.choice((0.5, 0.7, 1.4, 2.0)) if value else weight(rng) * rng.choice((-1, 1))
    return float(f"{moved:.3g}")


def _draw(
    param: Param,
    definition: OpDef,
    stage: Stage,
    x: TensorType | None,
    rng: random.Random,
    drawn: dict[str, Attr],
) -> Attr:
    if param.ignored:
        return None
    if isinstance(param, AxisParam):
        choices = (param.choices or {}).get(stage, (1, 2))
        return rng.choice(choices)
    if isinstance(param, AxesParam):
        return rng.choice(((1,), (2,), (1, 2)))
    if isinstance(param, FloatParam):
        return _number(param, definition, rng)
    if isinstance(param, IntParam) and x is not None:
        return _size(param, x, rng, drawn)
    return None


def _number(param: FloatParam, definition: OpDef, rng: random.Random) -> float:
    if param.name == "scale":
        return scale(rng)
    if param.name in ("alpha", "beta") and len(definition.operands) > 1:
        return weight(rng) * rng.choice((1, 1, 1, -1))
    if param.name == "beta":
        return rng.choice((-2.0, -1.0, -0.5, 0.25, 0.5, 1.0, 1.0, 2.0))
    if param.name == "alpha":
        return rng.choice((0.0, 0.0, 0.0, 0.1, 0.5, 1.0, -0.5))
    return rng.choice((0.0, 0.05, 0.1, 0.5, 1.0))


def _size(param: IntParam, x: TensorType, rng: random.Random, drawn: dict[str, Attr]) -> Attr:
    """Sizes come from the operand's: groups of its elements, parts of its axes, its elements dealt anew."""
    if param.name == "k":
        return rng.choice(_GROUPS)
    if param.name == "rows":
        part = rng.choice(_GROUPS)
        return x.rows * part if rng.random() < 0.5 else x.rows // part
    if param.name == "cols" and "rows" in drawn:
        rows = drawn["rows"]
        return (x.rows * x.cols) // rows if isinstance(rows, int) and Dim.of(rows).hint > 0 else None
    if param.name in ("start", "end"):
        if "kv_lora_rank" in x.cols.expr.symbols() and rng.random() < 0.5:
            return RANK  # where the content of a latent ends
        eighths = rng.randint(0, 8)
        return x.cols * eighths // 8
    return None
