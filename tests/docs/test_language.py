"""The language guide: its code runs, and prints what the guide says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.docs.guide import ROOT

GUIDE = ROOT / "docs" / "language.md"


def refreshed(path: Path) -> str:
    """The guide as it would have to be now; its flows are registered in another process."""
    command = [sys.executable, "-m", "tests.docs.guide", str(path)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_every_block_runs_and_every_output_is_true() -> None:
    """After a change: `python -m tests.docs.guide --write docs/language.md`."""
    assert refreshed(GUIDE) == GUIDE.read_text()


def test_links_lead_somewhere() -> None:
    text = GUIDE.read_text()
    headings = {re.sub(r"[^\w -]", "", line).strip().lower().replace(" ", "-") for line in text.splitlines()}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings
        else:
            assert (GUIDE.parent / target).exists(), target


FLOW = """```python {op}.py
from vortex_torch.flow import register, vFlow
from vortex_torch.indexer import {op}, topK

@register("{op}")
class Odd(vFlow):
    def create_cache(self, block_size, head_dim):
        return {{"c": (1, 1)}}

    def forward_cache(self, cache, loc, ctx):
        pass

    def forward_indexer(self, q, o, cache, ctx):
        topK()({op}()(cache["c"], ctx=ctx), o, ctx=ctx)
```
"""
PARTS = [  # a part of a guide, and the output that belongs below it
    ("```python\nprint(1 + 1)\n```\n", "2"),
    ("```python\nx = 3\n```\n", ""),
    ("```python\nprint(x)\n```\n", "3"),
    ("```c\nreturn topk_val;\n```\n", ""),
    ("```c\nreturn topk;\n```\n", "PolicyError: row 1, column 8: unknown name 'topk'"),
    (FLOW.format(op="Load"), "FlowAdvice: Load.py: the field 'c' is never written and reads as zeros"),
    (FLOW.format(op="Loaded"), "FlowLoadError: Loaded.py, line 2: vortex.indexer: unknown op 'Loaded'"),
]
COMMANDS = '```console\n$ python -c "print(5)"\n{}$ python -c "print(6)"\n{}```\n'


def test_what_is_printed_replaces_what_is_claimed(tmp_path: Path) -> None:
    path = tmp_path / "guide.md"
    wrong = "\n```text\nsomething else\n```\n"
    path.write_text("\nand\n\n".join([*(part + wrong for part, _ in PARTS), COMMANDS.format("4\n", "")]))
    *found, commands = refreshed(path).split("\nand\n\n")
    for (part, output), now in zip(PARTS, found, strict=True):
        assert now.startswith(f"{part}\n```text\n{output}" if output else part), now
        assert "something else" not in now
        assert ("```text" in now) == bool(output)
    assert commands == COMMANDS.format("5\n", "6\n")
