"""What the kernels of a flow leave for each other in memory: made once, for the largest step."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import torch

from vortex.ops.emit import power_of_two
from vortex.runtime.device import StepSize
from vortex.targets.triton.layout import Layout
from vortex.targets.triton.source import KernelSource, ModuleSource

TILE_NUMBERS = 2**13
"""Numbers that the widest tile of a program should hold: 64 registers a thread at 4 warps."""
VECTOR_NUMBERS = 5 * 2**10
"""The same of a warp where blocks are multiplied with one row."""
ROWS_BLOCKS = 16
"""Blocks of a tile where the registers hold some rows that they are multiplied with."""
MOST_SLOTS = 128
"""Tiles whose statistics a row stage reads at a time."""
WARP_NUMBERS = 2**11
"""Numbers that a warp holds of the widest tile, at most, before there are more than 4 of them."""
SUMMARY_WARPS, SUMMARY_NUMBERS = 2, 2**12
"""Of the kernel that only summarises blocks: warps, at least; numbers that a warp holds, about, if there are
more."""
MOST_PROGRAMS, MOST_WARPS, PARTITIONS, REGISTERS = 24, 32, 4, 2**14
"""Of one multiprocessor: programs and warps that are started on it; its partitions, and registers of each."""
FITTING = 80
"""Numbers of 16 bits of the widest tile that a thread holds in 64 registers, beside all else."""
FITTING_MORE = 128
"""Numbers of a block, at most, where that is so of kernels that do more than score: at 256 they spill."""
INTERPRETED_PROGRAMS = 3


def tile_blocks(kernel: KernelSource, size: StepSize) -> int:
    """Blocks of a tile of a block stage: a part of a chunk, unless `tl.dot` needs more."""
    numbers = VECTOR_NUMBERS * _fewest_warps(kernel) if kernel.shape == "vector" else TILE_NUMBERS
    blocks = kernel.fewest if kernel.shape == "dot" else power_of_two(numbers // kernel.widest + 1) // 2
    most = ROWS_BLOCKS if kernel.shape == "rows" else size.chunk
    return max(kernel.fewest, min(blocks, most, size.chunk))


def tiles_of_row(size: StepSize, blocks: int) -> tuple[int, int]:
    """Blocks of a tile within its chunk, and tiles of a row, those included that its last chunk has no blocks
    for."""
    tile = min(blocks, size.chunk)
    return tile, -(-size.blocks // size.chunk) * (size.chunk // tile)


def tile_slots(kernel: KernelSource) -> int:
    return max(1, min(MOST_SLOTS, power_of_two(TILE_NUMBERS // kernel.widest + 1) // 2))


def warps(kernel: KernelSource, blocks: int) -> int:
    """Measured on an H200: products are best kept by a warp of its own."""
    fewest = _fewest_warps(kernel)
    if kernel.shape != "wide":
        return fewest
    return max(fewest, min(16, power_of_two(max(1, kernel.widest * blocks // WARP_NUMBERS))))


def summary_warps(kernel: KernelSource) -> int:
    """Of the kernel that only summarises blocks, many at a time. On an H200 16,384 blocks of 32 latents take
    148 us with two warps and 242 with four; with keys one to four are as quick as a copy."""
    return max(SUMMARY_WARPS, min(16, power_of_two(kernel.widest // SUMMARY_NUMBERS + 1) // 2))


def _fewest_warps(kernel: KernelSource) -> int:
    """Four where rows are worked on or fields are saved; elsewhere one, or as many as hold the summaries
    that are made beside."""
    if kernel.stage is None or kernel.stage.of_rows or kernel.stage.saves:
        return 4
    return max(1, min(8, power_of_two(kernel.finished // WARP_NUMBERS + 1) // 2))


def register_limit(kernel: KernelSource, blocks: int, num_warps: int) -> int | None:
    """Registers of a thread that leave room for all warps of a multiprocessor, where a tile of numbers of
    16 bits fits into them: so that as many blocks as can be are read before the kernel in front is done."""
    numbers = max(kernel.widest * blocks, 2 * kernel.held)  # summaries are in float32
    stage = kernel.stage
    more = stage is not None and bool(stage.saves or stage.statistics or stage.kept)
    if (
        kernel.shape != "vector"
        or numbers > FITTING * 32 * num_warps
        or (more and kernel.widest > FITTING_MORE)
    ):
        return None
    return PARTITIONS * REGISTERS // (32 * MOST_WARPS)


def programs(device: torch.device) -> int:
    """Programs that share the work of a kernel, at most."""
    if device.type != "cuda":
        return INTERPRETED_PROGRAMS
    return MOST_PROGRAMS * torch.cuda.get_device_properties(device).multi_processor_count


@cache
def starts_early(device: torch.device) -> bool:
    """Whether a kernel starts while the one before it ends (programmatic dependent launch)."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


def resident(programs: int, num_warps: int, registers: int) -> int:
    """How many of at most `programs` are started: as many as run at a time, given the registers of a thread,
    so that none of them waits for another one to finish its share."""
    running = PARTITIONS * (REGISTERS // (32 * (-(-max(registers, 1) // 8) * 8)))
    room = min(running, MOST_WARPS) // num_warps
    return programs * min(max(room, 1), MOST_PROGRAMS) // MOST_PROGRAMS


@dataclass
class ProgramBuffers:
    """`scores [selections, rows, blocks]`; the rest is described in `Layout`. `tensors` by the names of the
    kernels' parameters. `tiles`: blocks of a tile, by block stage."""

    size: StepSize
    device: torch.device
    scores: torch.Tensor
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    tiles: dict[int, int] = field(default_factory=dict)
    programs: int = 1

    @classmethod
    def of(
        cls,
        module: ModuleSource,
        layout: Layout,
        size: StepSize,
        device: torch.device,
        selections: int,
        score_dtype: torch.dtype,
    ) -> ProgramBuffers:
        def numbers(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, device=device)

        scores = torch.zeros((selections, size.rows, size.blocks), dtype=score_dtype, device=device)
        made = cls(size, device, scores, programs=programs(device))
        made.tensors = {
            "scores": scores,
            "values": numbers(size.rows, max(layout.row_size, 1)),
            "narrow": numbers(size.rows, max(layout.narrow_size, 1)),
        }
        for ref in layout.kept:
            rows, cols = layout.shape(ref)
            made.tensors[f"kept_{layout.name(ref)}"] = numbers(size.rows, size.blocks, rows * cols)
        scratch = 1
        for kernel in [*module.kernels, *([module.summarize] if module.summarize else [])]:
            stage, blocks = kernel.stage, 1
            if stage is not None and not stage.of_rows:
                blocks = made.tiles[stage.number] = tile_blocks(kernel, size)
                if stage.number in layout.partial_sizes:
                    _, tiles = tiles_of_row(size, blocks)
                    shape = size.rows, tiles, layout.partial_sizes[stage.number]
                    made.tensors[f"partials_{stage.number}"] = numbers(*shape)
            elif stage is not None:
                blocks = tile_slots(kernel)
            scratch = max(scratch, kernel.scratch * blocks)
        beside = size.rows if any(kernel.finished for kernel in module.kernels) else 0
        made.tensors["scratch"] = numbers((made.programs + beside) * scratch)
        return made
