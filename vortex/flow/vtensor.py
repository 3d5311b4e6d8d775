"""The tensors that a flow's methods see while they are traced: types without values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from vortex.dims import Dim
from vortex.errors import FlowTypeError
from vortex.flow.advice import op_for
from vortex.flow.where import user_line
from vortex.graph.model import Format, Ref, Stage, TensorType

if TYPE_CHECKING:
    from vortex.flow.trace import Trace


class Opaque:
    """Something that a flow only passes on to its ops: `loc` and `ctx`."""

    def __init__(self, name: str, hint: str) -> None:
        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_hint", hint)

    def __repr__(self) -> str:
        return str(self._name)

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        self._refuse(f"{self._name}.{attribute}")

    def __setattr__(self, attribute: str, value: object) -> None:
        self._refuse(f"{self._name}.{attribute}")

    def _refuse(self, shown: str, advice: str = "") -> NoReturn:
        raise FlowTypeError(
            f"{shown} cannot be used: {self._name} is only passed on to ops",
            line=user_line(),
            hint=self._hint,
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
        return any((size & (size - 1)) != 0 for size in self.shape[1:])

    def __repr__(self) -> str:
        return f"{self._name} {self._type.text(self._stage)}"

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        self._refuse(f".{attribute}", attribute)

    def _refuse(self, shown: str, advice: str) -> NoReturn:
        raise FlowTypeError(
            f"{shown} is not defined for tensors of a flow",
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
            shapes=tensors_in((*args, *(kwargs or {}).values())),
            hint=op_for(name),
        )

    def __setattr__(self, attribute: str, value: object) -> None:
        if not attribute.startswith("_"):
            self._refuse(f"assignment to .{attribute}", "=")
        object.__setattr__(self, attribute, value)

    def __bool__(self) -> bool:
        self._refuse("a truth value", "item")

    def __float__(self) -> float:
        self._refuse("float()", "item")

    def __int__(self) -> int:
        self._refuse("int()", "item")

    def __index__(self) -> int:
        self._refuse("int()", "item")

    def __len__(self) -> int:
        self._refuse("len()", "len")

    def __iter__(self) -> Iterator[Any]:
        self._refuse("iteration", "iter")

    def __call__(self, *arguments: Any, **keywords: Any) -> NoReturn:
        self._refuse("a call", "()")

    def __format__(self, specification: str) -> str:
        if specification:
            self._refuse("a number format", "item")
        return repr(self)

    __hash__ = object.__hash__


class Output(vTensor):
    """`o`, which exactly one op claims."""


class Chosen(vTensor):
    """One of the two tensors that TopK returns: `block_table` or `seqlens`. Only Union takes them, as a
    pair."""

    def __init__(self, selection: vTensor, part: str) -> None:
        super().__init__(
            selection._trace,
            selection._stage,
            f"{part} of {selection._name}",
            selection._type,
            selection._ref,
        )
        self._part = part


def tensors_in(values: Iterable[object]) -> tuple[str, ...]:
    """The tensors of a flow among `values`, with their shapes."""
    leaves = (leaf for value in values for leaf in (value if isinstance(value, (tuple, list)) else (value,)))
    return tuple(repr(leaf) for leaf in leaves if isinstance(leaf, vTensor))


def _refusing(shown: str, advice: str) -> Callable[..., Any]:
    def method(self: vTensor | Opaque, *others: object) -> Any:
        self._refuse(shown, advice)

    return method


_BINARY = {
    "add": "+", "sub": "-", "mul": "*", "matmul": "@", "truediv": "/", "floordiv": "//", "pow": "**",
    "mod": "%", "and": "&", "or": "|", "xor": "^", "lshift": "<<", "rshift": ">>",
}  # fmt: skip
_COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_OPERATORS = {
    **{f"{way}{name}": (f"the operator {s}", s) for name, s in _BINARY.items() for way in ("", "r", "i")},
    **{name: (f"{name}()", name) for name in ("abs", "round", "divmod")},
    **dict.fromkeys(("getitem", "setitem", "delitem"), ("indexing", "[]")),
    **{"neg": ("the operator -", "neg"), "pos": ("the operator +", "pos"), "invert": ("the operator ~", "~")},
}
for _name, _arguments in _OPERATORS.items():
    setattr(Opaque, f"__{_name}__", _refusing(*_arguments))
    setattr(vTensor, f"__{_name}__", _refusing(*_arguments))
for _name, _sign in _COMPARISONS.items():
    setattr(vTensor, f"__{_name}__", _refusing(f"the operator {_sign}", _sign))
