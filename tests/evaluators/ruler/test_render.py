from __future__ import annotations

from typing import Any

import pytest

from evaluators.ruler import TASKS, Sources, generate

TEMPLATE = (
    "{% for m in messages %}<|user|>\n{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|model|>\n{% endif %}"
    "{% if enable_thinking is defined and not enable_thinking %}<nothink>{% endif %}"
)


@pytest.fixture(scope="module")
def chat() -> Any:
    from evaluators.probe.tokenizer import build

    tokenizer = build()
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@pytest.mark.parametrize("name", TASKS)
def test_the_answer_prefix_opens_the_models_turn(
    name: str, chat: Any, tokenizer: Any, published: Sources
) -> None:
    room = 1024 - TASKS[name].max_new_tokens
    for prompt in generate(name, 1024, chat, 2, 0, published):
        user, reply = prompt.text.split("\n<|model|>\n<nothink>")
        assert user.startswith("<|user|>\n")
        assert reply.endswith(("is", "are", ":"))
        assert reply == reply.strip()
        assert len(prompt.ids) <= room  # the template is counted
        assert chat.bos_token_id not in prompt.ids
        assert list(prompt.ids) == chat.encode(prompt.text, add_special_tokens=False)
        plain = {p.text for p in generate(name, 1024, tokenizer, 1, 0, published)}
        assert all("<|user|>" not in text for text in plain)
        asked = user.removeprefix("<|user|>\n")
        assert asked.endswith("?")
