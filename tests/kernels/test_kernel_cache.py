"""Generated modules on disk: named by their content, shared by processes, whatever happens to one of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.kernels.device_check import check_on_device
from tests.kernels.held import Engine
from tests.vortex.targets.agreement import DEVICE
from tests.vortex.targets.generated import Case
from vortex.errors import ConfigError
from vortex.flow import load_graph
from vortex.graph import Geometry
from vortex.targets.triton import TritonProgram
from vortex.targets.triton import module as modules

FLOW, AT = "gqa_quest_sparse_attention", Geometry(16, 32, 4)
WRITERS, ROUNDS = 2, 100
needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on PATH")
needs_bwrap = pytest.mark.skipif(
    shutil.which("bwrap") is None
    or subprocess.run(["bwrap", "--dev-bind", "/", "/", "true"], capture_output=True).returncode != 0,
    reason="bwrap, which makes folders read-only, does not run here",
)


def program(folder: Path | None = None) -> TritonProgram:
    return TritonProgram(load_graph(FLOW), AT, "bfloat16", cache_dir=None if folder is None else str(folder))


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_the_name_is_of_the_content(tmp_path: Path) -> None:
    """Equal programs share a file, which is not written again; another geometry has its own."""
    path = modules.written(program().source, str(tmp_path))
    before = path.stat()
    assert modules.written(program().source, str(tmp_path)) == path
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert path.read_text() == program().source
    other = TritonProgram(load_graph(FLOW), Geometry(32, 32, 4), "bfloat16")
    assert modules.written(other.source, str(tmp_path)) != path
    assert len(files(tmp_path)) == 2


def test_kernels_run_from_the_folder_of_the_config(tmp_path: Path) -> None:
    case = Case(flow=FLOW, lengths=(144,), topk_val=3)
    decode = check_on_device(case, Engine(), DEVICE, compilation_cache_dir=str(tmp_path))
    (path,) = (tmp_path / "triton").glob("*.py")
    assert path.read_text() == decode.program.source
    assert sys.modules[f"vortex_generated_{path.stem}"].__file__ == str(path)
    if DEVICE.type == "cuda":  # machine code and launchers
        assert {".cubin", ".so"} <= {made.suffix for made in files(tmp_path / "triton" / "compiled")}


@pytest.mark.parametrize(
    "damage", [b"", b"import triton\n", b"\xff\xfe", None], ids=["empty", "cut", "bytes", "other"]
)
def test_a_damaged_file_is_replaced(tmp_path: Path, damage: bytes | None) -> None:
    source = program().source
    path = modules.written(source, str(tmp_path))
    path.write_bytes(source.replace("max", "min").encode() if damage is None else damage)
    assert modules.written(source, str(tmp_path)).read_text() == source


WRITER = """
import sys
from vortex.targets.triton import module
for number in range(int(sys.argv[2])):
    text = f"NUMBER = {number}\\n" + "# filling\\n" * 5000
    assert module.written(text, sys.argv[1]).read_text() == text
print("done", flush=True)
"""


def started(folder: Path, rounds: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder), str(rounds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_writer_that_is_killed_leaves_nothing_that_is_read(tmp_path: Path) -> None:
    """Whatever is there under its final name is whole, and the next process goes on."""
    writer = started(tmp_path, 10**6)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.rglob("*.py"))) < 20:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    writer.kill()
    writer.communicate()
    for path in tmp_path.rglob("*.py"):
        assert modules.path_of(path.read_text(), str(tmp_path)) == path
    assert started(tmp_path, 50).communicate() == ("done\n", "")


def test_processes_that_write_at_once_read_whole_files(tmp_path: Path) -> None:
    running = [started(tmp_path, ROUNDS) for _ in range(WRITERS)]
    assert [process.communicate() for process in running] == [("done\n", "")] * WRITERS
    assert len(files(tmp_path)) == ROUNDS


KERNEL = """
import triton
import triton.language as tl

@triton.jit
def fill(x, VALUE: tl.constexpr):
    tl.store(x, VALUE)
"""
USER = """
import json, os, sys
from triton.backends.compiler import GPUTarget
from triton.compiler import compile, make_backend
from vortex.budget.compiled import compile_policy
from vortex.build_cache import cache_folder
from vortex.kernels import cuda
from vortex.targets.triton import module

kernel, value = sys.argv[1], int(sys.argv[2])
for folder in sys.argv[3:]:
    function, target = module.load(kernel, folder).fill, GPUTarget("cuda", 90, 32)
    function.device_caches[0] = {}, {}, target, make_backend(target), None
    function.compile, function.ASTSource = compile, compile.__globals__["ASTSource"]
    options = make_backend(target).parse_options({})
    function._do_compile("", {"x": "*i32", "VALUE": "constexpr"}, 0, {(1,): value}, options, {}, True)
    if value == 1:
        cuda.build("answer", 'extern "C" int answer() { return 42; }', "sm_90a", folder)
        compile_policy("int x = 3; while (x) x--; return x;", cache_folder(folder))
assert "TRITON_CACHE_DIR" not in os.environ
"""
"""Uses the caches as an engine does on a GPU, without one: a kernel with a constant, a library, a policy."""


def use(home: Path, value: int, *folders: Path, read_only: bool = False) -> str:
    """Runs USER where Triton's own cache is in `home`; returns what it wrote to stderr."""
    command = [sys.executable, "-c", USER, KERNEL, str(value), *map(str, folders)]
    if read_only:
        ties = [word for folder in folders for word in ("--ro-bind", str(folder), str(folder))]
        command = ["bwrap", "--dev-bind", "/", "/", *ties, "--", *command]
    environment = {name: text for name, text in os.environ.items() if name != "TRITON_CACHE_DIR"}
    environment |= {"TRITON_INTERPRET": "0", "TRITON_HOME": str(home)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


@needs_nvcc
@needs_bwrap
def test_a_read_only_folder_serves_what_it_holds(tmp_path: Path) -> None:
    """A cache that was filled before, as in an image: neither our files nor Triton's are written again. A
    kernel that it lacks goes to Triton's own cache."""
    folder, home = tmp_path / "cache", tmp_path / "home"
    folder.mkdir()
    use(home, 1, folder)
    before = {path: path.stat().st_mtime_ns for path in files(folder)}
    assert {path.relative_to(folder).parts[0] for path in before} == {"triton", "cuda", "policies"}
    assert any(path.suffix == ".cubin" for path in before)
    assert files(home) == []
    assert use(home, 1, folder, read_only=True) == ""
    assert files(home) == []
    assert "Triton cannot write to" in use(home, 2, folder, read_only=True)
    assert any(path.suffix == ".cubin" for path in files(home))
    assert {path: path.stat().st_mtime_ns for path in files(folder)} == before


@needs_nvcc
def test_every_folder_holds_what_was_made_for_it(tmp_path: Path) -> None:
    """Two configs of one process."""
    one, other = tmp_path / "one", tmp_path / "other"
    use(tmp_path / "home", 1, one, other)
    assert {path.suffix for path in files(one)} >= {".py", ".so", ".cubin"}
    held = [{path.relative_to(each) for path in files(each)} for each in (one, other)]
    assert {path for path in held[0] ^ held[1] if "cuda_utils" not in path.name} == set()  # of a process
    assert files(tmp_path / "home") == []


@pytest.mark.parametrize("folder", ["/proc/vortex", "file"])
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, folder: str) -> None:
    place = tmp_path / folder
    if not folder.startswith("/"):
        place.write_text("not a folder")
    with pytest.raises(ConfigError, match=f"compilation_cache_dir: cannot write {place}"):
        modules.written(program().source, str(place))
