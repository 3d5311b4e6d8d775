"""A flow as generated kernels: scores and summaries of one model's layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from vortex.config import Dtype
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph, Ref, RefKind
from vortex.ops.weighted import taps
from vortex.runtime.device import DeviceStep, StepSize
from vortex.runtime.dtypes import TORCH_DTYPES
from vortex.targets.compiled import CompiledGraph
from vortex.targets.rewrite import bound_as_products, rows_as_columns
from vortex.targets.triton import module as modules
from vortex.targets.triton.buffers import (
    ProgramBuffers,
    programs,
    register_limit,
    resident,
    starts_early,
    summary_warps,
    tile_slots,
    tiles_of_row,
    warps,
)
from vortex.targets.triton.layout import Layout
from vortex.targets.triton.schedule import Schedule, StagePlan
from vortex.targets.triton.source import KernelSource, generate

if TYPE_CHECKING:
    from vortex.runtime.plan import SparseRows
    from vortex.runtime.table import BlockIds
    from vortex.targets.base import LayerCache

PROTOCOL_CHUNK = 32
"""Blocks of a piece of work where the caller does not say: `workload_chunk_size`."""
STAGES = 1
"""Of Triton's own pipelines, which would hold tiles in shared memory: programs overlap instead."""
_BFLOAT16 = (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
_FLOAT16 = (torch.float16, torch.float8_e4m3fn, torch.float8_e5m2)
_HOLDS = (torch.float32, torch.bfloat16, torch.float16)
"""What holds the numbers of NARROW."""


class TritonProgram(CompiledGraph):
    """See `vortex.targets.base.Program`; `score` is what a decode step on a GPU calls.

    `source`: the generated module. `path`: its file, shared by all processes. Nothing here imports triton
    before a kernel is launched.
    """

    def __init__(
        self,
        graph: FlowGraph,
        geometry: Geometry,
        dtype: Dtype,
        *,
        use_tensor_core: bool = False,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__(graph, geometry, dtype)
        self.schedule = Schedule(self)
        self.layout = Layout(self.schedule, use_tensor_core)
        self.module = generate(self.schedule, self.layout, use_tensor_core)
        self.cache_dir = cache_dir
        self.use_tensor_core = use_tensor_core
        self.score_dtype = TORCH_DTYPES[dtype] if dtype in ("float16", "float32") else torch.bfloat16
        self.launches = len(self.module.kernels)
        """Kernels of `score`, besides the ops that run outside of them."""
        self._registers: dict[tuple[str, int], int] = {}
        """Of a thread of each kernel that was launched, by its warps."""
        self._weights: dict[tuple[int, torch.device], torch.Tensor] = {}

    def rewritten(self, graph: FlowGraph) -> FlowGraph:
        # Summaries that overflow a narrow format are infinite, and 0 * inf is not what the bound says.
        return rows_as_columns(graph if self.dtype == "float16" else bound_as_products(graph))

    @property
    def source(self) -> str:
        return self.module.text

    def buffers(self, size: StepSize, device: torch.device | str) -> ProgramBuffers:
        """Memory for steps of up to `size`, shared by all layers; scores come in `score_dtype`."""
        return self._buffers(size, torch.device(device), self.score_dtype)

    def _buffers(self, size: StepSize, device: torch.device, scores: torch.dtype) -> ProgramBuffers:
        return ProgramBuffers.of(self.module, self.layout, size, device, len(self.selections), scores)

    def score(
        self, q: torch.Tensor, layer: LayerCache, step: DeviceStep, buffers: ProgramBuffers
    ) -> torch.Tensor:
        """Summarise the blocks that the step's tokens finish, and score the blocks of its sparse rows:
        `[selections, rows, blocks]`, of which the places `[bos, n - eos)` count. `q [requests, heads * group,
        head_dim]`, of the step's first requests, may be a view whose last dimension is contiguous; nothing is
        allocated by the kernels, and nothing waits for the device.
        """
        self._run(q, layer, step, buffers, summaries=True)
        shape = len(self.selections), len(q) * step.size.heads, step.size.blocks
        return buffers.scores.view(-1)[: math.prod(shape)].view(shape)

    def _run(
        self, q: torch.Tensor, layer: LayerCache, step: DeviceStep, buffers: ProgramBuffers, summaries: bool
    ) -> None:
        given = self._given(layer, buffers.tensors, step.device)
        given |= self._step(q, layer, step, summaries)
        given["narrow"] = given["narrow"].view(_HOLDS[given["NARROW"]])
        kernels = {kernel.stage.number if kernel.stage else 0: kernel for kernel in self.module.kernels}
        outside = {stage.number: stage for stage in self.schedule.stages if stage.outside}
        for number in sorted({*kernels, *outside}):
            if number in kernels:
                self._launch_stage(kernels[number], given, buffers)
            if number in outside:
                self._outside(outside[number], q, layer, step, buffers)

    def _launch_stage(self, kernel: KernelSource, given: dict[str, Any], buffers: ProgramBuffers) -> None:
        stage, size = kernel.stage, buffers.size
        blocks, work = 1, given["rows"] * kernel.kinds
        extra: dict[str, Any] = {}
        if stage is not None and not stage.of_rows:
            blocks = buffers.tiles[stage.number]
            tile, tiles = tiles_of_row(size, blocks)
            work = given["rows"] * tiles
            extra = {"BN": blocks, "TILE": tile, "tiles": tiles}
        elif stage is not None and stage.statistics:
            blocks = tile_slots(kernel)
            tile, tiles = tiles_of_row(size, buffers.tiles[stage.number - 1])
            extra = {"SB": blocks, "TILE": tile, "tiles": tiles}
        extra["SCRATCH"] = kernel.scratch * blocks
        num_warps, most, more = warps(kernel, blocks), work, 0
        if stage is not None and not stage.of_rows:
            registers = self._registers.get((kernel.name, num_warps), 0)
            most = resident(buffers.programs, num_warps, registers) if registers else buffers.programs
            if kernel.finished and given["SUMMARIES"]:
                more = given["rows"]
                most = max(most - more, most // 2, 1)
        elif kernel.scratch:
            most = buffers.programs
        limit = register_limit(kernel, blocks, num_warps) if given["NARROW"] else None
        self._launch(kernel, {**given, **extra}, min(work, most) + more, num_warps, limit)

    def _launch(
        self,
        kernel: KernelSource,
        given: dict[str, Any],
        grid: int,
        num_warps: int,
        registers: int | None = None,
    ) -> None:
        if grid == 0:
            return
        function = getattr(modules.load(self.source, self.cache_dir), kernel.name)
        launched = function[(grid,)](
            *[given[name] for name in kernel.parameters],
            num_warps=num_warps,
            num_stages=STAGES,
            maxnreg=registers,
            launch_pdl=given["EARLY"],
        )
        if launched is not None:  # compiled, not interpreted
            self._registers[kernel.name, num_warps] = launched.n_regs

    def _given(
        self, layer: LayerCache, tensors: dict[str, torch.Tensor], device: torch.device
    ) -> dict[str, Any]:
        """What kernels are given of a layer."""
        pool = layer.pool
        given: dict[str, Any] = dict(tensors)
        stored = pool.stored
        names = ("latent",) if self.graph.kind == "mla" else ("k", "v")
        for name, data in zip(names, stored, strict=True):
            given[name] = data
            given[f"{name}_slot"] = data.stride(0)
            given[f"{name}_head"] = data.stride(1) if data.dim() == 3 else 0
        given["POOL_HEADS"] = pool.k.shape[1] if pool.k.dim() == 3 else 1
        given |= {f"field_{name}": data for name, data in layer.fields.items()}
        given |= {f"request_{name}": data for name, data in layer.requests.items()}
        if self.layout.weights_size:
            given["weights"] = self._layer_weights(layer.index, device)
        return given

    def _step(self, q: torch.Tensor, layer: LayerCache, step: DeviceStep, summaries: bool) -> dict[str, Any]:
        size = step.size
        names = ("seq_len", "n", "chosen", "owner", "table", "chunks", "chunk_count")
        return {
            **{name: getattr(step, name) for name in names},
            "q": q,
            "q_request": q.stride(0),
            "q_head": q.stride(1),
            "rows": len(q) * size.heads,
            "room": size.chunks,
            "HEADS": size.heads,
            "SHARE": size.share,
            "BLOCKS": size.blocks,
            "BOS": size.bos,
            "EOS": size.eos,
            "CHUNK": size.chunk,
            "NARROW": self._narrow(q, layer),
            "SUMMARIES": summaries,
            "EARLY": starts_early(q.device),
        }

    def _narrow(self, q: torch.Tensor, layer: LayerCache) -> int:
        """The format that holds queries, keys and fields: 1 bfloat16, 2 float16, 0 neither."""
        found = {q.dtype, TORCH_DTYPES[self.dtype], layer.pool.k.dtype}
        for at, formats in ((1, _BFLOAT16), (2, _FLOAT16)):
            if found.issubset(formats):
                return at
        return 0

    def _layer_weights(self, layer: int, device: torch.device) -> torch.Tensor:
        """The constants of a layer, side by side."""
        if (layer, device) not in self._weights:
            data = torch.zeros(self.layout.weights_size, device=device)
            for index, slot in self.layout.weights.items():
                step = self.indexer[index]
                args = step.at_layer(layer)
                if step.op.constant:
                    value = step.op.run(args, (), torch.ones((1, 1), dtype=torch.bool, device=device))
                else:
                    value = taps(args, device)
                data[slot.first : slot.first + slot.rows * slot.cols] = value.flatten()
            self._weights[layer, device] = data
        return self._weights[layer, device]

    def _outside(
        self, stage: StagePlan, q: torch.Tensor, layer: LayerCache, step: DeviceStep, buffers: ProgramBuffers
    ) -> None:
        """Row ops by their own vectorised semantics, for all rows at once."""
        heads = step.size.heads
        values = buffers.tensors["values"][: len(q) * heads]
        valid = torch.ones((1, 1), dtype=torch.bool, device=q.device)

        def operand(ref: Ref) -> torch.Tensor:
            if ref.kind is RefKind.QUERY:
                return q.float().reshape(len(values), 1, self.geometry.group, -1)
            if ref.kind is RefKind.FIELD:
                kept = layer.requests[ref.name]
                kept = kept.view(-1, heads, *kept.shape[1:])
                return kept[step.owner[: len(q)].long()].flatten(0, 1)[:, None]
            if self.schedule.is_constant(ref):
                node = self.indexer[ref.node]
                return node.op.run(node.at_layer(layer.index), (), valid)
            slot = self.layout.values[ref]
            part = values[:, slot.first : slot.first + slot.rows * slot.cols]
            return part.reshape(-1, 1, slot.rows, slot.cols)

        for index in stage.outside:
            node = self.indexer[index]
            inputs = tuple(map(operand, self.schedule.operands[index]))
            found = node.op.run(node.at_layer(layer.index), inputs, valid)
            slot = self.layout.values[Ref.at(index)]
            values[:, slot.first : slot.first + slot.rows * slot.cols] = found.flatten(1)

    def summarize(self, layer: LayerCache, blocks: slice | torch.Tensor) -> None:
        """The cache stage for block ids: `[blocks]`, or a range with both ends."""
        kernel = self.module.summarize
        if kernel is None:
            return
        device = layer.pool.k.device
        listed = isinstance(blocks, torch.Tensor)
        first, last = (0, len(blocks)) if isinstance(blocks, torch.Tensor) else (blocks.start, blocks.stop)
        grid = min(last - first, programs(device)) if kernel.scratch else last - first
        given = self._given(layer, {}, device)
        given |= {
            "ids": blocks if listed else given[self.graph.injected[0].name],
            "first": first,
            "count": last - first,
            "LISTED": listed,
            "EARLY": False,
            "SCRATCH": kernel.scratch,
            "scratch": torch.empty(max(1, kernel.scratch * grid), device=device),
        }
        self._launch(kernel, given, grid, summary_warps(kernel))

    def scores(self, q: torch.Tensor, layer: LayerCache, table: BlockIds, rows: SparseRows) -> torch.Tensor:
        """Of a step that is made for these rows; see `Program.scores`."""
        count = len(rows)
        size = StepSize(
            requests=count,
            heads=1,
            blocks=rows.blocks,
            chosen=1,
            block_size=self.geometry.block_size,
            bos=rows.bos,
            eos=rows.eos,
            chunk=PROTOCOL_CHUNK,
            share=1,
            programs=1,
        )
        step = DeviceStep(size, q.device)
        step.n.copy_(rows.n)
        step.seq_len.copy_(rows.n * self.geometry.block_size)
        step.chosen.copy_(rows.n - 1)
        step.owner.copy_(rows.owners)
        step.table.copy_(table.ids[:, : rows.blocks])
        chunks = [
            (row, first)
            for row, n in enumerate(rows.host_n.tolist())
            for first in range(rows.bos, n - rows.eos, PROTOCOL_CHUNK)
        ]
        if chunks:
            step.chunks[: len(chunks)] = torch.tensor(chunks, dtype=torch.int32, device=q.device)
        step.chunk_count.fill_(len(chunks))
        buffers = self._buffers(size, q.device, torch.float32)
        self._run(q, layer, step, buffers, summaries=False)
        return buffers.scores
