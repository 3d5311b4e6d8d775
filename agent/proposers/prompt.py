"""What a model is told: the contract once, then what the search knows, then what was wrong with its
answer."""

from __future__ import annotations

from importlib import resources

from agent.proposers.base import Failure, Known, Proposal, SearchView

_BEST, _DIFFERENT, _RECENT, _FAILURES = 6, 3, 3, 5
_SOURCE_LIMIT, _REASON_LIMIT = 6000, 600


_EXAMPLES = {"gqa": "quick_start", "mla": "rope_aware_block_sparse_mla"}


def system_prompt(kind: str = "gqa") -> str:
    """The language as its guide has it, the generated op table, an example flow for models of this kind and
    the form of an answer."""
    from search_spaces.seeds import seed_flows
    from vortex.ops.table import markdown

    parts = {
        "{language}": _packaged("language.md") + ("\n" + _packaged("mla.md") if kind == "mla" else ""),
        "{op_table}": markdown(),
        "{example}": seed_flows(kind)[_EXAMPLES[kind]].strip(),
    }
    text = _packaged("system.md")
    for place, part in parts.items():
        text = text.replace(place, part)
    return text


def _packaged(name: str) -> str:
    return resources.files("agent.proposers").joinpath(f"prompts/{name}").read_text(encoding="utf-8")


def task_prompt(view: SearchView) -> str:
    """The state of the search: measured candidates, failures, knob ranges and the knobs asked for."""
    shown: set[str] = set()
    parts = [_setting(view)]
    for title, rows, count in (
        ("The best so far (front first)", view.best, _BEST),
        ("Your latest", view.recent, _RECENT),
        ("The most different", view.different, _DIFFERENT),
    ):
        fresh = [k for k in rows if k.hash not in shown][:count]
        shown |= {k.hash for k in fresh}
        if fresh:
            parts.append(f"# {title}\n\n" + "\n\n".join(_candidate(k, view) for k in fresh))
    if view.failures:
        parts.append("# Refused lately\n\n" + "\n\n".join(map(_failure, view.failures[:_FAILURES])))
    parts.append("# Knobs\n\n" + view.space.describe())
    if view.suggestion is not None:
        parts.append(
            "The study of the knobs suggests these; keep them unless your idea needs others:\n"
            f"{view.suggestion.model_dump_json(exclude={'policy'})}"
        )
    parts.append("Propose the next candidate.")
    return "\n\n".join(parts)


def answer_text(proposal: Proposal) -> str:
    """A proposal in the form that an answer has: what the model is taken to have said before a repair."""
    policy = f"\n```c\n{proposal.policy.strip()}\n```\n" if proposal.policy else ""
    knobs = proposal.knobs.model_dump_json(exclude={"policy"})
    source = proposal.source.strip()
    head = f"Hypothesis: {proposal.hypothesis}"
    return f"{head}\n\n```python\n{source}\n```\n\n```json\n{knobs}\n```\n{policy}"


def repair_prompt(error: str) -> str:
    return (
        f"This candidate was refused:\n\n{_cut(error, 4000)}\n\n"
        "Correct it, keep the idea, and send the complete answer again in the same form."
    )


def again_prompt(reason: str) -> str:
    return f"That answer cannot be used: {_cut(reason, 1000)}.\nSend the complete answer again."


def _setting(view: SearchView) -> str:
    lines = ["# The search", ""]
    if view.prompt_tokens:
        lines.append(f"Prompts of about {view.prompt_tokens:,} tokens.")
    if view.dense_accuracy is not None:
        dense = f"Dense attention: accuracy {100 * view.dense_accuracy:.1f}%"
        if view.dense_bytes:
            dense += f" at {view.dense_bytes / 1024:,.0f} KiB per decode step"
        lines.append(dense + ".")
    floor = 100 * view.floor
    lines.append(
        f"Wanted: fewer bytes at an accuracy at most {floor:g} points below dense, and a better front."
    )
    return "\n".join(lines)


def _candidate(known: Known, view: SearchView) -> str:
    share = 100 * known.bytes / known.dense_bytes if known.dense_bytes else float("nan")
    head = (
        f"## {known.hash[:12]}{' (on the front)' if known.on_front else ''}\n"
        f"accuracy {100 * known.accuracy:.1f}% [{100 * known.low:.1f}, {100 * known.high:.1f}], "
        f"{known.bytes / 1024:,.1f} KiB a step = {share:.1f}% of dense; by {known.proposer}"
    )
    if known.by_task:
        head += "\nby task: " + ", ".join(f"{task} {100 * score:.0f}%" for task, score in known.by_task)
    knobs = known.candidate.knobs
    policy = f"\n```c\n{knobs.policy.strip()}\n```" if knobs.policy else ""
    return (
        f"{head}\nhypothesis: {known.hypothesis or '-'}\n"
        f"knobs: {knobs.model_dump_json(exclude={'policy'})}{policy}\n"
        f"```python\n{_cut(known.source.strip(), _SOURCE_LIMIT)}\n```"
    )


def _failure(failure: Failure) -> str:
    body = f"\n```python\n{_cut(failure.source.strip(), 1500)}\n```" if failure.source.strip() else ""
    return f"* {_cut(failure.reason, _REASON_LIMIT)}{body}"


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[:limit] + f"\n... ({len(text) - limit} more characters)"
