"""What the two forms of the planner share: the limits of a plan, and what it counts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

PART_TOKENS = 128
"""Attention work is not cut into parts of fewer tokens."""
PART_COST = 64
"""What a part costs beside its tokens, in tokens: its partial result is written, read and merged."""
CUTS = 32
"""How many lengths of a part are compared: eighths of the even share of a program."""
MOST_REQUESTS = 5120
"""Of a step: the lists of all of them are cut in the shared memory of one multiprocessor."""


class Count(IntEnum):
    """Places of `Planner.counts`. Blocks are summed over kv heads, not over layers; steps without a sparse
    request count as steps, and their finished blocks, and nothing else."""

    STEPS = 0
    SPARSE_STEPS = 1
    ROWS_SPARSE = 2
    ROWS_DENSE = 3
    BLOCKS_READ = 4
    """Of a Union only those of dense rows: the others are known when a layer has chosen."""
    BLOCKS_TOTAL = 5
    CHUNKS = 6
    BLOCKS_FINISHED = 7
    CROSSOVER_STEPS = 8
    """Steps made dense because that is faster."""
    UNION_READ = 9
    """Blocks that sparse rows of a Union read, over layers too."""


@dataclass(frozen=True)
class Crossover:
    """When to read everything: in microseconds, what a layer costs, and a block of it. A step is dense where
    that does not take longer."""

    dense: float
    dense_block: float
    sparse: float
    score_block: float
    chosen_block: float

    def times(self, n: float, scored: float, read: float) -> tuple[np.float32, np.float32]:
        """Microseconds of a layer, dense and sparse, with so many blocks in all requests of a step. float32,
        in this order of operations: `crossed` of plan.cu computes the same."""
        f = np.float32
        dense = f(self.dense) + f(self.dense_block) * f(n)
        return dense, f(self.sparse) + f(self.score_block) * f(scored) + f(self.chosen_block) * f(read)
