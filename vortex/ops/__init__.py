"""The ops: each is defined once, in the file of its family. Start reading at `base.py`."""

from vortex.ops import products, reductions, elementwise, shapes, blocks, weighted, selection  # noqa: F401, I001  (the order of the docs)
from vortex.ops.base import LARGEST_DIM, Args, Example, OpDef, Row
from vortex.ops.registry import OPS, NoSuchOpError, define, find_op, stage_ops

__all__ = [
    "LARGEST_DIM",
    "OPS",
    "Args",
    "Example",
    "NoSuchOpError",
    "OpDef",
    "Row",
    "define",
    "find_op",
    "stage_ops",
]
