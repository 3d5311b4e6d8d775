"""`schedule_policy` text to a checked tree, by tree-sitter's C++ grammar and an allow-list.

The text is read as the body of one function. Every syntax node must be one that these files name, with
exactly the children that they expect; whatever else the grammar knows (loops, pointers, lambdas,
attributes, preprocessor lines, asm, a second function) is refused where it stands. Nothing downstream sees
the text again.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vortex.budget.cursor import MAX_DEPTH
from vortex.budget.expressions import ARITHMETIC, ARITY, INT_ONLY, ExpressionReader, cast
from vortex.budget.tree import PARAMETERS, Assign, Const, CType, If, Return, Stmt, Tree, Var, returns
from vortex.errors import PolicyError

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

MAX_BYTES = 8192


@functools.cache
def _parser() -> Parser:
    import tree_sitter
    import tree_sitter_cpp

    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_cpp.language()))


def parse_tree(text: str) -> Tree:
    """The tree of a function body over `PARAMETERS`. Raises PolicyError, row and column counted from 1."""
    bad = re.search("\0|\\\\[\r\n]", text)
    if bad:
        row = text.count("\n", 0, bad.start()) + 1
        column = bad.start() - text.rfind("\n", 0, bad.start())
        word = "a NUL character" if bad[0] == "\0" else "a backslash-newline"
        raise PolicyError(f"{word} is not allowed in a policy", row=row, column=column)
    try:
        body = text.encode()
    except UnicodeEncodeError as e:
        raise PolicyError("the policy is not valid Unicode", row=1, column=1) from e
    if len(body) > MAX_BYTES:
        raise PolicyError(f"the policy has {len(body)} bytes; at most {MAX_BYTES} are read", row=1, column=1)
    parameters = ", ".join(f"{t} {name}" for name, t in PARAMETERS)
    source = f"int schedule_policy({parameters}) {{\n".encode() + body + b"\n}\n"
    for _ in range(MAX_DEPTH):
        root = _parser().parse(source).root_node
        clearer = _without_false_casts(source, root)
        if clearer == source:
            break
        source = clearer
    return _Reader(source).function(root)


def _without_false_casts(source: bytes, root: Node) -> bytes:
    """Blanks the parentheses of `(name)` where the grammar, which knows no names, takes them for a cast.

    `(a) & b` is such a place. Parentheses around one name mean nothing, and no type that a policy may cast
    to is a mere name, so that this changes no meaning.
    """
    text = bytearray(source)
    stack = [root]
    while stack:
        node = stack.pop()
        stack.extend(node.children)
        if node.type == "type_descriptor" and [c.type for c in node.children] == ["type_identifier"]:
            before, after = node.prev_sibling, node.next_sibling
            if before is not None and after is not None and before.type == "(" and after.type == ")":
                text[before.start_byte] = text[after.start_byte] = ord(" ")
    return bytes(text)


class _Reader(ExpressionReader):
    def __init__(self, source: bytes) -> None:
        super().__init__(source)
        self.const = [False] * len(self.slots)

    def function(self, root: Node) -> Tree:
        found = self.children(root)
        for extra in found[1:]:
            self.refuse(extra, f"a policy is the body of one function: {self.text(extra)!r} is outside of it")
        if root.has_error and not found:
            self.unknown(root)
        body = self.expect(found[0], "primitive_type", "function_declarator", "compound_statement")[2]
        statements = self.block(body, top=True)
        if not returns(statements):
            last = self.children(body)[-1]
            self.refuse(last, "not every path returns: end the policy with `return <expression>;`")
        if root.has_error:  # an error in a place that the walk does not visit, such as a comment's end
            self.unknown(root)
        return Tree(tuple(self.slots), statements)

    def block(self, node: Node, top: bool = False) -> tuple[Stmt, ...]:
        found = self.children(node)
        if found[0].type != "{" or found[-1].type != "}":
            self.unknown(node)
        if not top:
            self.scopes.append({})
        statements = tuple(s for c in found[1:-1] for s in self.statement(c))
        if not top:
            self.scopes.pop()
        return statements

    def scoped(self, node: Node) -> tuple[Stmt, ...]:
        self.scopes.append({})
        statements = tuple(self.statement(node))
        self.scopes.pop()
        return statements

    def statement(self, node: Node) -> Iterator[Stmt]:
        self.enter(node)
        match node.type:
            case "compound_statement":
                yield from self.block(node)
            case "declaration":
                yield from self.declaration(node)
            case "return_statement":
                yield Return(cast(self.expression(self.expect(node, "return", "*", ";")[1]), CType.INT))
            case "if_statement":
                yield self.branch(node)
            case "expression_statement":
                found = self.children(node)
                if len(found) == 2:  # an empty statement has the semicolon alone
                    yield self.assignment(found[0])
            case _:
                self.unknown(node)
        self.depth -= 1

    def branch(self, node: Node) -> If:
        found = self.children(node)
        shape = [c.type for c in found]
        if shape[:2] != ["if", "condition_clause"] or len(found) not in (3, 4):
            self.unknown(node)
        condition = cast(self.expression(self.expect(found[1], "(", "*", ")")[1]), CType.BOOL)
        then = self.scoped(found[2])
        other: tuple[Stmt, ...] = ()
        if len(found) == 4:
            if shape[3] != "else_clause":
                self.unknown(found[3])
            other = self.scoped(self.expect(found[3], "else", "*")[1])
        return If(condition, then, other)

    def declaration(self, node: Node) -> Iterator[Stmt]:
        found = self.children(node)
        const = False
        type: CType | None = None
        while found and found[0].type in ("type_qualifier", "primitive_type"):
            head = found.pop(0)
            if head.type == "primitive_type":
                type = self.ctype(head)
            elif self.text(head) in ("const", "constexpr"):
                const = True
            else:
                self.unknown(head)
        if type is None or not found or found.pop().type != ";":
            self.unknown(node)
        for i, item in enumerate(found):
            if i % 2:
                if item.type != ",":
                    self.unknown(item)
                continue
            if item.type == "identifier" and not const:
                name, value = item, None
            elif item.type == "init_declarator":
                name, _, start = self.expect(item, "identifier", "=", "*")
                value = cast(self.expression(start), type)
            elif item.type == "identifier":
                self.refuse(item, f"const {self.text(item)!r} needs a value")
            else:
                self.unknown(item)
            slot = self.declare(name, type, const)
            yield Assign(slot, value or Const(type, 0 if type in (CType.BOOL, CType.INT) else 0.0))

    def declare(self, node: Node, type: CType, const: bool) -> int:
        name = self.name(node)
        if name in self.scopes[-1]:
            self.refuse(node, f"{name!r} is declared twice")
        if name in ARITY:
            self.refuse(node, f"{name!r} is a function; choose another name")
        self.scopes[-1][name] = len(self.slots)
        self.slots.append(type)
        self.const.append(const)
        return len(self.slots) - 1

    def assignment(self, node: Node) -> Assign:
        if node.type == "update_expression":
            found = self.children(node)
            target = next((c for c in found if c.type == "identifier"), None)
            if len(found) != 2 or target is None:
                self.unknown(node)
            sign = next(c for c in found if c is not target).type
            slot = self.target(target)
            variable = Var(self.slots[slot], slot)
            value = self.binary(node, sign[0], variable, Const(CType.INT, 1))
            return Assign(slot, cast(value, variable.type))
        if node.type != "assignment_expression":
            self.expression(node)  # names what is forbidden in it, if anything
            self.refuse(node, f"{self.text(node)!r} has no effect: assign it, or return it")
        left, sign_node, right = self.expect(node, "identifier", "*", "*")
        slot = self.target(left)
        type, sign = self.slots[slot], sign_node.type
        value = self.expression(right)
        if sign != "=":
            if not sign.endswith("=") or sign[:-1] not in ARITHMETIC | INT_ONLY:
                self.unknown(node)
            value = self.binary(node, sign[:-1], Var(type, slot), value)
        return Assign(slot, cast(value, type))

    def target(self, node: Node) -> int:
        slot = self.lookup(node)
        if self.const[slot]:
            self.refuse(node, f"{self.text(node)!r} is const")
        return slot
