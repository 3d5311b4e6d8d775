"""The attention kernel compiles for GPUs that are not there, in every shape that it serves."""

from __future__ import annotations

import pytest
import torch

from tests.kernels.aot import check, compiled
from tests.kernels.geometries import MODELS, Model
from tests.kernels.launches import Launch, recording
from vortex.kernels.attention import SparseDecode
from vortex.kernels.triton_setup import interpreted
from vortex.runtime.device import DeviceStep, StepSize
from vortex.runtime.pool import KVPool

pytestmark = pytest.mark.skipif(not interpreted(), reason="launches are recorded under the interpreter")
FORMATS = {"bfloat16": torch.bfloat16, "e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
SHAPES = {
    **{name: (model, 16, "bfloat16") for name, model in MODELS.items()},
    "GLM-4.7-Flash, blocks of 32, fp8": (MODELS["GLM-4.7-Flash"], 32, "e4m3"),
    "Qwen3-8B, fp8": (MODELS["Qwen3-8B"], 16, "e4m3"),
    "Qwen3-8B, e5m2, blocks of 128": (MODELS["Qwen3-8B"], 128, "e5m2"),
    "blocks of 8, no groups": (Model(1, 4, 64), 8, "bfloat16"),
    "groups of 16": (Model(16, 2, 256), 64, "bfloat16"),
}
SAMPLE = ("Qwen3-8B", "GLM-4.7-Flash, blocks of 32, fp8")


def launches(model: Model, block_size: int, format: str) -> list[Launch]:
    """As for a step of two requests in SGLang's pool."""
    size = StepSize(2, model.heads, 64, 8, block_size, 1, 1, 32, model.heads, 8)
    dim = sum(model.latent or ()) or model.head_dim
    latent = model.latent[0] if model.latent else 0
    value_dim = latent or dim
    stored = torch.zeros(4 * block_size, model.heads, dim, dtype=FORMATS[format])
    pool = KVPool(*[stored] * (1 if latent else 2), kv_lora_rank=latent)
    q = torch.zeros(size.requests, model.heads * model.group, dim, dtype=torch.bfloat16)
    attention = SparseDecode(size, model.group, dim, value_dim, "cpu")
    with recording(run=False) as made:
        attention.run(q, pool, DeviceStep(size, "cpu"), 0.1, q.new_zeros(size.rows, model.group, value_dim))
    return made


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SAMPLE else pytest.mark.full) for name in SHAPES]
)
def test_attention_compiles(name: str) -> None:
    """Without spilling registers and within shared memory, for sm_90 and sm_100."""
    built = compiled(launches(*SHAPES[name]))
    assert {one.architecture for one in built} == {90, 100}
    check(built)


@pytest.mark.full
@pytest.mark.parametrize("name", [name for name in SHAPES if name != "groups of 16"])
def test_attention_for_geforce(name: str) -> None:
    """Whose blocks have less shared memory than the one left out takes."""
    check(compiled(launches(*SHAPES[name]), (120,)))
