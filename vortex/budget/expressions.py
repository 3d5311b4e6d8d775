"""C expressions to typed trees: names, literals, operators and casts, with C's conversions written out."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from vortex.budget.cursor import ALLOWED, Cursor
from vortex.budget.scalar import round32
from vortex.budget.tree import PARAMETERS, Cast, Const, CType, Expr, Op, Var
from vortex.errors import unknown

if TYPE_CHECKING:
    from tree_sitter import Node

_SYNONYMS = {"and": "&&", "or": "||", "not": "!"}
ARITHMETIC = {"+", "-", "*", "/"}
INT_ONLY = {"%", "<<", ">>", "&", "|", "^"}
_COMPARE = {"<", "<=", ">", ">=", "==", "!="}
_LOGIC = {"&&", "||"}
_RANK = {CType.BOOL: 0, CType.INT: 1, CType.FLOAT: 2, CType.DOUBLE: 3}
ARITY = {"min": 2, "max": 2, "abs": 1, "sqrtf": 1, "log2f": 1}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# The grammar's number literals carry their sign.
_INTEGER = re.compile(r"[+-]?(?:0|[1-9][0-9]*|0[xX][0-9a-fA-F]+|0[bB][01]+)")
_EXPONENT = r"[eE][+-]?[0-9]+"
_FLOATING = re.compile(rf"([+-]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:{_EXPONENT})?|[0-9]+{_EXPONENT}))([fF]?)")


def cast(value: Expr, type: CType) -> Expr:
    return value if value.type is type else Cast(type, value)


def common(*values: Expr) -> CType:
    """C's usual arithmetic conversions (of one value: its integer promotion)."""
    return max(CType.INT, *(v.type for v in values), key=_RANK.__getitem__)


class ExpressionReader(Cursor):
    def __init__(self, source: bytes) -> None:
        super().__init__(source)
        self.slots = [t for _, t in PARAMETERS]
        self.scopes: list[dict[str, int]] = [{name: i for i, (name, _) in enumerate(PARAMETERS)}]

    def name(self, node: Node) -> str:
        text = (node.text or b"").decode(errors="replace")
        if not _NAME.fullmatch(text):
            self.refuse(node, f"the name {text[:40]!r} may contain only ASCII letters, digits and _")
        return text

    def lookup(self, node: Node) -> int:
        name = self.name(node)
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        self.refuse(node, unknown("name", name, [n for scope in self.scopes for n in scope]))

    def ctype(self, node: Node) -> CType:
        text = self.text(node)
        if text not in set(CType):
            self.refuse(node, f"the type {text!r} is not allowed; use bool, int, float or double")
        return CType(text)

    def expression(self, node: Node) -> Expr:
        self.enter(node)
        result = self._expression(node)
        self.depth -= 1
        return result

    def _expression(self, node: Node) -> Expr:
        match node.type:
            case "number_literal":
                return self.number(node)
            case "true" | "false":
                return Const(CType.BOOL, int(node.type == "true"))
            case "identifier":
                slot = self.lookup(node)
                return Var(self.slots[slot], slot)
            case "parenthesized_expression":
                return self.expression(self.expect(node, "(", "*", ")")[1])
            case "binary_expression":
                left, sign, right = self.expect(node, "*", "*", "*")
                operator = _SYNONYMS.get(sign.type, sign.type)
                return self.binary(node, operator, self.expression(left), self.expression(right))
            case "unary_expression":
                sign, value = self.expect(node, "*", "*")
                return self.unary(node, _SYNONYMS.get(sign.type, sign.type), self.expression(value))
            case "conditional_expression":
                c, _, a, _, b = self.expect(node, "*", "?", "*", ":", "*")
                condition = cast(self.expression(c), CType.BOOL)
                return self.select(condition, self.expression(a), self.expression(b))
            case "cast_expression":
                descriptor, value = self.expect(node, "(", "type_descriptor", ")", "*")[1::2]
                if descriptor.children and descriptor.children[0].type == "type_identifier":
                    self.refuse(node, f"({self.text(descriptor)}) reads as a cast: drop its parentheses")
                type = self.ctype(self.expect(descriptor, "primitive_type")[0])
                return cast(self.expression(value), type)
            case "call_expression":
                return self.call(node)
            case _:
                self.unknown(node)

    def number(self, node: Node) -> Const:
        text = (node.text or b"").decode(errors="replace")
        if _INTEGER.fullmatch(text):
            value = int(text, 0)
            if abs(value) >= 2**31:
                self.refuse(node, f"{text} does not fit into an int; the largest is 2147483647")
            return Const(CType.INT, value)
        match = _FLOATING.fullmatch(text)
        if match is None:
            self.refuse(node, f"the number {text[:40]!r} is not allowed; write 12, 0x1f, 0.5f or 1e-3f")
        type = CType.FLOAT if match[2] else CType.DOUBLE
        number = round32(float(match[1])) if match[2] else float(match[1])
        if math.isinf(number):
            self.refuse(node, f"{text[:40]} is too large for {type}")
        return Const(type, number)

    def binary(self, node: Node, sign: str, a: Expr, b: Expr) -> Expr:
        if sign in _LOGIC:
            return Op(CType.BOOL, sign, (cast(a, CType.BOOL), cast(b, CType.BOOL)))
        if sign not in ARITHMETIC | INT_ONLY | _COMPARE:
            self.refuse(node, f"the operator {sign!r} is not allowed in a policy. {ALLOWED}")
        type = common(a, b)
        if sign in INT_ONLY and type is not CType.INT:
            self.refuse(node, f"{sign!r} needs int operands, not {a.type} and {b.type}; cast with int(...)")
        if sign in ("<<", ">>") and isinstance(b, Const) and not 0 <= b.value < 32:
            self.refuse(node, f"a shift by {int(b.value)} is out of range 0..31")
        return Op(CType.BOOL if sign in _COMPARE else type, sign, (cast(a, type), cast(b, type)))

    def unary(self, node: Node, sign: str, value: Expr) -> Expr:
        if sign == "!":
            return Op(CType.BOOL, "!", (cast(value, CType.BOOL),))
        type = common(value)
        if sign == "+":
            return cast(value, type)
        if sign == "-":
            return Op(type, "neg", (cast(value, type),))
        if sign == "~" and type is CType.INT:
            return Op(type, "~", (cast(value, type),))
        self.refuse(node, f"the operator {sign!r} is not allowed on {value.type}. {ALLOWED}")

    def select(self, condition: Expr, a: Expr, b: Expr) -> Expr:
        type = a.type if a.type is b.type else common(a, b)
        return Op(type, "?:", (condition, cast(a, type), cast(b, type)))

    def call(self, node: Node) -> Expr:
        function, arguments = self.expect(node, "*", "argument_list")
        found = self.children(arguments)
        if any(c.type != "," for c in found[2:-1:2]) or len(found) < 2:
            self.unknown(arguments)
        nodes = found[1:-1:2]
        if function.type == "primitive_type":
            type, arity, name = self.ctype(function), 1, self.text(function)
        elif function.type == "template_function":
            base, brackets = self.expect(function, "identifier", "template_argument_list")
            if self.text(base) != "static_cast":
                self.refuse(function, f"{self.text(function)!r} reads as a template: bracket the comparisons")
            descriptor = self.expect(brackets, "<", "type_descriptor", ">")[1]
            type, arity, name = self.ctype(self.expect(descriptor, "primitive_type")[0]), 1, "static_cast"
        elif function.type == "identifier" and self.name(function) in ARITY:
            name = self.name(function)
            arity = ARITY[name]
        else:
            self.refuse(function, f"calling {self.text(function)!r} is not allowed. {ALLOWED}")
        if len(nodes) != arity:
            self.refuse(node, f"{name} takes {arity} argument{'s' * (arity > 1)}, not {len(nodes)}")
        args = [self.expression(a) for a in nodes]
        if name in ("sqrtf", "log2f"):
            return Op(CType.FLOAT, name[:-1], (cast(args[0], CType.FLOAT),))
        if name in ("min", "max"):
            type = common(*args)
            return Op(type, name, tuple(cast(a, type) for a in args))
        if name == "abs":
            type = common(args[0])
            return Op(type, "abs", (cast(args[0], type),))
        return cast(args[0], type)
