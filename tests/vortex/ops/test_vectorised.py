"""The vectorised semantics over padded rows agree with the reference, row by row, for every op and any
padding."""

from __future__ import annotations

from random import Random

import pytest
import torch

from tests.vortex.graph.random_graphs import random_attrs
from vortex.dims import Dim
from vortex.errors import FlowTypeError
from vortex.graph import Format, Ref, Stage, TensorType
from vortex.graph.model import Attr
from vortex.ops import OPS, Args, OpDef, Row

SHAPES = [(1, 1), (1, 8), (4, 8), (8, 4), (4, 1), (2, 2)]
ROWS = [Row(9, 1, 1), Row(4, 2, 2), Row(12, 1, 2), Row(6, 1, 1), Row(2, 1, 1)]
N = 12
CASES = [
    (stage, op)
    for (stage, _), op in OPS.items()
    if not (op.claims_output or op.selects or (stage is Stage.CACHE and op.writes_field))
]


def cases_of(op: OpDef, stage: Stage, rng: Random) -> list[tuple[dict[str, object], tuple[TensorType, ...]]]:
    """Well-typed calls of an op over random shapes and formats."""
    formats = (Format.PAGED,) if stage is Stage.CACHE else (Format.BATCHED, Format.RAGGED, Format.PAGED)
    found = []
    for _ in range(3000):
        if len(found) == 25:
            break
        types = tuple(TensorType(rng.choice(formats), *map(Dim, rng.choice(SHAPES))) for _ in op.operands)
        attrs = random_attrs(op, stage, [(Ref.query(), t) for t in types], rng)
        try:
            result_of(op, stage, op.bind((), attrs, stage), types)
        except FlowTypeError:
            continue
        found.append((attrs, types))
    return found


def result_of(op: OpDef, stage: Stage, attrs: dict[str, Attr], types: tuple[TensorType, ...]) -> TensorType:
    written = TensorType(Format.PAGED, types[0].rows, types[0].cols) if op.writes_field else None
    return op.result(stage, attrs, types, written)


@pytest.mark.parametrize(("stage", "op"), CASES, ids=[f"{stage}-{op.name}" for stage, op in CASES])
def test_vectorised_is_the_reference(stage: Stage, op: OpDef) -> None:
    rng = Random(f"{stage}{op.name}")
    torch.manual_seed(0)
    cases = cases_of(op, stage, rng)
    assert len(cases) >= 3
    valid = torch.zeros(len(ROWS), N, dtype=torch.bool)
    for at, row in enumerate(ROWS):
        valid[at, row.span] = True
    for attrs, types in cases:
        bound = op.bind((), attrs, stage)
        args = Args(bound, result_of(op, stage, bound, types), layer=rng.choice((0, 1, 5)))
        inputs = [
            torch.randn(len(ROWS), 1 if t.format is Format.BATCHED else N, t.rows.hint, t.cols.hint)
            for t in types
        ]
        for at, row in enumerate(ROWS):  # what lies in the padding must not matter
            for x in inputs:
                if x.shape[1] == N:
                    x[at, row.blocks :] = float("nan")
        together = op.run(args, tuple(inputs), valid)
        for at, row in enumerate(ROWS):
            alone = op.reference(
                args, tuple(x[at, : row.blocks] if x.shape[1] == N else x[at] for x in inputs), row
            )
            if args.type.format in (Format.BATCHED, Format.PARAMETER):
                alike = together[at if args.type.format is Format.BATCHED else 0]
                torch.testing.assert_close(alike, alone, rtol=1e-5, atol=1e-6, equal_nan=True)
            else:
                scored = together[at, row.span], alone[row.span]
                torch.testing.assert_close(*scored, rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("name", ["Softmax", "Normalize"])
def test_blocks_that_are_not_scored_get_zero(name: str) -> None:
    """Also in rows without scored blocks, and whatever lies there."""
    op = OPS[Stage.INDEXER, name]
    x = torch.randn(3, 6, 1, 2)
    x[:, 5] = float("nan")
    valid = torch.tensor([[0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0]], dtype=torch.bool)
    out = op.run(Args(op.bind((), {}, Stage.INDEXER)), (x,), valid)
    assert (out[~valid] == 0).all()
    assert out[valid].isfinite().all()
    for at, row in enumerate((Row(6, 1, 2), Row(6, 3, 3), Row(6, 1, 4))):
        torch.testing.assert_close(op.reference(Args(op.bind((), {}, Stage.INDEXER)), (x[at],), row), out[at])


def test_semantics_leave_their_operands_alone() -> None:
    torch.manual_seed(0)
    for stage, op in CASES:
        for attrs, types in cases_of(op, stage, Random(1))[:3]:
            bound = op.bind((), attrs, stage)
            args = Args(bound, result_of(op, stage, bound, types))
            inputs = tuple(torch.randn(3, 5, t.rows.hint, t.cols.hint) for t in types)
            before = [x.clone() for x in inputs]
            op.run(args, inputs, torch.ones(3, 5, dtype=torch.bool))
            assert all(torch.equal(x, y) for x, y in zip(inputs, before, strict=True)), op.name
