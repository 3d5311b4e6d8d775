from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from agent.proposers.base import Failure, NoProposalError
from agent.proposers.llm import REPAIRS, LLMProposer, from_environment, price_note
from agent.sandbox import Rejected, Sandbox
from search_spaces.candidate import Candidate
from search_spaces.knobs import Knobs
from search_spaces.seeds import seed_flows
from tests.agent.proposers.llm_server import LLMServer, Reply, Script
from tests.agent.proposers.views import known, seeded

KEY = "test-secret-0123456789"
GOOD = seed_flows()["gqa_quest_sparse_attention"].replace("gqa_quest_sparse_attention", "mine")
BROKEN = GOOD.replace('"k_max": (1, head_dim)', '"k_max": (2, head_dim)')


def answer(flow: str, knobs: str = '{"block_size": 32, "topk_val": 6}', rest: str = "") -> Reply:
    return Reply(f"Hypothesis: a tighter bound\n\n```python\n{flow}\n```\n\n```json\n{knobs}\n```\n{rest}")


def proposer(server: LLMServer, **settings: Any) -> LLMProposer:
    environ = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": server.url}
    return from_environment("small", environ, **{"timeout": 5.0, "attempts": 1, **settings})


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as opened:
        yield opened


def scripted(*replies: Reply) -> Script:
    return replies


def test_a_broken_flow_is_repaired_and_becomes_a_parent(sandbox: Sandbox) -> None:
    assert BROKEN != GOOD
    with LLMServer(scripted(answer(BROKEN), answer(GOOD), answer(GOOD))) as server:
        ours = proposer(server)
        view = seeded()
        first = ours.propose(view)
        with pytest.raises(Rejected) as caught:
            sandbox.trace(first.source)
        repaired = ours.repair(first, str(caught.value))
        assert repaired is not None
        assert repaired.attempt == 1
        candidate = Candidate(sandbox.trace(repaired.source), repaired.knobs)
        told = server.prompts(1)
        assert str(caught.value) in told[-1]
        assert BROKEN.strip() in told[-2]
        row = known(candidate, repaired.source, 0.9, 0.1, hypothesis=repaired.hypothesis, on_front=True)
        ours.propose(replace(view, index=1, best=(row, *view.best)))
        assert repaired.source.strip() in server.prompts(2)[-1]
        assert candidate.hash[:12] in server.prompts(2)[-1]
    assert [c.purpose for c in first.calls] == ["propose"]
    assert [c.purpose for c in repaired.calls] == ["repair"]
    assert repaired.knobs.block_size == 32
    assert repaired.hypothesis == "a tighter bound"


def test_repairs_end() -> None:
    with LLMServer(scripted(answer(BROKEN))) as server:
        ours = proposer(server)
        proposal = ours.propose(seeded())
        for attempt in range(1, REPAIRS + 1):
            repaired = ours.repair(proposal, "wrong")
            assert repaired is not None
            assert repaired.attempt == attempt
            proposal = repaired
        assert ours.repair(proposal, "wrong") is None
        assert len(server.requests) == 1 + REPAIRS


def test_the_prompt_holds_what_the_search_knows() -> None:
    from vortex.ops import table

    failure = Failure("llm", "class Broken: ...", "GeMM, line 12: last dimension mismatch")
    view = seeded(failures=(failure,), suggestion=Knobs(block_size=8, topk_val=9))
    with LLMServer(scripted(answer(GOOD))) as server:
        proposer(server).propose(view)
        system, task = server.prompts(0)
    assert table.markdown() in system
    assert "class CustomSparseAttention(vFlow)" in system
    assert "{op_table}" not in system
    assert "{example}" not in system
    best = view.best[0]
    assert best.hash[:12] in task
    assert best.source.strip() in task
    assert "accuracy 50.0% [45.0, 55.0]" in task
    assert "10.0% of dense" in task
    assert "last dimension mismatch" in task
    assert '"topk_val":9' in task
    assert "block_size: one of [8, 16, 32, 64]" in task
    assert "Dense attention: accuracy 97.0%" in task
    assert KEY not in json.dumps(server.requests)
    assert server.keys == [f"Bearer {KEY}"]


def test_knobs_policy_and_parents_of_an_answer() -> None:
    view = seeded(suggestion=Knobs(block_size=8, topk_val=9, eos=2))
    parent = view.best[2].hash
    rest = f"```c\nreturn topk_val + 3;\n```\nBased on: {parent[:12]}, 0123456789ab"
    with LLMServer(scripted(answer(GOOD, '{"topk_val": 4}', rest))) as server:
        proposal = proposer(server).propose(view)
    assert proposal.knobs == Knobs(block_size=8, topk_val=4, eos=2, policy="return topk_val + 3;\n")
    assert proposal.parents == (parent,)


@pytest.mark.parametrize(
    ("nonsense", "says"),
    [
        (Reply(""), "empty"),
        (Reply(None), "empty"),
        (Reply("I am sorry."), "no flow"),
        (answer(GOOD, '{"block_size": 24}'), "power of two"),
        (answer(GOOD, '{"topk": 24}'), "topk"),
        (answer(GOOD, '{"topk_val": 4000}'), "topk_val 4000 is not in"),
        (answer(GOOD, "[1]"), "not a JSON object"),
    ],
)
def test_nonsense_is_asked_again_with_the_reason(nonsense: Reply, says: str) -> None:
    with LLMServer(scripted(nonsense, answer(GOOD))) as server:
        proposal = proposer(server).propose(seeded())
        assert says in server.prompts(1)[-1]
    assert [call.purpose for call in proposal.calls] == ["propose", "again"]
    assert [call.status for call in proposal.calls] == ["empty" if says == "empty" else "unusable", "ok"]
    with LLMServer(scripted(nonsense)) as server:
        with pytest.raises(NoProposalError, match="no usable answer after 3 requests") as caught:
            proposer(server).propose(seeded())
        assert len(server.requests) == 3
    assert len(caught.value.calls) == 3
    assert says in caught.value.reason
    assert not caught.value.stop


def test_a_dead_service_stops_the_search_in_the_end() -> None:
    with LLMServer(scripted(Reply("broken", status=500))) as server:
        ours = proposer(server)
        stops = []
        for index in range(5):
            with pytest.raises(NoProposalError, match="HTTP 500") as caught:
                ours.propose(seeded(index))
            stops.append(caught.value.stop)
    assert stops == [False] * 4 + [True]


def test_a_cap_stops_the_search_and_keeps_the_calls() -> None:
    with (
        LLMServer(scripted(Reply("nonsense", prompt_tokens=500))) as server,
        pytest.raises(NoProposalError, match="cap of 600 tokens") as caught,
    ):
        proposer(server, max_tokens=600).propose(seeded())
    assert caught.value.stop
    assert [call.status for call in caught.value.calls] == ["unusable", "unusable"]


def test_the_environment_decides() -> None:
    with pytest.raises(ValueError, match="OPENAI_API_KEY"):
        from_environment("small", {})
    with pytest.raises(ValueError, match="--llm MODEL"):
        from_environment(None, {"OPENAI_API_KEY": KEY})
    prices = '{"small": {"prompt": 1, "completion": 2}}'
    priced = from_environment(
        "small", {"OPENAI_API_KEY": KEY, "VORTEX_LLM_PRICES": prices}, tokens=7, cost=0.5
    )
    assert (priced.client.tokens, priced.client.cost) == (7, 0.5)
    assert price_note(priced.client.settings) is None
    unpriced = from_environment("small", {"OPENAI_API_KEY": KEY})
    assert "only tokens are counted" in str(price_note(unpriced.client.settings))
