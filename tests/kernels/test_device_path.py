"""The device path of every flow, as an engine runs it, against the reference: on the CPU under Triton's
interpreter and with the CPU twins of the CUDA kernels; `VORTEX_DEVICE=cuda` runs the kernels themselves."""

from __future__ import annotations

import pytest

from tests.kernels.device_check import check_on_device
from tests.kernels.held import Engine
from tests.vortex.targets.agreement import DEVICE
from tests.vortex.targets.generated import MLA_FLOWS, SHIPPED, Case

SGLANG, HF = Engine(shared=True), Engine(shared=False)


def case_of(flow: str, **changes: object) -> Case:
    """Sparse and dense rows, of which some finish a block in the first step and some in the second."""
    given: dict[str, object] = {
        "flow": flow, "lengths": (207, 16, 163, 96), "steps": 2, "topk_val": 3, "eos": 2, "scattered": True,
        "latent": (32, 16) if flow in MLA_FLOWS else None, "heads": 1 if flow in MLA_FLOWS else 2, "seed": 7,
    }  # fmt: skip
    return Case(**{**given, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("flow", SHIPPED)
def test_shipped_flows(flow: str) -> None:
    check_on_device(case_of(flow), SGLANG, DEVICE)
