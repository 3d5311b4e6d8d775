"""Reads launches as JSON, compiles them, writes what became of them as JSON. Run by `aot.compiled`."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
LONGEST_ERROR = 2000


@cache
def module(file: str) -> ModuleType:
    """The module of a file: the one that `import` finds, or a generated one that lies in no package."""
    for folder in filter(None, map(Path, sys.path)):
        if Path(file).is_relative_to(folder) and (folder / "vortex").is_dir():
            return importlib.import_module(".".join(Path(file).relative_to(folder).with_suffix("").parts))
    spec = importlib.util.spec_from_file_location(f"generated_{abs(hash(file))}", file)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    return found


def constant(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("dtype:"):
        return triton.language.dtype(value.removeprefix("dtype:"))
    return value


def source(launch: dict[str, Any]) -> ASTSource:
    fn = getattr(module(launch["file"]), launch["name"])
    places = {name: at for at, name in enumerate(fn.arg_names)}
    return ASTSource(
        fn=fn,
        signature={name: launch["signature"][name] for name in fn.arg_names},
        constexprs={(places[name],): constant(value) for name, value in launch["constants"].items()},
        attrs={(places[name],): [["tt.divisibility", 16]] for name in launch["aligned"]},
    )


def used(cubin: bytes) -> tuple[int, int]:
    """Registers, and bytes of local memory, of a thread."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        said = subprocess.run(
            [CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    numbers = {name: int(number) for name, number in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", said)}
    return numbers["REG"], numbers["STACK"] + numbers["LOCAL"]


def steps(ptx: str) -> str:
    """In their order, w where a kernel waits for the one before it, t where it lets the next one start, s
    where it writes to memory."""
    names = {"griddepcontrol.wait": "w", "griddepcontrol.launch_dependents": "t", "st.global": "s"}
    return "".join(names[found] for found in re.findall("|".join(map(re.escape, names)), ptx))


def build(launch: dict[str, Any], architecture: int) -> dict[str, Any]:
    start = time.perf_counter()
    result = {"name": f"{Path(launch['file']).name}:{launch['name']}", "architecture": architecture}
    try:
        target = GPUTarget("cuda", architecture, 32)
        kernel = triton.compile(source(launch), target=target, options=launch["options"])
    except Exception as error:
        return result | {"error": f"{type(error).__name__}: {error}"[-LONGEST_ERROR:]}
    registers, local = used(kernel.asm["cubin"])
    seconds = time.perf_counter() - start
    shared = kernel.metadata.shared
    found = {"shared": shared, "registers": registers, "local": local, "seconds": seconds}
    return result | found | {"steps": steps(kernel.asm["ptx"])}


if __name__ == "__main__":
    request = json.load(sys.stdin)
    print(json.dumps([build(x, at) for x in request["launches"] for at in request["architectures"]]))
