"""The flows that ship with the package; importing this registers them."""

from vortex.flow.algorithms.block_sparse_attention import BlockSparseAttention
from vortex.flow.algorithms.gqa_block_sparse_attention import GQABlockSparseAttention
from vortex.flow.algorithms.gqa_quest_sparse_attention import GQAQuestSparseAttention

__all__ = ["BlockSparseAttention", "GQABlockSparseAttention", "GQAQuestSparseAttention"]
