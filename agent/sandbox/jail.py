"""Starting, asking and dropping the jail. The parent's side of `inside/server.py`."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import astuple, dataclass
from pathlib import Path
from types import TracebackType

from agent.sandbox.inside.server import MAX_SOURCE
from agent.sandbox.limits import Limits
from vortex.check.rejected import Rejected
from vortex.graph.geometry import Geometry

INSIDE = Path(__file__).parent / "inside"
CODE = Path(__file__).parents[2]
PACKAGES = ("vortex", "vortex_torch")
SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")


class JailError(Exception):
    """The jail cannot be started; the text says why."""


@dataclass(frozen=True)
class Answer:
    """What a candidate's process sent, nonce removed, and how it ended (exit code, or minus a signal)."""

    payload: bytes
    code: int


def interpreter() -> Path:
    """The real interpreter: a virtual environment's is a link into `sys.base_prefix`."""
    return Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()


def bubblewrap(executable: str) -> list[str]:
    """The jail: no network, home, /proc or /dev, nothing writable, an empty environment, own process ids."""
    base = Path(sys.base_prefix).resolve()
    binds = [Path(p) for p in SYSTEM_LIBRARIES if os.path.exists(p)] + [
        base / "bin",
        base / "lib",
        interpreter(),
    ]
    command = [executable, "--die-with-parent", "--new-session", "--clearenv"]
    if os.geteuid() == 0:  # a user namespace would map nobody to root, whom RLIMIT_NPROC does not bind
        command += [
            "--unshare-pid",
            "--unshare-net",
            "--unshare-ipc",
            "--unshare-uts",
            "--unshare-cgroup-try",
        ]
        command += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        command += ["--unshare-all", "--uid", "65534", "--gid", "65534"]
    made: set[Path] = set()
    for path in binds:
        for parent in reversed(path.parents[:-1]):
            if parent not in made:  # bubblewrap makes missing parents readable by their owner alone
                command += ["--perms", "0755", "--dir", str(parent)]
                made.add(parent)
        if os.path.islink(path):
            command += ["--symlink", os.readlink(path), str(path)]
        else:
            command += ["--ro-bind", str(path), str(path)]
            made.add(path)
    command += ["--perms", "0755", "--dir", "/code", "--ro-bind", str(INSIDE), "/inside"]
    for package in PACKAGES:
        command += ["--ro-bind-try", str(CODE / package), f"/code/{package}"]
    return [
        *command,
        "--perms",
        "0555",
        "--tmpfs",
        "/tmp",
        "--remount-ro",
        "/tmp",
        "--remount-ro",
        "/",
        "--chdir",
        "/",
        "--",
    ]


class Jail:
    """One running server. Any misbehaviour leaves it `broken`, and then it must be closed and replaced."""

    def __init__(self, limits: Limits, geometry: Geometry, *, bwrap: str | None) -> None:
        self.limits = limits
        self.broken = False
        self._jailed = bwrap is not None
        inside, code = ("/inside", "/code") if bwrap else (str(INSIDE), str(CODE))
        drop = "" if os.geteuid() else "nobody"
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        script = [str(interpreter()), "-I", "-S", "-B", f"{inside}/server.py"]
        script += [str(theirs.fileno()), code, str(limits.cpu_s), str(limits.memory), drop]
        script += [str(size) for size in astuple(geometry)]
        self._process = subprocess.Popen(
            [*(bubblewrap(bwrap) if bwrap else []), *script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
            env={},
            cwd="/",
            start_new_session=True,
        )
        theirs.close()
        self._control.settimeout(limits.start_s)
        try:
            ready = self._control.recv(64)
        except OSError:
            ready = b""
        if ready != b"ready":
            self._process.kill()
            _, errors = self._process.communicate()
            self.close()
            said = errors.decode(errors="replace").strip()[-500:]
            raise JailError(said or f"the jail was not ready within {limits.start_s} s")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, source: str) -> Answer:
        """Has one source traced. Raises Rejected when the candidate did not answer with marked bytes."""
        if len(source.encode(errors="replace")) > MAX_SOURCE:
            raise Rejected(f"the source has more than {MAX_SOURCE} bytes", "resource")
        self.broken = True  # until everything below has gone as it should
        ours, theirs = socket.socketpair()
        with ours:
            nonce = secrets.token_bytes(16)
            ours.sendall(nonce)
            with theirs:
                try:
                    socket.send_fds(self._control, [source.encode(errors="replace")], [theirs.fileno()])
                except OSError as error:
                    raise Rejected(f"the jail died before the trace: {error}", "protocol") from error
            deadline = time.monotonic() + self.limits.wall_s
            payload = self._read(ours, deadline)
            code = self._report(deadline)
        if payload and not payload.startswith(nonce):
            raise Rejected("the process sent bytes that are not the tracer's answer", "protocol")
        self.broken = False
        return Answer(payload[len(nonce) :], code)

    def _read(self, channel: socket.socket, deadline: float) -> bytes:
        """Everything until all writers are gone."""
        parts: list[bytes] = []
        size = 0
        while True:
            self._wait(channel, deadline)
            try:
                part = channel.recv(65536)
            except ConnectionResetError:
                part = b""
            if not part:
                return b"".join(parts)
            parts.append(part)
            size += len(part)
            if size > self.limits.answer:
                raise Rejected(f"the answer is longer than {self.limits.answer} bytes", "resource")

    def _report(self, deadline: float) -> int:
        self._wait(self._control, deadline)
        try:
            data = self._control.recv(256)
        except OSError:
            data = b""
        if not data:
            raise Rejected("the jail's server died during the trace", "protocol")
        report = json.loads(data)
        if report["left"]:
            raise Rejected("the trace left a process behind", "protocol")
        return int(report["code"])

    def _wait(self, channel: socket.socket, deadline: float) -> None:
        ready, _, _ = select.select([channel], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise Rejected(f"the trace took longer than {self.limits.wall_s:g} s", "resource")

    def close(self) -> None:
        """Kills everything inside; returns when it is gone."""
        for pid in descendants(self._process.pid):  # whatever session or process group they have gone to
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(
            subprocess.TimeoutExpired
        ):  # bubblewrap follows its first process, and reaps it
            self._process.wait(1.0 if self._jailed else 0.0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()
        with contextlib.suppress(OSError):  # the server's end closes when the server is dead
            self._control.settimeout(2.0)
            while self._control.recv(256):
                pass
        self._control.close()

    def __enter__(self) -> Jail:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def descendants(pid: int) -> list[int]:
    """All children of a process and theirs."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [p for child in children for p in (int(child), *descendants(int(child)))]


def start(limits: Limits, geometry: Geometry, name: str = "bwrap") -> tuple[Jail, str | None]:
    """A bubblewrap jail, or else a server under plain limits and the reason why it is no jail."""
    bwrap = shutil.which(name)
    why = f"bubblewrap ({name}) is not installed"
    if bwrap:
        try:
            return Jail(limits, geometry, bwrap=bwrap), None
        except JailError as error:
            why = f"bubblewrap does not start here: {error}"
    return Jail(limits, geometry, bwrap=None), why
