"""Walking a syntax tree by allow-list: exact shapes, or a refusal that says where, and what is allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from vortex.errors import PolicyError

if TYPE_CHECKING:
    from tree_sitter import Node

MAX_DEPTH = 64
MAX_NODES = 2000
ALLOWED = (
    "Allowed: bool/int/float/double locals, assignment, + - * / %, << >>, & | ^ ~, comparisons, && || !, ?:, "
    "if/else, casts, min, max, abs, sqrtf, log2f, return."
)
_WORDS = {
    "for_statement": "a loop",
    "while_statement": "a loop",
    "do_statement": "a loop",
    "for_range_loop": "a loop",
    "goto_statement": "goto",
    "switch_statement": "switch",
    "comma_expression": "the comma operator",
    "lambda_expression": "a lambda",
    "pointer_expression": "a pointer",
    "pointer_declarator": "a pointer",
    "reference_declarator": "a reference",
    "subscript_expression": "an array access",
    "array_declarator": "an array",
    "attributed_statement": "an attribute",
    "preproc_include": "#include",
    "gnu_asm_expression": "assembly",
    "function_declarator": "a function declaration",
    "string_literal": "a string",
}


class Cursor:
    """`source` is the whole function; its first line is ours, so that rows count the body's lines from 1."""

    def __init__(self, source: bytes) -> None:
        self.lines = source.split(b"\n")
        self.depth = 0
        self.nodes = 0

    def refuse(self, node: Node, message: str) -> NoReturn:
        row, column = node.start_point
        last = len(self.lines) - 3
        if row > last:  # the closing brace is ours: point past the end of the body
            row, column = last, len(self.lines[last])
        prefix = self.lines[row][:column].decode(errors="replace")
        raise PolicyError(message, row=max(row, 1), column=len(prefix) + 1)

    def unknown(self, node: Node) -> NoReturn:
        if node.has_error:
            broken = node
            while not (broken.is_error or broken.is_missing):
                broken = next(c for c in broken.children if c.has_error)
            what = (
                f"{broken.type!r} is missing"
                if broken.is_missing
                else f"syntax error at {self.text(broken)!r}"
            )
            self.refuse(broken, f"{what}. {ALLOWED}")
        word = _WORDS.get(node.type, node.type.replace("_", " "))
        self.refuse(node, f"{word} ({self.text(node)!r}) is not allowed in a policy. {ALLOWED}")

    @staticmethod
    def text(node: Node) -> str:
        text = (node.text or b"").decode(errors="replace")
        return text if len(text) <= 40 else text[:37] + "..."

    def children(self, node: Node) -> list[Node]:
        """All children but comments; an error among them is refused."""
        self.nodes += 1
        if self.nodes > MAX_NODES:
            self.refuse(node, f"the policy is too long: more than {MAX_NODES} syntax nodes")
        found = [c for c in node.children if c.type != "comment"]
        for c in found:
            if c.is_error or c.is_missing:
                self.unknown(c)
        return found

    def enter(self, node: Node) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.refuse(node, f"the policy is nested too deeply: more than {MAX_DEPTH} levels")

    def expect(self, node: Node, *shape: str) -> list[Node]:
        """The children of `node`, whose types must be `shape`; "*" is any node."""
        found = self.children(node)
        if len(found) != len(shape) or any(s not in ("*", c.type) for s, c in zip(shape, found, strict=True)):
            self.unknown(node)
        return found
