"""The flows that ship with the package; importing this registers them."""

from vortex.flow.algorithms.block_sparse_attention import BlockSparseAttention
from vortex.flow.algorithms.centered_block_sparse_attention import CenteredBlockSparseAttention
from vortex.flow.algorithms.gqa_block_sparse_attention import GQABlockSparseAttention
from vortex.flow.algorithms.gqa_quest_sparse_attention import GQAQuestSparseAttention
from vortex.flow.algorithms.learned_block_sparse_mla import LearnedBlockSparseMLA
from vortex.flow.algorithms.lserve_centroid_mla import LServeCentroidMLA
from vortex.flow.algorithms.lserve_centroid_sparse_attention import LServeCentroidSparseAttention
from vortex.flow.algorithms.lserve_sparse_attention import LServeSparseAttention
from vortex.flow.algorithms.masked_quest_sparse_attention import MaskedQuestSparseAttention
from vortex.flow.algorithms.quest_mla import QuestMLA
from vortex.flow.algorithms.rope_aware_block_sparse_mla import RopeAwareBlockSparseMLA
from vortex.flow.algorithms.rope_unaware_block_sparse_mla import RopeUnawareBlockSparseMLA
from vortex.flow.algorithms.rope_unaware_lserve_centroid_mla import RopeUnawareLServeCentroidMLA
from vortex.flow.algorithms.rope_weighted_block_sparse_mla import (
    RopeWeightedBlockSparseMLAB10,
    RopeWeightedBlockSparseMLAB25,
    RopeWeightedBlockSparseMLAB50,
    RopeWeightedBlockSparseMLAB75,
    RopeWeightedBlockSparseMLAB90,
    RopeWeightedBlockSparseMLAB100,
)
from vortex.flow.algorithms.running_avg_block_sparse import RunningAvgBlockSparse
from vortex.flow.algorithms.venergy_gated_centroid import VEnergyGatedCentroid

__all__ = [
    "BlockSparseAttention",
    "CenteredBlockSparseAttention",
    "GQABlockSparseAttention",
    "GQAQuestSparseAttention",
    "LServeCentroidMLA",
    "LServeCentroidSparseAttention",
    "LServeSparseAttention",
    "LearnedBlockSparseMLA",
    "MaskedQuestSparseAttention",
    "QuestMLA",
    "RopeAwareBlockSparseMLA",
    "RopeUnawareBlockSparseMLA",
    "RopeUnawareLServeCentroidMLA",
    "RopeWeightedBlockSparseMLAB10",
    "RopeWeightedBlockSparseMLAB25",
    "RopeWeightedBlockSparseMLAB50",
    "RopeWeightedBlockSparseMLAB75",
    "RopeWeightedBlockSparseMLAB90",
    "RopeWeightedBlockSparseMLAB100",
    "RunningAvgBlockSparse",
    "VEnergyGatedCentroid",
]
