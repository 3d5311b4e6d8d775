"""A decode step as its kernels see it: counts, block tables, work lists and block lists, all on the device.

Everything is allocated once, for the largest step, and filled again every step: nothing that depends on data
has a shape, so a CUDA graph that holds the kernels of a step can be replayed for any other.

A row is one kv head of one request, `row = request * heads + head`. All rows of a request have the same
counts, so the plan is kept per request. Block ids number the blocks of a layer's pool and of its fields:
`id(row, place) = table[row // share, place] * share + row % share`. In a pool whose slots hold all heads,
`share` is the number of heads; where every row owns its pages, it is 1. It is also the number of heads in a
slot of the pool: block `id` is head `id % share` of the slots from `id // share * block_size` on.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class StepSize:
    """The largest step. Units: requests; kv heads; blocks of a row; blocks in the list of a sparse row.

    `chunk` blocks are scored at a time (`workload_chunk_size`). `programs`: how many pieces the attention of
    a step should be cut into at least, where it is long enough, so that every multiprocessor has work.
    """

    requests: int
    heads: int
    blocks: int
    chosen: int
    block_size: int
    bos: int
    eos: int
    chunk: int
    share: int
    programs: int

    @property
    def rows(self) -> int:
        return self.requests * self.heads

    @property
    def chunks(self) -> int:
        """Room in the list of scoring work, per kv head."""
        return self.requests * -(-self.blocks // self.chunk)

    @property
    def parts(self) -> int:
        """Room in the list of attention work, per kv head: every request has a part, and cutting adds at
        most `programs`."""
        return self.requests + self.programs


class DeviceStep:
    """The buffers of a step, int32, contiguous, and zero at the start.

    Filled by the plan, once a step:
    `seq_len [requests]` tokens, the current one included; 0 for padding, which has nothing to do.
    `n [requests]` blocks. `chosen [requests]` blocks to read; a request with `chosen == n` is dense: it is
    not scored, and attention reads its blocks from the table.
    `owner [requests]`: the slot of the request in request fields, whose entry is `owner * heads + head`.
    `table [rows / share, blocks]`: see the module; places from `n` on hold anything.
    `chunks [chunks, 2]`: (request, first place) for each `chunk` of the places `[bos, n - eos)` of each
    sparse request; `chunk_count [1]` of them. Every kv head of the request is scored there.
    `parts [parts, 3]`: (request, first, count), attention of `count` places of the block list (dense: of the
    table), from `first` on; the parts of a request are consecutive, `part_first[request]` to
    `part_first[request + 1]` (`[requests + 1]`); `part_count [1]` in all. Again for every kv head.

    Filled by the selection, once a sparse layer:
    `lists [rows, chosen]`: ids of the blocks that a sparse row reads, its true last block last.
    `tokens [rows]`: how many tokens of that list count, from its start.
    """

    def __init__(self, size: StepSize, device: torch.device | str) -> None:
        self.size = size
        self.device = torch.device(device)

        def ints(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=torch.int32, device=device)

        self.seq_len, self.n, self.chosen, self.owner = (ints(size.requests) for _ in range(4))
        self.table = ints(size.rows // size.share, size.blocks)
        self.chunks, self.chunk_count = ints(size.chunks, 2), ints(1)
        self.parts, self.part_count = ints(size.parts, 3), ints(1)
        self.part_first = ints(size.requests + 1)
        self.lists, self.tokens = ints(size.rows, size.chosen), ints(size.rows)
