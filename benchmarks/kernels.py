"""`python benchmarks/kernels.py` is `python -m benchmarks.kernels`."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    runpy.run_module("benchmarks.kernels", run_name="__main__", alter_sys=True)
