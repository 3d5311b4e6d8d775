"""Question answering over documents: gold paragraphs among distractors, shuffled."""

from __future__ import annotations

import random

from evaluators.ruler.documents import Documents, Question
from evaluators.ruler.prompt import Draft

_RULE = "Answer the question from the documents given. Reply with the answer alone, in a few words."
_PREFIX = " Answer:"


def draw(rng: random.Random, amount: int, data: Documents) -> Draft:
    """One sample with `amount` distractor documents beside the gold ones."""
    question = rng.choice(data.questions)
    documents = [*question.gold, *distractors(rng, amount, question, data)]
    rng.shuffle(documents)
    pieces = [f"{_RULE}\n\nThe documents are:\n"]
    pieces += [f"\nDocument {number}:\n{text}\n" for number, text in enumerate(documents, 1)]
    pieces.append(f"\n{_RULE}\n\nQuestion: {question.question}{_PREFIX}")
    return Draft(tuple(pieces), question.answers, (f" {question.answers[0]}",), _PREFIX)


def distractors(rng: random.Random, amount: int, question: Question, data: Documents) -> list[str]:
    """The question's own distractors first, then any others; lengths beyond all documents repeat them."""
    found = rng.sample(question.near, min(amount, len(question.near)))
    own = {*question.gold, *question.near}
    while len(found) < amount:
        # As many more as may turn out to be the question's own.
        wanted = min(len(data.pool), amount - len(found) + len(own))
        others = [text for text in rng.sample(data.pool, wanted) if text not in own]
        if not others:
            break
        found += others[: amount - len(found)]
    return found
