"""The part of the language guide that a model is told.

The text is written once, in `docs/language.md`, between `<!-- prompt -->` and `<!-- /prompt -->`.
`python -m agent.proposers.language` copies it into `prompts/language.md`, which an installed package has.
"""

from __future__ import annotations

import re
from pathlib import Path

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "language.md"
PART = Path(__file__).with_name("prompts") / "language.md"
_MARKED = re.compile(r"^(##[^\n]*)$|^<!-- prompt -->\n(.*?)^<!-- /prompt -->$", re.M | re.S)


def for_models(guide: str) -> str:
    """The marked passages of a guide, each under the heading that it stands under."""
    parts, heading = [], ""
    for found in _MARKED.finditer(guide):
        if found[1]:
            heading = found[1]
        else:
            parts.append(f"{heading}\n\n{found[2]}")
    return "\n".join(parts)


def main() -> None:
    PART.write_text(for_models(GUIDE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
