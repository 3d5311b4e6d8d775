"""From cheap to dear: few prompts first, and a stop for what cannot reach the front."""

from __future__ import annotations

from agent.search.board import Board
from evaluators.measure import Measurement
from evaluators.measure.stats import paired_difference

LEVEL = 0.95
RESAMPLES = 4_000


def hopeless(gate: Measurement, board: Board) -> str | None:
    """Why a candidate with this gate measurement cannot reach the front, or None while it still may.

    It cannot when something on the front moves no more bytes and is more accurate on the same prompts, the
    whole paired interval being on that side. A difference that prompts alone could explain stops nobody.
    """
    rival = board.rival(gate.bytes_ratio)
    if rival is None:
        return None
    difference = paired_difference(gate, rival.measurement.restrict(gate.keys, "gate"), LEVEL, RESAMPLES)
    if difference.high >= 0.0:
        return None
    return (
        f"{rival.name} ({rival.hash[:12]}) moves no more bytes and is more accurate on the same "
        f"{len(gate.samples)} prompts: difference {difference}"
    )
