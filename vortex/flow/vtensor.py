"""The tensors that a flow's methods see while they are traced: types without values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from vortex.dims import Dim
from vortex.errors import FlowTypeError
from vortex.flow.advice import op_for
from vortex.flow.where import user_line
from vortex.graph.model import Format, Ref, Stage, TensorType

if TYPE_CHECKING:
    from vortex.flow.trace import Trace


class Opaque:
    """Something that a flow only passes on: `loc`."""

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "_name", name)

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        raise FlowTypeError(
            f"{self._name}.{attribute} cannot be used: {self._name} is only passed on to ops",
            line=user_line(),
        )


class vTensor:
    """A tensor of a traced flow. Only its metadata can be asked for."""

    def __init__(
        self,
        trace: Trace,
        stage: Stage,
        name: str,
        type: TensorType,
        ref: Ref | None,
        field: str | None = None,
    ):
        self._trace, self._stage, self._name, self._type = trace, stage, name, type
        self._ref, self._field = ref, field

    @property
    def shape(self) -> tuple[Dim, Dim, Dim]:
        """(0, rows, cols): how many blocks there will be is not known."""
        return Dim(0), self._type.rows, self._type.cols

    @property
    def format(self) -> Format:
        return self._type.format

    @property
    def dtype(self) -> Any:
        from vortex.flow.torch_standin import dtype

        return dtype("bfloat16")

    @property
    def device(self) -> Any:
        from vortex.flow.torch_standin import device

        return device("cpu")

    @property
    def ndim(self) -> int:
        return 3

    def dim(self) -> int:
        return 3

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def numel(self) -> int:
        return self.shape[0] * self.shape[1] * self.shape[2]

    def needs_padding(self) -> bool:
        """Whether an inner dim is no power of two, so that a kernel's tile has unused lanes."""
        return any(size.hint & (size.hint - 1) for size in self.shape[1:])

    def __repr__(self) -> str:
        return f"{self._name} {self._type.text(self._stage)}"

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        self._refuse(f".{attribute}", attribute)

    def _refuse(self, shown: str, advice: str) -> NoReturn:
        raise FlowTypeError(
            f"{shown} cannot be used on a tensor of a flow",
            line=user_line(),
            shapes=(repr(self),),
            hint=op_for(advice),
        )

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", str(func))
        raise FlowTypeError(
            f"torch.{name} cannot be used in a flow: tensors are metadata while a flow is traced",
            line=user_line(),
            hint=op_for(name),
        )

    def __setattr__(self, attribute: str, value: object) -> None:
        if not attribute.startswith("_"):
            self._refuse(f"assigning .{attribute}", attribute)
        object.__setattr__(self, attribute, value)

    def __bool__(self) -> bool:
        self._refuse("a truth value", "item")

    def __float__(self) -> float:
        self._refuse("float()", "item")

    def __int__(self) -> int:
        self._refuse("int()", "item")

    def __len__(self) -> int:
        self._refuse("len()", "item")

    def __iter__(self) -> Iterator[Any]:
        self._refuse("iteration", "[]")

    __hash__ = object.__hash__


class Output(vTensor):
    """`o`, which exactly one op claims."""


class Chosen(vTensor):
    """One of the two tensors that TopK returns: `block_table` or `seqlens`. Only Union takes them, as a
    pair."""

    def __init__(self, selection: vTensor, part: str) -> None:
        super().__init__(
            selection._trace, selection._stage, f"{part} of {selection._name}", selection._type, selection._ref
        )
        self._part = part


def _refusing(operator: str) -> Callable[..., Any]:
    def method(self: vTensor, *others: object) -> Any:
        self._refuse(f"the operator {operator}" if operator != "[]" else "indexing", operator)

    return method


_REFLECTED = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "matmul": "@",
    "truediv": "/",
    "floordiv": "/",
    "pow": "**",
    "mod": "%",
}
_OPERATORS = {
    **{f"{way}{name}": sign for name, sign in _REFLECTED.items() for way in ("", "r", "i")},
    **{"neg": "neg", "abs": "abs", "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="},
    **{"getitem": "[]", "setitem": "[]", "and": "&", "or": "|", "invert": "~"},
}
for _name, _operator in _OPERATORS.items():
    setattr(vTensor, f"__{_name}__", _refusing(_operator))
