"""The FlowGraph: what a flow is once its Python has been traced. Start reading at `model.py`."""

from vortex.graph.geometry import Geometry
from vortex.graph.model import Attr, Field, FlowGraph, Format, Node, Ref, RefKind, Stage, TensorType

__all__ = [
    "Attr",
    "Field",
    "FlowGraph",
    "Format",
    "Geometry",
    "Node",
    "Ref",
    "RefKind",
    "Stage",
    "TensorType",
]
