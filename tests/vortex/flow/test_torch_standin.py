"""What `import torch` means in a flow file."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.vortex.flow.flows import flow
from vortex.errors import FlowTypeError
from vortex.flow import trace_source
from vortex.flow.torch_standin import TorchStandin, itemsize


def test_annotations_and_dtypes() -> None:
    torch = TorchStandin(trusted=False)
    assert isinstance(torch.Tensor, type)
    assert [repr(torch.bfloat16), torch.float8_e4m3fn.itemsize, torch.half] == [
        "torch.bfloat16",
        1,
        torch.float16,
    ]
    assert torch.device("cuda").type == "cuda"
    assert isinstance(torch.bfloat16, torch.dtype)
    head = "x: torch.nn.Module\ny = torch.Size\ndef f(a: torch.Tensor | None = None) -> torch.dtype: ..."
    trace_source(flow(head=head))


def test_looking_is_harmless_and_calling_is_not() -> None:
    torch = TorchStandin(trusted=False)
    function = torch.linalg.norm
    with pytest.raises(FlowTypeError, match=r"torch.linalg.norm cannot be used .*L2Norm"):
        function(1)
    with pytest.raises(AttributeError):
        _ = torch.__wrapped__


def test_a_flow_file_cannot_reach_the_real_torch_when_untrusted() -> None:
    import torch

    assert torch is not None
    trace_source(
        flow(head="assert type(torch).__name__ == 'TorchStandin'\nfrom torch import Tensor, bfloat16")
    )


def test_trusted_files_may_use_torch_outside_of_tracing() -> None:
    script = """
import sys
from vortex.flow.torch_standin import torch_for
stand_in = torch_for(trusted=True)
assert stand_in.Tensor and 'torch' not in sys.modules
print(int(stand_in.ones(3).sum()), 'torch' in sys.modules)
assert torch_for(trusted=True) is sys.modules['torch']
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["3", "True"], done.stderr


def test_item_sizes_of_all_kinds_of_dtype() -> None:
    import torch

    standin = TorchStandin(trusted=False)
    for name in ("bfloat16", "float32", "float16", "float8_e4m3fn", "float8_e5m2", "int64"):
        assert (
            itemsize(name)
            == itemsize(f"torch.{name}")
            == itemsize(getattr(torch, name))
            == getattr(standin, name).itemsize
        )
    assert itemsize("fp8_e4m3") == itemsize("fp8_e5m2") == 1
