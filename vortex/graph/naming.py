"""Readable names for the fields, op instances and values of a graph, from what they compute."""

from __future__ import annotations

import keyword
import re

from vortex.graph.model import FlowGraph, Node, Ref, RefKind, Stage

MAX_NAME = 28
_TAKEN = {
    "q",
    "o",
    "k",
    "v",
    "self",
    "cache",
    "loc",
    "ctx",
    "torch",
    "graph",
    "group",
    "block_size",
    "head_dim",
}
_TAKEN |= {"kv_lora_rank", "qk_rope_head_dim", "latent", "kv_c", "k_pe", "kind", "initialize", "create_cache"}
_TAKEN |= {"create_request_cache", "get_request_cache_meta_info"}
_TAKEN |= {
    "forward_cache",
    "forward_indexer",
    "get_cache_meta_info",
    "get_token_ratio",
    "get_aux_token_ratio",
}


class Names:
    """Names of one canonical graph. A value and the op instance that makes it share one name."""

    def __init__(self, graph: FlowGraph) -> None:
        self.graph = graph
        self._used = set(_TAKEN)
        self._ops: dict[tuple[Stage, int], str] = {}
        self._fields: dict[str, str] = {}
        for index, node in enumerate(graph.cache):
            self._ops[Stage.CACHE, index] = self._value_name(Stage.CACHE, node)
            if node.output is not None:
                self._fields[node.output] = self._ops[Stage.CACHE, index]
        for field in graph.fields:
            if field.name not in self._fields:
                saved = any(node.output == field.name for node in graph.indexer)
                self._fields[field.name] = self._unique("running" if saved else "zeros")
        scores = {pick.score.node for pick in graph.selections}
        for index, node in enumerate(graph.indexer):
            fixed = "select" if node is graph.selector else "score" if index in scores else None
            name = self._unique(fixed) if fixed else self._value_name(Stage.INDEXER, node)
            self._ops[Stage.INDEXER, index] = name

    def field(self, name: str) -> str:
        """The readable name of an auxiliary field; injected fields keep theirs."""
        return self._fields.get(name, name)

    def op(self, stage: Stage, index: int) -> str:
        return self._ops[stage, index]

    def value(self, stage: Stage, index: int) -> str:
        return self._ops[stage, index]

    def operand(self, stage: Stage, ref: Ref) -> str:
        if ref.kind is RefKind.QUERY:
            return "q"
        return self.field(ref.name) if ref.kind is RefKind.FIELD else self._ops[stage, ref.node]

    def _value_name(self, stage: Stage, node: Node) -> str:
        word = _snake(node.op)
        operands = [self.operand(stage, ref) for ref in node.inputs]
        full = "_".join([*operands, word] if len(operands) < 2 else [operands[0], word, *operands[1:]])
        return self._unique(full if len(full) <= MAX_NAME else word)

    def _unique(self, name: str) -> str:
        candidate, count = name, 1
        while candidate in self._used or keyword.iskeyword(candidate):
            count += 1
            candidate = f"{name}_{count}"
        self._used.add(candidate)
        return candidate


def _snake(op: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", op).lower()


def flow_class_name(name: str) -> str:
    """CamelCase of a flow's registered name, never a name that the flow file imports."""
    from vortex.ops import stage_ops

    ops = {op for stage in Stage for op in stage_ops(stage)}
    imported = ops | {f"C{op}" for op in ops} | {"ContextBase"}
    words = re.findall(r"[A-Za-z0-9]+", name)
    camel = "".join(word[:1].upper() + word[1:] for word in words) or "Flow"
    if camel in imported:
        return f"{camel}Flow"
    return camel if camel[0].isalpha() and not keyword.iskeyword(camel) else f"Flow{camel}"
