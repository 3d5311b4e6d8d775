"""The warm fork server inside the jail: one child a request, each with a private socket for its answer.

Started as a plain script (`python -I -S -B server.py CONTROL_FD CODE_ROOT CPU_S MEMORY DROP SIZES...`, the
sizes being those of a `Geometry`) with nothing of the host but the interpreter and the tracing package. On
the control socket it receives one datagram a request, the source, with the write end of a private socket
attached, and sends one JSON datagram when the child is gone: how it ended, and whether it left processes
behind. Candidate code runs in the children only, which do not hold the control socket.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import math
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable

MAX_SOURCE = 128 * 1024
NOBODY = 65534
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38


def prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def become_nobody() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def limit(cpu_s: float, memory: int) -> None:
    """Limits of one child. No processes beside itself: the kernel enforces that for everybody but root."""
    hard = math.ceil(cpu_s) + 1
    for what, value in (
        (resource.RLIMIT_CPU, hard),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(what, (value, value))
    signal.setitimer(
        signal.ITIMER_PROF, cpu_s
    )  # finer than RLIMIT_CPU; its signal's default action is to die


def left_behind() -> bool:
    """Whether any descendant is still there: orphans come to us, whatever session they are in."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True


def child(
    control: socket.socket, private: int, source: str, cpu_s: float, memory: int, work: Callable[[str], str]
) -> None:
    """Computes the answer, then asks for the nonce that marks it: what was written before cannot carry it."""
    control.close()
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    limit(cpu_s, memory)
    answer = work(source).encode()
    with socket.socket(fileno=private) as channel:
        nonce = channel.recv(64)
        channel.sendall(nonce + answer)


def serve(control: socket.socket, cpu_s: float, memory: int, work: Callable[[str], str]) -> None:
    while True:
        data, fds, _, _ = socket.recv_fds(control, MAX_SOURCE, 1)
        if len(fds) != 1:  # the parent is gone; a source may be empty
            return
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                child(control, fds[0], data.decode(), cpu_s, memory, work)
            os._exit(0)
        os.close(fds[0])
        _, status = os.waitpid(pid, 0)
        report = {"code": os.waitstatus_to_exitcode(status), "left": left_behind()}
        control.send(json.dumps(report).encode())


def main() -> None:
    descriptor, root, cpu_s, memory, drop, *sizes = sys.argv[1:]
    control = socket.socket(fileno=int(descriptor))
    os.environ.clear()
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    sys.path.append(root)
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))
    tracing = importlib.import_module("tracing")
    answer = tracing.Answerer(*map(int, sizes))
    tracing.warm_up(answer)
    if drop:  # once everything is imported, from files that only root may be able to read
        become_nobody()
    prctl(PR_SET_DUMPABLE, 0)  # after the change of user, which sets it: no child may look into this process
    gc.collect()
    gc.freeze()
    gc.disable()
    os.dup2(1, 2)  # nobody reads the errors of a running server, and a full pipe would stop it
    control.send(b"ready")
    serve(control, float(cpu_s), int(memory), answer)


if __name__ == "__main__":
    main()
