"""What `import torch` gives a flow file where torch is not wanted: names for annotations and dtypes,
nothing that computes.

Inside the sandbox the real torch is absent. On the trusted path it is present, and a name that the stand-in
does not have comes from the real torch, imported only then.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from vortex.errors import FlowTypeError
from vortex.flow.advice import op_for
from vortex.flow.where import user_line


@dataclass(frozen=True)
class DType:
    """A dtype by name, with its size in bytes."""

    name: str
    itemsize: int

    def __repr__(self) -> str:
        return f"torch.{self.name}"


class Tensor:
    """For annotations."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise _refusal("Tensor", args)


class Size(tuple[int, ...]):
    """For annotations."""


class device:
    """For annotations, and the device that metadata tensors report."""

    def __init__(self, type: str = "cpu", index: int | None = None) -> None:
        self.type, self.index = str(type), index

    def __repr__(self) -> str:
        return f"device(type={self.type!r})"


_SIZES = {
    "float64": 8, "double": 8, "float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2,
    "float8_e4m3fn": 1, "float8_e5m2": 1, "int64": 8, "long": 8, "int32": 4, "int": 4, "int16": 2, "int8": 1,
    "uint8": 1, "bool": 1,
}  # fmt: skip
_ALIASES = {"double": "float64", "float": "float32", "half": "float16", "long": "int64", "int": "int32"}
DTYPES = {name: DType(_ALIASES.get(name, name), size) for name, size in _SIZES.items()}


class _Refused:
    """A torch function: looking at it is harmless, calling it is an error."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __getattr__(self, name: str) -> _Refused:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Refused(f"{self._path}.{name}")

    def __call__(self, *args: object, **kwargs: object) -> Any:
        raise _refusal(self._path, (*args, *kwargs.values()))


def _refusal(path: str, arguments: tuple[object, ...]) -> FlowTypeError:
    from vortex.flow.vtensor import tensors_in

    return FlowTypeError(
        f"torch.{path} cannot be used in a flow: tensors are metadata while a flow is traced",
        line=user_line(),
        shapes=tensors_in(arguments),
        hint=op_for(path.rpartition(".")[2]),
    )


class TorchStandin(ModuleType):
    """The module object itself."""

    def __init__(self, trusted: bool) -> None:
        super().__init__("torch", "A stand-in for torch in flow files: annotations and dtypes only.")
        self.__dict__.update(DTYPES, Tensor=Tensor, Size=Size, device=device, dtype=DType, _trusted=trusted)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.__dict__["_trusted"]:
            import importlib

            return getattr(importlib.import_module("torch"), name)
        return _Refused(name)


def torch_for(trusted: bool) -> ModuleType:
    """What a flow file's `import torch` should give: the real one if a trusted process has it already."""
    if trusted and "torch" in sys.modules:
        return sys.modules["torch"]
    return TorchStandin(trusted)


def dtype(name: str) -> Any:
    """The dtype `name`: torch's own where torch is loaded, else the stand-in's."""
    torch = sys.modules.get("torch")
    return getattr(torch, name) if isinstance(torch, ModuleType) and hasattr(torch, "ops") else DTYPES[name]


NAMES = {"fp8_e4m3": "float8_e4m3fn", "fp8_e5m2": "float8_e5m2", "bf16": "bfloat16", "auto": "bfloat16"}
"""Names of formats besides those of torch; "auto" is the engines' word for the model's own."""


def itemsize(of: object) -> int:
    """Bytes of one element of a dtype given as torch dtype, stand-in dtype or name."""
    if isinstance(of, str):
        name = of.removeprefix("torch.")
        return DTYPES[NAMES.get(name, name)].itemsize
    return int(of.itemsize)  # type: ignore[attr-defined]
