from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from evaluators.serving.requests import poisson_arrivals, random_prompts


def test_prompts_depend_on_the_arguments_alone() -> None:
    prompts = random_prompts(3, 50, 151_936, seed=4)
    assert prompts == random_prompts(3, 50, 151_936, seed=4)
    assert prompts != random_prompts(3, 50, 151_936, seed=5)
    assert [len(prompt) for prompt in prompts] == [50, 50, 50]
    assert prompts[0] != prompts[1]  # no request finds another's prefix in the cache


@pytest.mark.parametrize("vocabulary", [128, 16_000, 151_936])
def test_ids_are_inside_the_vocabulary_away_from_special_tokens(vocabulary: int) -> None:
    ids = np.array(random_prompts(4, 4000, vocabulary, seed=0))
    assert ids.min() >= min(1000, vocabulary // 10)
    assert ids.max() < vocabulary - vocabulary // 50
    assert len(np.unique(ids)) > min(10_000, vocabulary // 2)


def test_arrivals_are_at_the_rate_and_the_same_for_every_engine() -> None:
    due = np.array(poisson_arrivals(4000, 8.0, seed=1))
    assert due[0] == 0
    gaps = np.diff(due)
    assert gaps.min() > 0
    assert gaps.mean() == pytest.approx(1 / 8, rel=0.05)
    assert gaps.std() == pytest.approx(1 / 8, rel=0.05)  # exponential, not regular
    assert due.tolist() == poisson_arrivals(4000, 8.0, seed=1)


def test_the_command_and_the_documents_need_no_engine() -> None:
    code = (
        "import sys, evaluators.serving.__main__; "
        "print([m for m in ('torch', 'numpy', 'sglang', 'transformers') if m in sys.modules]); "
        "import evaluators.serving.timing, evaluators.serving.table; "
        "print([m for m in ('torch', 'sglang', 'transformers') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split("\n")[:2] == ["[]", "[]"]
