"""Generated modules on disk: named by the hash of their text, shared by all processes."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import uuid
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from vortex.build_cache import cache_folder, make_folder
from vortex.errors import ConfigError


def path_of(text: str, folder: str | None) -> Path:
    """Where the module of a text belongs. Its name holds the text's hash."""
    key = hashlib.sha256(text.encode()).hexdigest()
    return cache_folder(folder) / "triton" / f"{key[:40]}.py"


def written(text: str, folder: str | None = None) -> Path:
    """The file with exactly this text, written unless it is there. Any number of processes may ask at once;
    one that was cut short or changed is replaced."""
    path = path_of(text, folder)
    try:
        if path.read_text() == text:
            return path
    except (OSError, UnicodeDecodeError):
        pass
    scratch = path.with_suffix(f".{uuid.uuid4().hex}.tmp")
    try:
        make_folder(path.parent)
        scratch.write_text(text)
        scratch.replace(path)
    except OSError as error:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise ConfigError(f"compilation_cache_dir: cannot write {path.parent}: {error}") from None
    return path


@lru_cache(maxsize=512)
def load(text: str, folder: str | None = None) -> ModuleType:
    """The module of a text, imported once a process. What Triton compiles of it is kept in `folder` too, if
    one is named."""
    from vortex.kernels.triton_setup import keep_kernels  # before a kernel is defined

    path = written(text, folder)
    name = f"vortex_generated_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # the interpreter reads a kernel's source through it
    exec(compile(text, str(path), "exec"), module.__dict__)  # this text, not what lies in __pycache__
    if folder is not None:
        keep_kernels(module, path.parent / "compiled")
    return module
