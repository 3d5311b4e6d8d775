"""A language model as proposer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from agent.proposers import prompt
from agent.proposers.answer import AnswerError, parse_answer
from agent.proposers.base import LLMCall, NoProposalError, Proposal, SearchView
from agent.proposers.client import ChatClient, ClientSettings, Purpose
from agent.proposers.prices import PRICES_VARIABLE, load_prices
from search_spaces.knobs import Knobs

KEY_VARIABLE, URL_VARIABLE = "OPENAI_API_KEY", "OPENAI_BASE_URL"
REPAIRS = 3
"""How often a refused proposal is sent back with its error."""

_ASKED_AGAIN = 2
_SERVICE_FAILURES = 5


class LLMProposer:
    """Asks a model for a flow, a policy, knobs and a hypothesis, and for repairs of what is refused.

    Stops the search (`NoProposalError.stop`) when the key or the model is refused, when a cap is reached,
    and after five proposals in a row that the service did not answer at all.
    """

    name = "llm"

    def __init__(self, client: ChatClient):
        self._client = client
        self._system = ""
        self._view: SearchView | None = None
        self._silent = 0

    @property
    def client(self) -> ChatClient:
        return self._client

    def propose(self, view: SearchView) -> Proposal:
        self._view = view
        messages = [*self._opening(view), _message("user", prompt.task_prompt(view))]
        return self._converse(messages, view, "propose", attempt=0)

    def repair(self, proposal: Proposal, error: str) -> Proposal | None:
        if proposal.attempt >= REPAIRS:
            return None
        view = self._view or SearchView(index=0, best=(), suggestion=proposal.knobs)
        messages = [
            *self._opening(view),
            _message("user", prompt.task_prompt(view)),
            _message("assistant", prompt.answer_text(proposal)),
            _message("user", prompt.repair_prompt(self._client.redact(error))),
        ]
        repaired = self._converse(messages, view, "repair", attempt=proposal.attempt + 1)
        return repaired if repaired.parents else _with_parents(repaired, proposal.parents)

    def _opening(self, view: SearchView) -> list[dict[str, str]]:
        self._system = self._system or prompt.system_prompt(view.geometry.kind)
        return [_message("system", self._system)]

    def _converse(
        self, messages: list[dict[str, str]], view: SearchView, purpose: Purpose, attempt: int
    ) -> Proposal:
        calls: list[LLMCall] = []
        reason = ""
        for _ in range(1 + _ASKED_AGAIN):
            call = self._ask(messages, purpose, calls)
            try:
                return _proposal(call.answer, view, self.name, (*calls, call), attempt)
            except AnswerError as error:
                reason = str(error)
            status = call.status if call.status == "empty" else "unusable"
            calls.append(_marked(call, status, reason))
            messages = [
                *messages,
                _message("assistant", call.answer[:8000] or "(empty)"),
                _message("user", prompt.again_prompt(reason)),
            ]
            purpose = "again"
        raise NoProposalError(
            f"no usable answer after {len(calls)} requests: {reason}",
            calls=tuple(calls),
            answer=calls[-1].answer,
        )

    def _ask(self, messages: list[dict[str, str]], purpose: Purpose, calls: list[LLMCall]) -> LLMCall:
        try:
            call = self._client.ask(messages, purpose)
        except NoProposalError as error:
            self._silent += bool(error.calls)
            stop = error.stop or self._silent >= _SERVICE_FAILURES
            raise NoProposalError(error.reason, calls=(*calls, *error.calls), stop=stop) from None
        self._silent = 0
        return call


def from_environment(
    model: str | None, environ: Mapping[str, str] = os.environ, **settings: Any
) -> LLMProposer:
    """The proposer for `--llm MODEL`, with the key and the address from the environment.

    `settings` are further fields of `ClientSettings` (`max_tokens`, `max_cost`, `timeout`, ...), and
    `tokens` and `cost` that earlier runs spent. Raises ValueError that says what is missing.
    """
    key = environ.get(KEY_VARIABLE, "").strip()
    if not key:
        raise ValueError(f"the llm proposer needs {KEY_VARIABLE} (any text if the service wants no key)")
    if not model:
        raise ValueError("the llm proposer needs a model: --llm MODEL")
    spent = {name: settings.pop(name) for name in ("tokens", "cost") if name in settings}
    configured = ClientSettings(
        model=model,
        api_key=key,
        base_url=environ.get(URL_VARIABLE, "").strip() or None,
        price=settings.pop("price", None) or load_prices(environ).get(model),
        **settings,
    )
    return LLMProposer(ChatClient(configured, **spent))


def price_note(settings: ClientSettings) -> str | None:
    """One line for the user when costs cannot be shown, else None."""
    if settings.price is not None:
        return None
    return f"the price of {settings.model} is unknown: only tokens are counted (set {PRICES_VARIABLE})"


def _proposal(text: str, view: SearchView, name: str, calls: tuple[LLMCall, ...], attempt: int) -> Proposal:
    answer = parse_answer(text)
    return Proposal(
        source=answer.flow,
        knobs=_knobs(answer.knobs, answer.policy, view),
        hypothesis=answer.hypothesis,
        proposer=name,
        parents=_parents(answer.based_on, view),
        calls=calls,
        attempt=attempt,
    )


def _knobs(given: dict[str, Any], policy: str | None, view: SearchView) -> Knobs:
    """The answer's knobs over the suggested ones. Raises AnswerError for values that no measurement would
    take."""
    base = view.suggestion or (view.best[0].candidate.knobs if view.best else Knobs())
    try:
        knobs = base.with_(**{**given, "policy": policy})
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise AnswerError(f"the knobs are not valid ({'; '.join(problems)})") from None
    outside = view.space.problems(knobs)
    if outside:
        raise AnswerError(f"the knobs are outside what is measured ({'; '.join(outside)})")
    return knobs


def _parents(named: tuple[str, ...], view: SearchView) -> tuple[str, ...]:
    shown = [k.hash for k in (*view.best, *view.recent, *view.different)]
    found = [next((h for h in shown if h.startswith(prefix)), None) for prefix in named]
    return tuple(dict.fromkeys(h for h in found if h))


def _with_parents(proposal: Proposal, parents: tuple[str, ...]) -> Proposal:
    return replace(proposal, parents=parents)


def _marked(call: LLMCall, status: str, reason: str) -> LLMCall:
    return replace(call, status=status, error=reason)


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
