"""How fast an engine decodes: the time of a step, and the published measure.

The time of a step comes from the moments at which tokens came back, not from the difference of two
generations: prefill of 16 prompts of 32K tokens takes hundreds of steps' time, so that 1% of noise in either
of two prefills is worth several steps. Every request is streamed, a chunk every few tokens so that sending
them costs the engine nothing; between the moment when the last request has begun to decode and the moment
when the first is done, all of them decode together, and nothing else runs. Sampling, scheduling and sending
are in the number; prefill, queueing and partly filled batches are not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import BaseModel, ConfigDict, Field

from evaluators.serving.errors import ServingError
from evaluators.serving.report import DecodePoint, SparseWork
from evaluators.serving.requests import RawEngine, Trace, flush, random_prompts, replay

CHUNKS = 8
MOST_TOKENS = 16


class DecodePlan(BaseModel):
    """What is generated. Each length is run `warmups` times, then `repeats` times with the same prompts.

    cold: how many of the repeats begin with an empty prefix cache; only they give the published measure.
    In the others the prompts come from the prefix cache (where it is on), which does not change a step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    lengths: tuple[int, ...] = Field(min_length=1)
    batch: int = Field(default=16, ge=1)
    new: int = Field(default=128, ge=4)
    repeats: int = Field(default=5, ge=1)
    cold: int = Field(default=2, ge=0)
    warmups: int = Field(default=1, ge=0)
    seed: int = 0


Watch = Callable[[], SparseWork | None]
"""What a sparse engine has counted so far; None for a dense one."""


def measure_decode(
    engine: RawEngine, vocabulary: int, plan: DecodePlan, watch: Watch = lambda: None
) -> tuple[DecodePoint, ...]:
    """One point a length. Raises ServingError for what cannot be measured as asked."""
    return tuple(_point(engine, vocabulary, plan, length, watch) for length in plan.lengths)


def _point(engine: RawEngine, vocabulary: int, plan: DecodePlan, length: int, watch: Watch) -> DecodePoint:
    prompts = random_prompts(plan.batch, length, vocabulary, plan.seed)
    every = max(1, min(MOST_TOKENS, plan.new // CHUNKS))
    for _ in range(plan.warmups):
        replay(engine, prompts, plan.new, every=every)
    steps, published = [], []
    before = watch()
    for repeat in range(plan.repeats):
        cold = repeat < plan.cold
        if cold:
            flush(engine)
        traces = replay(engine, prompts, plan.new, every=every)
        steps.append(1e3 * steady_step(traces))
        if cold:
            published.append(published_rate(traces))
    return DecodePoint(
        tokens_in=length,
        tokens_out=plan.new,
        batch=plan.batch,
        step_ms=tuple(steps),
        published=tuple(published),
        work=spent(before, watch()),
    )


def steady_step(traces: Sequence[Trace]) -> float:
    """Seconds of a decode step while all requests decode: over the events of the one that began last, from
    its second chunk to its last one before any request is done."""
    if retracted := sum(trace.retractions for trace in traces):
        raise ServingError(
            f"{retracted} requests were retracted and prefilled again: the KV cache is too small for this "
            "batch; lower --batch or --lengths, or give the engine more memory"
        )
    latest = max(traces, key=lambda trace: trace.first.seconds)
    end = min(trace.last.seconds for trace in traces)
    inside = [event for event in latest.events[1:] if event.seconds <= end]
    if len(inside) < 2:
        raise ServingError(
            f"the {len(traces)} requests hardly ever decoded together: they did not fit into the engine at "
            "once, or --new is too small; lower --batch, raise --new, or give the engine more memory"
        )
    first, last = inside[0], inside[-1]
    return (last.seconds - first.seconds) / (last.tokens - first.tokens)


def published_rate(traces: Sequence[Trace]) -> float:
    """New tokens of all requests over the seconds of the slowest one: tokens a second."""
    slowest = max(trace.last.seconds - trace.due for trace in traces)
    return sum(trace.last.tokens for trace in traces) / slowest


def spent(before: SparseWork | None, after: SparseWork | None) -> SparseWork | None:
    """What was counted between two readings. Raises ServingError where a sparse engine ran dense, unless its
    crossover says that dense is faster."""
    if before is None or after is None:
        return None
    earlier = before.model_dump()
    work = SparseWork(**{name: count - earlier[name] for name, count in after.model_dump().items()})
    if not work.decode_steps:
        raise ServingError("the engine was to be sparse, but its sparse backend saw no decode step")
    if not work.crossover_steps and not (work.sparse_steps and work.blocks_read):
        raise ServingError(
            f"none of {work.decode_steps} decode steps was sparse: the budget covers every block at this "
            "length; give longer prompts or a smaller topk_val"
        )
    return work
