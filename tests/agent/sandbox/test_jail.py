"""The second layer alone: hostile code is handed to the jail past the allow-list, reaches `os`, and gets nowhere."""

# ruff: noqa: E501 - one attack a line
from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.sandbox import Limits, Rejected, Sandbox
from agent.sandbox import jail as jail_module
from agent.sandbox.jail import descendants, start
from vortex.graph.geometry import Geometry

Observe = Callable[[str], str]


def _jailed() -> bool:
    jail, why = start(Limits(), Geometry())
    jail.close()
    return why is None


needs_bubblewrap = pytest.mark.skipif(not _jailed(), reason="bubblewrap does not start on this machine")


@pytest.fixture(scope="module", params=["bubblewrap", "plain limits"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """The same attacks in the jail and, for what they promise, under plain limits."""
    limits = Limits(cpu_s=0.3, wall_s=1.0)
    if request.param == "bubblewrap":
        with Sandbox(limits) as opened:
            if opened.isolation != "bubblewrap":
                pytest.skip("bubblewrap does not start on this machine")
            yield opened
        return
    opened = Sandbox(limits, bwrap="no-such-bwrap")
    with pytest.warns(RuntimeWarning, match="plain limits.*apt-get install bubblewrap"):
        opened.__enter__()
    assert opened.isolation == "plain limits"
    yield opened
    opened.__exit__(None, None, None)


in_a_jail = pytest.mark.parametrize("sandbox", ["bubblewrap"], indirect=True)
"""For what plain limits do not promise."""


@pytest.fixture
def attack(sandbox: Sandbox, reach_os: str, good: str) -> Callable[[str], Rejected]:
    """Runs code that has `os` and `sys`, expects a rejection, and checks that the next candidate is none the worse."""
    expected = sandbox.trace(good).hash

    def run(code: str) -> Rejected:
        with pytest.raises(Rejected) as caught:
            sandbox.trace_unchecked(reach_os + code + "\n" + good)
        assert sandbox.trace(good).hash == expected
        return caught.value

    return run


@pytest.fixture
def observe(sandbox: Sandbox, reach_os: str) -> Observe:
    """The repr of an expression evaluated inside, brought out as an error's text."""

    def look(expression: str) -> str:
        with pytest.raises(Rejected) as caught:
            sandbox.trace_unchecked(
                f"{reach_os}\nraise ValueError('<<' + python.repr({expression}) + '>>')\n"
            )
        return caught.value.reason.partition("<<")[2].partition(">>")[0]

    return look


TRIED = """
def tried(action):
    try:
        return action()
    except Exception as error:
        return python.type(error).__name__
"""


@pytest.fixture
def outcome(sandbox: Sandbox, reach_os: str) -> Observe:
    """As `observe`; an exception gives the name of its class."""

    def look(expression: str) -> str:
        with pytest.raises(Rejected) as caught:
            sandbox.trace_unchecked(
                f"{reach_os}{TRIED}\nraise ValueError('<<' + python.repr(tried(lambda: {expression})) + '>>')\n"
            )
        return caught.value.reason.partition("<<")[2].partition(">>")[0]

    return look


def test_the_environment_is_empty(observe: Observe, monkeypatch: pytest.MonkeyPatch) -> None:
    assert observe("dict(os['environ'])") == "{}"
    assert observe("sys.modules['posix'].environ") != repr(dict(os.environ))
    assert "PATH" not in observe("sys.modules['posix'].environ")


def test_it_runs_as_nobody_and_cannot_become_root(sandbox: Sandbox, outcome: Observe) -> None:
    user = outcome("os['getuid']()")
    assert user == "65534" or (sandbox.isolation == "plain limits" and user == str(os.getuid()) != "0")
    refusals = ("'PermissionError'", "'OSError'")
    assert outcome("os['setuid'](0)") in refusals
    assert outcome("os['setgroups']([0])") in refusals


@in_a_jail
def test_no_file_of_the_host_is_in_reach(observe: Observe, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("key")
    secret.chmod(0o644)
    paths = [
        str(secret),
        str(Path.home()),
        "/etc/passwd",
        "/etc/shadow",
        "/proc/self/environ",
        "/proc/1",
        "/dev/shm",
    ]
    paths += [str(Path(jail_module.__file__).parents[2]), "/var", "/home", "/sys", "/run"]
    inside = [p for p in paths if not any(str(parent) == p for parent in jail_module.interpreter().parents)]
    assert observe(f"[p for p in {inside!r} if os['access'](p, 0)]") == "[]"


@in_a_jail
def test_nothing_is_writable(outcome: Observe) -> None:
    base = str(jail_module.interpreter().parent)
    for folder in ("/", "/tmp", "/code", "/code/vortex", "/inside", base):
        flags = os.O_CREAT | os.O_WRONLY
        assert outcome(f"os['open']('{folder}/x', {flags})") in ("'OSError'", "'PermissionError'"), folder
        assert outcome(f"os['mkdir']('{folder}/x')") in ("'OSError'", "'PermissionError'"), folder


@in_a_jail
def test_there_is_no_network(outcome: Observe) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind("\0vortex-sandbox-test")
        local.listen()
        port = server.getsockname()[1]
        module = "sys.modules['socket']"
        tcp = outcome(f"{module}.create_connection(('127.0.0.1', {port}), 0.2)")
        assert tcp in ("'ConnectionRefusedError'", "'OSError'", "'TimeoutError'")
        abstract = outcome(f"{module}.socket({module}.AF_UNIX).connect('\\0vortex-sandbox-test')")
        assert abstract == "'ConnectionRefusedError'"
        udp = outcome(f"{module}.socket({module}.AF_INET, {module}.SOCK_DGRAM).sendto(b'x', ('8.8.8.8', 53))")
        assert udp == "'OSError'"


def test_it_cannot_fork_nor_raise_its_limits(outcome: Observe) -> None:
    assert outcome("os['fork']()") == "'BlockingIOError'"
    resource = "sys.modules['resource']"
    for name in ("NPROC", "AS", "FSIZE", "CPU"):
        limit = f"{resource}.RLIMIT_{name}"
        assert outcome(f"{resource}.setrlimit({limit}, (2**40, 2**40))") in (
            "'ValueError'",
            "'PermissionError'",
        )


def test_it_cannot_look_into_the_server(outcome: Observe) -> None:
    libc = "sys.modules['ctypes'].CDLL(None)"
    assert outcome(f"{libc}.ptrace(16, os['getppid'](), 0, 0)") == "-1"
    assert outcome("os['open']('/proc/%d/mem' % os['getppid'](), 2)") in (
        "'FileNotFoundError'",
        "'PermissionError'",
    )


OPEN = """
def ok(n):
    try:
        os["fstat"](n)
        return True
    except python.OSError:
        return False
"""


def test_it_holds_no_descriptor_but_its_own_answer(sandbox: Sandbox, reach_os: str) -> None:
    code = "raise ValueError(f'{[n for n in range(3, 64) if ok(n)]}')"
    with pytest.raises(Rejected) as caught:
        sandbox.trace_unchecked(reach_os + OPEN + code)
    assert len(json.loads(caught.value.reason.partition("ValueError: ")[2])) == 1


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        ("while True: pass", "resource", "CPU time"),
        ("x = 9**9**9**9", "resource", "CPU time"),
        ("x = sum(range(10**12))", "resource", "CPU time"),
        ("sys.modules['time'].sleep(9)", "resource", "longer than 1 s"),
        ("os['setsid']()\nsys.modules['time'].sleep(9)", "resource", "longer than 1 s"),
        ("x = 'a' * 10**10", "resource", "memory"),
        ("x = []\nwhile True: x.append('a' * 10**7 + str(len(x)))", "resource", "the trace"),
        ("x = []\nwhile True: x = [x, x, [0] * 10000]", "resource", "the trace"),
        ("def f(): return f()\nf()", "resource", "recursion"),
        ("sys.exit(0)", "forbidden", "SystemExit"),
        ("raise python.KeyboardInterrupt", "forbidden", "KeyboardInterrupt"),
        ("os['_exit'](0)", "protocol", "without an answer"),
        ("os['_exit'](7)", "resource", "exit code 7"),
        ("os['abort']()", "resource", "SIGABRT"),
        ("sys.modules['ctypes'].string_at(0)", "resource", "SIGSEGV"),
        ("os['kill'](os['getpid'](), 9)", "resource", "SIGKILL"),
        ("os['kill'](os['getppid'](), 9)\nsys.modules['time'].sleep(9)", "protocol", "server died"),
        ("while True: os['fork']()", "type", "BlockingIOError"),
        ("[os['write'](n, b'{\"graph\": \"x\"}') for n in [3, 4, 5, 6, 7, 8] if ok(n)]", "protocol", ""),
        ("[os['write'](n, b'{}') for n in [3, 4, 5, 6, 7, 8] if ok(n)]\nos['_exit'](0)", "protocol", "not the tracer's"),
        ("[os['write'](n, b'x' * 2000000) for n in [3, 4, 5, 6, 7, 8] if ok(n)]", "resource", "longer than 1048576"),
        ("[os['close'](n) for n in [3, 4, 5, 6, 7, 8] if ok(n)]", "protocol", "without an answer"),
        ("raise ValueError('x' * 10**7)", "type", "xxx"),
        ("raise ValueError('\\x1b[2J')", "type", "?[2J"),
        ("import os", "type", "cannot import 'os'"),
        ("print(1)", "type", "'print' is not defined"),
        ("open('/etc/passwd')", "type", "'open' is not defined"),
        ("from vortex.flow import FlowBase\nFlowBase.__init_subclass__ = 1", "type", ""),
        ("G = sys.modules['vortex.graph.model'].FlowGraph\nG.to_json = lambda self: '{}'", "protocol", "not a valid graph"),
        ("G = sys.modules['vortex.graph.model'].FlowGraph\nG.to_json = lambda self: 3", "protocol", "one document"),
        ("sys.modules['json'].dumps = lambda x: '{\"graph\": 1}{\"graph\": 2}'", "protocol", "one document"),
        ("sys.modules['json'].dumps = lambda x: '[' * 100000", "protocol", "one document"),
        ("sys.modules['json'].dumps = lambda x: '{\"graph\": null}'", "protocol", "neither"),
        ("sys.modules['vortex.ops'].OPS.clear()", "type", ""),
    ],
)  # fmt: skip
def test_an_attack_is_rejected_and_the_next_candidate_unharmed(
    attack: Callable[[str], Rejected], code: str, kind: str, reason: str
) -> None:
    verdict = attack(OPEN + code)
    assert (verdict.kind, reason in verdict.reason) == (kind, True), verdict.reason
    assert len(verdict.reason) <= 2000


FORGER = """
fd = [n for n in range(3, 64) if ok(n)][0]
nonce = os["read"](fd, 64)
os["write"](fd, nonce + ANSWER)
os["_exit"](0)
"""


def forge(answer: str) -> str:
    """What someone would send who knows the protocol to the last byte."""
    return OPEN + FORGER.replace("ANSWER", repr(answer.encode()))


def test_a_perfect_forgery_is_only_another_valid_graph(sandbox: Sandbox, reach_os: str, good: str) -> None:
    honest = sandbox.trace(good)
    forged = sandbox.trace_unchecked(reach_os + forge(json.dumps({"graph": honest.to_json()})))
    assert forged.hash == honest.hash


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["fields"][0].update(rows=10**9),
        lambda d: d["fields"][0].update(rows="block_size**999999999"),
        lambda d: d["fields"][0].update(name="k"),
        lambda d: d["indexer"][0].update(op="system"),
        lambda d: d["indexer"][0].update(inputs=[99]),
        lambda d: d["indexer"].clear(),
        lambda d: d["indexer"][0].update(type=["BATCHED", 7, 7]),
        lambda d: d["indexer"].extend(d["indexer"] * 2000),
        lambda d: d.update(version=99),
        lambda d: d.update(extra="x"),
        lambda d: d.update(guards=["9" * 100000 + " == 1"]),
        lambda d: d.update(kind="exe"),
    ],
)
def test_a_forged_graph_that_breaks_a_rule_is_rejected_quickly(
    sandbox: Sandbox, reach_os: str, good: str, change: Callable[[dict[str, object]], None]
) -> None:
    document = json.loads(sandbox.trace(good).to_json())
    change(document)
    start_time = time.perf_counter()
    with pytest.raises(Rejected) as caught:
        sandbox.trace_unchecked(reach_os + forge(json.dumps({"graph": json.dumps(document)}))[:100_000])
    assert caught.value.kind in ("protocol", "resource", "type")
    assert time.perf_counter() - start_time < 1.5


def test_a_candidate_cannot_poison_the_next(sandbox: Sandbox, reach_os: str, good: str) -> None:
    expected = sandbox.trace(good)
    poison = """
ops = sys.modules["vortex.ops"].OPS
for op in ops.values():
    python.object.__setattr__(op, "commutative", True)
sys.modules["vortex.flow.trace"].check_size = lambda graph: None
sys.modules["tracing"].answer = lambda source: "{}"
python.len = lambda x: 0
"""
    with pytest.raises(Rejected):
        sandbox.trace_unchecked(reach_os + poison + "raise ValueError('planted')")
    after = sandbox.trace(good)
    assert (after.hash, after.to_json()) == (expected.hash, expected.to_json())


@needs_bubblewrap
def test_processes_that_survive_a_trace_die_with_the_jail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reach_os: str, good: str
) -> None:
    """With the limit on processes taken away, so that a fork succeeds at all."""
    inside = tmp_path / "inside"
    shutil.copytree(jail_module.INSIDE, inside)
    for path in (tmp_path, inside):
        path.chmod(0o755)
    text = (inside / "server.py").read_text()
    assert "(resource.RLIMIT_NPROC, 0)," in text
    (inside / "server.py").write_text(text.replace("(resource.RLIMIT_NPROC, 0),", ""))
    monkeypatch.setattr(jail_module, "INSIDE", inside)
    before = set(descendants(os.getpid()))
    with Sandbox(Limits(wall_s=1.0)) as sandbox:
        expected = sandbox.trace(good).hash
        for leave in ("os['setsid']()\n    ", "os['setsid']()\n    os['fork']()\n    ", ""):
            code = f"if os['fork']() == 0:\n    {leave}[os['close'](n) for n in range(3, 9) if ok(n)]\n    wait(60)\n"
            helpers = OPEN + "wait = sys.modules['time'].sleep\n"
            with pytest.raises(Rejected, match="left a process behind"):
                sandbox.trace_unchecked(reach_os + helpers + code + good)
            assert not _newer_than(before), "the jail took them along"
            assert sandbox.trace(good).hash == expected
        bomb = "n = 0\nwhile n < 4:\n    n += 1\n    os['fork']()\n"
        with pytest.raises(Rejected):
            sandbox.trace_unchecked(reach_os + bomb + "sys.modules['time'].sleep(60)")
        assert not _newer_than(before)
        assert sandbox.trace(good).hash == expected


def _newer_than(before: set[int]) -> set[int]:
    """This process's new descendants, once those that are dying have died."""
    deadline = time.monotonic() + 2
    while (found := set(descendants(os.getpid())) - before) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def test_closing_leaves_no_process(good: str) -> None:
    with Sandbox() as sandbox:
        sandbox.trace(good)
        assert sandbox._jail is not None
        pid = sandbox._jail.pid
        family = [pid, *descendants(pid)]
    assert not [p for p in family if os.path.exists(f"/proc/{p}")]
    assert sandbox.isolation == "closed"
