"""What makes a server run on a CPU, and a prompt that it decodes sparsely."""

from __future__ import annotations

from tests.sgl.engines import OPTIONS

PROMPT = "The grass is green. The sky is blue. The sun is yellow. Here we go. " * 60


def _flag(name: str, value: object) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    return [flag] if value is True else [flag, str(value)]


CPU_FLAGS = [
    word
    for name, value in OPTIONS.items()
    if name not in ("skip_tokenizer_init", "page_size")  # the server tokenizes; scripts choose the page
    for word in _flag(name, value)
]
