"""The parts of the language guide that a model is told.

The text is written once, in `docs/language.md`, between `<!-- prompt -->` and `<!-- /prompt -->`; what only
concerns models that cache latents stands after `<!-- prompt mla -->`. `python -m agent.proposers.language`
copies the parts into `prompts/`, which an installed package has.
"""

from __future__ import annotations

import re
from pathlib import Path

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "language.md"
PARTS = {"": "language.md", "mla": "mla.md"}
"""Word in the mark -> file in `prompts/`."""
_MARKED = re.compile(r"^(##[^\n]*)$|^<!-- prompt ?(\w*) -->\n(.*?)^<!-- /prompt -->$", re.M | re.S)


def for_models(guide: str, part: str = "") -> str:
    """The passages of a guide that are marked with `part`, each under the heading that it stands under."""
    passages, heading = [], ""
    for found in _MARKED.finditer(guide):
        if found[1]:
            heading = found[1]
        elif found[2] == part:
            passages.append(f"{heading}\n\n{found[3]}")
    return "\n".join(passages)


def generated() -> dict[Path, str]:
    """Every generated file with its content."""
    guide, folder = GUIDE.read_text(encoding="utf-8"), Path(__file__).with_name("prompts")
    return {folder / name: for_models(guide, part) for part, name in PARTS.items()}


def main() -> None:
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
