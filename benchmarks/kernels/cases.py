"""What is measured: models, flows, and the tensors of a decode step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from vortex.config import VortexConfig
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph
from vortex.runtime.pool import KVPool

BOS, EOS, TOP_K = 1, 2, 61
"""64 blocks in all: the first, the last two and 61 chosen ones."""
CONTEXTS = (4096, 8192, 16384, 32768, 131072)
BATCHES = (1, 4, 16, 64)
TENSOR_CORES = ", use_tensor_core"
FLOWS = {"centroid": "block_sparse_attention", "Quest": "gqa_quest_sparse_attention"}


@dataclass(frozen=True)
class Model:
    """The attention of one layer: kv heads, query heads a kv head, features of a head; MLA: of the latent and
    of its part with positions, where the heads are the query heads of its one kv head."""

    name: str
    heads: int
    group: int
    head_dim: int
    kv_lora_rank: int = 0
    block_size: int = 16
    scale: float = 0.0

    @property
    def geometry(self) -> Geometry:
        if self.kv_lora_rank:
            rope = self.head_dim - self.kv_lora_rank
            return Geometry.mla(self.block_size, self.kv_lora_rank, rope, self.group)
        return Geometry(self.block_size, self.head_dim, self.group)

    @property
    def logit_scale(self) -> float:
        return self.scale or self.head_dim**-0.5

    @property
    def token_bytes(self) -> int:
        """Bytes of a token of all kv heads in bfloat16."""
        return self.heads * self.head_dim * (2 if self.kv_lora_rank else 4)


QWEN3_8B = Model("Qwen3-8B", 8, 4, 128)  # and Llama-3.1-8B
QWEN3_1_7B = Model("Qwen3-1.7B", 8, 2, 128)
GLM_47_FLASH = Model("GLM-4.7-Flash", 1, 20, 576, 512, block_size=32, scale=256**-0.5)


@dataclass(frozen=True)
class Case:
    """A batch of requests of `context` tokens, the current one included. Every request finishes a block in
    the step, which is the dearest one."""

    model: Model
    context: int
    batch: int

    @property
    def blocks(self) -> int:
        return self.context // self.model.block_size

    @property
    def tokens(self) -> int:
        return self.context * self.batch

    @property
    def dense_bytes(self) -> int:
        return self.tokens * self.model.token_bytes

    @property
    def label(self) -> str:
        return f"{self.model.name} {self.context // 1024}K x {self.batch}"


def config_of(flow: str, model: Model) -> VortexConfig:
    """`flow` may end in `TENSOR_CORES`."""
    return VortexConfig(
        module_name=flow.removesuffix(TENSOR_CORES),
        use_tensor_core=flow.endswith(TENSOR_CORES),
        topk_val=TOP_K,
        block_reserved_bos=BOS,
        block_reserved_eos=EOS,
        block_size=model.block_size,
    )


def graph_of(config: VortexConfig, model: Model) -> FlowGraph:
    return config.load_graph(model.geometry)


class Store:
    """Random keys and values for any case of a model, made once: layers are slices of it."""

    def __init__(self, model: Model, tokens: int, device: str = "cuda") -> None:
        self.model, self.tokens = model, tokens
        shape = tokens, model.heads, model.head_dim
        self.parts = [random(shape, device) for _ in range(1 if model.kv_lora_rank else 2)]

    def room(self, case: Case) -> int:
        """Layers of the case that fit."""
        return self.tokens // case.tokens

    def pools(self, case: Case, layers: int) -> list[KVPool]:
        size = case.tokens
        return [
            KVPool(
                *(part[at * size : (at + 1) * size] for part in self.parts),
                kv_lora_rank=self.model.kv_lora_rank,
            )
            for at in range(layers)
        ]


def random(shape: tuple[int, ...], device: str) -> torch.Tensor:
    """Standard normal bfloat16, filled in pieces: no float32 copy of a large tensor."""
    out = torch.empty(shape, dtype=torch.bfloat16, device=device)
    flat = out.view(-1)
    for piece in flat.split(1 << 28):
        piece.normal_()
    return out


def page_table(case: Case, device: str = "cuda") -> torch.Tensor:
    """Where the blocks of each request lie, in random order, int32 `[batch, blocks]`. MLA: in pages of two
    blocks, which FlashMLA needs."""
    per = 2 if case.model.kv_lora_rank else 1
    order = np.random.default_rng(case.tokens).permutation(case.batch * case.blocks // per)
    ids = order[:, None] * per + np.arange(per)
    return torch.from_numpy(ids.astype(np.int32)).to(device).view(case.batch, case.blocks)


def queries(case: Case, layers: int, device: str = "cuda") -> list[torch.Tensor]:
    """`[batch, query heads, head_dim]` of each layer."""
    model = case.model
    return [random((case.batch, model.heads * model.group, model.head_dim), device) for _ in range(layers)]


def main_cases() -> Iterator[Case]:
    for context in CONTEXTS:
        for batch in BATCHES:
            yield Case(QWEN3_8B, context, batch)


MLA_CASE = Case(GLM_47_FLASH, 32768, 16)
