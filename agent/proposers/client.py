"""One chat completion against any OpenAI-compatible service: retried with bounds, counted, and silent
about the key."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from agent.proposers.base import LLMCall, NoProposalError
from agent.proposers.prices import Price

if TYPE_CHECKING:
    import openai

Purpose = Literal["propose", "repair", "again"]
Messages = Sequence[Mapping[str, str]]

_SECRET = re.compile(r"\b(sk|key|pk)-[A-Za-z0-9_*.-]{6,}|(?<=Bearer )\S+|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")


@dataclass(frozen=True)
class ClientSettings:
    """How a service is reached. timeout, longest_wait: seconds; attempts: requests per answer, the first
    included.

    max_tokens, max_cost: caps on everything spent in the search, None for no cap. A request that starts
    below the cap may end above it, so the overshoot is at most one answer.
    """

    model: str
    api_key: str = field(repr=False)
    base_url: str | None = None
    timeout: float = 180.0
    attempts: int = 5
    longest_wait: float = 120.0
    price: Price | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    temperature: float | None = None

    def __post_init__(self) -> None:
        if self.max_cost is not None and self.price is None:
            raise ValueError(
                f"a cap on cost needs the price of {self.model!r}, which is unknown: "
                "give its price, or cap tokens instead"
            )


class ChatClient:
    """Counts what it spends; `tokens` and `cost` may start from what earlier runs spent."""

    def __init__(
        self,
        settings: ClientSettings,
        *,
        tokens: int = 0,
        cost: float = 0.0,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self.settings = settings
        self.tokens = tokens
        self.cost = cost
        self._sleep = sleep
        self._service: openai.OpenAI | None = None

    def ask(self, messages: Messages, purpose: Purpose) -> LLMCall:
        """One answer, possibly empty (status "empty"). Raises NoProposalError, with the failed call in
        it, when the service refuses the key or the model, when it stays out of order through every
        attempt, or at a cap."""
        self._check_caps()
        started, retries = time.monotonic(), 0
        while True:
            try:
                answer, prompt_tokens, completion_tokens = self._request(messages)
            except Exception as error:
                failure = _classify(error)
                if failure is None:
                    raise
                wait = failure.wait if failure.wait is not None else min(30.0, 2.0**retries)
                last = retries + 1 >= self.settings.attempts
                if failure.again and not last and wait <= self.settings.longest_wait:
                    retries += 1
                    self._sleep(wait)
                    continue
                raise self._gave_up(failure, purpose, retries, wait, time.monotonic() - started) from None
            break
        price = self.settings.price
        cost = price.cost(prompt_tokens, completion_tokens) if price else None
        self.tokens += prompt_tokens + completion_tokens
        self.cost += cost or 0.0
        return LLMCall(
            model=self.settings.model,
            purpose=purpose,
            status="ok" if answer.strip() else "empty",
            prompt=self.redact(messages[-1]["content"]),
            answer=self.redact(answer),
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            cost=cost,
            seconds=time.monotonic() - started,
            retries=retries,
        )

    def redact(self, text: str) -> str:
        """The text without the key, or anything that looks like one."""
        if self.settings.api_key:
            text = text.replace(self.settings.api_key, "[key]")
        return _SECRET.sub("[key]", text)

    def _request(self, messages: Messages) -> tuple[str, int, int]:
        conversation: Any = [dict(message) for message in messages]
        extra: dict[str, Any] = {}
        if self.settings.temperature is not None:
            extra["temperature"] = self.settings.temperature
        reply: Any = self._openai().chat.completions.create(
            model=self.settings.model, messages=conversation, **extra
        )
        choices = getattr(reply, "choices", None) or []
        message = getattr(choices[0], "message", None) if choices else None
        content = getattr(message, "content", None)
        usage = getattr(reply, "usage", None)
        return (
            content if isinstance(content, str) else "",
            _count(getattr(usage, "prompt_tokens", 0)),
            _count(getattr(usage, "completion_tokens", 0)),
        )

    def _openai(self) -> openai.OpenAI:
        if self._service is None:
            import openai

            self._service = openai.OpenAI(
                api_key=self.settings.api_key,
                base_url=self.settings.base_url,
                timeout=self.settings.timeout,
                max_retries=0,
            )
        return self._service

    def _check_caps(self) -> None:
        tokens, cost = self.settings.max_tokens, self.settings.max_cost
        if tokens is not None and self.tokens >= tokens:
            spent = f"{self.tokens:,} spent"
            raise NoProposalError(f"the cap of {tokens:,} tokens is reached ({spent})", stop=True)
        if cost is not None and self.cost >= cost:
            raise NoProposalError(f"the cap of ${cost:g} is reached (${self.cost:.4f} spent)", stop=True)

    def _gave_up(
        self, failure: _Failure, purpose: Purpose, retries: int, wait: float, seconds: float
    ) -> NoProposalError:
        text = self.redact(failure.text)[:500]
        if failure.again and wait > self.settings.longest_wait:
            text += f" (asked to wait {wait:.0f} s, longer than {self.settings.longest_wait:.0f} s)"
        elif failure.again:
            text += f" (after {retries + 1} attempts)"
        model = self.settings.model
        call = LLMCall(model, purpose, failure.status, error=text, seconds=seconds, retries=retries)
        return NoProposalError(f"the model service failed: {text}", calls=(call,), stop=failure.stop)


@dataclass(frozen=True)
class _Failure:
    status: str
    text: str
    again: bool
    stop: bool = False
    wait: float | None = None


def _classify(error: Exception) -> _Failure | None:
    """What a failed request means; None for errors that are ours."""
    import openai

    if isinstance(error, openai.APITimeoutError):
        return _Failure("timeout", "the request timed out", again=True)
    if isinstance(error, openai.APIConnectionError):
        return _Failure("connection", f"cannot reach the service: {error.__cause__ or error}", again=True)
    if isinstance(error, openai.APIStatusError):
        code = error.status_code
        again = code in (408, 409, 425, 429) or code >= 500
        spent = code == 429 and "insufficient_quota" in f"{error.code} {error.type} {error.message}"
        return _Failure(
            f"http {code}",
            f"HTTP {code}: {error.message}",
            again=again and not spent,
            stop=spent or code in (401, 402, 403, 404),
            wait=_retry_after(error.response.headers),
        )
    if isinstance(error, (openai.OpenAIError, ValueError)):
        return _Failure("unusable", f"the service's reply could not be read: {error}", again=True)
    return None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from `retry-after-ms` or `Retry-After` as seconds or as a date; None without a usable
    header."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            return max(0.0, float(milliseconds) / 1000)
        value = headers.get("retry-after")
        if value is None:
            return None
        try:
            return max(0.0, float(value))
        except ValueError:
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
