"""A traced graph in words: its ops, fields and cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from vortex.check.report import CostReport, FieldReport, OpReport, Part, Value
from vortex.flow.torch_standin import itemsize
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph, Format, Node, Ref, RefKind, Stage
from vortex.ops import find_op
from vortex.ops.params import AxisParam
from vortex.weights import Weight

if TYPE_CHECKING:
    from vortex.config import VortexConfig

PARTS = ("summaries", "scores", "selection", "attention")


@dataclass(frozen=True)
class Setting:
    """The row that costs are of: `context` tokens of a model with this geometry, under a budget."""

    geometry: Geometry
    mla: Geometry
    context: int
    config: VortexConfig
    kv_itemsize: int = 2

    def of(self, kind: str) -> Geometry:
        return self.mla if kind == "mla" else self.geometry


def ops(graph: FlowGraph) -> tuple[OpReport, ...]:
    """The ops of both programs, numbered from 1 in the order of their calls."""
    found: list[OpReport] = []
    for stage in Stage:
        first = len(found) + 1
        for index, node in enumerate(graph.program(stage)):
            number = first + index
            operands = tuple(
                Value(_name(ref, first), graph.type_of(stage, ref).text(stage)) for ref in node.inputs
            )
            claims = find_op(stage, node.op).claims_output
            result = None if claims else Value(f"#{number}", node.type.text(stage))
            found.append(
                OpReport(number, str(stage), node.line, _call(stage, node), operands, result, node.output)
            )
    return tuple(found)


def _name(ref: Ref, first: int) -> str:
    if ref.kind is RefKind.NODE:
        return f"#{first + ref.node}"
    return "q" if ref.kind is RefKind.QUERY else ref.name


def _call(stage: Stage, node: Node) -> str:
    """The op with its axis, and the other constructor arguments that are not defaults."""
    words = []
    for param in find_op(stage, node.op).params:
        value = node.attr(param.name)
        if isinstance(value, Weight):
            words.append(f"{param.name}={list(value.shape)}")
        elif isinstance(param, AxisParam) or (str(value) != str(param.default) and not param.ignored):
            words.append(f"{param.name}={param.source(value)}")
    return f"{node.op}({', '.join(words)})"


def stored(graph: FlowGraph, config: VortexConfig) -> tuple[FieldReport, ...]:
    """The fields that the flow declares."""
    size = itemsize(config.dtype)
    return tuple(
        FieldReport(
            field.name,
            f"[{field.rows}, {field.cols}]",
            "row" if field.format is Format.SLOTTED else "block",
            field.type.numel * size,
        )
        for field in graph.fields
    )


def cost(graph: FlowGraph, setting: Setting) -> CostReport:
    """The price of a decode step. Raises GuardError or GraphError where the graph does not serve the
    geometry, PolicyError for a policy outside of the checked subset."""
    from vortex.graph.cost import row_cost

    geometry, config, context = setting.of(graph.kind), setting.config, setting.context
    blocks = -(-context // geometry.block_size)
    chosen = _chosen(graph, blocks, config)
    sizes = (setting.kv_itemsize, itemsize(config.dtype))
    reserved = (config.block_reserved_bos, config.block_reserved_eos)
    sparse = row_cost(graph, geometry, context, chosen, *sizes, *reserved)
    dense = row_cost(None, geometry, context, blocks, *sizes)
    parts = {name: Part(getattr(sparse, name).bytes, getattr(sparse, name).flops) for name in PARTS}
    totals = (Part(priced.bytes, priced.flops) for priced in (sparse, dense))
    return CostReport(asdict(geometry), context, blocks, chosen, parts, *totals)


def _chosen(graph: FlowGraph, blocks: int, config: VortexConfig) -> int:
    """Blocks attended to: what the policy says, or the most that a Union of fixed selections can take."""
    fixed = [selection.k for selection in graph.selections if selection.k is not None]
    if len(fixed) == len(graph.selections):
        return min(blocks, sum(fixed) + config.block_reserved_bos + config.block_reserved_eos)
    import numpy as np

    from vortex.budget import chosen_blocks, parse_policy

    policy = parse_policy(config.schedule_policy) if config.schedule_policy else None
    return int(chosen_blocks(policy, np.array([blocks]), config)[0])
