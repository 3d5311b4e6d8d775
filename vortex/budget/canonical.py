"""A policy's normal form: one pure expression graph, so that two texts of one rule have one identity.

Branches become selections and locals are substituted (every expression is total, so computing both sides is
harmless), constants fold, operands of commutative ints and comparisons are put in order, equal parts are
shared. Names, comments, spacing, const, parentheses, if/else against ?: and unused locals leave no trace.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from vortex.budget import scalar
from vortex.budget.tree import Assign, Cast, Const, CType, Expr, If, Stmt, Tree, Var

_FLIP = {">": "<", ">=": "<="}
_CHAINS = {"+", "*", "&", "|", "^", "min", "max", "&&", "||"}
_LONGEST_CHAIN = 64  # `x += x` doubles a chain
_SWAPS = {"==", "!=", "+", "*"}


@dataclass(frozen=True)
class Node:
    op: str
    type: CType
    args: tuple[Node, ...] = ()
    value: float = 0
    digest: str = field(default="", compare=False)


def _node(op: str, type: CType, args: tuple[Node, ...] = (), value: float = 0) -> Node:
    text = f"{op} {type} {_number(type, value)} {' '.join(a.digest for a in args)}"
    return Node(op, type, args, value, hashlib.sha256(text.encode()).hexdigest())


def _number(type: CType, value: float) -> str:
    return str(int(value)) if type in (CType.BOOL, CType.INT) else float(value).hex()


def _const(type: CType, value: float) -> Node:
    return _node("const", type, value=value)


_TRUE, _FALSE = _const(CType.BOOL, 1), _const(CType.BOOL, 0)


def _same(a: Node, b: Node) -> bool:
    return a.digest == b.digest


def _select(c: Node, a: Node, b: Node) -> Node:
    if c.op == "!":
        return _select(c.args[0], b, a)
    if a.op == "?:" and _same(a.args[0], c):
        return _select(c, a.args[1], b)
    if b.op == "?:" and _same(b.args[0], c):
        return _select(c, a, b.args[2])
    if _same(a, b) or _same(c, _TRUE):
        return a
    if _same(c, _FALSE):
        return b
    if a.type is CType.BOOL:
        if _same(a, _TRUE) and _same(b, _FALSE):
            return c
        if _same(a, _FALSE) and _same(b, _TRUE):
            return _op("!", CType.BOOL, (c,))
    return _node("?:", a.type, (c, a, b))


def _op(op: str, type: CType, args: tuple[Node, ...]) -> Node:
    if op == "?:":
        return _select(*args)
    if op == "!" and args[0].op == "!":
        return args[0].args[0]
    if op in _FLIP:
        op, args = _FLIP[op], args[::-1]
    if op in _CHAINS and type in (CType.INT, CType.BOOL):  # float rounding is not associative
        flat = tuple(part for a in args for part in (a.args if a.op == op and a.type is type else (a,)))
        args = flat if len(flat) <= _LONGEST_CHAIN else args
        fixed = [a.value for a in args if a.op == "const"]
        args = tuple(a for a in args if a.op != "const")
        while len(fixed) > 1:
            fixed.append(scalar.apply(type, op, [fixed.pop(), fixed.pop()]))
        args += tuple(_const(type, v) for v in fixed)
        if op in ("min", "max", "&", "|", "&&", "||"):
            args = tuple({a.digest: a for a in args}.values())
        if len(args) == 1:
            return args[0]
        args = tuple(sorted(args, key=lambda a: a.digest))
    elif op in _SWAPS:
        args = tuple(sorted(args, key=lambda a: a.digest))
    if all(a.op == "const" for a in args):
        return _const(type, scalar.apply(type, op, [a.value for a in args]))
    return _node(op, type, args)


def _expression(e: Expr, env: list[Node]) -> Node:
    if isinstance(e, Const):
        return _const(e.type, e.value)
    if isinstance(e, Var):
        return env[e.slot]
    if isinstance(e, Cast):
        inner = _expression(e.value, env)
        if inner.op == "const":
            return _const(e.type, scalar.convert(e.type, inner.value))
        return _node("cast", e.type, (inner,))
    return _op(e.op, e.type, tuple(_expression(a, env) for a in e.args))


@dataclass
class _State:
    """What is known after some statements: the locals, whether a return happened, and what it returned."""

    env: list[Node]
    done: Node
    result: Node


def _run(body: tuple[Stmt, ...], state: _State) -> _State:
    for s in body:
        if _same(state.done, _TRUE):
            break
        if isinstance(s, Assign):
            state.env[s.slot] = _expression(s.value, state.env)
        elif isinstance(s, If):
            condition = _expression(s.condition, state.env)
            then = _run(s.then, _State(list(state.env), state.done, state.result))
            other = _run(s.other, _State(list(state.env), state.done, state.result))
            state = _State(
                [_select(condition, a, b) for a, b in zip(then.env, other.env, strict=True)],
                _select(condition, then.done, other.done),
                _select(condition, then.result, other.result),
            )
        else:
            value = _expression(s.value, state.env)
            state = _State(state.env, _TRUE, _select(state.done, state.result, value))
    return state


def canonical(tree: Tree) -> str:
    """One line a distinct subexpression, `#i = op type operands`, parameters as `$i`, then the result."""
    env = [_node("param", t, value=i) for i, t in enumerate(tree.slots[:5])]
    env += [_const(t, 0 if t in (CType.BOOL, CType.INT) else 0.0) for t in tree.slots[5:]]
    root = _run(tree.body, _State(env, _FALSE, _const(CType.INT, 0))).result
    names: dict[str, str] = {}
    lines: list[str] = []
    for n in _ordered(root):
        if n.op == "param":
            names[n.digest] = f"${int(n.value)}"
        elif n.op == "const":
            names[n.digest] = f"{n.type}:{_number(n.type, n.value)}"
        else:
            names[n.digest] = f"#{len(lines)}"
            lines.append(f"#{len(lines)} = {n.op} {n.type} {' '.join(names[a.digest] for a in n.args)}")
    return "\n".join([*lines, f"return {names[root.digest]}"])


def _ordered(root: Node) -> list[Node]:
    """Every distinct node after its operands; no recursion: assignments chain deeper than the stack."""
    order: dict[str, Node] = {}
    stack = [(root, False)]
    while stack:
        n, ready = stack.pop()
        if n.digest in order:
            continue
        if ready:
            order[n.digest] = n
        else:
            stack.append((n, True))
            stack.extend((a, False) for a in reversed(n.args))
    return list(order.values())
