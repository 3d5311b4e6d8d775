"""How CUDA files are built: where they are kept, and what is said of those that do not compile."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from vortex.budget.compiled import compile_policy
from vortex.build_cache import cache_folder
from vortex.errors import ConfigError
from vortex.kernels import cuda

SOURCE = 'extern "C" int answer() { return 42; }\n'
pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on PATH")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = list(cuda._folders)
    cuda._folders.clear()
    yield
    cuda._folders[:] = before


def test_the_chosen_folder_holds_what_is_built(tmp_path: Path) -> None:
    cuda.keep_in(str(tmp_path))
    library = cuda.build("answer", SOURCE, "sm_90a")
    assert library.parent == tmp_path / "cuda"
    assert cuda.load(library).answer() == 42


def test_what_lies_in_a_folder_that_was_named_before_is_found(tmp_path: Path) -> None:
    one, other = (str(tmp_path / name) for name in ("one", "other"))
    cuda.keep_in(one)
    first = cuda.build("answer", SOURCE, "sm_90a")
    cuda.keep_in(other)
    assert cuda.build("answer", SOURCE, "sm_90a") == first
    assert cuda.build("answer", SOURCE + "// other\n", "sm_90a").parent == tmp_path / "other" / "cuda"
    assert cuda.build("answer", SOURCE, "sm_90a", other).parent == tmp_path / "other" / "cuda"


def test_a_named_folder_is_enough_for_a_user_without_a_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    cuda.keep_in(str(tmp_path))
    assert cuda.build("answer", SOURCE, "sm_90a").parent == tmp_path / "cuda"
    with pytest.raises(ConfigError, match="this user has no home"):
        cuda.keep_in(None)
    assert cuda.build("answer", SOURCE + "// other\n", "sm_90a").parent == tmp_path / "cuda"


def test_a_folder_that_was_refused_is_forgotten(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not the name of a folder"):
        cuda.keep_in("a\0b")
    cuda.keep_in(str(tmp_path))
    assert cuda.build("answer", SOURCE, "sm_90a").parent == tmp_path / "cuda"


def test_a_library_that_was_cut_short_is_built_again(tmp_path: Path) -> None:
    library = cuda.build("answer", SOURCE, "sm_90a", str(tmp_path))
    for left in (library.read_bytes()[:-100], b""):
        library.unlink()
        library.write_bytes(left)
        assert cuda.build("answer", SOURCE, "sm_90a", str(tmp_path)) == library
        assert cuda.load.__wrapped__(library).answer() == 42


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_file_is_no_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is not a folder"):
        cuda.keep_in(str(tmp_path / name))


def no_home() -> Path:
    raise RuntimeError


def test_a_library_is_built_once(tmp_path: Path) -> None:
    first = cuda.build("answer", SOURCE, "sm_90a", str(tmp_path))
    written = first.stat().st_mtime_ns
    assert cuda.build("answer", SOURCE, "sm_90a", str(tmp_path)) == first
    assert first.stat().st_mtime_ns == written
    assert cuda.build("answer", SOURCE + "// other\n", "sm_90a", str(tmp_path)) != first


def test_what_the_compiler_says(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nvcc does not compile the kernel wrong: (.|\n)*undefined"):
        cuda.build("wrong", 'extern "C" int answer() { return missing; }\n', "sm_90a", str(tmp_path))
    assert list((tmp_path / "cuda").iterdir()) == []


@pytest.mark.parametrize("folder", ["~nobody-of-this-name/x", "/dev/null/x", "x" * 300, "a\0b", "\ud800"])
def test_a_folder_that_cannot_be(folder: str) -> None:
    with pytest.raises(ConfigError, match="compilation_cache_dir: "):
        cuda.build("answer", SOURCE, "sm_90a", folder)
    with pytest.raises(ConfigError, match="compilation_cache_dir: "):
        compile_policy("return 1;", cache_folder(folder))


def test_a_build_that_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "LONGEST_BUILD", 0.001)
    with pytest.raises(ConfigError, match=r"nvcc needs more than 0.001 s for the kernel answer"):
        cuda.build("answer", SOURCE, "sm_90a", str(tmp_path))
    assert list((tmp_path / "cuda").iterdir()) == []
