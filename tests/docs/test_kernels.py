"""The guide to kernels: its code runs and prints what it says, and its table counts what is launched."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.docs.guide import ROOT
from tests.kernels.geometries import MODELS
from tests.kernels.recorded import recorded_layer
from vortex.config import VortexConfig
from vortex.kernels.launches import kernels_of, program_of
from vortex.kernels.triton_setup import interpreted

GUIDE = ROOT / "docs" / "kernels.md"


def test_every_block_runs_and_every_output_is_true() -> None:
    """After a change: `python -m tests.docs.guide --write docs/kernels.md`."""
    command = [sys.executable, "-m", "tests.docs.guide", str(GUIDE)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == GUIDE.read_text()


def test_what_it_names_is_there() -> None:
    text = GUIDE.read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (GUIDE.parent / target).exists(), target
    for path in re.findall(r"`((?:vortex|tests|benchmarks)/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path


@pytest.mark.skipif(not interpreted(), reason="launches are recorded under the interpreter")
@pytest.mark.parametrize("flow", ["gqa_block_sparse_attention", "quest_mla"])
def test_the_table_counts_what_is_launched(flow: str) -> None:
    """The selection is no Triton kernel: on a GPU it is one launch more, as `launches_per_layer` says."""
    program = program_of(flow)
    model = MODELS["GLM-4.7-Flash" if program.geometry.kv_lora_rank else "Qwen3-8B"]
    config = VortexConfig(block_size=program.geometry.block_size, block_reserved_eos=2)
    decode, launches = recorded_layer(program.graph, model, config)
    made = [launch.name for launch in launches]
    assert made[:-1] == kernels_of(program)
    assert decode.launches_per_layer == len(made) + 1
