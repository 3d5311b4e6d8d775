"""Generated cases through a whole decode session: what it reads is what the rule says of its scores."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from tests.vortex.targets.agreement import ON_CPU, SLOW
from tests.vortex.targets.generated import Batch, Case, fixed_cases
from vortex.ops import Row
from vortex.ops.selection import top
from vortex.runtime.dtypes import rounded
from vortex.runtime.hooks import Hooks, ScoreInput
from vortex.runtime.session import DecodeSession

CASES = list(fixed_cases(400))[::9]
SCALE = 0.1


@dataclass
class Seen:
    """The scores of each selection and the block list, of the sparse rows of each step."""

    rows: list[ScoreInput] = field(default_factory=list)
    scores: list[list[torch.Tensor]] = field(default_factory=list)
    lists: list[torch.Tensor] = field(default_factory=list)

    def hooks(self) -> Hooks:
        def noise(given: ScoreInput, score: torch.Tensor) -> torch.Tensor:
            if not self.rows or self.rows[-1] is not given:
                self.rows.append(given)
                self.scores.append([])
            self.scores[-1].append(score)
            return score

        return Hooks(noise=noise, selected=lambda given, positions: self.lists.append(positions))


class Decode:
    """A session over the tokens of a case, some of its requests."""

    def __init__(self, case: Case, target: str, requests: np.ndarray) -> None:
        self.case, self.requests, self.seen = case, requests, Seen()
        self.batch: Batch = case.batch(torch.device("cpu"))
        self.session = DecodeSession(
            [self.batch.pool] * (case.layer + 1),
            self.batch.pages.select(self._rows()),
            np.array(case.lengths)[requests] - 1,
            case.group,
            case.graph,
            case.config,
            target,
            self.seen.hooks(),
        )

    def _rows(self) -> np.ndarray:
        heads = self.case.heads
        return np.asarray((self.requests[:, None] * heads + np.arange(heads)).ravel())

    def step(self, number: int) -> torch.Tensor:
        """One step: the output of attention, `[rows, group, value_dim]`."""
        self.session.begin_step()
        assert self.session.step is not None
        case, slots = self.case, self.session.step.slots
        parts = [data[slots].view(-1, case.heads, data.shape[1]).clone() for data in self.batch.pool.stored]
        q = self.q(number).reshape(len(self.requests), -1, self.batch.pool.head_dim)
        out = self.session.attend(case.layer, q, parts[0], parts[1] if len(parts) > 1 else None, SCALE)
        return out.reshape(len(slots), case.group, -1)

    def q(self, number: int) -> torch.Tensor:
        return self.batch.q[number][torch.from_numpy(self._rows())]

    def keep(self, alive: np.ndarray) -> None:
        self.session.keep(alive)
        self.requests = self.requests[alive]

    def tokens(self, row: int) -> torch.Tensor:
        """The slots of a row's tokens, in order."""
        length = int(self.session.lengths[row // self.case.heads])
        pages = self.batch.pages.select(self._rows())
        return torch.from_numpy(np.array([pages.slots(np.full(pages.rows, at))[row] for at in range(length)]))


@pytest.mark.parametrize("target", ON_CPU)
def test_a_session_reads_the_blocks_of_the_rule(target: str) -> None:
    sparse = 0
    for case in CASES[:: 3 if target in SLOW else 1]:
        decode = Decode(case, target, np.arange(len(case.lengths)))
        for number in range(case.steps):
            before = len(decode.seen.lists)
            out = decode.step(number)
            chosen: dict[int, list[int]] = {}
            if len(decode.seen.lists) > before:
                chosen = by_the_rule(case, decode)
                sparse += len(chosen)
            check_output(case, decode, number, out, chosen)
    assert sparse > (30 if target in SLOW else 100)


def by_the_rule(case: Case, decode: Decode) -> dict[int, list[int]]:
    """Row -> its blocks in order, the last one last, from the captured scores; the session lists the same."""
    given, scores, listed = decode.seen.rows[-1], decode.seen.scores[-1], decode.seen.lists[-1]
    ids = (given.rows.requests[:, None] * case.heads + np.arange(case.heads)).ravel()
    ratio = np.float32(case.topk_ratio)
    chosen = {}
    for place, row in enumerate(ids):
        length = case.lengths[row // case.heads] + given.step
        n = -(-length // case.block_size)
        policy = max(case.topk_val + case.bos + case.eos, int(np.float32(n) * ratio))
        assert policy < n
        blocks = {*range(case.bos), *range(n - case.eos, n)}
        for pick, score in zip(case.graph.selections, scores, strict=True):
            k = policy - case.bos - case.eos if pick.k is None else pick.k
            own = rounded(score[place, :n], case.dtype)[:, None, None]
            blocks |= set(top(own, Row(n, case.bos, case.eos, k)).tolist())
        found = listed[place].tolist()
        assert set(found[: len(blocks)]) == blocks
        assert found[len(blocks) - 1] == n - 1
        chosen[int(row)] = sorted(blocks)
    return chosen


def check_output(
    case: Case, decode: Decode, number: int, out: torch.Tensor, chosen: dict[int, list[int]]
) -> None:
    """Attention over exactly the tokens of these blocks; over all tokens for the other rows."""
    pool, q = decode.batch.pool, decode.q(number).float()
    tolerance = 1e-4 if case.stored == "float32" else 5e-2
    for row in range(len(out)):
        slots = decode.tokens(row)
        if row in chosen:
            size = case.block_size
            slots = torch.cat([slots[block * size : (block + 1) * size] for block in chosen[row]])
        k, v = pool.k[slots].float(), pool.v[slots].float()
        logits = q[row] @ k.T * SCALE
        weights = torch.softmax(logits, -1)
        loose = tolerance * (1 + float(logits.abs().max()) / 8) * float(v.abs().max())
        torch.testing.assert_close(out[row].float(), weights @ v, rtol=0, atol=loose)


def test_requests_that_leave_change_nothing_for_the_others() -> None:
    """Scores depend on a request's own tokens, fields and saved values, whatever its place in the batch."""
    compared = 0
    for case in CASES:
        if case.steps == 1 or len(case.lengths) < 2:
            continue
        together = Decode(case, "reference", np.arange(len(case.lengths)))
        alone = Decode(case, "reference", np.arange(1, len(case.lengths)))
        for number in range(case.steps):
            together.step(number)
            alone.step(number)
            if number == 0:
                together.keep(np.arange(1, len(case.lengths)))
                continue
            if alone.seen.rows and alone.seen.rows[-1].step == number:
                scores = [torch.stack(decode.seen.scores[-1]) for decode in (together, alone)]
                valid = alone.seen.rows[-1].rows.valid
                torch.testing.assert_close(
                    scores[0][:, valid], scores[1][:, valid], rtol=0, atol=0, equal_nan=True
                )
                compared += 1
    assert compared > 10
