"""A finished run in a real ledger, measured on a small random model: dense attention, a seed, two candidates.

The model's answers mean nothing (its accuracy is 0), but bytes, prompts, hashes and intervals are real.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.ledger import Entry, EvaluationRecord, Ledger, ProposalRecord, Role, RunRecord, Status
from agent.search.settings import SearchSettings
from evaluators.measure import Measurement
from evaluators.measure.environment import current_environment
from evaluators.measure.evaluate import evaluate
from evaluators.measure.spec import WorkloadSpec
from evaluators.measure.workload import Workload
from search_spaces.candidate import Candidate
from search_spaces.knobs import Knobs
from search_spaces.seeds import seed_flows, seed_graphs
from vortex.config import VortexConfig

TASKS = ("niah_single_1", "fwe")


@dataclass
class Finished:
    """A run, and what was measured in it by name."""

    ledger: Ledger
    run: RunRecord
    cache: Path
    candidates: dict[str, Candidate]
    measured: dict[str, Measurement]

    def add(self, name: str, candidate: Candidate | None, role: Role, *found: Measurement) -> int:
        """Enter a candidate with its measurements."""
        key = candidate.hash if candidate else "dense"
        record = ProposalRecord(
            name=name,
            proposer="evolution" if role is Role.PROPOSED else "reference",
            hypothesis=f"about {name}",
            source=seed_flows()["block_sparse_attention"],
            knobs=candidate.knobs.model_dump_json() if candidate else None,
            role=role,
        )
        graph = candidate.graph if candidate else None
        entry = Entry(
            hash=key, graph_hash=graph.hash if graph else None, graph=graph.to_json() if graph else None
        )
        row = self.ledger.accept(self.run.id, record, entry)
        for measurement in found:
            evaluation = EvaluationRecord(
                split=measurement.split,
                workload=measurement.workload,
                status="done",
                accuracy=measurement.accuracy,
                bytes_per_step=measurement.bytes_per_step,
                dense_bytes_per_step=measurement.dense_bytes_per_step,
                measurement=measurement.model_dump_json(),
            )
            self.ledger.record(row, evaluation, Status.MEASURED)
        if candidate:
            self.candidates[name] = candidate
        return row


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """A model this small is slower on several threads, much slower on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from evaluators.probe.tokenizer import build

    folder = tmp_path_factory.mktemp("model")
    tokenizer = build()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


def new_run(ledger: Ledger, model: Path | None, cache: Path) -> Finished:
    """A run without candidates; `model` None is the probe."""
    settings = SearchSettings(
        model=None if model is None else str(model),
        length=512,
        tasks=TASKS,
        prompts_per_task=2,
        heldout_per_task=2,
        gate_per_task=1,
    )
    facts = current_environment().model_dump(mode="json")
    run = ledger.create_run("tried", settings.model_dump_json(), "w", facts)
    return Finished(ledger, run, cache, {}, {})


@pytest.fixture(scope="session")
def finished(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    folder = tmp_path_factory.mktemp("run")
    with Ledger(folder / "ledger.db") as ledger:
        made = new_run(ledger, model_folder, folder / "cache")
        spec = WorkloadSpec(model=model_folder, tasks=TASKS, length=512, samples=2, gate=1)
        search = Workload.ensure(spec, made.cache)
        heldout = Workload.ensure(spec.heldout(), made.cache)
        policy = "return topk_val + block_reserved_bos + block_reserved_eos + 1;"
        plans: list[tuple[str, Role, Candidate | None]] = [
            ("dense", Role.DENSE, None),
            ("seed", Role.SEED, Candidate(seed_graphs()["quick_start"], Knobs(block_size=16, topk_val=6))),
            ("small", Role.PROPOSED, Candidate(seed_graphs()["block_sparse_attention"], Knobs(topk_val=2))),
            (
                "quest it is!",
                Role.PROPOSED,
                Candidate(seed_graphs()["gqa_quest_sparse_attention"], Knobs(topk_val=3, policy=policy)),
            ),
        ]
        for name, role, candidate in plans:
            graph = candidate.graph if candidate else None
            config = candidate.config() if candidate else VortexConfig(block_size=16)
            found = [evaluate(graph, config, workload) for workload in (search, heldout)]
            made.measured[name] = found[1]
            made.add(name, candidate, role, *found)
        yield made
