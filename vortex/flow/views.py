"""The op classes that flow files import: one thin class per op and stage, made from its definition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from vortex.abs import ContextBase
from vortex.dims import Dim, recording
from vortex.errors import FlowTypeError, shown
from vortex.flow.vtensor import Chosen, Opaque, Output, vTensor
from vortex.flow.where import user_line
from vortex.graph.model import Stage
from vortex.ops.base import CONSTANTS_HINT, OpDef
from vortex.ops.params import IntParam
from vortex.ops.registry import NoSuchOpError, stage_ops


def _freeze(value: object, depth: int = 5) -> None:
    """Records that the graph relies on the sizes in an argument that is kept as plain numbers."""
    if isinstance(value, Dim):
        int(value)
    elif depth and isinstance(value, Mapping):
        for item in (*value.keys(), *value.values()):
            _freeze(item, depth - 1)
    elif depth and isinstance(value, (list, tuple)):
        for item in value:
            _freeze(item, depth - 1)


class Op:
    """An op instance: created in a flow's `__init__`, called once per trace."""

    definition: ClassVar[OpDef]
    stage: ClassVar[Stage]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        named = dict(zip((param.name for param in self.definition.params), args, strict=False)) | kwargs
        for param in self.definition.params:
            if not isinstance(param, IntParam):
                _freeze(named.get(param.name))
        with recording(None):
            if any(isinstance(value, vTensor) for value in (*args, *kwargs.values())):
                raise self._error(
                    "the constructor takes no tensors",
                    f"Create the op in __init__, and call it here as {self._call_form()}",
                )
            try:
                self.attrs = self.definition.bind(args, kwargs, self.stage)
            except FlowTypeError as error:
                raise error.at(line=user_line()) from None

    def __repr__(self) -> str:
        return (
            f"{self.definition.name}({', '.join(f'{name}={value!r}' for name, value in self.attrs.items())})"
        )

    def _operand(self, value: object, name: str) -> vTensor:
        if isinstance(value, Output):
            raise self._error(f"o cannot be the operand {name}", _CLAIMS)
        if self.definition.takes_selections:
            return self._selection(value, name)
        if isinstance(value, Chosen) or (isinstance(value, tuple) and value and isinstance(value[0], Chosen)):
            raise self._error(f"the operand {name} is a selection of TopK", "Give both selections to Union()")
        if not isinstance(value, vTensor):
            given, hint = self._not_a_tensor(value)
            raise self._error(f"the operand {name} must be a tensor of the flow, got {given}", hint)
        if value._trace.over:
            raise self._error(
                f"the operand {name} is kept from an earlier trace of the flow",
                "Keep no tensors on self: compute them anew in each call",
            )
        if value._stage is not value._trace.stage:
            raise self._error(
                f"the operand {name} belongs to forward_{value._stage}",
                "Stages exchange values through cache fields only",
            )
        return value

    def _not_a_tensor(self, value: object) -> tuple[str, str]:
        """What `value` is, and what to write instead."""
        if isinstance(value, Op) or (isinstance(value, type) and issubclass(value, Op)):
            op = f"the op {value.definition.name}"
            return op, "Create the op in __init__, and give the result of its call"
        if isinstance(value, (int, float)):
            return repr(value), "Numbers go into constructors, such as Add_Mul(alpha=..., beta=...)"
        if value is None or isinstance(value, (Opaque, str)):
            return shown(value), f"Call it as {self._call_form()}"
        return f"a {type(value).__name__}", "Constants are operands of indexer ops as Parameter(value)"

    def _selection(self, value: object, name: str) -> vTensor:
        """The selection that a pair (block_table, seqlens) stands for."""
        pair = value if isinstance(value, (tuple, list)) else ()
        if [getattr(part, "_part", "") for part in pair] != ["block_table", "seqlens"]:
            raise self._error(
                f"the operand {name} must be a pair (block_table, seqlens)",
                "Give it what TopK(k)(score) returned",
            )
        if pair[0]._ref != pair[1]._ref:
            raise self._error(
                f"the block_table and seqlens of {name} are of different TopK ops",
                "Give it what one TopK(k)(score) returned",
            )
        first: vTensor = pair[0]
        return first

    def _check_stage(self, operands: tuple[Any, ...]) -> None:
        here = next((v._trace.stage for v in _leaves(operands) if isinstance(v, vTensor)), self.stage)
        if here is not self.stage:
            other = f"Import the one of vortex.{here}"
            hint = other if here in self.definition.stages else self.definition.elsewhere
            raise self._error(f"is an op of vortex.{self.stage}, called in forward_{here}", hint)

    def _tensors(self, operands: tuple[Any, ...], **context: Any) -> tuple[Any, ...]:
        """The operands of a call without a `loc` and `ctx` that were passed by position; `context` are those
        that were passed by name. What is missing is noted in the trace."""
        passed = {name for name, value in context.items() if value is not None}
        while operands and isinstance(operands[-1], (ContextBase, Opaque)):
            passed.add(repr(operands[-1]) if isinstance(operands[-1], Opaque) else "ctx")
            operands = operands[:-1]
        missing = tuple(name for name in context if name not in passed)
        trace = next((v._trace for v in _leaves(operands) if isinstance(v, vTensor)), None)
        if trace is not None and missing:
            trace.unpassed.setdefault(missing, []).append(f"{self.definition.name} (line {user_line()})")
        return operands

    def _field(self, value: object, what: str) -> str:
        if not isinstance(value, vTensor) or value._field is None:
            raise self._error(f"{what} must be a cache field, got {shown(value)}", 'Write cache["name"]')
        self._operand(value, what)
        return value._field

    def _error(self, message: str, hint: str | None = None) -> FlowTypeError:
        return FlowTypeError(message, op=self.definition.name, line=user_line(), hint=hint)

    def _count(self, given: tuple[Any, ...], names: list[str]) -> FlowTypeError:
        last, hint = given[-1] if given else None, f"Call it as {self._call_form()}"
        if isinstance(last, Output) and not self.definition.claims_output:
            hint = _CLAIMS
        elif isinstance(last, vTensor) and last._field and self.stage is Stage.INDEXER:
            hint = "Write fields in forward_cache, or with Save()(x, field, ctx=ctx)"
        return self._error(
            f"takes {len(names)} argument{'s' * (len(names) != 1)} ({', '.join(names)}), got {len(given)}",
            hint,
        )

    def _no_keywords(self, keywords: dict[str, Any]) -> None:
        for name in keywords:
            if name in [param.name for param in self.definition.params]:
                raise self._error(
                    f"{name} is given in the call", f"Write it in __init__: {self.definition.signature}"
                )
            raise self._error(f"takes no argument {name!r}", f"Call it as {self._call_form()}")

    def _call_form(self) -> str:
        raise NotImplementedError


_CLAIMS = "o goes to the op that ends the flow, as its last argument: topK, approxTopK or Union"


def _leaves(values: tuple[Any, ...]) -> list[Any]:
    """The values, pairs taken apart."""
    return [leaf for value in values for leaf in (value if isinstance(value, (tuple, list)) else (value,))]


class IndexerOp(Op):
    """`op(x, ..., ctx=ctx)`; an op that claims the output takes `o` last."""

    stage = Stage.INDEXER

    def __call__(self, *operands: Any, loc: Any = None, ctx: Any = None, **keywords: Any) -> Any:
        with recording(None):
            self._check_stage(operands)
            self._no_keywords(keywords)
            return self._record(self._tensors(operands, ctx=ctx))

    def _record(self, operands: tuple[Any, ...]) -> Any:
        op = self.definition
        if op.constant:
            raise self._error(
                "is not called", "Give the instance to an op as an operand: gemm(q, self.weight, ctx=ctx)"
            )
        names = [*op.operands, *self._extra()]
        if len(operands) != len(names):
            raise self._count(operands, names)
        traces = [value._trace for value in _leaves(operands) if isinstance(value, vTensor)]
        if not traces and any(isinstance(value, IndexerOp) for value in operands):
            raise self._error("combines constants only", CONSTANTS_HINT)
        operands = tuple(
            traces[0].constant(value) if isinstance(value, IndexerOp) else value for value in operands
        )
        tensors = [self._operand(value, name) for value, name in zip(operands, op.operands, strict=False)]
        output = None
        if op.claims_output:
            if not isinstance(operands[-1], Output):
                raise self._error(
                    f"must be given o, got {shown(operands[-1])}", f"Call it as {self._call_form()}"
                )
        elif op.writes_field:
            output = self._field(operands[-1], "the field to write")
        result: vTensor = traces[0].record(self, self.stage, op, self.attrs, tensors, output)
        if op.selects:
            return Chosen(result, "block_table"), Chosen(result, "seqlens")
        return operands[-1] if op.claims_output else result

    def _extra(self) -> list[str]:
        """What is passed after the operands."""
        return ["o"] if self.definition.claims_output else ["field"] if self.definition.writes_field else []

    def _call_form(self) -> str:
        operands = self.definition.operands
        if self.definition.takes_selections:
            operands = tuple(f"(block_table_{at}, seqlens_{at})" for at in range(len(operands)))
        return f"op({', '.join([*operands, *self._extra(), 'ctx=ctx'])})"


class CacheOp(Op):
    """`op(x, ..., output, loc=loc, ctx=ctx)`; without an output the result is an intermediate."""

    stage = Stage.CACHE

    def __call__(
        self, *operands: Any, output: Any = None, loc: Any = None, ctx: Any = None, **keywords: Any
    ) -> Any:
        with recording(None):
            self._check_stage((*operands, output))
            self._no_keywords(keywords)
            return self._record(self._tensors(operands, loc=loc, ctx=ctx), output)

    def _record(self, operands: tuple[Any, ...], output: Any) -> Any:
        op = self.definition
        if len(operands) == len(op.operands) + 1:
            if output is not None:
                raise self._error("the output is given twice", f"Call it as {self._call_form()}")
            operands, output = operands[:-1], operands[-1]
        if len(operands) != len(op.operands):
            raise self._count(operands, [*op.operands, self._target()])
        tensors = [self._operand(value, name) for value, name in zip(operands, op.operands, strict=True)]
        if output is None and op.writes_field:
            raise self._error("needs the field that it writes", f"Call it as {self._call_form()}")
        field = self._field(output, "the output") if output is not None else None
        traces = [value._trace for value in (*operands, output) if isinstance(value, vTensor)]
        return traces[0].record(self, self.stage, op, self.attrs, tensors, field)

    def _target(self) -> str:
        return "dest" if self.definition.writes_field else "output"

    def _call_form(self) -> str:
        return f"op({', '.join([*self.definition.operands, self._target(), 'loc=loc', 'ctx=ctx'])})"


def views(stage: Stage) -> dict[str, type[Op]]:
    """Name -> class, for all ops of a stage."""
    base: type[Op] = IndexerOp if stage is Stage.INDEXER else CacheOp
    made = {}
    for name, op in stage_ops(stage).items():
        members = {"definition": op, "__doc__": f"{op.signature}: {op.doc}", "__module__": f"vortex.{stage}"}
        made[name] = type(name, (base,), members)
    return made


def missing(stage: Stage, name: str) -> AttributeError:
    """The error for `vortex.<stage>.name`."""
    if name.startswith("_"):
        return AttributeError(f"module 'vortex.{stage}' has no attribute {name!r}")
    error = NoSuchOpError(stage, name)
    error.op, error.line = name, user_line()
    return error
