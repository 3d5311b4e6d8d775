from __future__ import annotations

import email.utils
import json
import time
from typing import Any

import pytest

from agent.proposers.base import NoProposalError
from agent.proposers.client import ChatClient, ClientSettings
from agent.proposers.prices import Price, load_prices
from tests.agent.proposers.llm_server import LLMServer, Reply

KEY = "test-secret-0123456789"
ASK = [{"role": "user", "content": "hello"}]


def client(server: LLMServer, waits: list[float] | None = None, **settings: Any) -> ChatClient:
    configured = ClientSettings("small", KEY, base_url=server.url, **{"timeout": 5.0, **settings})
    return ChatClient(configured, sleep=(waits if waits is not None else []).append)


def test_an_answer_is_counted() -> None:
    price = Price(prompt=1.0, completion=10.0)
    with LLMServer([Reply("hi", prompt_tokens=1000, completion_tokens=50)]) as server:
        ours = client(server, price=price)
        call = ours.ask(ASK, "propose")
    assert (call.status, call.answer, call.prompt_tokens, call.completion_tokens) == ("ok", "hi", 1000, 50)
    assert call.cost == pytest.approx(0.0015)
    assert (ours.tokens, ours.cost) == (1050, pytest.approx(0.0015))
    assert server.keys == [f"Bearer {KEY}"]


def test_an_unknown_price_leaves_the_cost_open() -> None:
    with LLMServer([Reply("hi")]) as server:
        call = client(server).ask(ASK, "propose")
    assert call.cost is None
    assert call.prompt_tokens == 100


def test_429_waits_as_long_as_it_is_told() -> None:
    date = email.utils.formatdate(time.time() + 20, usegmt=True)
    waits: list[float] = []
    with LLMServer(
        [
            Reply("slow down", status=429, headers={"Retry-After": "3"}),
            Reply("slow down", status=429, headers={"retry-after-ms": "250"}),
            Reply("slow down", status=429, headers={"Retry-After": date}),
            Reply("done"),
        ]
    ) as server:
        call = client(server, waits).ask(ASK, "propose")
    assert (call.answer, call.retries) == ("done", 3)
    assert waits[:2] == [3.0, 0.25]
    assert 15 < waits[2] <= 20


def test_a_wait_beyond_the_bound_is_refused() -> None:
    waits: list[float] = []
    with LLMServer([Reply("later", status=429, headers={"Retry-After": "9999"})]) as server:
        with pytest.raises(NoProposalError, match="asked to wait 9999 s") as caught:
            client(server, waits).ask(ASK, "propose")
        assert len(server.requests) == 1
    assert not caught.value.stop
    assert waits == []
    assert caught.value.calls[0].status == "http 429"


def test_500_backs_off_and_ends() -> None:
    waits: list[float] = []
    with LLMServer([Reply("broken", status=500)]) as server:
        with pytest.raises(NoProposalError, match=r"HTTP 500.*after 4 attempts") as caught:
            client(server, waits, attempts=4).ask(ASK, "propose")
        assert len(server.requests) == 4
    assert waits == [1.0, 2.0, 4.0]
    assert not caught.value.stop


def test_500_then_an_answer() -> None:
    with LLMServer([Reply("broken", status=503), Reply("fine")]) as server:
        assert client(server).ask(ASK, "propose").answer == "fine"


def test_a_time_out_is_retried() -> None:
    with LLMServer([Reply("too late", delay=0.6), Reply("in time")]) as server:
        call = client(server, timeout=0.2).ask(ASK, "propose")
    assert (call.answer, call.retries) == ("in time", 1)


def test_a_service_that_is_not_there() -> None:
    with LLMServer([]) as server:
        gone = client(server, attempts=2)
    with pytest.raises(NoProposalError, match="cannot reach the service") as caught:
        gone.ask(ASK, "propose")
    assert caught.value.calls[0].status == "connection"


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_key_or_model_stops_at_once(status: int) -> None:
    with LLMServer([Reply(f"Incorrect API key provided: {KEY}", status=status)]) as server:
        with pytest.raises(NoProposalError) as caught:
            client(server).ask(ASK, "propose")
        assert len(server.requests) == 1
    assert caught.value.stop
    assert KEY not in str(caught.value)
    assert KEY not in repr(caught.value.calls)
    assert caught.value.__cause__ is None


def test_no_money_left_stops_at_once() -> None:
    body = json.dumps({"error": {"message": "quota", "code": "insufficient_quota"}})
    with LLMServer([Reply(status=429, body=body)]) as server, pytest.raises(NoProposalError) as caught:
        client(server).ask(ASK, "propose")
    assert caught.value.stop


@pytest.mark.parametrize("body", ["{}", '{"choices": []}', '{"choices": [{}]}', '{"choices": null}'])
def test_a_reply_without_a_message_is_an_empty_answer(body: str) -> None:
    with LLMServer([Reply(body=body)]) as server:
        assert client(server).ask(ASK, "propose").status == "empty"


@pytest.mark.parametrize("body", ["", "not json"])
def test_a_reply_that_is_no_json_is_asked_for_again(body: str) -> None:
    with LLMServer([Reply(body=body)]) as server:
        with pytest.raises(NoProposalError, match="could not be read"):
            client(server, attempts=2).ask(ASK, "propose")
        assert len(server.requests) == 2


def test_the_key_never_comes_back() -> None:
    with LLMServer([Reply(f"your key is {KEY}, mine sk-abcdefghij")]) as server:
        call = client(server).ask(ASK, "propose")
    assert call.answer == "your key is [key], mine [key]"
    assert KEY not in repr(ClientSettings("m", KEY))


def test_caps() -> None:
    with LLMServer([Reply("hi", prompt_tokens=60, completion_tokens=0)]) as server:
        ours = client(server, max_tokens=100)
        ours.ask(ASK, "propose")
        ours.ask(ASK, "propose")
        with pytest.raises(NoProposalError, match="cap of 100 tokens") as caught:
            ours.ask(ASK, "propose")
        assert len(server.requests) == 2
        priced = client(server, max_cost=1e-9, price=Price(prompt=1, completion=1))
        priced.ask(ASK, "propose")
        with pytest.raises(NoProposalError, match=r"cap of \$1e-09"):
            priced.ask(ASK, "propose")
    assert caught.value.stop
    with pytest.raises(ValueError, match="needs the price of 'small'"):
        client(server, max_cost=1.0)


def test_earlier_spending_counts_towards_a_cap() -> None:
    with LLMServer([Reply("hi")]) as server:
        settings = ClientSettings("small", KEY, base_url=server.url, max_tokens=100)
        with pytest.raises(NoProposalError):
            ChatClient(settings, tokens=100).ask(ASK, "propose")
        assert server.requests == []


def test_price_table(tmp_path: Any) -> None:
    text = '{"small": {"prompt": 2, "completion": 8}}'
    path = tmp_path / "prices.json"
    path.write_text(text)
    expected = {"small": Price(prompt=2, completion=8)}
    assert load_prices({}) == {}
    assert load_prices({"VORTEX_LLM_PRICES": text}) == expected
    assert load_prices({"VORTEX_LLM_PRICES": str(path)}) == expected
    for wrong in ("{", '{"small": 3}', "/no/such/file"):
        with pytest.raises(ValueError, match="VORTEX_LLM_PRICES"):
            load_prices({"VORTEX_LLM_PRICES": wrong})
