"""Independent random flows."""

from __future__ import annotations

import random

from search_spaces import motifs
from search_spaces.grammar import Draft, as_draft, brief, settled
from search_spaces.mutate import edited
from search_spaces.program import Program, from_graph


def random_graph(rng: random.Random, kind: str = "gqa") -> Draft:
    """An independent draw from the grammar: one idiom of block selection with up to three random edits."""
    while True:
        score = settled(rng.choice(motifs.SCORES)(rng, motifs.LEAVES[kind]), rng)
        if score is None:
            continue
        for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
            edit = edited(score, rng)
            score = edit.score if edit is not None else score
        draft = as_draft(Program.top(score), "")
        if draft is not None:
            return Draft(draft.graph, brief(from_graph(draft.graph).scores[0], 160))
