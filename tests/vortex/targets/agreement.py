"""A target against the reference on one case: fields, scores, saved fields, selections, attention.

Each stage starts from what the reference left, so that a difference is found where it arises.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tests.vortex.targets.generated import Batch, Case
from tests.vortex.targets.judge import attended, same
from tests.vortex.targets.tolerance import FLOOR, OFF, RESULTS, SAMPLES, Range, Unsteady
from vortex.runtime.attention import Workspace
from vortex.runtime.dtypes import rounded
from vortex.runtime.plan import BlockList, Plan, Quota, SparseRows, make_plan
from vortex.runtime.summaries import Summaries
from vortex.runtime.table import BlockTable
from vortex.targets import TARGETS, LayerCache, Program, get_target

CPU = torch.device("cpu")
DEVICE = torch.device(os.environ.get("VORTEX_DEVICE", "cpu"))
"""Where the tests run the targets; the reference stays on the CPU."""
SLOW = {"triton"} if DEVICE.type == "cpu" else set[str]()
"""Targets whose kernels are interpreted: `make test` runs a sample of their cases, `make test-all` all."""
ON_CPU = [name for name in TARGETS if name != "triton" or DEVICE.type == "cpu"]
"""Targets that run on CPU tensors: kernels that are compiled do not."""
INF, NAN = float("inf"), float("nan")
EDGES = torch.tensor([0.0, -0.0, 1e-45, -1e-45, 1.5, -1.5, 3e38, -3e38, -1e30, INF, -INF, NAN, -NAN])


@dataclass
class Verdict:
    """What was compared.

    `scores` counts finite scores of scored blocks; `narrow` those whose tolerance is below a thousandth of
    them; `unsettled` scores that were not compared. `ties` counts rows in which blocks that are selected and
    blocks that are not have the same score. `used` and `attention` are the largest parts of a tolerance that
    a score and an output of attention took up.
    """

    scores: int = 0
    narrow: int = 0
    unsettled: int = 0
    ties: int = 0
    used: float = 0.0
    attention: float = 0.0

    def add(self, other: Verdict) -> None:
        self.scores += other.scores
        self.narrow += other.narrow
        self.unsettled += other.unsettled
        self.ties += other.ties
        self.used = max(self.used, other.used)
        self.attention = max(self.attention, other.attention)


def check_case(case: Case, target: str, device: torch.device = CPU) -> Verdict:
    """Raises AssertionError where `target`, running on `device`, leaves what the reference allows."""
    return _Check(case, target, device).run()


class _Side:
    """One program, and the caches of the layer for it."""

    def __init__(self, case: Case, batch: Batch, program: Program) -> None:
        self.program = program
        self.layer = LayerCache(case.layer, batch.pool)
        self.summaries = Summaries(program, [self.layer], len(case.lengths), case.heads)

    def start_from(self, other: _Side) -> None:
        for mine, theirs in (
            (self.layer.fields, other.layer.fields),
            (self.layer.requests, other.layer.requests),
        ):
            for name, value in mine.items():
                value.copy_(theirs[name])


class _Step:
    """The rows of a decode step, on one device."""

    def __init__(self, case: Case, batch: Batch, plan: Plan, number: int) -> None:
        device = batch.q.device
        self.rows = SparseRows(plan, case.heads, case.block_size, case.config, device)
        ids = _rows_of(self.rows.requests, case.heads)
        self.table = BlockTable(batch.pages.select(ids), case.block_size, device)
        self.q = batch.q[number][torch.from_numpy(ids).to(device)]


class _Check:
    def __init__(self, case: Case, target: str, device: torch.device) -> None:
        self.case, self.device = case, device
        self.batch = case.batch(CPU)
        self.batch_there = self.batch if device == CPU else case.batch(device)
        self.scale = logit_scale(self.batch)
        self.reference, self.target = get_target("reference"), get_target(target)
        graph, at = case.graph, case.geometry
        self.right = _Side(case, self.batch, self.reference.program(graph, at, case.dtype))
        self.found = _Side(case, self.batch_there, self.target.program(graph, at, case.dtype))
        right, found = self.right.program, self.found.program
        assert found.fields == right.fields
        assert found.request_fields == right.request_fields
        assert [pick.k for pick in found.selections] == [pick.k for pick in right.selections]
        off = OFF[RESULTS.get(target, "float32")]
        runs = [Unsteady(graph, at, 0.0, 0), *(Unsteady(graph, at, off, n) for n in range(SAMPLES))]
        self.exact, *self.changed = (_Side(case, self.batch, run) for run in runs)
        self.verdict = Verdict()
        self.random = torch.Generator().manual_seed(case.seed)

    def run(self) -> Verdict:
        for number in range(self.case.steps):
            lengths = np.array(self.case.lengths) + number
            plan = make_plan(lengths, self.case.block_size, self.case.config, None)
            here = _Step(self.case, self.batch, plan, number)
            there = _Step(self.case, self.batch_there, plan, number)
            if len(here.rows):
                self._summaries(here, lengths)
                ranges = self._scores(here, there)
                self._selections(here, there, ranges)
            self._dense(plan, number)
        return self.verdict

    def _summaries(self, step: _Step, lengths: np.ndarray) -> None:
        due = self.right.summaries.due(step.table, step.rows.requests, lengths // self.case.block_size)
        for side in self._sides():
            side.summaries.update(side.layer, due)
        there = [part if isinstance(part, slice) else part.to(self.device) for part in due]
        self.found.summaries.update(self.found.layer, there)
        self._states("after the cache stage", "fields")
        self._level()

    def _scores(self, here: _Step, there: _Step) -> list[Range]:
        def scored(side: _Side, step: _Step) -> torch.Tensor:
            return side.program.scores(step.q, side.layer, step.table, step.rows).cpu()

        right, exact, *changed = (scored(side, here) for side in self._sides())
        found = scored(self.found, there)
        valid = here.rows.valid
        assert found.shape == exact.shape
        ranges = []
        for index in range(len(exact)):
            allowed = Range.of(exact[index], [run[index] for run in changed])
            self._same(f"score {index}, by the reference", right[index][valid], _at(allowed, valid))
            self._same(f"score {index}", found[index][valid], _at(allowed, valid))
            self._count(_at(allowed, valid), found[index][valid])
            ranges.append(allowed)
        self.found_scores = found
        self._states("saved", "fields")
        self._states("saved", "requests")
        self._level()
        return ranges

    def _selections(self, here: _Step, there: _Step, ranges: list[Range]) -> None:
        """The rule itself is exact; on a target's own scores, a block may differ where it is in reach of the
        k-th score."""
        rows, picks = here.rows, []
        for index, pick in enumerate(self.right.program.selections):
            quota, quota_there = rows.quota(pick.k), there.rows.quota(pick.k)
            allowed = ranges[index].rounded(self.case.dtype)
            best = self.reference.select(allowed.exact, rows, quota)
            picks.append((best, quota))
            chosen = _sets(best, quota)
            given = allowed.exact.to(self.device)
            same = _sets(self.target.select(given, there.rows, quota_there), quota)
            assert same == chosen, f"selection {index} on equal scores: {same} for {chosen}"
            self._count_ties(allowed.exact, rows.valid, chosen)
            self._edges(rows, there.rows, quota, quota_there)
            own = rounded(self.found_scores[index].to(self.device), self.case.dtype)
            picked = _sets(self.target.select(own, there.rows, quota_there), quota)
            for row, (ours, theirs) in enumerate(zip(picked, chosen, strict=True)):
                self._in_reach(allowed, row, rows.valid[row], ours, theirs)
        listed = rows.place(picks[0][0]) if len(picks) == 1 else rows.union(picks)
        self._attention(here, there, listed)

    def _edges(self, rows: SparseRows, rows_there: SparseRows, quota: Quota, quota_there: Quota) -> None:
        """Scores of which many tie and few are ordinary numbers."""
        scores = EDGES[torch.randint(0, len(EDGES), (len(rows), rows.blocks), generator=self.random)]
        right = self.reference.select(scores, rows, quota)
        found = self.target.select(scores.to(self.device), rows_there, quota_there)
        assert _sets(found, quota) == _sets(right, quota), f"selection of {scores.tolist()}"

    def _in_reach(
        self, allowed: Range, row: int, valid: torch.Tensor, ours: set[int], theirs: set[int]
    ) -> None:
        assert len(ours) == len(theirs)
        assert valid[list(ours)].all(), "a reserved block was selected"
        upper, lower = allowed.best(True)[row], allowed.best(False)[row]
        least, most = (bound[valid].sort(descending=True).values[len(theirs) - 1] for bound in (lower, upper))
        assert all(upper[block] >= least for block in ours - theirs), f"row {row}: {ours} for {theirs}"
        assert all(lower[block] <= most for block in theirs - ours), f"row {row}: {ours} for {theirs}"

    def _attention(self, here: _Step, there: _Step, listed: BlockList) -> None:
        size, blocks = self.case.block_size, here.table.ids.gather(1, listed.positions)
        moved = BlockList(
            listed.positions.to(self.device),
            listed.tokens.to(self.device),
            listed.full,
            listed.beyond.to(self.device),
        )
        right = self.reference.attend(here.q, self.batch.pool, blocks, listed, size, self.scale, Workspace())
        found = self.target.attend(
            there.q, self.batch_there.pool, blocks.to(self.device), moved, size, self.scale, Workspace()
        )
        self._attended("sparse attention", found, right, here.q)

    def _dense(self, plan: Plan, number: int) -> None:
        ids = _rows_of(np.flatnonzero(~plan.sparse), self.case.heads)
        lengths = np.repeat(plan.seq_len, self.case.heads)[ids]
        if len(ids) == 0:
            return
        out = [
            target.attend_dense(
                batch.q[number][torch.from_numpy(ids).to(batch.q.device)],
                batch.pool,
                batch.pages.select(ids),
                lengths,
                self.case.heads,
                self.scale,
            )
            for target, batch in ((self.target, self.batch_there), (self.reference, self.batch))
        ]
        self._attended("dense attention", out[0], out[1], self.batch.q[number][torch.from_numpy(ids)])

    def _attended(self, what: str, found: torch.Tensor, right: torch.Tensor, q: torch.Tensor) -> None:
        used = attended(what, found, right, q, self.batch.pool, self.scale, self.case.stored)
        self.verdict.attention = max(self.verdict.attention, used)

    def _sides(self) -> Sequence[_Side]:
        return (self.right, self.exact, *self.changed)

    def _level(self) -> None:
        for side in (self.exact, *self.changed, self.found):
            side.start_from(self.right)

    def _states(self, when: str, kind: str) -> None:
        """Everything that is kept, also where nothing was to be written."""
        for name, found in getattr(self.found.layer, kind).items():
            exact, *changed = (getattr(side.layer, kind)[name] for side in (self.exact, *self.changed))
            allowed = Range.of(exact, changed).rounded(self.case.dtype)
            self._same(f"{name} {when}", found.float().cpu(), allowed)
            self._same(f"{name} {when}, by the reference", getattr(self.right.layer, kind)[name], allowed)

    def _same(self, what: str, found: torch.Tensor, allowed: Range) -> None:
        same(f"{self.target.name}: {what}", found, allowed)

    def _count(self, allowed: Range, found: torch.Tensor) -> None:
        verdict, exact = self.verdict, allowed.exact
        verdict.scores += int(exact.isfinite().sum())
        verdict.narrow += int((allowed.high - exact <= 1e-3 * exact.abs() + 2 * FLOOR).sum())
        verdict.unsettled += int((~allowed.settled).sum())
        verdict.used = max(verdict.used, allowed.share(found))

    def _count_ties(self, scores: torch.Tensor, valid: torch.Tensor, chosen: list[set[int]]) -> None:
        for row, blocks in enumerate(chosen):
            rest = valid[row].clone()
            rest[list(blocks)] = False
            self.verdict.ties += bool((scores[row, list(blocks), None] == scores[row, rest]).any())


def logit_scale(batch: Batch) -> float:
    """Of logits, for attention: keeps them small, whatever the size of the numbers."""
    spread = float(batch.pool.k.float().std() * batch.q.float().std())
    return float(batch.pool.head_dim**-0.5 / spread)


def _at(allowed: Range, where: torch.Tensor) -> Range:
    return Range(*(x[where] for x in (allowed.exact, allowed.low, allowed.high, allowed.settled)))


def _sets(picked: torch.Tensor, quota: Quota) -> list[set[int]]:
    """The chosen blocks of each row."""
    found = [set(row[:k].tolist()) for row, k in zip(picked.cpu(), quota.host_k, strict=True)]
    assert [len(row) for row in found] == quota.host_k.tolist(), "a block is listed twice"
    return found


def _rows_of(requests: np.ndarray, heads: int) -> np.ndarray:
    return np.asarray((requests[:, None] * heads + np.arange(heads)).ravel())
