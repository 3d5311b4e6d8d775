"""From a draft to what the model reads: as it is, or as a user's turn of the tokenizer's chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from evaluators.ruler.prompt import Draft


class Tokenizer(Protocol):
    """Any tokenizer; one with a `chat_template` also needs transformers' `apply_chat_template`."""

    def encode(self, text: str) -> Sequence[int]: ...


def render(tokenizer: Tokenizer, draft: Draft) -> tuple[str, tuple[int, ...]]:
    """Text and token ids of a prompt. Under a chat template the answer prefix opens the model's turn."""
    if not getattr(tokenizer, "chat_template", None):
        return draft.text, tuple(tokenizer.encode(draft.text))
    chat: Any = tokenizer
    user = draft.text.removesuffix(draft.prefix)
    opened = chat.apply_chat_template(
        [{"role": "user", "content": user}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=False,  # templates that know no thinking ignore it
    )
    text = f"{opened}{draft.prefix.lstrip()}"
    return text, tuple(chat.encode(text, add_special_tokens=False))
