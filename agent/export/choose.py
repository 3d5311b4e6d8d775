"""Which candidate is taken: a hash, or the best by a rule that can be said in one sentence."""

from __future__ import annotations

from dataclasses import dataclass

from agent.export.report import ExportError
from agent.ledger import CandidateRecord, Ledger, Role, RunRecord, Status
from agent.search.final import finalists
from agent.search.flight import measurement_of
from evaluators.measure import Measurement
from evaluators.measure.stats import paired_difference

BEST = "best"


@dataclass(frozen=True)
class Chosen:
    """A measured candidate and dense attention on the same splits. `why`: how it was chosen, for the
    record."""

    row: CandidateRecord
    why: str
    search: Measurement | None
    heldout: Measurement | None
    dense_search: Measurement | None
    dense_heldout: Measurement | None

    @property
    def result(self) -> Measurement:
        """The measurement that counts: on held-out prompts, else on the search's."""
        found = self.heldout or self.search
        assert found is not None
        return found

    @property
    def dense(self) -> Measurement | None:
        return self.dense_heldout if self.heldout else self.dense_search


def choose(ledger: Ledger, run: RunRecord, wanted: str, floor: float) -> Chosen:
    """The candidate `wanted`: "best", or the first characters of a hash.

    "best" is the candidate or seed on the front that moves the fewest bytes among those whose held-out
    accuracy is at most `floor` below dense attention's, by the paired difference. Where none is, the most
    accurate one that moves fewer bytes than dense; the record says so.

    Raises:
        ExportError: nothing was measured, or no or several candidates have such a hash.
    """
    rows = ledger.candidates(run.id, (Status.MEASURED,))
    dense = next((row for row in rows if row.role is Role.DENSE), None)
    if wanted == BEST:
        row, why = _best(rows, dense, floor, run)
    else:
        row, why = _by_hash(rows, wanted, run), "asked for by its hash"
    return Chosen(
        row=row,
        why=why,
        search=measurement_of(row, "search"),
        heldout=measurement_of(row, "heldout"),
        dense_search=measurement_of(dense, "search") if dense else None,
        dense_heldout=measurement_of(dense, "heldout") if dense else None,
    )


def _best(
    rows: list[CandidateRecord], dense: CandidateRecord | None, floor: float, run: RunRecord
) -> tuple[CandidateRecord, str]:
    reference = measurement_of(dense, "heldout") if dense else None
    if reference is None:
        raise ExportError(
            f"run {run.name} has no held-out measurement of dense attention yet: finish it with "
            f"python -m agent.search --resume {run.name}, or export a candidate by its hash"
        )
    measured = [
        (row, found)
        for row in finalists(rows)
        if row.role is not Role.DENSE and (found := measurement_of(row, "heldout")) is not None
    ]
    sparse = [(row, found) for row, found in measured if found.bytes_per_step < reference.bytes_per_step]
    if not sparse:
        raise ExportError(f"run {run.name} has no candidate that moves fewer bytes than dense attention")
    lost = {row.id: -paired_difference(found, reference).mean for row, found in sparse}
    within = [(row, found) for row, found in sparse if lost[row.id] <= floor]
    if within:
        row, _ = min(within, key=lambda pair: (pair[1].bytes_per_step, lost[pair[0].id]))
        why = f"fewest bytes among those at most {100 * floor:g} points below dense on held-out prompts"
        return row, why
    row, _ = min(sparse, key=lambda pair: (lost[pair[0].id], pair[1].bytes_per_step))
    why = (
        f"the most accurate on held-out prompts: {100 * lost[row.id]:.1f} points below dense, "
        f"and none is within {100 * floor:g}"
    )
    return row, why


def _by_hash(rows: list[CandidateRecord], wanted: str, run: RunRecord) -> CandidateRecord:
    usable = [row for row in rows if row.hash and row.role is not Role.DENSE]
    found = [row for row in usable if (row.hash or "").startswith(wanted)] if len(wanted) >= 4 else []
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join((row.hash or "")[:16] for row in found[:4])
        raise ExportError(f"{wanted!r} is the start of {len(found)} hashes ({names}): give more characters")
    raise ExportError(
        f"run {run.name} has no measured candidate whose hash starts with {wanted!r} "
        "(4 characters at least): see python -m agent.leaderboard, or use 'best'"
    )
