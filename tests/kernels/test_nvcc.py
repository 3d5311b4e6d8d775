"""The CUDA files compile for GPUs that are not there. What they compute is tested on a GPU, and their twins
in numpy and PyTorch everywhere (`tests/vortex/kernels`)."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vortex.budget import parse_policy
from vortex.errors import ConfigError
from vortex.kernels import attention_cuda, cuda, plan_cuda, topk

NVCC = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
needs_nvcc = pytest.mark.skipif(NVCC is None, reason="nvcc is not installed here")
POLICY = "int x = cached_block_len / 8; return x > topk_val ? x : topk_val + block_reserved_bos;"


def attention(
    head_dim: int, group: int, kv: torch.dtype = torch.bfloat16, values: int = 0, warpgroups: bool = False
) -> str:
    variant = attention_cuda.Variant(torch.bfloat16, kv, head_dim, values, group, warpgroups)
    assert variant.serves
    return variant.source


def scores(dtype: torch.dtype, selections: int) -> str:
    head = f"#define SCORE {topk.SCORES[dtype]}\n#define SELECTIONS {selections}\n"
    return head + (cuda.HEADERS / "topk.cu").read_text()


FILES: dict[str, Callable[[], str]] = {
    "plan": lambda: plan_cuda.plan_source(parse_policy(POLICY).cuda()),
    "lists": lambda: (cuda.HEADERS / "lists.cu").read_text(),
    "topk": lambda: scores(torch.bfloat16, 1),
    "topk of a Union, float32": lambda: scores(torch.float32, 2),
    "attention": lambda: attention(128, 4),
    "attention, fp8": lambda: attention(128, 16, torch.float8_e4m3fn),
    "attention, head_dim 64": lambda: attention(64, 4),
    "attention, head_dim 256": lambda: attention(256, 2),
    "attention, latent": lambda: attention(576, 20, values=512),
    "attention, latent of 256 values": lambda: attention(320, 20, values=256),
    "attention, latent, warpgroups": lambda: attention(576, 20, values=512, warpgroups=True),
    "attention, latent, warpgroups, 128 heads": lambda: attention(576, 128, values=512, warpgroups=True),
}
IN_SAMPLE = ("plan", "lists")
"""Templates take half a minute each."""
SPILLED = {"topk of a Union, float32": 64, "attention, latent, warpgroups, 128 heads": 8}
"""Bytes a thread, at most. The widest form of topk has 1,024 threads, which leaves 64 registers to each; the
kernel of latents has 512, and 128 for each."""


@needs_nvcc
@pytest.mark.parametrize(
    "architecture", ["sm_90a", "sm_100a", pytest.param("sm_120a", marks=pytest.mark.full)]
)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in IN_SAMPLE else pytest.mark.full) for name in FILES]
)
def test_cuda_files_compile(name: str, architecture: str, tmp_path: Path) -> None:
    if "warpgroups" in name and architecture != "sm_90a":
        pytest.skip("Hopper alone has them")
    library = cuda.build(re.sub(r"\W.*", "", name), FILES[name](), architecture, str(tmp_path))
    if architecture == "sm_90a":  # what they are tuned for
        assert max(spilled(library).values(), default=0) <= SPILLED.get(name, 0)
    for kernel in shown("-sass", library).split("Function : ")[1:]:
        # A product that is waited for is marked: each of them where the compiler cannot tell that a
        # warpgroup's warps are together.
        assert kernel.count("gsb0") <= kernel.count("HGMMA") / 4, "products wait for each other"
        # Others rely on it that all before the kernel in front of them is complete: see plan.cu.
        if "PREEXIT" in kernel:
            assert kernel.find("ACQBULK") in range(kernel.index("PREEXIT")), "starts others before it waits"


@needs_nvcc
def test_a_large_policy_is_compiled_once(tmp_path: Path) -> None:
    """Not for each of its uses, and what its operators need is called: otherwise nvcc takes a minute."""
    lines = [f"if (a > {i}.0f) a = log2f(a) / b; else b = log2f(b) / a;" for i in range(140)]
    text = f"float a = cached_block_len; float b = topk_val; {' '.join(lines)} return int(a + b);"

    def instructions(policy: str) -> int:
        source = plan_cuda.plan_source(parse_policy(policy).cuda())
        return len(shown("-sass", cuda.build("plan", source, "sm_90a", str(tmp_path))).splitlines())

    assert instructions(text) < 6 * instructions("return topk_val;")


EARLY = 'extern "C" __global__ void early() { asm volatile("griddepcontrol.launch_dependents;"); }'


@needs_nvcc
def test_nothing_starts_before_the_plan_is_complete(tmp_path: Path) -> None:
    """Later kernels read what it wrote without waiting for the kernel in front of them."""

    def instructions(name: str, source: str) -> str:
        return shown("-sass", cuda.build(name, source, "sm_90a", str(tmp_path)))

    assert "PREEXIT" in instructions("early", EARLY)
    assert "PREEXIT" not in instructions("plan", FILES["plan"]())


def shown(what: str, library: Path) -> str:
    """What cuobjdump says of a library."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return subprocess.run([tool, what, library], capture_output=True, text=True, check=True).stdout


def spilled(library: Path) -> dict[str, int]:
    """Bytes of local memory a thread, of the kernels that use any."""
    said = shown("-res-usage", library)
    found = re.findall(r"Function (\S+):\s+REG:\d+ STACK:(\d+)", said)
    assert found
    return {name: int(stack) for name, stack in found if int(stack)}


@needs_nvcc
def test_what_does_not_compile_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nvcc does not compile the kernel wrong: (.|\n)*undeclared_name"):
        cuda.build("wrong", "int x = undeclared_name;", "sm_90a", str(tmp_path))
    assert not list(tmp_path.rglob("*.so"))
