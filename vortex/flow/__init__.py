"""Flows: what authors write, how files are loaded, how a flow becomes a graph. Start reading at `base.py`,
then `trace.py`."""

from vortex.flow.base import FlowBase, vFlow, vFlowMLA
from vortex.flow.loader import (
    build_vflow,
    load_file,
    load_graph,
    load_source,
    trace_flow,
    trace_source,
)
from vortex.flow.registry import get, has, list_keys, register
from vortex.flow.vtensor import vTensor

__all__ = [
    "FlowBase",
    "build_vflow",
    "get",
    "has",
    "list_keys",
    "load_file",
    "load_graph",
    "load_source",
    "register",
    "trace_flow",
    "trace_source",
    "vFlow",
    "vFlowMLA",
    "vTensor",
]
