"""Attention over chosen blocks: this project's kernels beside FlashInfer's rows and XQA, and the floor.

python -m benchmarks.kernels.attention [--quick] [--only gqa|fp8|dense|mla]
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from benchmarks.kernels.timing import Timing, Work, copy_bandwidth, in_graph
from vortex.kernels.attention import SparseDecode, attention_programs
from vortex.kernels.plan_cpu import cut_into_parts
from vortex.runtime.device import DeviceStep, StepSize
from vortex.runtime.pool import KVPool

STORE_BYTES = 24 << 30
TOLERANCE = 2e-2
"""Largest error of an output, whose values are sums of standard normal numbers, in bfloat16."""


@dataclass(frozen=True)
class Rows:
    """A step: `batch` requests of `context` tokens that read `chosen` blocks for each kv head; `chosen` 0:
    all of them, from the table. `rope` > 0: a latent of `dim` values."""

    batch: int = 16
    heads: int = 8
    group: int = 4
    dim: int = 128
    block_size: int = 16
    chosen: int = 64
    context: int = 8192
    kv_dtype: torch.dtype = torch.bfloat16
    rope: int = 0

    @property
    def key_dim(self) -> int:
        return self.dim + self.rope

    @property
    def blocks(self) -> int:
        return self.context // self.block_size

    @property
    def listed(self) -> int:
        return self.chosen or self.blocks

    @property
    def parts(self) -> int:
        return 1 if self.rope else 2

    @property
    def token_bytes(self) -> int:
        return self.heads * self.key_dim * self.parts * self.kv_dtype.itemsize

    @property
    def read_bytes(self) -> int:
        return self.batch * self.listed * self.block_size * self.token_bytes

    @property
    def label(self) -> str:
        kind = f"all {self.blocks} blocks" if not self.chosen else f"{self.chosen} blocks"
        shape = f"{self.dim}+{self.rope}" if self.rope else f"D {self.dim}"
        name = str(self.kv_dtype).removeprefix("torch.")
        return (
            f"batch {self.batch}, {kind} of {self.block_size}, H {self.heads} G {self.group} {shape} {name}"
        )


class Layers:
    """The pools of several layers, a query for each, and the step that they share."""

    def __init__(self, rows: Rows, store: torch.Tensor, programs: int | None = None) -> None:
        self.rows, device = rows, store.device
        slots = rows.batch * rows.context
        each = slots * rows.heads * rows.key_dim * rows.kv_dtype.itemsize
        count = max(2, min(32, store.numel() // (each * rows.parts), math.ceil(400e6 / rows.read_bytes)))
        flat = store[: count * rows.parts * each].view(rows.kv_dtype)
        stored = flat.view(count, rows.parts, slots, rows.heads, rows.key_dim)
        self.pools = [KVPool(*layer, kv_lora_rank=rows.dim if rows.rope else 0) for layer in stored]
        many = rows.batch * rows.heads
        self.q = torch.randn((count, many, rows.group, rows.key_dim), device=device).bfloat16()
        self.size = StepSize(
            requests=rows.batch,
            heads=rows.heads,
            blocks=rows.blocks,
            chosen=rows.listed,
            block_size=rows.block_size,
            bos=1,
            eos=1,
            chunk=32,
            share=rows.heads,
            programs=programs or attention_programs(rows.heads, device, rows.group if rows.rope else 1),
        )
        self.step = self._step(device)
        self.scale = 1 / math.sqrt(rows.key_dim)

    def _step(self, device: torch.device) -> DeviceStep:
        rows, size = self.rows, self.size
        step = DeviceStep(size, device)
        step.seq_len.fill_(rows.context)
        step.n.fill_(rows.blocks)
        step.chosen.fill_(rows.listed)
        step.table.copy_(torch.randperm(step.table.numel(), device=device).view_as(step.table))
        parts, first = cut_into_parts(size, np.full(rows.batch, rows.listed))
        step.parts[: len(parts)] = torch.from_numpy(parts).int()
        step.part_count.fill_(len(parts))
        step.part_first.copy_(torch.from_numpy(first))
        step.tokens.fill_(rows.listed * rows.block_size)
        row = torch.arange(size.rows, device=device)
        picks = torch.rand(size.rows, rows.blocks, device=device).argsort(1)[:, : rows.listed]
        if not rows.chosen:
            picks = picks.sort(1).values
        request_table = step.table[row // rows.heads]
        step.lists.copy_(request_table.gather(1, picks) * rows.heads + (row % rows.heads)[:, None])
        return step

    def works(self, run: Callable[[torch.Tensor, KVPool], object]) -> list[Work]:
        return [
            lambda q=q, pool=pool: run(q, pool)  # type: ignore[misc]
            for q, pool in zip(self.q, self.pools, strict=True)
        ]

    def reference(self) -> torch.Tensor:
        """The first layer's result, in float32."""
        rows, (q, pool) = self.rows, (self.q[0], self.pools[0])
        out = []
        for row in range(self.size.rows):
            ids = self.step.lists[row].long()
            steps = torch.arange(rows.block_size, device=ids.device)
            slots = ((ids // rows.heads * rows.block_size)[:, None] + steps).flatten()
            k, v = (x[slots, row % rows.heads].float() for x in (pool.k, pool.v))
            out.append(torch.softmax(q[row].float() @ k.T * self.scale, -1) @ v)
        return torch.stack(out)


def ours(on: Layers, triton: bool = False) -> Callable[[torch.Tensor, KVPool], torch.Tensor]:
    """This project's kernel; `triton`: the one that serves every shape."""
    rows = on.rows
    decode = SparseDecode(on.size, rows.group, rows.key_dim, rows.dim, on.q.device)
    out = torch.empty((on.size.rows, rows.group, rows.dim), dtype=torch.bfloat16, device=on.q.device)
    run = decode.run_triton if triton else decode.run
    return lambda q, pool: run(q.view(rows.batch, -1, rows.key_dim), pool, on.step, on.scale, out)


def head_views(pool: KVPool, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values as pages of one head `[ids, block_size, 1, head_dim]`, one starting at each (slot,
    head)."""
    heads, dim = rows.heads, rows.key_dim
    ids = (pool.k.shape[0] - rows.block_size + 1) * heads
    shape, strides = (ids, rows.block_size, 1, dim), (dim, heads * dim, dim, 1)
    k, v = (x.as_strided(shape, strides) for x in (pool.k, pool.v))
    return k, v


def page_ids(on: Layers) -> torch.Tensor:
    """The lists as pages of `head_views`."""
    heads, lists = on.rows.heads, on.step.lists
    return lists // heads * (heads * on.rows.block_size) + lists % heads


def flashinfer_rows(on: Layers, tensor_cores: bool) -> Callable[[torch.Tensor, KVPool], torch.Tensor]:
    import flashinfer

    rows, many = on.rows, on.size.rows
    device = on.q.device
    workspace = torch.empty(256 << 20, dtype=torch.uint8, device=device)
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace, "NHD", use_tensor_cores=tensor_cores)
    starts = torch.arange(many + 1, dtype=torch.int32, device=device) * rows.listed
    full = torch.full((many,), rows.block_size, dtype=torch.int32, device=device)
    wrapper.plan(
        *(starts, page_ids(on).flatten(), full, rows.group, 1, rows.dim, rows.block_size),
        q_data_type=torch.bfloat16,
        kv_data_type=rows.kv_dtype,
    )
    return lambda q, pool: wrapper.run(q, head_views(pool, rows))


def xqa_rows(on: Layers) -> Callable[[torch.Tensor, KVPool], torch.Tensor]:
    from flashinfer.decode import trtllm_batch_decode_with_kv_cache

    rows = on.rows
    workspace = torch.zeros(256 << 20, dtype=torch.uint8, device=on.q.device)
    ids = page_ids(on)
    return lambda q, pool: trtllm_batch_decode_with_kv_cache(
        query=q,
        kv_cache=head_views(pool, rows),
        workspace_buffer=workspace,
        block_tables=ids,
        seq_lens=on.step.tokens,
        max_seq_len=rows.listed * rows.block_size,
        bmm1_scale=on.scale,
        bmm2_scale=1.0,
        kv_layout="NHD",
    )


def flashinfer_mla(on: Layers, backend: str) -> Callable[[torch.Tensor, KVPool], torch.Tensor]:
    """FlashInfer's wrapper on the lists, a page a block."""
    import flashinfer

    rows, device = on.rows, on.q.device
    workspace = torch.empty(256 << 20, dtype=torch.uint8, device=device)
    wrapper = flashinfer.mla.BatchMLAPagedAttentionWrapper(workspace, backend=backend)
    starts = torch.arange(rows.batch + 1, dtype=torch.int32, device=device)
    wrapper.plan(
        *(starts, starts * rows.listed, on.step.lists.flatten(), on.step.tokens, rows.group),
        *(rows.dim, rows.rope, rows.block_size, False, on.scale, torch.bfloat16, rows.kv_dtype),
    )

    def run(q: torch.Tensor, pool: KVPool) -> torch.Tensor:
        latent = pool.k.view(-1, rows.block_size, rows.key_dim)
        found: torch.Tensor = wrapper.run(
            q[..., : rows.dim], q[..., rows.dim :], latent[..., : rows.dim], latent[..., rows.dim :]
        )
        return found

    return run


CONTENDERS: dict[str, Callable[[Layers], Callable[[torch.Tensor, KVPool], torch.Tensor]]] = {
    "ours": ours,
    "Triton": lambda on: ours(on, triton=True),
    "XQA": xqa_rows,
    "FlashInfer tc": lambda on: flashinfer_rows(on, True),
    "FlashInfer": lambda on: flashinfer_rows(on, False),
    "FlashInfer MLA fa2": lambda on: flashinfer_mla(on, "fa2"),
    "FlashInfer MLA fa3": lambda on: flashinfer_mla(on, "fa3"),
}
"""By name: what makes the function that runs a layer."""
COLUMNS = list(CONTENDERS)


def measure(rows: Rows, store: torch.Tensor, names: list[str], check: bool = True) -> dict[str, Timing | str]:
    """Time of each contender on a case, or why there is none."""
    on = Layers(rows, store)
    expected = on.reference() if check else None
    found: dict[str, Timing | str] = {}
    for name in names:
        try:
            run = CONTENDERS[name](on)
            if expected is not None:
                error = (run(on.q[0], on.pools[0]).float() - expected).abs().max().item()
                assert error < TOLERANCE, f"wrong by {error:.3g}"
            found[name] = in_graph(on.works(run))
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}".split("\n")[0][:80]
            torch.cuda.synchronize()
    return found


GLM = Rows(heads=1, group=20, dim=512, rope=64, block_size=32, chosen=61)
OURS = ["ours", "Triton"]
MLA = [*OURS, "FlashInfer MLA fa2", "FlashInfer MLA fa3"]


def contenders(rows: Rows) -> list[str]:
    """Those whose kernels need no compilation of minutes on a machine that has only what FlashInfer packs."""
    if rows.rope:
        return MLA
    packed = rows.kv_dtype == torch.bfloat16
    names = [*OURS]
    if packed and (rows.group, rows.dim, rows.block_size) == (4, 128, 16) and rows.chosen:
        names.append("XQA")
    if packed and rows.dim in (64, 128):
        names.append("FlashInfer tc")
        if rows.chosen:
            names.append("FlashInfer")
    return names


def cases(quick: bool) -> Iterator[tuple[str, Rows]]:
    """What is measured, under the heading of its table."""
    base = Rows()
    for chosen in (32, 64, 128, 256):
        yield "Blocks of a row", replace(base, chosen=chosen)
    if quick:
        yield "Latents (MLA)", GLM
        return
    for batch in (1, 4, 17, 64):
        yield "Batch", replace(base, batch=batch)
    for group in (1, 2, 8, 16, 20):
        yield "Query heads a kv head", replace(base, group=group)
    for dim in (64, 80, 96, 256):
        yield "Head dimension", replace(base, dim=dim)
    for block_size in (8, 32, 64, 128):
        yield "Block size", replace(base, block_size=block_size, chosen=1024 // block_size)
    for kind in (torch.float8_e4m3fn, torch.float8_e5m2):
        yield "fp8", replace(base, kv_dtype=kind)
    for batch, context in ((16, 32768), (1, 32768), (1, 131072)):
        yield "Dense rows", replace(base, chosen=0, batch=batch, context=context)
    for batch in (1, 4, 16, 64):
        yield "Latents (MLA)", replace(GLM, batch=batch)
    yield "Latents (MLA)", replace(GLM, group=128, block_size=64, chosen=32)
    yield "Latents (MLA)", replace(GLM, chosen=0, context=32768)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the main cases")
    parser.add_argument("--only", help="the table with this heading")
    parser.add_argument("--contenders", help="names, by comma")
    given = parser.parse_args()
    torch.manual_seed(0)
    bandwidth = copy_bandwidth()
    print(f"Device copy {bandwidth / 1e9:.0f} GB/s; microseconds", flush=True)
    store = torch.empty(STORE_BYTES, dtype=torch.uint8, device="cuda")
    heading = kept = None
    for table, rows in cases(given.quick):
        if given.only and table != given.only:
            continue
        if table != heading:
            heading = table
            print(f"\n### {heading}\n\n| case | floor |", " | ".join(COLUMNS), "|")
            print("|" + " --- |" * (len(COLUMNS) + 2), flush=True)
        if kept != rows.kv_dtype:
            kept = rows.kv_dtype
            fill(store, kept)
        names = contenders(rows)
        if given.contenders:
            names = [name for name in names if name in given.contenders.split(",")]
        found = measure(rows, store, names, check=bool(rows.chosen))
        times = (str(found.get(name, "")) for name in COLUMNS)
        floor = rows.read_bytes / bandwidth * 1e6
        print(f"| {rows.label} | {floor:.1f} |", " | ".join(times), "|", flush=True)


def fill(store: torch.Tensor, dtype: torch.dtype) -> None:
    """Standard normal numbers."""
    for piece in torch.split(store, 1 << 30):
        piece.view(dtype).copy_(torch.randn(len(piece) // dtype.itemsize, device=store.device).to(dtype))


if __name__ == "__main__":
    main()
