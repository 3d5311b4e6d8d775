"""Question answering over documents: gold paragraphs among distractors, shuffled."""

from __future__ import annotations

import random
from collections.abc import Sequence

from evaluators.ruler.prompt import Draft
from evaluators.ruler.sources import Question

_RULE = "Answer the question from the documents given. Reply with the answer alone, in a few words."


def draw(rng: random.Random, amount: int, questions: Sequence[Question]) -> Draft:
    """One sample with `amount` distractor documents beside the gold ones."""
    question = rng.choice(questions)
    others = question.others
    documents = [*question.gold, *(rng.sample(others, amount) if amount <= len(others) else others)]
    rng.shuffle(documents)
    pieces = [f"{_RULE}\n\nThe documents are:\n"]
    pieces += [f"\nDocument {number}:\n{text}\n" for number, text in enumerate(documents, 1)]
    pieces.append(f"\n{_RULE}\n\nQuestion: {question.question} Answer:")
    return Draft(tuple(pieces), question.answers, (f" {question.answers[0]}",))
