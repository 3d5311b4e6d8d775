"""`Policy`, and how many blocks of a row it leaves."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vortex.budget import canonical, cuda, scalar, vector
from vortex.budget.parse import parse_tree
from vortex.budget.tree import Tree

DEFAULT_POLICY = (
    "return max(topk_val + block_reserved_bos + block_reserved_eos, int(cached_block_len * topk_ratio));"
)


@dataclass(frozen=True)
class Policy:
    """A checked `schedule_policy`. `canonical()` says whether two are one rule."""

    tree: Tree
    text: str = field(compare=False)

    def evaluate(self, cached_block_len: int, topk_val: int, topk_ratio: float, bos: int, eos: int) -> int:
        """Blocks for one row of `cached_block_len` blocks, before the limits of `chosen_blocks`."""
        return scalar.evaluate(self.tree, (cached_block_len, topk_val, topk_ratio, bos, eos))

    def evaluate_many(
        self, cached_block_len: NDArray[Any], topk_val: int, topk_ratio: float, bos: int, eos: int
    ) -> NDArray[np.int32]:
        """`evaluate` for every row, `[rows]` in and out."""
        return vector.evaluate(self.tree, (cached_block_len, topk_val, topk_ratio, bos, eos))

    def canonical(self) -> str:
        """A text that two policies of one rule share; stable across processes."""
        return canonical.canonical(self.tree)

    def cuda(self) -> str:
        """CUDA C++ with `__device__ int schedule_policy(int, int, float, int, int)`, from the tree."""
        return cuda.emit(self.tree)

    @property
    def is_default(self) -> bool:
        return self.canonical() == default_policy().canonical()


def parse_policy(text: str) -> Policy:
    """The body of `int schedule_policy(cached_block_len, topk_val, topk_ratio, block_reserved_bos,
    block_reserved_eos)` as a checked tree. Raises PolicyError with row and column, counted from 1."""
    return Policy(parse_tree(text), text)


@functools.cache
def default_policy() -> Policy:
    return parse_policy(DEFAULT_POLICY)


class BudgetConfig(Protocol):
    """The fields of VortexConfig that set a row's budget."""

    @property
    def topk_val(self) -> int: ...
    @property
    def topk_ratio(self) -> float: ...
    @property
    def max_topk_val(self) -> int | None: ...
    @property
    def block_reserved_bos(self) -> int: ...
    @property
    def block_reserved_eos(self) -> int: ...


class Rule(Protocol):
    """How many blocks rows may keep: a `Policy`, or one that a compiler made."""

    def evaluate_many(
        self, cached_block_len: NDArray[Any], topk_val: int, topk_ratio: float, bos: int, eos: int
    ) -> NDArray[np.int32]: ...

    def cuda(self) -> str:
        """CUDA C++ that defines `int schedule_policy(int, int, float, int, int)`, for the device."""
        ...


def chosen_blocks(policy: Rule | None, n: NDArray[Any], config: BudgetConfig) -> NDArray[np.int64]:
    """Blocks that attention reads of rows with `n` blocks, `[rows]` to `[rows]`; None is the default policy.

    The policy's result is cut to `max_topk_val + bos + eos`, raised to `bos + eos + 1`, and at most n.
    A row whose result is n is dense.
    """
    blocks = np.asarray(n, dtype=np.int64)
    bos, eos = config.block_reserved_bos, config.block_reserved_eos
    rule = policy or default_policy()
    wanted = rule.evaluate_many(blocks, config.topk_val, config.topk_ratio, bos, eos).astype(np.int64)
    if config.max_topk_val is not None:
        wanted = np.minimum(wanted, config.max_topk_val + bos + eos)
    return np.minimum(blocks, np.maximum(wanted, bos + eos + 1))
