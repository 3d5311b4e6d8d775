"""CUDA files as shared libraries: compiled by nvcc once, kept by the hash of their source, called by ctypes.

A library's functions are `extern "C"`, take device pointers, numbers and last a stream, and return
`cudaGetLastError()`. They allocate nothing and wait for nothing, so that a CUDA graph can hold them.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from vortex.build_cache import cache_folder, is_whole, make_folder
from vortex.errors import ConfigError

FLAGS = ("-O3", "-std=c++17", "--shared", "-Xcompiler", "-fPIC", "--fmad=false")
HEADERS = Path(__file__).parent
SHARED_BYTES = 227 << 10
"""Of shared memory that a block may have on the GPUs that the kernels are written for."""
_LONGEST_MESSAGE = 4000
LONGEST_BUILD = 300
"""Seconds that nvcc may take for one file."""


class BuildError(ConfigError):
    """nvcc does not compile a file, or needs too long for it."""


_folders: list[Path] = []


def keep_in(folder: str | None) -> None:
    """Where this process keeps what it builds from now on: a `compilation_cache_dir`. What lies in those
    that were named before is found there, and they are written where this one cannot be. Raises
    ConfigError."""
    found = cache_folder(folder).absolute()
    if found in _folders:
        _folders.remove(found)
    _folders.insert(0, found)


def refusal(device: torch.device | None = None) -> str | None:
    """Why the kernels do not run on a GPU; None where they do, and where there is none to ask. They need
    clusters, launches that depend on each other, and the shared memory that attention keeps tiles in: GeForce
    GPUs of compute capability 12 have the first two."""
    if not torch.cuda.is_available():
        return None
    found = torch.cuda.get_device_properties(device)
    if found.major < 9:
        capability = f"{found.major}.{found.minor}"
        return f"the CUDA kernels need a GPU of compute capability 9.0 or later, this one has {capability}"
    shared = int(found.shared_memory_per_block_optin)  # type: ignore[attr-defined]
    if shared < SHARED_BYTES:
        needed = f"{SHARED_BYTES >> 10} KB of shared memory a block"
        return f"the CUDA kernels need {needed}, this GPU has {shared >> 10}"
    return None


def architecture(device: torch.device | None = None) -> str:
    """`sm_90a` and the like, of a GPU. Raises ConfigError for one that the kernels do not run on."""
    if reason := refusal(device):
        raise ConfigError(f"{reason}: use the target 'torch' (VORTEX_TARGET=torch in SGLang)")
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}a"


def build(name: str, source: str, target: str, folder: str | None = None) -> Path:
    """The shared library of a CUDA source for `target` ("sm_90a"), compiled unless it is in the cache, whole.
    Any number of processes may ask at once. Raises ConfigError with the compiler's message, and where no
    folder can be written."""
    machine = f"-gencode=arch={target.replace('sm', 'compute')},code={target}"  # it alone: no PTX
    key = hashlib.sha256("\n".join((machine, *FLAGS, source)).encode()).hexdigest()
    folders = [cache_folder(folder)] if folder is not None else _folders or [cache_folder()]
    places = [each / "cuda" / f"{name}-{key[:32]}.so" for each in folders]
    refused: list[OSError] = []
    for library in places:
        try:
            if is_whole(library):
                return library
        except OSError as error:
            refused.append(error)
    nvcc = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    if nvcc is None:
        raise ConfigError(f"the kernel {name} needs nvcc on PATH (or in /usr/local/cuda/bin)")
    for library in places:
        try:
            make_folder(library.parent)
            with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
                file = Path(scratch) / f"{name}.cu"
                file.write_text(source)
                built = file.with_suffix(".so")
                _compile([nvcc, *FLAGS, machine, str(file), "-o", str(built)], name)
                built.replace(library)
                return library
        except OSError as error:
            refused.append(error)
    raise ConfigError(f"compilation_cache_dir: cannot write {places[0].parent}: {refused[-1]}")


def _compile(command: Sequence[str], name: str) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=LONGEST_BUILD
        )
    except subprocess.TimeoutExpired:
        raise BuildError(f"nvcc needs more than {LONGEST_BUILD} s for the kernel {name}") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[:_LONGEST_MESSAGE]
        raise BuildError(f"nvcc does not compile the kernel {name}: {said}")


@functools.cache
def load(library: Path) -> ctypes.CDLL:
    """The library, loaded once."""
    return ctypes.CDLL(str(library))


def pointer(tensor: torch.Tensor | None) -> ctypes.c_void_p:
    """Where a tensor's data is."""
    return ctypes.c_void_p(0 if tensor is None else tensor.data_ptr())


def stream() -> ctypes.c_void_p:
    """PyTorch's current stream."""
    return ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)


def check(status: int, name: str) -> None:
    """Raises RuntimeError for a launch that CUDA refused."""
    if status:
        raise RuntimeError(f"launching {name} failed: CUDA error {status}")
