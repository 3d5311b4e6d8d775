"""What candidates are compared with: dense attention and the seeds, measured before any proposal."""

from __future__ import annotations

from agent.ledger import Ledger, Role, Status
from agent.search.bench import Bench
from agent.search.board import Board
from agent.search.errors import SearchError
from agent.search.flight import Flight, Landed, Passenger, measurement_of, restored
from agent.search.intake import Accepted, Intake
from agent.search.progress import Progress, View

DENSE = "dense"
_WAIT = 0.25


def measure_references(
    ledger: Ledger,
    run_id: int,
    bench: Bench,
    intake: Intake,
    flight: Flight,
    board: Board,
    progress: Progress,
    view: View,
) -> None:
    """Put dense attention and all seeds on the board; what the ledger has is not measured again.

    Raises:
        SearchError: dense attention cannot be measured.
    """
    rows = [row for row in ledger.candidates(run_id) if row.role is not Role.PROPOSED]
    for row in rows:
        measured = measurement_of(row, "search")
        if row.status is Status.MEASURED and measured is not None:
            board.add(restored(row).measured(measured))
    waiting = [restored(row) for row in rows if row.status is Status.PENDING]
    known = {row.hash for row in rows}
    if DENSE not in known:
        waiting.insert(0, Passenger(intake.admit_dense(), DENSE, DENSE, Role.DENSE))
    for seed in bench.seeds:
        admitted = intake.admit_seed(seed) if seed.candidate.hash not in known else None
        if isinstance(admitted, Accepted):
            waiting.append(Passenger.of(admitted, Role.SEED))
    landed = [one for passenger in waiting if (one := flight.board_candidate(passenger))]
    while landed or len(flight):
        for one in landed:
            _enter(one, board, view)
        progress.in_flight = len(flight)
        view.update(progress)
        landed = flight.wait(_WAIT) if len(flight) else []
    if board.dense is None:
        failed = [row for row in ledger.candidates(run_id, (Status.FAILED,)) if row.role is Role.DENSE]
        reason = failed[0].reason if failed else "it was not measured"
        raise SearchError(
            f"dense attention, which everything is compared with, could not be measured: {reason}"
        )


def _enter(landed: Landed, board: Board, view: View) -> None:
    if landed.measurement is not None:
        board.add(landed.passenger.measured(landed.measurement))
    else:
        view.notice(f"{landed.passenger.name} could not be measured and is left out: {landed.reason}")
