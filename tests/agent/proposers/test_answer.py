from __future__ import annotations

import json

import pytest

from agent.proposers.answer import AnswerError, parse_answer

FLOW = "class F(vFlow):\n    def forward_indexer(self, q, o, cache, ctx):\n        self.topk(s, o, ctx=ctx)\n"
POLICY = "return topk_val;\n"


def check(text: str, policy: str | None = None) -> None:
    answer = parse_answer(text)
    assert answer.flow == FLOW
    assert answer.knobs == {"block_size": 32}
    assert answer.hypothesis == "larger blocks"
    assert answer.policy == policy
    assert answer.based_on == ("abcdef123456",)


FENCED = f"""Let me think.

**Hypothesis:** larger blocks
Based on: abcdef123456

```python
{FLOW}```

```json
{{"block_size": 32}}
```
"""
DOCUMENT = {
    "flow": FLOW,
    "knobs": {"block_size": 32},
    "hypothesis": "larger blocks",
    "based_on": ["abcdef123456"],
}


def test_fenced_blocks() -> None:
    check(FENCED)
    check(FENCED + f"\n```c\n{POLICY}```\n", POLICY)
    check(FENCED.replace("\n", "\r\n").replace("\r\n", "\n"))


def test_json() -> None:
    check(json.dumps(DOCUMENT))
    check(
        f"Here you are:\n```json\n{json.dumps(DOCUMENT | {'policy': POLICY}, indent=1)}\n```\nGood luck!",
        POLICY,
    )
    check(json.dumps(DOCUMENT | {"policy": "default", "flow": f"```python\n{FLOW}```"}))
    check(json.dumps({**DOCUMENT, "source": FLOW, "flow": FLOW}))


def test_an_unclosed_fence_is_read_to_the_end() -> None:
    assert parse_answer(f"```python\n{FLOW}").flow == FLOW


def test_a_bare_flow_has_no_knobs() -> None:
    answer = parse_answer(FLOW)
    assert (answer.flow, answer.knobs, answer.policy) == (FLOW, {}, None)


def test_the_flow_wins_over_other_python_blocks() -> None:
    assert parse_answer(f"```python\nprint(1)\n```\n```python\n{FLOW}```\n```py\nprint(2)\n```").flow == FLOW


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("  \n ", "empty"),
        ("I cannot help with that.", "no flow"),
        ("{" * 5000, "no flow"),
        ("```python\nprint('hi')\n```", "no forward_indexer"),
        ('{"flow": 3}', "no forward_indexer"),
        (f"```python\n{FLOW}```\n```json\n[1, 2\n```", "not a JSON object"),
    ],
)
def test_nonsense_says_what_is_missing(text: str, says: str) -> None:
    with pytest.raises(AnswerError, match=says):
        parse_answer(text)
