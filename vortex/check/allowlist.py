"""A flow's source read as text, against a list of what a flow file may contain.

Never compiles or executes anything: `ast.parse` only, behind limits on size and nesting. Whatever is not
named here is refused with its line. It is no wall against hostile code: where that matters, a jail comes
behind it, and this file makes hostile sources cheap to refuse and easy to explain.
"""

from __future__ import annotations

import ast
import builtins
import warnings
from collections.abc import Iterator
from typing import NoReturn

from vortex.check.literals import too_large
from vortex.check.names import (
    ATTRIBUTES,
    BASES,
    BUILTINS,
    INTROSPECTION,
    MATH,
    TORCH,
    TYPING,
    importable,
)
from vortex.check.rejected import Kind, Rejected
from vortex.errors import nearest
from vortex.flow.advice import op_for

MAX_SOURCE = 32 * 1024
MAX_NODES = 8000
MAX_DEPTH = 60
MODULES = {"typing": TYPING, "math": MATH, "torch": TORCH}

_PLAIN = ast.FunctionDef | ast.Assign | ast.AnnAssign | ast.Expr | ast.Pass
_TOP = _PLAIN | ast.Import | ast.ImportFrom | ast.ClassDef
_CLASS_BODY = _PLAIN
_ALLOWED: tuple[type[ast.AST], ...] = (
    ast.Module, ast.Import, ast.ImportFrom, ast.alias, ast.ClassDef, ast.FunctionDef, ast.arguments, ast.arg,
    ast.Return, ast.Assign, ast.AnnAssign, ast.AugAssign, ast.For, ast.While, ast.If, ast.Pass, ast.Break,
    ast.Continue, ast.Assert, ast.Raise, ast.Expr, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.IfExp, ast.Dict,
    ast.Set, ast.List, ast.Tuple, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp,
    ast.comprehension, ast.Compare, ast.Call, ast.keyword, ast.FormattedValue, ast.JoinedStr, ast.Constant,
    ast.Attribute, ast.Subscript, ast.Starred, ast.Name, ast.Slice, ast.expr_context, ast.boolop,
    ast.operator, ast.unaryop, ast.cmpop,
)  # fmt: skip
_WORDS = {
    "Global": "global", "Nonlocal": "nonlocal", "NamedExpr": "the walrus operator", "Lambda": "lambda",
    "Match": "match",
    "Try": "try", "TryStar": "try", "With": "with", "Delete": "del", "Yield": "yield", "YieldFrom": "yield",
    "Await": "await", "AsyncFunctionDef": "async def", "AsyncFor": "async for", "AsyncWith": "async with",
    "TypeAlias": "a type statement",
}  # fmt: skip


def check_source(source: str) -> None:
    """Raises Rejected unless `source` is a flow file made of allowed parts only."""
    _Checker(_parse(source)).run()


def _parse(source: str) -> ast.Module:
    try:
        size = len(source.encode())
    except UnicodeEncodeError:
        raise Rejected("the source is not valid Unicode", "syntax") from None
    if size > MAX_SOURCE:
        raise Rejected(f"the source has {size} bytes; at most {MAX_SOURCE} are read", "resource")
    if "\0" in source:
        raise Rejected(
            "the source contains a NUL character", "syntax", source.count("\n", 0, source.index("\0")) + 1
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except SyntaxError as error:
        raise Rejected(f"not valid Python: {error.msg}", "syntax", error.lineno) from None
    except (RecursionError, MemoryError):
        raise Rejected("the source is nested too deeply", "resource") from None
    except ValueError as error:
        raise Rejected(f"not valid Python: {error}", "syntax") from None


def _levels(tree: ast.Module) -> Iterator[tuple[ast.AST, ast.AST | None]]:
    """Every node with its parent, breadth first, so that depth is bounded without recursion."""
    level: list[tuple[ast.AST, ast.AST | None]] = [(tree, None)]
    count = depth = 0
    while level:
        count, depth = count + len(level), depth + 1
        if count > MAX_NODES or depth > MAX_DEPTH:
            line = next((found for n, _ in level if (found := getattr(n, "lineno", None))), None)
            most = f"{MAX_NODES} syntax nodes" if count > MAX_NODES else f"{MAX_DEPTH} levels of nesting"
            raise Rejected(f"the source has more than {most}", "resource", line)
        yield from level
        level = [(child, node) for node, _ in level for child in ast.iter_child_nodes(node)]


class _Checker:
    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self.nodes = list(_levels(tree))
        self.parents = {id(node): parent for node, parent in self.nodes}
        self.imported: dict[str, str] = {}  # local name -> "module:name", or "module:" for a module itself
        self.bound: set[str] = set()

    def run(self) -> None:
        for statement in self.tree.body:
            if not isinstance(statement, _TOP):
                self.refuse(statement, f"{_word(statement)} at the top of the file")
        for node, _ in self.nodes:
            if not isinstance(node, _ALLOWED):
                self.refuse(node, _word(node))
            if isinstance(node, ast.Import | ast.ImportFrom):
                self.imports(node)
        for node, _ in self.nodes:
            self.binds(node)
        for node, _ in self.nodes:
            if isinstance(node, ast.Name):
                self.name(node)
            elif isinstance(node, ast.Attribute):
                self.attribute(node)
            elif isinstance(node, ast.keyword) and node.arg is not None:
                self.plain(node, node.arg)
            elif isinstance(node, ast.ClassDef):
                self.flow_class(node)
            elif isinstance(node, ast.FunctionDef) and node.decorator_list:
                self.refuse(node.decorator_list[0], "a decorator on a function")
            excess = too_large(node)
            if excess:
                self.refuse(node, excess, kind="resource")

    def refuse(self, node: ast.AST, what: str, hint: str = "", kind: Kind = "forbidden") -> NoReturn:
        at: ast.AST | None = node
        while at is not None and not hasattr(at, "lineno"):
            at = self.parents.get(id(at))
        message = f"{what} is not allowed in a flow" if kind == "forbidden" else what
        raise Rejected(f"{message}{'. ' + hint if hint else ''}", kind, getattr(at, "lineno", None))

    # -- imports

    def imports(self, node: ast.Import | ast.ImportFrom) -> None:
        if not isinstance(self.parents[id(node)], ast.Module):
            self.refuse(node, "an import inside of a class or function", "Put it at the top of the file")
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name not in MODULES:
                    self.refuse(node, f"`import {alias.name}`", self.import_hint(alias.name))
                self.imported[alias.asname or alias.name] = f"{alias.name}:"
            return
        module = _vortex(node.module or "")
        if node.level or module not in importable():
            self.refuse(
                node, f"importing from {'.' * node.level + (node.module or '')!r}", self.import_hint(module)
            )
        known = importable()[module]
        for alias in node.names:
            if alias.name == "*":
                self.refuse(node, f"`from {node.module} import *`", "Name what you import")
            if alias.name not in known:
                self.refuse(
                    node, f"importing {alias.name!r} from {node.module!r}", self.name_hint(module, alias.name)
                )
            self.imported[alias.asname or alias.name] = f"{module}:{alias.name}"

    def import_hint(self, module: str) -> str:
        listed = ", ".join(sorted(importable().keys() - {"__future__"}))
        if module.startswith("vortex"):
            return f"Use `from vortex.<module> import <name>` with one of: {listed}"
        return f"A flow imports from: {listed}"

    def name_hint(self, module: str, name: str) -> str:
        if module in ("vortex.indexer", "vortex.cache"):
            from vortex.graph.model import Stage
            from vortex.ops import NoSuchOpError

            return str(NoSuchOpError(Stage(module.removeprefix("vortex.")), name))
        close = nearest(name, importable()[module])
        return (
            f"Did you mean {close!r}?"
            if close
            else f"It offers: {', '.join(sorted(importable()[module])[:40])}"
        )

    # -- names

    def binds(self, node: ast.AST) -> None:
        """Collects every name that the file binds, and keeps imported names and `super` what they are."""
        name = None
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            name = node.name
        elif isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            name = node.id
        elif isinstance(node, ast.alias) and node.asname:
            name = node.asname
            if name in BUILTINS or name == "self":
                self.refuse(node, f"binding {name!r}", "Choose another name")
            self.plain(node, name)
            return
        if name is None:
            return
        if name == "self" and not self.is_receiver(node):
            self.refuse(node, "binding 'self' to anything but the flow", "Choose another name")
        if name == "__init__" and isinstance(node, ast.FunctionDef) and self.in_class(node):
            return
        self.plain(node, name)
        if name in self.imported or name == "super":
            self.refuse(node, f"binding {name!r} again", "Choose another name")
        self.bound.add(name)

    def plain(self, node: ast.AST, name: str) -> None:
        if not name.isascii():
            self.refuse(node, f"the name {name!r}", "Use ASCII letters, digits and _")
        if name.startswith("__"):
            self.refuse(node, f"the name {name!r}", "Names with two leading underscores are reserved")

    def is_receiver(self, node: ast.AST) -> bool:
        """Whether `node` is the first parameter of a method."""
        arguments = self.parents[id(node)]
        function = self.parents[id(arguments)] if isinstance(arguments, ast.arguments) else None
        if not isinstance(function, ast.FunctionDef) or not isinstance(arguments, ast.arguments):
            return False
        return self.in_class(function) and [*arguments.posonlyargs, *arguments.args][:1] == [node]

    def in_class(self, node: ast.AST) -> bool:
        return isinstance(self.parents[id(node)], ast.ClassDef)

    def name(self, node: ast.Name) -> None:
        self.plain(node, node.id)
        origin = self.imported.get(node.id)
        if origin is not None and origin.endswith(":"):
            parent = self.parents[id(node)]
            if not (isinstance(parent, ast.Attribute) and parent.attr in MODULES[origin[:-1]]):
                attribute = parent.attr if isinstance(parent, ast.Attribute) else ""
                offers = f"{node.id} offers: {', '.join(sorted(MODULES[origin[:-1]]))}"
                self.refuse(node, f"`{node.id}.{attribute}`".replace(".`", "`"), op_for(attribute) or offers)
        elif origin is None and node.id not in self.bound and node.id not in BUILTINS:
            if hasattr(builtins, node.id):
                self.refuse(node, f"the builtin {node.id!r}", f"A flow has: {', '.join(sorted(BUILTINS))}")
            close = nearest(node.id, self.bound | set(self.imported) | BUILTINS)
            self.refuse(
                node,
                f"the unknown name {node.id!r}",
                f"Did you mean {close!r}?" if close else "Define it first",
            )
        if node.id == "super" and not self.is_super_init(node):
            self.refuse(node, "`super` for anything but `super().__init__()`")

    def is_super_init(self, name: ast.Name) -> bool:
        call = self.parents[id(name)]
        attribute = self.parents[id(call)] if call is not None else None
        outer = self.parents[id(attribute)] if attribute is not None else None
        return (
            isinstance(call, ast.Call)
            and call.func is name
            and not call.args
            and not call.keywords
            and isinstance(attribute, ast.Attribute)
            and attribute.attr == "__init__"
            and isinstance(outer, ast.Call)
            and outer.func is attribute
        )

    def attribute(self, node: ast.Attribute) -> None:
        value = node.value
        if node.attr == "__init__" and isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
            if value.func.id != "super":
                self.refuse(node, "`__init__` of anything but `super()`")
            return
        self.plain(node, node.attr)
        if isinstance(value, ast.Name):
            if value.id == "self" and not node.attr.startswith(INTROSPECTION):
                return
            if self.imported.get(value.id, "").endswith(":"):
                return  # `name` looks at it
        if not isinstance(node.ctx, ast.Load):
            self.refuse(node, f"setting the attribute {node.attr!r} of something else than self")
        if node.attr not in ATTRIBUTES:
            close = nearest(node.attr, ATTRIBUTES)
            hint = op_for(node.attr) or (f"Did you mean {close!r}?" if close else "")
            self.refuse(node, f"the attribute {node.attr!r}", hint)

    # -- definitions

    def flow_class(self, node: ast.ClassDef) -> None:
        if not isinstance(self.parents[id(node)], ast.Module):
            self.refuse(node, "a class inside of a class or function")
        origins = [self.imported.get(b.id, "") if isinstance(b, ast.Name) else "" for b in node.bases]
        if len(origins) != 1 or origins[0] not in {f"vortex.flow:{name}" for name in BASES}:
            self.refuse(
                node, f"the class {node.name!r}", "A class of a flow file has one base: vFlow or vFlowMLA"
            )
        if node.keywords:
            self.refuse(node, "a metaclass or class keyword")
        for decorator in node.decorator_list:
            self.registration(decorator)
        for statement in node.body:
            if not isinstance(statement, _CLASS_BODY):
                self.refuse(statement, f"{_word(statement)} in a class body")

    def registration(self, node: ast.expr) -> None:
        if not (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and self.imported.get(node.func.id) == "vortex.flow:register"
            and not node.keywords
            and len(node.args) == 1
            and isinstance(node.args[0], ast.Constant)
            and isinstance(node.args[0].value, str)
        ):
            self.refuse(node, "this decorator", 'The one decorator of a flow file is @register("name")')


def _vortex(module: str) -> str:
    """`vortex_torch` is the same package as `vortex`."""
    head, dot, rest = module.partition(".")
    return f"vortex{dot}{rest}" if head == "vortex_torch" else module


def _word(node: ast.AST) -> str:
    return _WORDS.get(type(node).__name__, f"`{type(node).__name__}`")
