"""A proposer and an evaluator that cost nothing, so that what is left is the harness itself.

Both are used through the interfaces of the real ones: the evaluator runs in worker processes, proposals go
through the sandbox. Scores are drawn from a hash of the candidate and the prompt: equal on every machine.
"""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from agent.proposers.base import Proposal, SearchView
from agent.search.bench import Bench
from evaluators.executor import EvaluatorSpec, Job
from evaluators.measure import Measurement, SampleResult
from evaluators.measure.environment import current_environment
from evaluators.measure.measurement import measurement_of
from search_spaces.knobs import KnobSpace
from vortex.config import VortexConfig

FLOW = """\
from vortex.abs import ContextBase
from vortex.cache import Mean as CMean
from vortex.flow import register, vFlow
from vortex.indexer import Add_Mul, GeMM, Mean, topK


@register("{name}")
class Flow(vFlow):
    def __init__(self):
        super().__init__()
        self.mean = Mean(dim=1)
        self.product = GeMM()
        self.shift = Add_Mul(alpha={alpha}, beta=2.0)
        self.select = topK()
        self.summary = CMean(dim=1)

    def create_cache(self, block_size, head_dim):
        return {{"centroids": (1, head_dim)}}

    def forward_cache(self, cache, loc, ctx: ContextBase):
        self.summary(cache["k"], cache["centroids"], loc=loc, ctx=ctx)

    def forward_indexer(self, q, o, cache, ctx: ContextBase):
        score = self.product(self.mean(q, ctx=ctx), cache["centroids"], ctx=ctx)
        self.select(self.shift(score, ctx=ctx), o, ctx=ctx)
"""
"""A mean-centroid flow with a constant that makes each graph a new one."""

TASKS = ("niah_single_1", "niah_multikey_2", "vt", "fwe")


class InstantProposer:
    """A new graph every time, with the knobs that the study suggests."""

    name = "instant"

    def propose(self, view: SearchView) -> Proposal:
        source = FLOW.format(name=f"flow_{view.index}", alpha=float(view.index + 1))
        knobs = view.suggestion or view.space.sample(random.Random(view.index))
        parents = tuple(known.hash for known in view.best[:1])
        return Proposal(source, knobs, f"constant {view.index}", self.name, parents)

    def repair(self, proposal: Proposal, error: str) -> Proposal | None:
        return None


class InstantSettings(BaseModel):
    """What the evaluator pretends to be.

    sleep_s: seconds that a job takes. quality: the chance of a right answer for every candidate but dense
    attention, None for one that grows with the bytes. ratio: bytes of every candidate over dense, None for
    what its config reads.
    """

    model_config = ConfigDict(frozen=True)

    prompts_per_task: int = 8
    sleep_s: float = 0.0
    quality: float | None = None
    ratio: float | None = None


class InstantEvaluator:
    """Accuracy grows with the blocks that the config reads; no model, no prompts."""

    def __init__(self, settings: InstantSettings) -> None:
        self.settings = settings

    def __call__(self, job: Job) -> Measurement:
        import time

        time.sleep(self.settings.sleep_s)
        count = len(TASKS) * self.settings.prompts_per_task
        fixed = None if job.graph is None else self.settings.ratio
        ratio = share(job) if fixed is None else fixed
        samples = [self.sample(job, position, ratio) for position in job.prompts or range(count)]
        return measurement_of(
            samples,
            split=job.split,
            workload="heldout" if job.split == "heldout" else "search",
            model="none",
            engine="instant",
            device="none",
            length=2048,
            seconds=0.0,
        )

    def sample(self, job: Job, position: int, ratio: float) -> SampleResult:
        task = TASKS[position % len(TASKS)]
        fixed = None if job.graph is None else self.settings.quality
        score = float(draw(job.key, job.split, position) < (ratio**0.25 if fixed is None else fixed))
        return SampleResult(
            task=task,
            prompt=position // len(TASKS),
            score=score,
            bytes=1e6 * ratio,
            dense_bytes=1e6,
            new_tokens=8,
            prediction="",
        )


def open_evaluator(settings: str) -> InstantEvaluator:
    return InstantEvaluator(InstantSettings.model_validate_json(settings))


def share(job: Job) -> float:
    """Share of the cache that a job's config reads of 2,048 tokens; 1 for dense attention."""
    if job.graph is None:
        return 1.0
    config = VortexConfig.model_validate_json(job.config)
    block = config.block_size or 16
    chosen = config.topk_val + config.block_reserved_bos + config.block_reserved_eos
    return min(1.0, chosen * block / 2048)


def draw(key: str, split: str, position: int) -> float:
    """A number in [0, 1) that belongs to a candidate and a prompt; gate and search prompts are the same."""
    name = f"{key}:{'heldout' if split == 'heldout' else 'search'}:{position}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def bench(settings: InstantSettings, gate_per_task: int = 2) -> Bench:
    """The ground that goes with the evaluator: its prompts, split into a gate and the rest."""
    count, gate = len(TASKS) * settings.prompts_per_task, len(TASKS) * gate_per_task
    return Bench(
        workload="search",
        heldout_workload="heldout",
        gate=tuple(range(gate)),
        rest=tuple(range(gate, count)),
        environment=current_environment().model_dump(mode="json"),
        space=KnobSpace.for_model(layers=4, length=2048),
        labels={"model": "none (instant evaluator)", "length": "2048"},
    )


def spec(settings: InstantSettings) -> EvaluatorSpec:
    return EvaluatorSpec(factory="benchmarks.instant:open_evaluator", settings=settings.model_dump_json())


def journal_path(folder: Path) -> Path:
    return folder / "journal.jsonl"
