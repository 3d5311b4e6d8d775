"""Policies that only a compiler understands: a trusted user's, never a candidate's."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from search_spaces.candidate import canonical_policy
from vortex.budget import DEFAULT_POLICY, Policy, chosen_blocks, parse_policy
from vortex.budget.compiled import CompiledPolicy, compile_policy, policy_of
from vortex.build_cache import cache_folder
from vortex.config import VortexConfig
from vortex.errors import ConfigError, PolicyError

ROOT = Path(__file__).parents[3]
LOOP = "int s = 0; for (int i = 0; i < 4; ++i) s += i * topk_val; return s + cached_block_len / 7;"
LENGTHS = np.array([0, 1, 6, 7, 100, 12345], np.int64)
COMPILERS = [name for name in ("nvcc", "g++") if shutil.which(name)]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(params=COMPILERS)
def compiler(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The one that is used: nvcc where it is on PATH."""
    if request.param != "nvcc":
        only = tmp_path / "bin"
        only.mkdir()
        for name in (request.param, "as", "ld"):
            (only / name).symlink_to(str(shutil.which(name)))
        monkeypatch.setenv("PATH", str(only))
    return str(request.param)


def run(text: str, folder: Path) -> list[int]:
    return compile_policy(text, folder).evaluate_many(LENGTHS, 30, 0.25, 1, 2).tolist()


def test_the_checked_tree_comes_first(cache: Path) -> None:
    assert policy_of(VortexConfig()) is None
    rule = policy_of(VortexConfig(schedule_policy=DEFAULT_POLICY))
    assert isinstance(rule, Policy)
    assert not cache.exists()


def test_any_body_runs(cache: Path) -> None:
    config = VortexConfig(schedule_policy=LOOP, topk_val=2, max_topk_val=40)
    rule = policy_of(config)
    assert isinstance(rule, CompiledPolicy)
    assert rule.library.is_relative_to(cache / "vortex")
    wanted = [12 + n // 7 for n in LENGTHS.tolist()]
    assert rule.evaluate_many(LENGTHS, 2, 0.0, 1, 1).tolist() == wanted
    limited = [min(n, max(3, min(w, 42))) for n, w in zip(LENGTHS.tolist(), wanted, strict=True)]
    assert chosen_blocks(rule, LENGTHS, config).tolist() == limited


@pytest.mark.parametrize(
    ("body", "values"),
    [
        (LOOP, [180, 180, 180, 181, 194, 1943]),
        ("return __float2int_rn(cached_block_len * topk_ratio);", [0, 0, 2, 2, 25, 3086]),
        ("return __popc(cached_block_len) + __clz(topk_val);", [27, 28, 29, 30, 30, 33]),
        ("auto twice = [](int x) { return 2 * x; };\nreturn twice(topk_val);", [60] * 6),
        ("switch (cached_block_len) { case 7: return 1; default: return max(2, min(3, 4)); }",
         [3, 3, 3, 1, 3, 3]),
        ("return (int)ceilf(sqrtf((float)cached_block_len)) + abs(-block_reserved_eos);",
         [2, 3, 5, 5, 12, 114]),
    ],
)  # fmt: skip
def test_values(body: str, values: list[int], compiler: str, tmp_path: Path) -> None:
    assert run(body, tmp_path) == values


@pytest.mark.parametrize(
    ("body", "row", "words"),
    [
        ("int a = 1;\nreturn unknown_name;", 2, "unknown_name"),
        ("if (topk_val > 3) return 1;", 2, "return"),
        ("return 1; /* open", 1, "comment"),
        ("return __shfl_sync(0xffffffff, topk_val, 0);", 1, "__shfl_sync"),
        ("extern int nowhere(int); return nowhere(1);", 1, "nowhere"),
    ],
)
def test_what_does_not_compile_is_an_error_with_the_compilers_words(
    body: str, row: int, words: str, compiler: str, tmp_path: Path
) -> None:
    folder = tmp_path / "cache"
    config = VortexConfig(schedule_policy=body, compilation_cache_dir=str(folder))
    with pytest.raises(PolicyError) as caught:
        policy_of(config)
    assert words in caught.value.message
    assert caught.value.message.startswith(f"{compiler} does not compile it: ")
    assert caught.value.row == row
    assert list((folder / "policies").iterdir()) == []


def test_a_second_process_finds_the_library(tmp_path: Path) -> None:
    first = compile_policy(LOOP, tmp_path)
    before = first.library.stat()
    code = (
        "import sys, numpy as np\n"
        "from vortex.budget.compiled import policy_of\n"
        "from vortex.config import VortexConfig\n"
        "config = VortexConfig(schedule_policy=sys.argv[1], compilation_cache_dir=sys.argv[2])\n"
        "print(policy_of(config).evaluate_many(np.array([700]), 1, 0.0, 1, 1).tolist())"
    )
    nowhere = {**os.environ, "PATH": str(tmp_path)}
    command = [sys.executable, "-c", code, LOOP, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=nowhere, cwd=ROOT)
    assert (done.stdout.strip(), done.stderr) == ("[106]", "")
    after = first.library.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    other = [*command[:3], LOOP + " ", *command[4:]]
    done = subprocess.run(other, capture_output=True, text=True, check=False, env=nowhere, cwd=ROOT)
    assert "a policy needs a compiler on PATH: one of nvcc, g++, c++" in done.stderr


def test_processes_may_compile_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from vortex.budget.compiled import compile_policy\n"
        "print(compile_policy(sys.argv[1], Path(sys.argv[2])).library)"
    )
    command = [sys.executable, "-c", code, LOOP, str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(3)]
    answers = {process.communicate()[0].strip() for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert answers == {str(file) for file in (tmp_path / "policies").iterdir()}
    assert run(LOOP, tmp_path) == [180, 180, 180, 181, 194, 1943]


def test_where_the_cache_is(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder("kernels") == Path("kernels")
    assert cache_folder() == cache / "vortex"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "vortex"
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="compilation_cache_dir: cannot write"):
        compile_policy(LOOP, tmp_path / "file")


def test_what_a_search_made_is_never_compiled(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="a loop"):
        canonical_policy(LOOP)  # the identity of every candidate
    graph = VortexConfig(module_path="graph.json", module_name="found", schedule_policy=LOOP)
    with pytest.raises(PolicyError, match="a loop"):
        policy_of(graph)
    assert not cache.exists()


@pytest.mark.parametrize("package", ["agent", "evaluators", "search_spaces"])
def test_no_package_of_the_search_imports_the_compiler(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                names = {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                names = {alias.name for alias in node.names}
            else:
                continue
            assert not any(name.startswith("vortex.budget.compiled") for name in names), file


def test_both_ways_agree(tmp_path: Path) -> None:
    text = "int k = topk_val; if (cached_block_len > 64) k += int(cached_block_len * topk_ratio); return k;"
    checked = parse_policy(text).evaluate_many(LENGTHS, 30, 0.3, 1, 2)
    assert compile_policy(text, tmp_path).evaluate_many(LENGTHS, 30, 0.3, 1, 2).tolist() == checked.tolist()
