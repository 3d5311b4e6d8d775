"""What a model is told of the language is what the guide says, and no more than it can read."""

from __future__ import annotations

import re

from agent.proposers import language
from agent.proposers.prompt import system_prompt
from vortex.ops import table

PART = language.for_models(language.GUIDE.read_text())


def test_the_packaged_parts_are_fresh() -> None:
    """Run `python -m agent.proposers.language` after a change of docs/language.md."""
    for path, text in language.generated().items():
        assert text
        assert path.read_text() == text


def test_marked_passages_stand_under_their_headings() -> None:
    marked = "<!-- prompt -->\n{}\n<!-- /prompt -->\n"
    guide = "# A\n\n## B\n\nno\n\n## C\n\n" + marked.format("yes") + "no\n" + marked.format("and")
    assert language.for_models(guide) == "## C\n\nyes\n\n## C\n\nand\n"
    assert (
        language.for_models(guide.replace("prompt -->\nand", "prompt mla -->\nand"), "mla") == "## C\n\nand\n"
    )


def test_the_prompt_is_the_guide_the_op_table_and_an_example() -> None:
    text = system_prompt()
    assert PART.count("## ") >= 6
    assert PART in text
    assert table.markdown() in text
    assert "class CustomSparseAttention(vFlow)" in text
    assert not re.search(r"\{[a-z_]+\}", text.replace(table.markdown(), "")[: text.index("# How to answer")])
    assert "<!--" not in text


def test_the_prompt_stays_short() -> None:
    assert len(PART) < 6_000
    assert len(system_prompt()) < 24_000
