"""Reads a model's answer: a JSON object or fenced blocks, however it is wrapped."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+#.-]*)[^\n]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.M | re.S)
_LINE = re.compile(r"^[\s>*_#-]*(hypothesis|based[ _]on|parents)[*_ ]*:[*_ ]*(.+?)[*_ ]*$", re.M | re.I)
_NAMES = {
    "flow": ("flow", "flow.py", "source", "code", "python"),
    "policy": ("policy", "schedule_policy"),
    "knobs": ("knobs", "config"),
    "hypothesis": ("hypothesis",),
    "based_on": ("based_on", "parents"),
}


class AnswerError(ValueError):
    """The answer holds no proposal; the message tells the model what is missing."""


@dataclass(frozen=True)
class Answer:
    """What an answer said; `knobs` are unchecked. policy is None where it gave none ("none", "default",
    empty)."""

    flow: str
    policy: str | None
    knobs: dict[str, Any]
    hypothesis: str
    based_on: tuple[str, ...] = ()


def parse_answer(text: str) -> Answer:
    """The proposal in a model's answer. Raises AnswerError that says what to send instead."""
    if not text.strip():
        raise AnswerError(
            "the answer was empty; send the flow, the knobs and the hypothesis in fenced blocks"
        )
    parts = _from_json(text) or _from_fences(text)
    flow = str(parts.get("flow") or "")
    if not flow.strip():
        raise AnswerError("no flow was found; send the whole flow file in one ```python block")
    if "forward_indexer" not in flow:
        raise AnswerError("the ```python block is not a flow file: it defines no forward_indexer")
    return Answer(
        flow=_strip_fence(flow).strip("\n") + "\n",
        policy=_policy(parts.get("policy")),
        knobs=_knobs(parts.get("knobs")),
        hypothesis=_one_line(parts.get("hypothesis")) or "(none given)",
        based_on=_hashes(parts.get("based_on")),
    )


def _from_json(text: str) -> dict[str, Any] | None:
    """The outermost JSON object with a flow in it, fenced or bare."""
    bodies = [body for _, _, body in _FENCE.findall(text)] + [text]
    for body in bodies:
        start = body.find("{")
        if start < 0:
            continue
        try:
            value, _ = json.JSONDecoder(strict=False).raw_decode(body[start:])
        except (ValueError, RecursionError):
            continue
        found = _named(value) if isinstance(value, dict) else {}
        if "flow" in found:
            return found
    return None


def _from_fences(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _, language, body in _FENCE.findall(text):
        kind = language.lower()
        if "forward_indexer" in body or kind in ("python", "py"):
            if "forward_indexer" in body or "flow" not in found:
                found["flow"] = body
        elif kind in ("c", "cpp", "c++", "cuda", "policy"):
            found["policy"] = body
        elif kind in ("json", "knobs") or body.lstrip().startswith("{"):
            found["knobs"] = body
    if "flow" not in found and "forward_indexer" in text and "```" not in text:
        found["flow"] = text
    for name, value in _LINE.findall(text):
        key = "hypothesis" if name.lower() == "hypothesis" else "based_on"
        found.setdefault(key, value)
    knobs = _knobs_or_none(found.get("knobs"))
    if knobs is not None:
        for key in ("hypothesis", "policy", "based_on"):
            if key in knobs:
                found.setdefault(key, knobs[key])
    return found


def _named(value: dict[str, Any]) -> dict[str, Any]:
    lowered = {str(key).lower(): item for key, item in value.items()}
    return {
        name: next(lowered[s] for s in spellings if s in lowered)
        for name, spellings in _NAMES.items()
        if any(s in lowered for s in spellings)
    }


def _knobs_or_none(value: Any) -> dict[str, Any] | None:
    if isinstance(value, str):
        try:
            value = json.loads(_strip_fence(value), strict=False)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def _knobs(value: Any) -> dict[str, Any]:
    if value is None or value == "":
        return {}
    knobs = _knobs_or_none(value)
    if knobs is None:
        raise AnswerError('the knobs are not a JSON object; send e.g. ```json\n{"block_size": 16}\n```')
    inner = knobs.get("knobs")
    knobs = inner if isinstance(inner, dict) else knobs
    return {k: v for k, v in knobs.items() if k not in ("hypothesis", "policy", "based_on", "parents")}


def _policy(value: Any) -> str | None:
    text = _strip_fence(value).strip() if isinstance(value, str) else ""
    return None if text.lower() in ("", "none", "null", "default") else text + "\n"


def _strip_fence(text: str) -> str:
    match = _FENCE.search(text)
    return match.group(3) if match and text.lstrip().startswith(("```", "~~~")) else text


def _one_line(value: Any) -> str:
    return " ".join(value.split())[:400] if isinstance(value, str) else ""


def _hashes(value: Any) -> tuple[str, ...]:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value or "")
    return tuple(dict.fromkeys(re.findall(r"\b[0-9a-f]{6,64}\b", text)))
