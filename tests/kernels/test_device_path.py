"""The device path of every flow, as an engine runs it, against the reference: on the CPU under Triton's
interpreter and with the CPU twins of the CUDA kernels; `VORTEX_DEVICE=cuda` runs the kernels themselves."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from tests.kernels.device_check import check_on_device
from tests.kernels.held import Engine
from tests.vortex.targets.agreement import DEVICE
from tests.vortex.targets.cases import FLOWS
from tests.vortex.targets.census import covering
from tests.vortex.targets.generated import MLA_FLOWS, SHIPPED, Case, fixed_cases

SGLANG, HF = Engine(shared=True), Engine(shared=False)
E4M3, E5M2 = Engine(kv=torch.float8_e4m3fn), Engine(kv=torch.float8_e5m2)
SAMPLE = list(covering(fixed_cases(400)))
IN_SHORT = 6
"""Of so many random graphs `make test` runs one."""


def case_of(flow: str, **changes: object) -> Case:
    """Sparse and dense rows, of which some finish a block in the first step and some in the second."""
    given: dict[str, object] = {
        "flow": flow, "lengths": (144, 16, 95, 121), "steps": 2, "topk_val": 3, "eos": 2, "scattered": True,
        "latent": (32, 16) if flow in MLA_FLOWS else None, "heads": 1 if flow in MLA_FLOWS else 2, "seed": 7,
    }  # fmt: skip
    return Case(**{**given, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("flow", SHIPPED)
def test_shipped_flows_in_sglangs_pool(flow: str) -> None:
    check_on_device(case_of(flow), SGLANG, DEVICE)


@pytest.mark.parametrize("flow", FLOWS)
def test_flows_in_pages_of_their_own(flow: str) -> None:
    """Saves, request fields and Unions among them."""
    check_on_device(case_of(flow, steps=3), HF, DEVICE)


QUEST, MLA = "gqa_quest_sparse_attention", "quest_mla"


@pytest.mark.parametrize(
    ("flow", "changes", "engine"),
    [
        (QUEST, {"block_size": 8, "group": 1, "lengths": (64, 40, 79), "stored": "bfloat16"}, SGLANG),
        (QUEST, {"block_size": 32, "group": 3, "lengths": (256, 160)}, SGLANG),
        (QUEST, {"block_size": 64, "group": 16, "lengths": (450, 63), "stored": "bfloat16"}, HF),
        (QUEST, {"block_size": 128, "group": 5, "topk_val": 1, "lengths": (767, 128)}, SGLANG),
        (QUEST, {"head_dim": 96, "dtype": "float16"}, SGLANG),
        (QUEST, {"head_dim": 128, "dtype": "fp8_e4m3", "stored": "bfloat16"}, E4M3),
        (QUEST, {"dtype": "fp8_e5m2", "stored": "bfloat16"}, E5M2),
        (QUEST, {"dtype": "float32", "numbers": "integers", "topk_ratio": 0.3}, HF),
        (MLA, {"latent": (64, 16), "group": 20, "block_size": 32, "lengths": (300, 31)}, SGLANG),
        (MLA, {"latent": (32, 16), "stored": "bfloat16", "block_size": 8, "lengths": (63, 30)}, E4M3),
    ],
    ids=str,
)
def test_sizes_and_formats(flow: str, changes: Mapping[str, object], engine: Engine) -> None:
    check_on_device(case_of(flow, **changes), engine, DEVICE)


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
@pytest.mark.parametrize("flow", ["gqa_block_sparse_attention", QUEST, MLA, "keys_themselves"])
def test_tensor_cores_change_no_score(flow: str, stored: str) -> None:
    """Not beyond what float32 in another order does."""
    check_on_device(case_of(flow, group=8, stored=stored), SGLANG, DEVICE, use_tensor_core=True)


RANDOM = [
    pytest.param(case, id=str(at), marks=() if at % IN_SHORT == IN_SHORT - 1 else pytest.mark.full)
    for at, case in enumerate(SAMPLE)
]


@pytest.mark.parametrize("case", RANDOM)
def test_random_graphs(case: Case) -> None:
    check_on_device(case, SGLANG if case.seed % 2 else HF, DEVICE)


def test_a_batch_of_padding_alone_changes_nothing() -> None:
    """As when a CUDA graph is captured, before there is a request."""
    decode = check_on_device(case_of("trading_places"), SGLANG, DEVICE)
    layer = decode.layers[0]
    before = {name: field.clone() for name, field in (layer.fields | layer.requests).items()}
    batch = decode.size.requests
    q = torch.full((batch, 2 * 4, 32), torch.nan, device=DEVICE)
    decode.plan(torch.zeros(batch, dtype=torch.int32, device=DEVICE))
    decode.attend(0, q, 0.1)
    for name, field in (layer.fields | layer.requests).items():
        torch.testing.assert_close(field, before[name], rtol=0, atol=0, equal_nan=True)
