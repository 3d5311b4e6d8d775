"""Graphs as JSON, and the hash. Writing is plain; reading trusts nothing (see `schema.py` for the shape)."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from vortex.dims import Dim
from vortex.errors import FlowTypeError, GraphError
from vortex.graph.model import (
    VERSION,
    Attr,
    Field,
    FlowGraph,
    Format,
    Node,
    Ref,
    RefKind,
    Stage,
    TensorType,
)
from vortex.symbols import ExpressionError
from vortex.weights import MAX_INLINE, Weight

MAX_BYTES = 2**20


def to_json(graph: FlowGraph) -> str:
    """Indented by one space a level, stable: the same graph gives the same text. Raises GraphError for a
    graph whose constants are too large to be written into it."""
    weights = {weight.digest: weight for weight in graph.weights()}
    document = _document(graph, types=True)
    if sum(weight.numel for weight in weights.values()) > MAX_INLINE:
        raise GraphError(
            f"the graph's constants have more than {MAX_INLINE} numbers: keep the flow's file and weights"
        )
    if weights:
        document["weights"] = {digest: weights[digest].text for digest in sorted(weights)}
    return json.dumps(document, indent=1)


def identity(graph: FlowGraph) -> str:
    """The text that equality of graphs compares: everything but lines and derived types."""
    return json.dumps(_document(graph, types=False), separators=(",", ":"), sort_keys=True)


def fingerprint(canonical: FlowGraph) -> str:
    """SHA-256 of a canonical graph, whatever geometry it was traced at."""
    document = _document(canonical, types=False)
    del document["traced_at"]
    text = json.dumps(document, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _document(graph: FlowGraph, types: bool) -> dict[str, Any]:
    at = graph.traced_at
    return {
        "version": graph.version,
        "kind": graph.kind,
        "traced_at": {name: value for name, value in vars(at).items() if value},
        "guards": list(graph.guards),
        "fields": [_field(field) for field in graph.fields],
        **{str(stage): [_node(node, types) for node in graph.program(stage)] for stage in Stage},
    }


def _field(field: Field) -> dict[str, Any]:
    out = {"name": field.name, "rows": _size(field.rows), "cols": _size(field.cols)}
    return out if field.format is Format.PAGED else {**out, "format": field.format.name}


def _node(node: Node, types: bool) -> dict[str, Any]:
    out: dict[str, Any] = {
        "op": node.op,
        "attrs": {name: plain_attr(value) for name, value in node.attrs},
        "inputs": [_ref(ref) for ref in node.inputs],
    }
    if node.output is not None:
        out["output"] = node.output
    if types:
        out["type"] = _type(node.type)
        if node.line is not None:
            out["line"] = node.line
    return out


def _type(found: TensorType) -> list[Any]:
    return [found.format.name, _size(found.rows), _size(found.cols)]


def _ref(ref: Ref) -> str | int:
    if ref.kind is RefKind.NODE:
        return ref.node
    return "q" if ref.kind is RefKind.QUERY else f"cache.{ref.name}"


def _size(value: Dim) -> int | str:
    return str(value.expr) if value.symbolic else value.hint


def plain_attr(value: Attr) -> Any:
    """An attribute as JSON data; a symbolic integer is `{"dim": text}`, an array its shape and digest."""
    if isinstance(value, tuple):
        return [plain_attr(item) for item in value]
    if isinstance(value, Dim):
        return {"dim": str(value.expr)} if value.symbolic else value.hint
    if isinstance(value, Weight):
        return {"shape": list(value.shape), "sha256": value.digest}
    return value


def from_json(text: str | bytes) -> FlowGraph:
    """See `FlowGraph.from_json`."""
    if len(text) > MAX_BYTES:
        raise GraphError(f"a graph has at most {MAX_BYTES} bytes of JSON, got {len(text)}")
    try:
        data = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise GraphError(f"not a JSON document: {str(error)[:200]}") from None
    if isinstance(data, dict) and data.get("version") != VERSION:
        raise GraphError(
            f"graph version {str(data.get('version'))[:20]!r} is not supported; this is version {VERSION}"
        )
    from pydantic import ValidationError

    from vortex.graph.schema import Document

    try:
        document = Document.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise GraphError(
            f"{'.'.join(str(part) for part in first['loc'])[:100]}: {first['msg'][:200]}"
        ) from None
    try:
        return document.build()
    except (FlowTypeError, ExpressionError) as error:
        raise GraphError(str(error)[:1000]) from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON")
