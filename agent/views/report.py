"""The result of a run, made from the ledger alone: what the table, the plot and `--json` show."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from agent.ledger import CandidateRecord, Ledger, Role, RunRecord, RunStatus, Spend, Status, Tally
from agent.search.final import finalists
from agent.search.flight import measurement_of
from evaluators.measure import ExcludedTask, Measurement
from evaluators.measure.pareto import Outcome, Standing, standings
from evaluators.measure.stats import Interval, interval, ratio_interval
from evaluators.serving.report import AnySpeed, read_speed

FORMAT = 1
_ENGINES = {"hf-cpu": "transformers"}


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class Score(_Model):
    """Both objectives on one split. `bytes_ratio`: bytes per decode step over dense attention's."""

    accuracy: Interval
    bytes_ratio: Interval
    bytes_per_step: float
    prompts: int
    by_task: dict[str, float]


class Row(_Model):
    """A reference, or a candidate on the front of the search prompts.

    heldout: None while it has not been measured there. wins: the references that it beats on held-out
    prompts, with intervals that hold for all comparisons together; verdict says so, or why not.
    engine, device: what accuracy was measured on.
    """

    candidate: int
    hash: str
    name: str
    role: Role
    proposer: str
    hypothesis: str | None
    graph_hash: str | None
    new_graph: bool
    parents: tuple[str, ...]
    search: Score
    heldout: Score | None
    meets_floor: bool
    wins: tuple[str, ...]
    verdict: str
    engine: str = ""
    device: str = ""
    speed: AnySpeed | None = None

    @property
    def ground(self) -> str:
        """Device and engine for people, for example "NVIDIA H200, SGLang 0.5.16, flashinfer"."""
        return f"{self.device.replace('cpu', 'CPU')}, {_ENGINES.get(self.engine, self.engine)}"


class Dot(_Model):
    """A measured candidate, for the plot."""

    hash: str
    accuracy: float
    bytes_ratio: float


class Report(_Model):
    format: int = FORMAT
    ledger: str
    run: str
    status: RunStatus
    message: str | None
    created_at: datetime
    seconds: float
    settings: dict[str, Any]
    labels: dict[str, str]
    tasks_counted: tuple[str, ...]
    tasks_excluded: tuple[ExcludedTask, ...]
    environment: dict[str, Any]
    tally: Tally
    spend: Spend
    rows: tuple[Row, ...]
    measured: tuple[Dot, ...]
    plot: str | None = None

    @property
    def front(self) -> tuple[Row, ...]:
        """The candidates of the search on the front, by bytes ascending."""
        return tuple(row for row in self.rows if row.role is Role.PROPOSED)

    @property
    def references(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.role is not Role.PROPOSED)

    @property
    def winners(self) -> tuple[Row, ...]:
        return tuple(row for row in self.front if row.wins)


def build_report(ledger: Ledger, run: RunRecord, settings: Mapping[str, Any]) -> Report:
    """The report of a run as far as it has come. `settings` are the run's, parsed."""
    rows = ledger.candidates(run.id, (Status.MEASURED,))
    final = finalists(rows)
    searched = {row.id: m for row in final if (m := measurement_of(row, "search"))}
    heldout = {row.id: m for row in final if (m := measurement_of(row, "heldout"))}
    verdicts = _verdicts(final, heldout)
    seed_graphs = {row.graph_hash for row in final if row.role is Role.SEED}
    dense = next((row for row in final if row.role is Role.DENSE), None)
    bars = {
        split: m[dense.id]
        for split, m in (("search", searched), ("heldout", heldout))
        if dense and dense.id in m
    }
    ground = bars.get("search")
    floor = float(settings.get("accuracy_floor", 0.0))
    return Report(
        ledger=ledger.url,
        run=run.name,
        status=run.status,
        message=run.message,
        created_at=run.created_at,
        seconds=run.seconds,
        settings=dict(settings),
        labels=run.labels,
        tasks_counted=ground.tasks_counted if ground else (),
        tasks_excluded=ground.tasks_excluded if ground else (),
        environment=ledger.environment(run.environment_id),
        tally=ledger.tally(run.id),
        spend=ledger.spend(run.id),
        rows=tuple(
            _row(row, searched[row.id], heldout.get(row.id), verdicts, seed_graphs, bars, floor)
            for row in _ordered(final)
            if row.id in searched
        ),
        measured=tuple(dot for row in rows if (dot := _dot(row)) is not None),
    )


def _ordered(final: list[CandidateRecord]) -> list[CandidateRecord]:
    """Dense attention first, then seeds and candidates by the bytes they move."""

    def order(row: CandidateRecord) -> tuple[bool, float]:
        found = row.evaluation("search")
        return row.role is not Role.DENSE, found.bytes_per_step or 0.0 if found else 0.0

    return sorted(final, key=order)


def _row(
    row: CandidateRecord,
    searched: Measurement,
    heldout: Measurement | None,
    verdicts: Mapping[int, Standing],
    seed_graphs: set[str | None],
    bars: Mapping[str, Measurement],
    floor: float,
) -> Row:
    standing = verdicts.get(row.id)
    judged = heldout or searched
    dense = bars.get(judged.split)
    return Row(
        candidate=row.id,
        hash=row.hash or "",
        name=row.name,
        role=row.role,
        proposer=row.proposer,
        hypothesis=row.hypothesis,
        graph_hash=row.graph_hash,
        new_graph=row.role is Role.PROPOSED and row.graph_hash not in seed_graphs,
        parents=row.parents,
        search=_score(searched),
        heldout=_score(heldout) if heldout else None,
        meets_floor=dense is None or judged.accuracy >= dense.accuracy - floor,
        wins=standing.wins_over() if standing else (),
        verdict=_verdict(row, standing),
        engine=judged.engine,
        device=judged.device,
        speed=_speed(row),
    )


def _score(measured: Measurement) -> Score:
    import numpy as np

    tasks = [sample.task for sample in measured.samples]
    moved = np.array([sample.bytes for sample in measured.samples])
    dense = np.array([sample.dense_bytes for sample in measured.samples])
    return Score(
        accuracy=interval(measured),
        bytes_ratio=ratio_interval(tasks, moved, dense),
        bytes_per_step=measured.bytes_per_step,
        prompts=len(measured.samples),
        by_task=measured.task_accuracy(),
    )


def _verdicts(final: list[CandidateRecord], heldout: Mapping[int, Measurement]) -> dict[int, Standing]:
    names = {row.id: row.name if row.role is not Role.PROPOSED else str(row.id) for row in final}
    references = {
        names[r.id]: heldout[r.id] for r in final if r.role is not Role.PROPOSED and r.id in heldout
    }
    candidates = {names[r.id]: heldout[r.id] for r in final if r.role is Role.PROPOSED and r.id in heldout}
    return {int(standing.candidate): standing for standing in standings(candidates, references)}


def _verdict(row: CandidateRecord, standing: Standing | None) -> str:
    if row.role is not Role.PROPOSED:
        return "reference"
    if standing is None or not standing.comparisons:
        return "not measured on held-out prompts"
    wins = [
        f"{outcome.value} than {', '.join(beaten)}"
        for outcome in (Outcome.MORE_ACCURATE, Outcome.CHEAPER)
        if (beaten := standing.wins_over(outcome))
    ]
    if wins:
        return "; ".join(wins)
    nearest = max(standing.comparisons, key=lambda c: (c.bytes_ratio.high <= 1.001, c.reference != "dense"))
    return f"no win: {nearest.reason} (against {nearest.reference})"


def _speed(row: CandidateRecord) -> AnySpeed | None:
    found = row.evaluation("speed")
    return read_speed(found.measurement) if found and found.measurement else None


def _dot(row: CandidateRecord) -> Dot | None:
    found = row.evaluation("search")
    if row.role is not Role.PROPOSED or found is None or row.hash is None:
        return None
    if found.accuracy is None or found.bytes_per_step is None or not found.dense_bytes_per_step:
        return None
    ratio = found.bytes_per_step / found.dense_bytes_per_step
    return Dot(hash=row.hash, accuracy=found.accuracy, bytes_ratio=ratio)
