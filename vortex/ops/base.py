"""What an op is: one `OpDef` holds everything that the language, the targets, the cost model and the docs
know of it.

Semantics see tensors whose last two axes are the inner dims. A lane-wise op treats every entry of the
leading axes alike, so one function serves all layouts. An op over blocks has a reference for one row and a
vectorised form for padded rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

from vortex.dims import Dim
from vortex.errors import FlowTypeError, unknown
from vortex.graph.model import Attr, Format, Stage, TensorType
from vortex.ops.emit import OUTSIDE, Emit
from vortex.ops.params import Param
from vortex.weights import Weight

if TYPE_CHECKING:
    import torch


LARGEST_DIM = 2**31
CONSTANTS_HINT = "Compute with constants in Python, before they become a Parameter"


class Args:
    """The coerced constructor arguments of one op, and (for semantics) its inferred result type and the
    model's layer that it runs in."""

    def __init__(self, values: Mapping[str, Attr], type: TensorType | None = None, layer: int = 0) -> None:
        self.values, self._type, self.layer = values, type, layer

    def at_layer(self, layer: int) -> Args:
        return Args(self.values, self._type, layer)

    def integer(self, name: str) -> int:
        value = self.values[name]
        assert isinstance(value, int)
        return value

    def dim(self, name: str) -> Dim:
        return Dim.of(self.integer(name))

    def number(self, name: str) -> float:
        value = self.values[name]
        assert isinstance(value, (int, float))
        return float(value)

    def integers(self, name: str) -> tuple[int, ...]:
        value = self.values[name]
        assert isinstance(value, tuple)
        return tuple(item for item in value if isinstance(item, int))

    def weight(self, name: str) -> Weight | None:
        value = self.values[name]
        assert value is None or isinstance(value, Weight)
        return value

    def text(self, name: str) -> str:
        value = self.values[name]
        assert isinstance(value, str)
        return value

    @property
    def type(self) -> TensorType:
        assert self._type is not None
        return self._type


@dataclass(frozen=True)
class Row:
    """One row for the reference semantics: blocks, reserved first and last blocks, and how many to select
    between them."""

    blocks: int
    bos: int = 0
    eos: int = 0
    k: int = 0

    @property
    def span(self) -> slice:
        """The scored blocks, [bos, n - eos)."""
        return slice(self.bos, max(self.bos, self.blocks - self.eos))


@dataclass(frozen=True)
class Call:
    """One use of an op, for its type rule."""

    op: OpDef
    stage: Stage
    args: Args
    types: tuple[TensorType, ...]
    output: TensorType | None = None

    @property
    def x(self) -> TensorType:
        return self.types[0]

    @property
    def y(self) -> TensorType:
        return self.types[1]

    def like(self, rows: int, cols: int) -> TensorType:
        """A result of the given inner dims: RAGGED iff an operand has an axis of blocks, otherwise
        BATCHED."""
        if self.stage is Stage.CACHE:
            found = Format.PAGED
        else:
            found = Format.RAGGED if any(t.has_blocks for t in self.types) else Format.BATCHED
        return TensorType(found, Dim.of(rows), Dim.of(cols))

    def shapes(self) -> tuple[str, ...]:
        return tuple(
            f"{name} {t.text(self.stage)}" for name, t in zip(self.op.operands, self.types, strict=False)
        )

    def fail(self, message: str, hint: str | None = None) -> NoReturn:
        raise FlowTypeError(message, op=self.op.name, shapes=self.shapes(), hint=hint)


TypeRule = Callable[[Call], TensorType]
Reference = Callable[[Args, "tuple[torch.Tensor, ...]", Row], "torch.Tensor"]
Vectorised = Callable[[Args, "tuple[torch.Tensor, ...]", "torch.Tensor"], "torch.Tensor"]
Flops = Callable[[Args, tuple[TensorType, ...], TensorType], int]
Normal = Callable[[Mapping[str, Attr]], Mapping[str, Attr]]


def unchanged(attrs: Mapping[str, Attr]) -> Mapping[str, Attr]:
    return attrs


def one_per_element(args: Args, types: tuple[TensorType, ...], out: TensorType) -> int:
    return out.numel


@dataclass(frozen=True)
class Example:
    """A constructor call over the operands q [1, group, head_dim], k (the field), c [S, 1, head_dim] and s
    [S, 1, 1]; the result's shape in the docs is inferred, not written."""

    args: str
    operands: tuple[str, ...]


@dataclass(frozen=True)
class OpDef:
    """One op.

    reference(args, inputs, row): float32 tensors of one row, BATCHED and PARAMETER `[1, r, c]`, others
    `[S, r, c]`.
    vectorised(args, inputs, valid): BATCHED `[R, 1, r, c]`, PARAMETER `[1, 1, r, c]`, others `[R, N, r, c]`;
    `valid [R, N]` marks blocks in [bos, n - eos). In the cache program both see `[blocks, r, c]`. The
    reference of an op that selects or claims the output returns the selected positions; targets bring their
    own selection. flops: per entry of the result's leading axis (of a reduction over blocks: per block).
    """

    name: str
    doc: str
    stages: tuple[Stage, ...]
    operands: tuple[str, ...]
    infer: TypeRule
    reference: Reference
    example: Example
    params: tuple[Param, ...] = ()
    vectorised: Vectorised | None = None
    flops: Flops = one_per_element
    triton: Emit = OUTSIDE
    swap: Normal | None = None  # commutative: the attributes after the two operands change places
    claims_output: bool = False
    selects: bool = False  # its result is a selection of blocks, which only a Union takes
    takes_selections: bool = False
    constant: bool = False  # not called: the instance itself is the operand
    per_layer: bool = False  # its values differ between the layers of a model
    writes_field: bool = False  # must be given a field to write
    side_effect: bool = False  # kept by dead-code removal
    across_blocks: Callable[[Args], bool] = lambda args: False  # needs a whole row at once: not fusable
    elsewhere: str = ""  # what to do in the stage that lacks this op

    def run(self, args: Args, inputs: tuple[torch.Tensor, ...], valid: torch.Tensor) -> torch.Tensor:
        """The vectorised semantics."""
        if self.vectorised is not None:
            return self.vectorised(args, inputs, valid)
        return self.reference(args, inputs, Row(0))

    def bind(
        self, positional: Sequence[object], keywords: Mapping[str, object], stage: Stage
    ) -> dict[str, Attr]:
        """Constructor arguments -> coerced attributes, defaults filled in. Raises FlowTypeError."""
        names, write = [param.name for param in self.params], f"Write {self.signature}"
        if len(positional) > len(names):
            most = f"at most {len(names)}" if names else "no"
            plan = "; how many blocks it selects is the plan's, topk_val" if self.claims_output else ""
            raise self.error(f"takes {most} constructor arguments, got {len(positional)}", write + plan)
        given = dict(zip(names, positional, strict=False))
        for name, value in keywords.items():
            if name not in names:
                raise self.error(unknown("constructor argument", name, names), write)
            if name in given:
                raise self.error(f"constructor argument {name!r} is given twice", write)
            given[name] = value
        bound: dict[str, Attr] = {}
        for param in self.params:
            if param.name not in given and param.required:
                raise self.error(f"needs the constructor argument {param.name!r}", write)
            try:
                bound[param.name] = param.coerce(given.get(param.name, param.default), stage)
            except FlowTypeError as error:
                raise error.at(op=self.name) from None
        return bound

    def result(
        self,
        stage: Stage,
        attrs: Mapping[str, Attr],
        types: tuple[TensorType, ...],
        output: TensorType | None = None,
    ) -> TensorType:
        """The type of the result. `output` is the type of the field to be written. Raises FlowTypeError."""
        call = Call(self, stage, Args(attrs), types, output)
        if len(types) != len(self.operands):
            wanted = ", ".join(self.operands) or "none"
            call.fail(f"takes {len(self.operands)} operands ({wanted}), got {len(types)}")
        for t in types:
            if (t.format is Format.SELECTION) != self.takes_selections:
                wanted = "selections, results of TopK" if self.takes_selections else "tensors, not selections"
                call.fail(f"takes {wanted}", "Union()(TopK(k0)(s0), TopK(k1)(s1), o) joins two selections")
        if types and all(t.format is Format.PARAMETER for t in types):
            call.fail("combines constants only", CONSTANTS_HINT)
        found = self.infer(call)
        if max(found.rows.hint, found.cols.hint) > LARGEST_DIM:
            call.fail("the result is larger than any real size", "Reduce before combining")
        if output is not None and not (found.rows.same(output.rows) and found.cols.same(output.cols)):
            method = "create_request_cache" if output.format is Format.SLOTTED else "create_cache"
            hint = f"Declare the field as ({found.rows}, {found.cols}) in {method}, or reduce first"
            if "group" in found.rows.expr.symbols() | found.cols.expr.symbols():
                hint = f"Reduce it to ({output.rows}, {output.cols}) first"
            call.fail(f"the result {found.text(stage)} does not fit the field {output.text(stage)}", hint)
        return found

    def error(self, message: str, hint: str | None = None) -> FlowTypeError:
        return FlowTypeError(message, op=self.name, hint=hint)

    @property
    def signature(self) -> str:
        return f"{self.name}({', '.join(str(param) for param in self.params)})"

    def named(self, name: str, **changes: Any) -> OpDef:
        return replace(self, name=name, **changes)


def lanewise(function: Callable[..., torch.Tensor]) -> Reference:
    """Semantics `function(args, *inputs)` over the last two axes, whatever the leading ones."""

    def run(args: Args, inputs: tuple[torch.Tensor, ...], row: Row) -> torch.Tensor:
        return function(args, *inputs)

    return run
