"""Generated modules on disk: named by their content, shared by processes, whatever happens to one of them."""

from __future__ import annotations

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
    (path,) = files(tmp_path / "triton")
    assert path.read_text() == decode.program.source
    assert sys.modules[f"vortex_generated_{path.stem}"].__file__ == str(path)


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


@pytest.mark.parametrize("folder", ["/proc/vortex", "file"])
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, folder: str) -> None:
    place = tmp_path / folder
    if not folder.startswith("/"):
        place.write_text("not a folder")
    with pytest.raises(ConfigError, match=f"compilation_cache_dir: cannot write {place}"):
        modules.written(program().source, str(place))
