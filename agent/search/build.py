"""The real parts of a search: prompts and model, proposer."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

from agent.ledger import Spend
from agent.proposers.base import Proposer
from agent.search.bench import Bench
from agent.search.errors import SearchError
from agent.search.ground import serving_ground, transformers_ground
from agent.search.settings import SearchSettings
from evaluators.executor import EvaluatorSpec
from evaluators.measure.environment import current_environment
from vortex.graph.geometry import Geometry

KEY = "OPENAI_API_KEY"


def build_bench(settings: SearchSettings, cache: Path) -> tuple[Bench, EvaluatorSpec]:
    """Make the prompts, unless `cache` holds them, and open the seeds.

    Raises:
        SearchError: the model or the data cannot be used, or no task counts at this length.
    """
    from evaluators.measure.prepare import PrepareError
    from evaluators.probe import PROBE_PATH, model_label
    from search_spaces.knobs import KnobSpace
    from search_spaces.seeds import seed_limit, seeds

    path = Path(settings.model) if settings.model else PROBE_PATH
    if not (path / "config.json").exists():
        raise SearchError(f"--model {path}: no config.json there; give the folder of a transformers model")
    layers, geometry = shape_of(path)
    space = KnobSpace.for_model(layers=layers, length=settings.length)
    make = serving_ground if settings.engine == "sglang" else transformers_ground
    try:
        ground = make(settings, path, space, cache)
    except (PrepareError, OSError, ValueError) as error:
        raise SearchError(f"the prompts cannot be prepared: {error}") from error
    search = ground.search
    labels = {
        "model": model_label(path),
        "length": str(settings.length),
        "prompts": f"{len(search.gate + search.rest)} search ({len(search.gate)} of them the gate), "
        f"{settings.heldout_per_task} held-out a task",
        "data": "; ".join(sorted({f"{task}: {source}" for task, source in search.sources.items()})),
        "device": ground.label,
    }
    if not (settings.squad or settings.hotpot):
        labels["not run"] = "qa_1, qa_2 (their data was not given: --squad, --hotpot)"
    environment = current_environment().model_dump(mode="json") | {"code": _code_digest()}
    bench = Bench(
        workload=search.key,
        heldout_workload=ground.heldout_key,
        gate=search.gate,
        rest=search.rest,
        environment={**environment, **ground.environment},
        seeds=seeds(space, settings.length, geometry.kind, seed_limit(settings.budget)),
        space=space,
        labels=labels,
        geometry=geometry,
        prompt_tokens=search.tokens,
        open_heldout=ground.open_heldout,
        time=ground.time,
    )
    return bench, ground.evaluator


def build_proposer(settings: SearchSettings, spent: Spend) -> tuple[Proposer, list[str]]:
    """The proposer asked for, with what the user should be told about the choice.

    Raises:
        SearchError: `--proposer llm` without a key or a model.
    """
    from agent.proposers.evolution import EvolutionProposer
    from agent.proposers.random import RandomProposer

    notices = []
    wanted = settings.proposer
    if wanted == "auto":
        usable = bool(os.environ.get(KEY, "").strip() and settings.llm)
        wanted = "llm" if usable else "evolution"
        if not usable:
            missing = "--llm MODEL" if os.environ.get(KEY, "").strip() else KEY
            notices.append(f"no {missing}: proposing by evolution instead of an LLM")
    if wanted == "random":
        return RandomProposer(settings.seed), notices
    if wanted == "evolution":
        return EvolutionProposer(settings.seed), notices
    from agent.proposers.llm import from_environment, price_note

    try:
        tokens = spent.prompt_tokens + spent.completion_tokens
        proposer = from_environment(settings.llm, tokens=tokens, cost=spent.cost)
    except ValueError as error:
        raise SearchError(f"--proposer llm: {error}; or use --proposer evolution") from error
    note = price_note(proposer.client.settings)
    return proposer, notices + ([note] if note else [])


def shape_of(path: Path) -> tuple[int, Geometry]:
    """(layers, geometry) of a transformers model, from its config alone."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path)
    heads = config.num_attention_heads
    if getattr(config, "kv_lora_rank", None):
        sizes = Geometry.mla(Geometry().block_size, config.kv_lora_rank, config.qk_rope_head_dim, heads)
        return config.num_hidden_layers, sizes
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    return config.num_hidden_layers, replace(Geometry(), head_dim=head_dim, group=heads // kv_heads)


def _code_digest() -> str:
    """Of the code that measures: a measurement is used again only by the code that made it."""
    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for package in ("vortex", "evaluators"):
        for file in sorted((root / package).rglob("*.py")):
            digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
