"""What a proposer is shown of the search."""

from __future__ import annotations

from agent.ledger import Ledger, Status
from agent.sandbox import Sandbox
from agent.search.settings import SearchSettings
from benchmarks.instant import InstantEvaluator, InstantSettings
from evaluators.executor import EvaluatorSpec, Job
from evaluators.measure import Measurement
from tests.agent.search.parts import Scripted, flow, proposal, search
from vortex.config import VortexConfig

RATIO = InstantSettings(quality=1.0, ratio=0.5)


def uneven(settings: str) -> InstantEvaluator:
    """All candidates move the same; a `topk_val` of 9 answers everything, any other hardly anything."""
    good = InstantEvaluator(RATIO)
    bad = InstantEvaluator(RATIO.model_copy(update={"quality": 0.02}))

    class Uneven(InstantEvaluator):
        def __call__(self, job: Job) -> Measurement:
            topk = VortexConfig.model_validate_json(job.config).topk_val
            return (good if job.graph is None or topk == 9 else bad)(job)

    return Uneven(RATIO)


def test_what_the_gate_stopped_is_shown_and_survives_a_resume(ledger: Ledger, sandbox: Sandbox) -> None:
    proposer = Scripted(
        lambda view: proposal(
            flow(f"flow_{view.index}", 1.0 + view.index), topk_val=4 if view.index % 4 else 9
        )
    )
    evaluator = EvaluatorSpec(factory="tests.agent.search.test_outlook:uneven", settings="")
    settings = SearchSettings(budget=4, workers=1)
    run = search(ledger, sandbox, proposer, settings, evaluator=evaluator)
    stopped = {row.hash for row in ledger.candidates(run.id, (Status.PRUNED,))}
    assert len(stopped) >= 5
    last = proposer.views[-1]
    shown = {known.hash for known in last.measured} & stopped
    assert len(shown) >= len(stopped) - 4  # the last ones were in flight
    assert not stopped & {known.hash for known in (*last.best, *last.different, *last.recent)}
    stingy = {known.hash: known for known in last.measured}[min(shown)]
    assert stingy.accuracy < 0.3
    assert stingy.bytes == 0.5 * stingy.dense_bytes
    again = Scripted(proposer.make)
    more = settings.model_copy(update={"budget": 5})
    search(ledger, sandbox, again, more, run=run, evaluator=evaluator)
    assert stopped <= {known.hash for known in again.views[0].measured}
