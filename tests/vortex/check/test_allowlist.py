"""The first layer: hostile and careless sources are refused as text, with a line and a reason."""

# ruff: noqa: E501 - one attack a line
from __future__ import annotations

import ast
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vortex.check import names
from vortex.check.allowlist import check_source
from vortex.check.rejected import Rejected

HEAD = "from vortex.flow import vFlow, register\nfrom vortex.indexer import GeMM\n"
CLASS = HEAD + '@register("x")\nclass X(vFlow):\n    def __init__(self):\n        super().__init__()\n'

ATTACKS: dict[str, tuple[str, str, int | None, str]] = {
    # name: (source, kind, line, part of the reason)
    "environment": ("import os\nkey = os.environ", "forbidden", 1, "`import os`"),
    "import from os": ("from os import environ", "forbidden", 1, "importing from 'os'"),
    "sys": ("import sys", "forbidden", 1, "`import sys`"),
    "subprocess": ("import subprocess as math", "forbidden", 1, "`import subprocess`"),
    "ctypes": ("from ctypes import CDLL", "forbidden", 1, "'ctypes'"),
    "socket": ("import socket", "forbidden", 1, "`import socket`"),
    "open": ("data = open('/etc/passwd')", "forbidden", 1, "the builtin 'open'"),
    "__import__": ("__import__('os')", "forbidden", 1, "'__import__'"),
    "exec": ("exec('import os')", "forbidden", 1, "the builtin 'exec'"),
    "eval": ("x = eval('1')", "forbidden", 1, "the builtin 'eval'"),
    "compile": ("x = compile('1', 'f', 'eval')", "forbidden", 1, "the builtin 'compile'"),
    "getattr": ("x = getattr(1, 'real')", "forbidden", 1, "the builtin 'getattr'"),
    "setattr": (HEAD + "x = setattr(vFlow, 'a', 1)", "forbidden", 3, "the builtin 'setattr'"),
    "vars": ("x = vars()", "forbidden", 1, "the builtin 'vars'"),
    "globals": ("x = globals()", "forbidden", 1, "the builtin 'globals'"),
    "locals": ("x = locals()", "forbidden", 1, "the builtin 'locals'"),
    "type": ("x = type(1)", "forbidden", 1, "the builtin 'type'"),
    "print": ("print('{\"graph\": 1}')", "forbidden", 1, "the builtin 'print'"),
    "input": ("x = input()", "forbidden", 1, "the builtin 'input'"),
    "breakpoint": ("breakpoint()", "forbidden", 1, "the builtin 'breakpoint'"),
    "exit": ("exit()", "forbidden", 1, "the builtin 'exit'"),
    "SystemExit": ("raise SystemExit", "forbidden", 1, "`Raise` at the top"),
    "SystemExit inside": ("def f():\n    raise SystemExit", "forbidden", 2, "'SystemExit'"),
    "subclasses": ("x = ().__class__.__base__.__subclasses__()", "forbidden", 1, "'__subclasses__'"),
    "class": ("x = (1).__class__", "forbidden", 1, "'__class__'"),
    "dict": ("x = [].__dict__", "forbidden", 1, "'__dict__'"),
    "builtins": ("x = __builtins__", "forbidden", 1, "'__builtins__'"),
    "loader": ("x = __loader__", "forbidden", 1, "'__loader__'"),
    "main guard": ("if __name__ == '__main__':\n    pass", "forbidden", 1, "`If` at the top"),
    "str.format walk": ("x = '{0.__class__}'.format(1)", "forbidden", 1, "'format'"),
    "str.format_map": ("x = '{a}'.format_map({})", "forbidden", 1, "'format_map'"),
    "format of self": (CLASS + "        self.format('{0.x}')", "forbidden", 7, "'format'"),
    "f-string walk": ("x = f'{(1).__class__}'", "forbidden", 1, "'__class__'"),
    "f-string call": ("x = f'{exec(1)}'", "forbidden", 1, "'exec'"),
    "generator frame": ("x = (i for i in [1]).gi_frame", "forbidden", 1, "'gi_frame'"),
    "frame by self": (CLASS + "        self.gi_frame", "forbidden", 7, "'gi_frame'"),
    "self outside of a method": ("def f(self):\n    return self.gi_frame", "forbidden", 1, "'self'"),
    "self rebound": (CLASS + "        self = (i for i in [1])", "forbidden", 7, "'self'"),
    "self as alias": ("from vortex.flow import vFlow as self", "forbidden", 1, "'self'"),
    "self as second parameter": (CLASS + "    def f(this, self):\n        pass", "forbidden", 7, "'self'"),
    "self in a comprehension": ("x = [self.f_globals for self in [1]]", "forbidden", 1, "'self'"),
    "traceback": ("try:\n    1 / 0\nexcept Exception as e:\n    pass", "forbidden", 1, "try"),
    "with": ("def f():\n    with f():\n        pass", "forbidden", 2, "with"),
    "global": ("x = 1\ndef f():\n    global x\n    x = 2", "forbidden", 3, "global"),
    "nonlocal": ("def f():\n    x = 1\n    def g():\n        nonlocal x", "forbidden", 4, "nonlocal"),
    "del": ("x = 1\ndef f():\n    del x", "forbidden", 3, "del"),
    "lambda default": ("f = lambda x=exec: x", "forbidden", 1, "lambda"),
    "walrus": ("x = [y := 1]", "forbidden", 1, "walrus"),
    "match class": ("def f(x):\n    match x:\n        case object(__class__=y):\n            return y", "forbidden", 2, "match"),
    "async": ("async def f():\n    pass", "forbidden", 1, "async"),
    "yield": ("def f():\n    yield 1", "forbidden", 2, "yield"),
    "await": ("async def f():\n    await f()", "forbidden", 1, "async"),
    "star import": ("from vortex.indexer import *", "forbidden", 1, "import *"),
    "relative import": ("from . import loader", "forbidden", 1, "importing from '.'"),
    "relative module": ("from .flow import vFlow", "forbidden", 1, "importing from '.flow'"),
    "module of the package": ("from vortex.flow import loader", "forbidden", 1, "'loader'"),
    "module of a module": ("from vortex.flow.loader import builtins", "forbidden", 1, "'vortex.flow.loader'"),
    "os through the package": ("import vortex.flow.os", "forbidden", 1, "`import vortex.flow.os`"),
    "package": ("import vortex_torch", "forbidden", 1, "`import vortex_torch`"),
    "graph classes": ("from vortex.graph.model import FlowGraph", "forbidden", 1, "'vortex.graph.model'"),
    "import inside": ("def f():\n    import math", "forbidden", 2, "inside of a class or function"),
    "typing.sys": ("import typing\nx = typing.sys", "forbidden", 2, "`typing.sys`"),
    "typing aliased": ("import typing as t\ns = t", "forbidden", 2, "`t`"),
    "from typing import sys": ("from typing import sys", "forbidden", 1, "'sys'"),
    "math dunder": ("import math\nx = math.__loader__", "forbidden", 2, "__loader__"),
    "torch.load": ("import torch\nx = torch.load('x')", "forbidden", 2, "`torch.load`"),
    "torch.ops": ("from torch import ops", "forbidden", 1, "'ops'"),
    "decorator": (HEAD + "@len\nclass X(vFlow):\n    pass", "forbidden", 3, "this decorator"),
    "decorator expression": (HEAD + "@[register('x')][0]\nclass X(vFlow):\n    pass", "forbidden", 3, "this decorator"),
    "decorator name computed": (HEAD + "@register('x' + 'y')\nclass X(vFlow):\n    pass", "forbidden", 3, "decorator"),
    "own register": ("from vortex.flow import vFlow\ndef register(x):\n    return x\n@register('x')\nclass X(vFlow):\n    pass",
                     "forbidden", 4, "this decorator"),
    "function decorator": (CLASS + "    @staticmethod\n    def f():\n        pass", "forbidden", 7, "decorator on a function"),
    "property": (CLASS + "    @register('y')\n    def f(self):\n        pass", "forbidden", 7, "decorator on a function"),
    "metaclass": (HEAD + "class X(vFlow, metaclass=GeMM):\n    pass", "forbidden", 3, "metaclass"),
    "plain class": ("class X:\n    pass", "forbidden", 1, "the class 'X'"),
    "two bases": (HEAD + "class X(vFlow, GeMM):\n    pass", "forbidden", 3, "the class 'X'"),
    "computed base": (HEAD + "class X([vFlow][0]):\n    pass", "forbidden", 3, "the class 'X'"),
    "base is an op": (HEAD + "class X(GeMM):\n    pass", "forbidden", 3, "the class 'X'"),
    "ContextBase overridden": ("from vortex.abs import ContextBase\nclass C(ContextBase):\n    pass", "forbidden", 2, "'C'"),
    "init subclass": (HEAD + "class X(vFlow):\n    def __init_subclass__(cls):\n        pass", "forbidden", 4, "__init_sub"),
    "class getitem": (HEAD + "class X(vFlow):\n    def __class_getitem__(cls, x):\n        pass", "forbidden", 4, "__class_g"),
    "getattr hook": (HEAD + "class X(vFlow):\n    def __getattr__(self, x):\n        pass", "forbidden", 4, "__getattr__"),
    "reduce": (HEAD + "class X(vFlow):\n    def __reduce__(self):\n        pass", "forbidden", 4, "__reduce__"),
    "del method": (HEAD + "class X(vFlow):\n    def __del__(self):\n        pass", "forbidden", 4, "__del__"),
    "slots": (HEAD + "class X(vFlow):\n    __slots__ = ()", "forbidden", 4, "__slots__"),
    "code in a class body": (HEAD + "class X(vFlow):\n    for i in [1]:\n        pass", "forbidden", 4, "in a class body"),
    "nested class": (CLASS + "        class Y(vFlow):\n            pass", "forbidden", 7, "a class inside"),
    "patched op": (HEAD + "def f():\n    GeMM.forward = f", "forbidden", 4, "setting the attribute 'forward'"),
    "patched base": (HEAD + "def f():\n    vFlow.kind = 'mla'", "forbidden", 4, "setting the attribute 'kind'"),
    "op rebound": (HEAD + "GeMM = 1", "forbidden", 3, "binding 'GeMM' again"),
    "super rebound": ("def super():\n    return 1", "forbidden", 1, "binding 'super'"),
    "super walked": (CLASS + "        super().copy()", "forbidden", 7, "`super`"),
    "super with arguments": (CLASS + "        super(X, self).__init__()", "forbidden", 7, "`super`"),
    "init of another": (CLASS + "        x = dict().__init__", "forbidden", 7, "`__init__`"),
    "keyword": ("x = dict(__class__=1)", "forbidden", 1, "'__class__'"),
    "mangled": ("__x = 1", "forbidden", 1, "'__x'"),
    "Greek name": ("\u03b1 = 1", "forbidden", 1, "ASCII"),
    "full-width exec": ("\uff45xec('1')", "forbidden", 1, "'exec'"),
    "bytes": ("x = b'a'", "resource", 1, "bytes"),
    "power tower": ("x = 9**9**9", "resource", 1, "power"),
    "shift": ("x = 1 << 10**9", "resource", 1, "power or shift"),
    "long string": ("x = 'a' * 10**9", "resource", 1, "repeating"),
    "long string, swapped": ("x = 1000000000 * 'a'", "resource", 1, "repeating"),
    "long list": ("x = [0] * 10**9", "resource", 1, "repeating"),
    "percent format": ("x = '%1000000000d' % 1", "resource", 1, "formatting with %"),
    "huge integer": ("x = 0x" + "f" * 5000, "resource", 1, "integer"),
    "huge decimal": ("x = " + "9" * 5000, "syntax", 1, ""),
    "huge string": ("x = '" + "a" * 20000 + "'", "resource", 1, "string of 20000"),
    "huge source": ("#" * 40000, "resource", None, "at most 32768"),
    "many nodes": ("x = [" + "1," * 12000 + "]", "resource", 1, "syntax nodes"),
    "nested brackets": ("x = " + "[" * 100 + "]" * 100, "resource", 1, "nesting"),
    "more brackets": ("x = " + "[" * 5000 + "]" * 5000, "syntax", 1, "nested"),
    "unary chain": ("x = " + "-" * 20000 + "1", "resource", None, "nest"),
    "not chain": ("x = " + "not " * 8000 + "1", "resource", None, "nest"),
    "sum chain": ("x = 1" + "+1" * 3000, "resource", None, "nest"),
    "attribute chain": ("x = y" + ".a" * 10000, "resource", None, "nest"),
    "call chain": ("x = dict" + "()" * 10000, "resource", None, "nest"),
    "nested ifs": ("\n".join("  " * i + "if 1:" for i in range(99)) + "\n" + "  " * 99 + "pass", "resource", None, "nesting"),
    "many indents": ("\n".join(" " * i + "if 1:" for i in range(120)), "syntax", None, "not valid Python"),
    "NUL": ("x = 1\ny = '\0'", "syntax", 2, "NUL"),
    "surrogate": ("x = '\ud800'", "syntax", None, "Unicode"),
    "not Python": ("def f(:\n  pass", "syntax", 1, "not valid Python"),
    "prose": ("Here is the flow you asked for:", "syntax", 1, "not valid Python"),
    "undefined": ("x = GeMM()", "forbidden", 1, "the unknown name 'GeMM'"),
    "misspelt op": ("from vortex.indexer import Gemm", "forbidden", 1, "did you mean 'GeMM'?"),
    "op of the other stage": ("from vortex.cache import topK", "forbidden", 1, "vortex.indexer"),
    "tensor method": (CLASS + "        self.x = dict().mean(1)", "forbidden", 7, "Mean(dim=1)"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_refused_as_text(name: str) -> None:
    source, kind, line, reason = ATTACKS[name]
    with pytest.raises(Rejected) as caught:
        check_source(source)
    assert (caught.value.kind, reason in caught.value.reason) == (kind, True), caught.value.reason
    if line is not None:
        assert caught.value.line == line


def test_everything_a_flow_needs_is_allowed(good: str) -> None:
    check_source(good)
    check_source(
        good.replace("import torch\n", "from __future__ import annotations\nimport math as m\nimport torch\n")
        + "\n    def sizes(self, *parts, scale=2.0, **more):\n"
        "        scale = m.sqrt(scale) ** 2\n"
        "        names = [f'{part}_{i:02d}' for i, part in enumerate(parts) if part]\n"
        "        total = sum(len(n) for n in names) // 2 or max(1, *range(3))\n"
        "        while total > 64 and isinstance(total, int):\n"
        "            total //= 2\n"
        "        assert total >= 0, f'no {total}'\n"
        "        if total % 2:\n"
        "            raise ValueError('odd')\n"
        "        self._cached = {n: (1, total) for n in names}\n"
        "        self._cached.update(more)\n"
        "        return self._cached if total else -total << 1\n"
    )


def test_a_refusal_is_fit_to_print() -> None:
    with pytest.raises(Rejected) as caught:
        check_source("def f():\n    '\x1b[31m'.x\u202e\n")
    assert caught.value.reason.isprintable()


def test_the_check_is_quick(good: str) -> None:
    times = []
    for _ in range(20):
        start = time.perf_counter()
        check_source(good)
        times.append(time.perf_counter() - start)
    assert sorted(times)[10] < 0.02


def test_no_importable_name_is_a_module() -> None:
    import importlib
    import types

    for module, offered in names.importable().items():
        if module.startswith("vortex"):
            loaded = importlib.import_module(module)
            modules = {n for n in offered if isinstance(getattr(loaded, n), types.ModuleType)}
            assert not modules


def test_the_parent_only_parses() -> None:
    source = 'raise ValueError("this must not run")'
    ast.parse(source)
    with pytest.raises(Rejected, match="at the top of the file"):
        check_source(source)


FRAGMENTS = [
    *" ()[]{}:,.=+-*/%@\\\n\t'\"#",
    "self",
    "super()",
    "__",
    "import ",
    "lambda ",
    "f'{",
    "}'",
    "é",
    "\0",
    "if ",
    "class X(vFlow):",
]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 900), st.integers(0, 40), st.sampled_from(FRAGMENTS)), max_size=6))
def test_broken_sources_are_rejected_and_nothing_else_happens(
    good: str, edits: list[tuple[int, int, str]]
) -> None:
    source = good
    for at, cut, fragment in edits:
        source = source[:at] + fragment + source[at + cut :]
    reason = "accepted"
    try:
        check_source(source)
    except Rejected as verdict:
        reason = verdict.reason
    assert reason
