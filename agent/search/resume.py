"""Brings back from the ledger what a new process must know of the run so far."""

from __future__ import annotations

from agent.ledger import Ledger, Role, Status
from agent.search.board import Board
from agent.search.flight import Passenger, measurement_of, restored
from agent.search.outlook import Outlook
from agent.study import KnobStudy

_FAILED = (Status.REJECTED, Status.FAILED)


def restore(ledger: Ledger, run_id: int, board: Board, outlook: Outlook, study: KnobStudy) -> list[Passenger]:
    """Refill the board, the outlook and the study. Returns the candidates whose evaluation is not complete.

    The references are on the board already.
    """
    waiting: list[Passenger] = []
    for row in ledger.candidates(run_id):
        if row.status in _FAILED:
            outlook.failed(row.proposer, row.source or "", row.reason or "")
        if row.role is Role.DENSE or row.hash is None or row.status is Status.DUPLICATE:
            continue
        outlook.accepted(row.hash, row.graph_hash or "", row.proposer, row.parents)
        if row.status is Status.PENDING and row.role is Role.PROPOSED:
            waiting.append(restored(row))
        measured = measurement_of(row, "gate" if row.status is Status.PRUNED else "search")
        if row.status not in (Status.MEASURED, Status.PRUNED) or measured is None:
            continue
        passenger = restored(row)
        if row.status is Status.MEASURED and row.role is Role.PROPOSED:
            board.add(passenger.measured(measured))
        if row.status is Status.PRUNED:
            board.add_stopped(passenger.measured(measured))
        if passenger.candidate is not None:
            study.tell(passenger.candidate.knobs, measured.accuracy, measured.bytes_per_step)
    return waiting
