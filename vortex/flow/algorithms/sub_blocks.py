"""Sub-blocks: LServe (arXiv 2502.14866) summarises every 16 tokens, however large the block is."""

from __future__ import annotations

SUB_BLOCK = 16


def sub_blocks(block_size: int) -> int:
    """How many sub-blocks a block has; one of fewer than 16 tokens is a single sub-block.

    Rounding up instead of branching on the size lets one trace serve every power of two.
    """
    return (block_size + SUB_BLOCK - 1) // SUB_BLOCK
