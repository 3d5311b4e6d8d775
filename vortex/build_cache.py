"""Where compiled code is kept: `compilation_cache_dir`, or the user's own cache folder."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from vortex.errors import ConfigError

_ELF_HEADER = 64


def cache_folder(chosen: str | None = None) -> Path:
    """The folder, which need not exist: `chosen`, or the user's own. Raises ConfigError where a home is meant
    and there is none, and for what cannot be a folder."""
    if chosen is not None and not _is_name(chosen):
        raise ConfigError(f"compilation_cache_dir: {chosen!r} is not the name of a folder")
    try:
        if chosen is not None:
            folder = Path(chosen).expanduser()
        else:
            folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vortex"
    except RuntimeError:
        named = f"{chosen!r} cannot be found" if chosen is not None else "is not set"
        raise ConfigError(
            f"compilation_cache_dir: {named}, and this user has no home: name an absolute folder"
        ) from None
    there = next(filter(os.path.exists, (folder, *folder.parents)), None)
    if there is not None and not os.path.isdir(there):
        raise ConfigError(f"compilation_cache_dir: cannot write {there}: it is not a folder")
    return folder


def _is_name(folder: str) -> bool:
    try:
        return b"\0" not in os.fsencode(folder)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def make_folder(folder: Path) -> None:
    """Make a folder of the cache. Code that lies there is run unseen: the user's own folder is nobody else's;
    one that was named is what the umask says, so that an image can be built by another user. Raises
    OSError."""
    own = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache")).expanduser() / "vortex"
    if own in folder.parents:
        own.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)


def is_whole(library: Path) -> bool:
    """Whether a shared library is there, and not cut short: its table of sections comes last."""
    try:
        with library.open("rb") as file:
            header, size = file.read(_ELF_HEADER), os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return False
    if len(header) < _ELF_HEADER or not header.startswith(b"\x7fELF"):
        return False
    start, each, count = *struct.unpack_from("<Q", header, 40), *struct.unpack_from("<HH", header, 58)
    return bool(start + each * count <= size)
