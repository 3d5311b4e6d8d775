"""A batch whose rows own their pages, on the device path."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from vortex.config import VortexConfig
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph
from vortex.runtime.decode import DeviceDecode, step_size
from vortex.runtime.pool import PAGE, PageTable
from vortex.targets.base import LayerCache


class DeviceBatch:
    """The sparse layers `layers` of requests of `lengths [requests]` tokens, which are in the pools already.
    Every step: `begin()`, then `attend()` for each layer; `keep()` and `set_pages()` in between.
    """

    def __init__(
        self,
        graph: FlowGraph,
        geometry: Geometry,
        config: VortexConfig,
        layers: Mapping[int, LayerCache],
        pages: PageTable,
        lengths: np.ndarray,
        device: torch.device,
    ) -> None:
        self.graph, self.geometry, self.config = graph, geometry, config
        self.layers, self.device, self.most = layers, device, len(lengths)
        self.heads = pages.rows // len(lengths)
        self._build(pages)
        self.set_pages(pages)
        self.keep(np.arange(len(lengths)), lengths)
        finished = np.repeat(lengths // geometry.block_size, self.heads)
        ids = pages.blocks(geometry.block_size)
        done = torch.from_numpy(ids[np.arange(ids.shape[1]) < finished[:, None]]).to(device)
        self.prompts = dict.fromkeys(layers, done) if len(done) else {}
        """Layers whose prompts are not summarised yet, with the blocks of these."""

    def set_pages(self, pages: PageTable) -> None:
        """Follow a table that has grown or shrunk, and pools that have grown."""
        if pages.pages.shape[1] * PAGE > self.decode.size.blocks * self.geometry.block_size:
            self._build(pages, room=2)
        self.decode.allocate()
        ids = torch.from_numpy(pages.blocks(self.geometry.block_size).astype(np.int32))
        self.decode.step.table[: ids.shape[0], : ids.shape[1]] = ids.to(self.device)

    def keep(self, requests: np.ndarray, lengths: np.ndarray) -> None:
        """Go on with the requests of these numbers, which have so many tokens."""
        self.requests = torch.from_numpy(requests).to(self.device)
        self.seq_len = torch.tensor(lengths, device=self.device)

    def begin(self) -> None:
        """Plan the step of one more token of every request."""
        for layer_id, blocks in self.prompts.items():  # before the plan: see `DeviceDecode.summarize`
            self.decode.summarize(layer_id, blocks)
        self.prompts = {}
        self.seq_len += 1
        self.decode.plan(self.seq_len, self.requests)

    def attend(self, layer_id: int, q: torch.Tensor, scale: float) -> torch.Tensor:
        """See `DeviceDecode.attend`."""
        return self.decode.attend(layer_id, q, scale)

    def _build(self, pages: PageTable, room: int = 1) -> None:
        tokens = pages.pages.shape[1] * PAGE * room
        size = step_size(
            self.graph, self.geometry, self.config,
            requests=self.most, heads=self.heads, tokens=tokens, share=1, device=self.device,
        )  # fmt: skip
        self.decode = DeviceDecode(self.graph, self.geometry, self.config, self.layers, size, self.device)
