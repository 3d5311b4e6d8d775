"""A search for a model that caches latents: its geometry, its seeds, its sandbox, its proposals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.ledger import Ledger, Role, Status
from agent.proposers.base import Proposer
from agent.proposers.evolution import EvolutionProposer
from agent.proposers.prompt import system_prompt
from agent.proposers.random import RandomProposer
from agent.sandbox import Sandbox
from agent.search.build import shape_of
from agent.search.check import Checker
from agent.search.settings import SearchSettings
from benchmarks.instant import InstantSettings, bench
from search_spaces.seeds import seed_flows, seed_graphs, seed_limit, seeds
from tests.agent.search.parts import proposal, search
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph

LATENT = Geometry.mla(16, 64, 16, 8)


@pytest.fixture(scope="module")
def latent_sandbox() -> Iterator[Sandbox]:
    with Sandbox(geometry=LATENT) as warm:
        yield warm


def test_the_kind_comes_from_the_config(tmp_path: Path) -> None:
    config = {"model_type": "deepseek_v3", "num_hidden_layers": 3, "num_attention_heads": 8}
    config |= {"kv_lora_rank": 64, "qk_rope_head_dim": 16, "hidden_size": 128}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert shape_of(tmp_path) == (3, LATENT)
    heads = {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 32, "num_hidden_layers": 2}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3"} | heads))
    assert shape_of(tmp_path) == (2, Geometry(16, 32, 4))


def test_the_sandbox_traces_flows_over_latents(latent_sandbox: Sandbox) -> None:
    for name, source in seed_flows("mla").items():
        graph = latent_sandbox.trace(source)
        assert graph.hash == seed_graphs("mla")[name].hash
        assert graph.traced_at == LATENT


def test_a_flow_for_the_other_cache_is_refused(latent_sandbox: Sandbox, sandbox: Sandbox) -> None:
    latent, plain = Checker(latent_sandbox, LATENT), Checker(sandbox, Geometry())
    gqa, mla = seed_flows("gqa")["quick_start"], seed_flows("mla")["quest_mla"]
    assert latent.check(proposal(mla)).candidate is not None
    assert plain.check(proposal(gqa)).candidate is not None
    assert "vFlowMLA" in latent.check(proposal(gqa)).reason
    refused = plain.check(proposal(mla))
    assert refused.candidate is None
    assert "MLA" in refused.reason


@pytest.mark.parametrize("proposer", [EvolutionProposer(), RandomProposer()], ids=lambda one: one.name)
def test_a_search_over_latents(ledger: Ledger, latent_sandbox: Sandbox, proposer: Proposer) -> None:
    pretended = InstantSettings()
    plain = bench(pretended)
    known = seeds(plain.space, 2048, "mla", seed_limit(12))
    run = search(
        ledger,
        latent_sandbox,
        proposer,
        SearchSettings(budget=12),
        pretended,
        ground=replace(plain, geometry=LATENT, seeds=known, prompt_tokens=2000),
    )
    rows = ledger.candidates(run.id)
    assert [row.name for row in rows if row.role is Role.SEED] == [seed.name for seed in known]
    made = [row for row in rows if row.role is Role.PROPOSED and row.graph is not None]
    assert sum(row.status is Status.MEASURED for row in made) == 12
    assert {FlowGraph.from_json(row.graph or "").kind for row in made} == {"mla"}
    assert not [row for row in rows if row.status is Status.REJECTED]


def test_a_language_model_is_told_of_latents() -> None:
    text = system_prompt("mla")
    assert "(vFlowMLA):" in text
    assert "absorbed query" in text
    assert "vFlowMLA" not in system_prompt("gqa")
    assert len(text) < 24_000
