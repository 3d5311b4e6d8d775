"""The op table for people and for prompts, and the type stubs of `vortex.indexer` and `vortex.cache`.

Everything here is generated from the definitions: `python -m vortex.ops.table` rewrites `docs/ops.md` and the
stubs, and a test sees that they are fresh.
"""

from __future__ import annotations

import ast
from pathlib import Path

from vortex.dims import Dim
from vortex.graph.geometry import Geometry
from vortex.graph.model import Attr, Format, Stage, TensorType
from vortex.ops import OPS, OpDef, stage_ops

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs" / "ops.md"

_INTRO = """# Ops

Generated from the definitions in `vortex/ops/` by `python -m vortex.ops.table`; do not edit.

An op is created once per call site in a flow's `__init__`, and called in `forward_indexer` or
`forward_cache`. All computation is in float32. Shapes are those of one row: `S` is its number of blocks.
A result has the axis of blocks (`S`) if any operand has it.
"""
_STAGE = {
    Stage.INDEXER: """
## Indexer (`vortex.indexer`): `op(x, ..., ctx=ctx)`

Runs for every row in every decode step. `q` is `[1, group, head_dim]`, `cache[name]` is `[S, rows, cols]`.
Ops over blocks work on the scored blocks of a row, between the reserved first and last ones.

| op | result of the example | meaning |
|---|---|---|
""",
    Stage.CACHE: """
## Cache (`vortex.cache`): `op(x, ..., output, loc=loc, ctx=ctx)`

Runs once for every finished block. `cache[name]` is `[1, rows, cols]`. `output` is the field to
write; without it (or with None) the result is an intermediate. A field is written by at most one op.

| op | result of the example | meaning |
|---|---|---|
""",
}


def example_operands(stage: Stage) -> dict[str, tuple[str, TensorType]]:
    """The operands that examples are written over: name in the definition -> name in this stage, type."""
    at = Geometry().bindings()
    block, head, group = (Dim.parse(name, at) for name in ("block_size", "head_dim", "group"))
    one, cache = Dim(1), stage is Stage.CACHE
    blocks = Format.PAGED if cache else Format.RAGGED
    field = TensorType(Format.PAGED, block, head)
    return {
        "q": ("k", field) if cache else ("q", TensorType(Format.BATCHED, group, head)),
        "qm": ("q", TensorType(Format.BATCHED, one, head)),
        "k": ("k", field),
        "c": ("x" if cache else "c", TensorType(blocks, one, head)),
        "f": ("f", TensorType(Format.PAGED, one, head)),
        "s": ("s", TensorType(blocks, one, one)),
        "t0": ("(t0, n0)", TensorType(Format.SELECTION, one, Dim(8))),
        "t1": ("(t1, n1)", TensorType(Format.SELECTION, one, Dim(8))),
    }


def example_result(op: OpDef, stage: Stage) -> TensorType:
    """The inferred type of an op's example."""
    operands = example_operands(stage)
    types = tuple(operands[name][1] for name in op.example.operands)
    return op.result(stage, example_attrs(op, stage), types, operands["f"][1] if op.writes_field else None)


def example_attrs(op: OpDef, stage: Stage) -> dict[str, Attr]:
    """The attributes of an op's example."""
    call = ast.parse(f"f({op.example.args})", mode="eval").body
    assert isinstance(call, ast.Call)
    keywords = {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg is not None}
    return op.bind([ast.literal_eval(value) for value in call.args], keywords, stage)


def row(op: OpDef, stage: Stage) -> str:
    operands = example_operands(stage)
    shown = [operands[name] for name in op.example.operands]
    given = [f"{name} {found.text(stage)}" for name, found in shown]
    target = [f"f {operands['f'][1].text(stage)}"] if op.writes_field else ["o"] if op.claims_output else []
    result = "" if op.claims_output else f" -> {example_result(op, stage).text(stage)}"
    called = "" if op.constant else f"({', '.join([*given, *target])})"
    call = f"{op.name}({op.example.args}){called}{result}"
    return f"| `{op.signature}` | `{call}` | {op.doc.replace('|', chr(92) + '|')} |"


def markdown() -> str:
    """The whole table, as in `docs/ops.md`."""
    parts = [_INTRO]
    for stage in (Stage.INDEXER, Stage.CACHE):
        parts.append(_STAGE[stage] + "\n".join(row(op, stage) for op in stage_ops(stage).values()) + "\n")
    return "".join(parts)


def _spelled(value: object) -> str:
    """A default as the formatter writes it."""
    return f'"{value}"' if isinstance(value, str) else repr(value)


def stub(stage: Stage) -> str:
    """`vortex/<stage>/__init__.pyi`."""
    lines = [f"# Generated from vortex/ops by `python -m vortex.ops.table`; do not edit.{chr(10)}"]
    lines += ["from typing import Any", "", "__all__ = ["]
    lines += [*(f'    "{name}",' for name in sorted(stage_ops(stage))), "]"]
    for op in stage_ops(stage).values():
        words = [
            f"{p.name}: {p.annotation}" + ("" if p.required else f" = {_spelled(p.default)}")
            for p in op.params
        ]
        lines += ["", f"class {op.name}:"]
        created = f"    def __init__({', '.join(['self', *words])}) -> None: ..."
        if len(created) > 100:
            created = "\n".join(
                [
                    "    def __init__(",
                    *(f"        {word}," for word in ["self", *words]),
                    "    ) -> None: ...",
                ]
            )
        lines.append(created)
        if op.constant:
            continue
        tensors = [f"{name}: Any" for name in op.operands]
        if stage is Stage.INDEXER:
            target = ["o: Any"] if op.claims_output else ["field: Any"] if op.writes_field else []
            tail = ["*", "ctx: Any = ..."]
        else:
            target = ["dest: Any"] if op.writes_field else ["output: Any = None"]
            tail = ["*", "loc: Any = ...", "ctx: Any = ..."]
        returned = "tuple[Any, Any]" if op.selects else "Any"
        lines.append(f"    def __call__({', '.join(['self', *tensors, *target, *tail])}) -> {returned}: ...")
    return "\n".join(lines) + "\n"


def generated() -> dict[Path, str]:
    """Every generated file with its content."""
    stubs = {ROOT / "vortex" / stage / "__init__.pyi": stub(stage) for stage in Stage}
    return {DOCS: markdown(), **stubs}


def main() -> None:
    for path, text in generated().items():
        path.write_text(text)
        print(f"{path.relative_to(ROOT)}: {len(OPS)} ops" if path == DOCS else path.relative_to(ROOT))


if __name__ == "__main__":
    main()
