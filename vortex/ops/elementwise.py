"""Element-wise ops: one operand, or two that broadcast."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from vortex.graph.model import Attr, TensorType
from vortex.ops.base import Args, Example, OpDef, lanewise, unchanged
from vortex.ops.emit import number, over_each, ramp
from vortex.ops.params import FloatParam
from vortex.ops.registry import define
from vortex.ops.rules import BOTH, broadcast, same_as_x

if TYPE_CHECKING:
    import torch

FALSE = -1e30
"""What a Where op gives where the comparison is false: finite, so that sums of it stay finite."""


def _ramp(args: Args, x: torch.Tensor) -> torch.Tensor:
    return args.number("beta") * x + args.number("alpha")


def _transcendental(args: Args, types: tuple[TensorType, ...], out: TensorType) -> int:
    return 4 * out.numel


def _swap_weights(attrs: Mapping[str, Attr]) -> Mapping[str, Attr]:
    return {**attrs, "alpha": attrs["beta"], "beta": attrs["alpha"]}


def _choose(condition: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.where(condition, 0.0, FALSE)


def _relu(args: Args, x: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.where(x >= args.number("alpha"), x, args.number("beta"))


def _unary(
    name: str,
    doc: str,
    function: Callable[[Args, torch.Tensor], torch.Tensor],
    beta: float,
    triton: Callable[[Args], str],
) -> None:
    define(
        OpDef(
            name=name,
            doc=doc,
            stages=BOTH,
            params=(FloatParam("alpha", 0.0), FloatParam("beta", beta)),
            operands=("x",),
            infer=same_as_x,
            reference=lanewise(function),
            triton=over_each(triton, exact=lambda args: name == "Relu" and args.number("beta") == 0),
            flops=_transcendental,
            example=Example("beta=-1.0" if name in ("Sigmoid", "Silu") else "", ("c",)),
        )
    )


def _binary(
    name: str,
    doc: str,
    function: Callable[[Args, torch.Tensor, torch.Tensor], torch.Tensor],
    triton: Callable[[Args], str],
) -> None:
    used = name == "Add"
    define(
        OpDef(
            name=name,
            doc=doc,
            stages=BOTH,
            params=tuple(FloatParam(param, 1.0, ignored=not used) for param in ("alpha", "beta")),
            operands=("x", "y"),
            infer=broadcast,
            reference=lanewise(function),
            triton=over_each(triton, exact=lambda args: name in ("Maximum", "Minimum")),
            swap=_swap_weights if used else unchanged,
            example=Example("alpha=1.0, beta=-1.0" if used else "", ("q", "c")),
        )
    )


def _where(name: str, sign: str, compare: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    define(
        OpDef(
            name=name,
            doc=f"0 where x {sign} y, -1e30 (finite) elsewhere. Add it to a score to exclude blocks.",
            stages=BOTH,
            operands=("x", "y"),
            infer=broadcast,
            reference=lanewise(lambda args, x, y: _choose(compare(x, y))),
            triton=over_each(lambda args: f"tl.where({{0}} {sign} {{1}}, 0.0, {number(FALSE)})"),
            swap=unchanged if sign in ("==", "!=") else None,
            example=Example("", ("q", "c")),
        )
    )


def _sum(args: Args) -> str:
    alpha, beta = args.number("alpha"), args.number("beta")
    first = "{0}" if alpha == 1 else f"{{0}} * {number(alpha)}"
    return f"{first} + {{1}}" if beta == 1 else f"{first} + {{1}} * {number(beta)}"


_binary(
    "Maximum",
    "The larger of x and y. alpha and beta are ignored.",
    lambda args, x, y: x.maximum(y),
    lambda args: "maximum({0}, {1})",
)
_binary(
    "Minimum",
    "The smaller of x and y. alpha and beta are ignored.",
    lambda args, x, y: x.minimum(y),
    lambda args: "minimum({0}, {1})",
)
_binary("Multiply", "x y. alpha and beta are ignored.", lambda args, x, y: x * y, lambda args: "{0} * {1}")
_binary(
    "Add",
    "alpha x + beta y.",
    lambda args, x, y: args.number("alpha") * x + args.number("beta") * y,
    _sum,
)

_where("WhereEqual", "==", lambda x, y: x == y)
_where("WhereNotEqual", "!=", lambda x, y: x != y)
_where("WhereGreater", ">", lambda x, y: x > y)
_where("WhereGreaterEqual", ">=", lambda x, y: x >= y)
_where("WhereLess", "<", lambda x, y: x < y)
_where("WhereLessEqual", "<=", lambda x, y: x <= y)

_unary(
    "Relu",
    "x where x >= alpha, beta elsewhere.",
    _relu,
    0.0,
    lambda args: f"tl.where({{0}} >= {number(args.number('alpha'))}, {{0}}, {number(args.number('beta'))})",
)
_unary(
    "Sigmoid",
    "1 / (1 + exp(beta x + alpha)); the logistic function is beta=-1.",
    lambda args, x: 1.0 / (1.0 + _ramp(args, x).exp()),
    0.0,
    lambda args: f"tl.div_rn(1.0, 1.0 + tl.exp({ramp(args, '{0}')}))",
)
_unary(
    "Silu",
    "x / (1 + exp(beta x + alpha)); the usual SiLU is beta=-1.",
    lambda args, x: x / (1.0 + _ramp(args, x).exp()),
    0.0,
    lambda args: f"tl.div_rn({{0}}, 1.0 + tl.exp({ramp(args, '{0}')}))",
)
_unary("Add_Mul", "beta x + alpha.", _ramp, 1.0, lambda args: ramp(args, "{0}"))
_unary(
    "Abs",
    "|beta x + alpha|.",
    lambda args, x: _ramp(args, x).abs(),
    1.0,
    lambda args: f"tl.abs({ramp(args, '{0}')})",
)
_unary(
    "Log",
    "ln(beta x + alpha), without clamping.",
    lambda args, x: _ramp(args, x).log(),
    1.0,
    lambda args: f"tl.log({ramp(args, '{0}')})",
)
_unary(
    "Exp",
    "exp(beta x + alpha), without clamping.",
    lambda args, x: _ramp(args, x).exp(),
    1.0,
    lambda args: f"tl.exp({ramp(args, '{0}')})",
)
