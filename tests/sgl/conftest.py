"""The model that every engine here serves, and the engines."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from transformers import PreTrainedModel

from tests.sgl.engines import Engines
from tests.sgl.models import random_qwen3

collect_ignore_glob = [] if find_spec("sglang") else ["test_*.py"]


@pytest.fixture(scope="session")
def model() -> PreTrainedModel:
    return random_qwen3()


@pytest.fixture(scope="session")
def model_path(model: PreTrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model on disk, as SGLang loads it."""
    path = tmp_path_factory.mktemp("model")
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def engines(model_path: Path) -> Iterator[Engines]:
    """One engine at a time; the last one ends with the module."""
    running = Engines(model_path)
    yield running
    running.close()
