"""The module that is generated for a flow: readable Triton source, and what launching its kernels takes."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from vortex.graph.model import Ref, Stage
from vortex.targets.triton.block_kernels import block_kernel
from vortex.targets.triton.functions import used_functions
from vortex.targets.triton.kernel import Body
from vortex.targets.triton.layout import Layout
from vortex.targets.triton.row_kernels import prologue, row_kernel
from vortex.targets.triton.schedule import Schedule, StagePlan
from vortex.targets.triton.summary import fetch_function, finish_function, summary_function
from vortex.targets.triton.tiles import Shape, without_unused

_CONSTANTS = (
    *("HEADS", "SHARE", "POOL_HEADS", "BLOCKS", "BOS", "EOS", "CHUNK"),
    *("BN", "SB", "TILE", "NARROW", "SCRATCH", "SUMMARIES", "LISTED", "EARLY"),
)
_NUMBERS = ("rows", "tiles", "room", "first", "count", "q_request", "q_head")
FINISHED_BESIDE_SCORES = range(2**13, 2**15)
"""Numbers that a summary reads, or makes, at most, where it is made beside the scores: the prologue would be
waited for. Smaller ones do not pay for the registers that they take, and larger ones need more warps."""
HEADER = (
    "import triton",
    "import triton.language as tl",
    "from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait",
)


@dataclass(frozen=True)
class KernelSource:
    """One kernel: its parameters in order, those in capitals being constants; see `Body` for the rest."""

    name: str
    parameters: tuple[str, ...]
    text: str
    widest: int
    scratch: int
    fewest: int = 1
    shape: Shape = "wide"
    finished: int = 0
    held: int = 0
    kinds: int = 1
    stage: StagePlan | None = None


@dataclass(frozen=True)
class ModuleSource:
    """`text` is the whole file. `kernels`: the prologue, then the stages in the order in which they run;
    `summarize` runs the cache stage for given blocks."""

    text: str
    header_lines: tuple[str, ...]
    function_lines: tuple[str, ...]
    kernels: tuple[KernelSource, ...]
    summarize: KernelSource | None
    tensor_names: dict[Stage, dict[Ref, str]]


def generate(schedule: Schedule, layout: Layout, tensor_cores: bool) -> ModuleSource:
    """The module of a schedule."""
    compiled, exact = schedule.compiled, layout.exact
    stages = [stage for stage in schedule.stages if stage.has_kernel]
    of_blocks = {
        stage.number: block_kernel(schedule, layout, exact, tensor_cores, stage)
        for stage in stages
        if not stage.of_rows
    }
    summary = summary_function(schedule, layout)
    beside = (
        summary is not None
        and of_blocks[min(of_blocks)][0].shape == "vector"
        and summary.finished in FINISHED_BESIDE_SCORES
        and not summary.scratch
    )
    if beside:
        summary = summary_function(schedule, layout, as_read=True)
    functions, kernels = [], []
    summarize: KernelSource | None = None
    call = ""
    if summary is not None:
        text, names = _function(summary, compiled.geometry.block_size, schedule, "block")
        functions.append(text)
        call = f"summarize_block({', '.join(('block', *names))})"
        lines = [
            "    for at in range(tl.program_id(0), count, tl.num_programs(0)):",
            "        if LISTED:",
            "            block = tl.load(ids + at).to(tl.int64)",
            "        else:",
            "            block = tl.cast(first + at, tl.int64)",
            f"        {call}",
        ]
        doc = "The cache stage of the blocks `ids [count]`, or of `count` blocks from `first` on."
        summarize = _kernel(
            Body("summarize", doc, tuple(lines), summary.widest, summary.scratch), schedule, None
        )
    finishing, finish_call = finish_function(schedule, call), ""
    if finishing is not None:
        text, names = _function(finishing, compiled.geometry.block_size, schedule, "row")
        functions.append(text)
        finish_call = f"finish_block({', '.join(('row', *names))})"
    fetch_call = ""
    first = next((stage for stage in stages if stage.number == 0), None)
    if beside and first is not None:
        text, names = _function(fetch_function(schedule), compiled.geometry.block_size, schedule, "row")
        functions.append(text)
        fetch_call = f"fetch_block({', '.join(('row', *names))})"
    size, largest, scratch = (summary.widest, summary.finished, summary.scratch) if summary else (1, 1, 0)
    if first is not None or (finish_call and not beside):
        body = prologue(schedule, layout, exact, tensor_cores, first, "" if beside else finish_call)
        if finish_call and not beside:
            body = replace(body, widest=max(body.widest, size), scratch=max(body.scratch, scratch))
        kernels.append(_kernel(body, schedule, first))
    for stage in stages:
        if stage.number == 0:
            continue
        if stage.of_rows:
            body = row_kernel(schedule, layout, exact, tensor_cores, stage)
        else:
            tile, given, frame = of_blocks[stage.number]
            text, names = _function(tile, compiled.geometry.block_size, schedule, *given)
            functions.append(text)
            fetch, finish = (
                (fetch_call, finish_call) if beside and stage.number == min(of_blocks) else ("", "")
            )
            body = frame(tile, f"{tile.name}({', '.join((*given, *names))})", fetch, finish, not kernels)
            if finish:
                body = replace(body, finished=largest, held=size)
        kernels.append(_kernel(body, schedule, stage))
    bodies = "\n".join(
        [*functions, *(kernel.text for kernel in kernels), summarize.text if summarize else ""]
    )
    functions = [*used_functions(bodies, compiled.dtype), *functions]
    texts = [*functions, *(kernel.text for kernel in kernels), *([summarize.text] if summarize else [])]
    text = _title(schedule, tensor_cores) + "\n" + "\n".join(HEADER) + "\n\n\n" + "\n\n\n".join(texts) + "\n"
    lines_of_functions = tuple(line for function in functions for line in function.split("\n"))
    tensors = {stage: _names(schedule, layout, stage, text) for stage in Stage}
    return ModuleSource(text, HEADER, lines_of_functions, tuple(kernels), summarize, tensors)


def _title(schedule: Schedule, tensor_cores: bool) -> str:
    compiled = schedule.compiled
    sizes = ", ".join(f"{name}={value}" for name, value in compiled.geometry.bindings().items() if value)
    return f'''"""Kernels of the flow {compiled.graph.hash}
at {sizes}, dtype {compiled.dtype}, {"with" if tensor_cores else "without"} tensor cores. Generated by vortex.

Tiles are [blocks, rows, columns], float32. Constants in capitals are fixed when a kernel is compiled.
"""
'''


def _names(schedule: Schedule, layout: Layout, stage: Stage, text: str) -> dict[Ref, str]:
    """What a stage's tensors are called in the source: those that occur there."""
    graph = schedule.compiled.graph
    found = {Ref.query(): "q"} if stage is Stage.INDEXER else {}
    for field in (*graph.injected, *graph.fields):
        found[Ref.field(field.name)] = layout.name(Ref.field(field.name))
    nodes = schedule.live if stage is Stage.INDEXER else range(len(graph.cache))
    found |= {Ref.at(index): layout.name(Ref.at(index), stage) for index in nodes}
    words = set(re.findall(r"\w+", text))
    return {ref: name for ref, name in found.items() if name in words}


def _parameters(text: str, schedule: Schedule) -> tuple[str, ...]:
    """The names from outside that a body uses: tensors, numbers, constants."""
    graph = schedule.compiled.graph
    pools = [field.name for field in graph.injected]
    fields = [f"{kind}_{field.name}" for kind in ("field", "request") for field in graph.fields]
    known = ["q", *pools, *fields, "ids", "values", "narrow", "weights", "scores"]
    known += re.findall(r"\b(?:kept|partials)_\w+", text)
    known += ["seq_len", "n", "chosen", "owner", "table", "chunks", "chunk_count", "scratch"]
    known += [*_NUMBERS, *(f"{name}_{of}" for name in pools for of in ("slot", "head")), *_CONSTANTS]
    assigned = set(re.findall(r"^\s*(?:for )?(\w+) (?:=|in) ", text, re.MULTILINE))
    words = set(re.findall(r"(?<![.\w])\w+", text))
    return tuple(name for name in dict.fromkeys(known) if name in words and name not in assigned)


def _text(body: Body, schedule: Schedule, given: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    lines = without_unused(list(body.lines))
    text = re.sub(r"\bBLOCK_SIZE\b", str(schedule.compiled.geometry.block_size), "\n".join(lines))
    if re.search(r"\bmine\b", text) and "mine" not in given:
        text = "    mine = scratch + tl.program_id(0).to(tl.int64) * SCRATCH\n" + text
    names = _parameters(text, schedule)
    typed = ", ".join([*given, *(f"{name}: tl.constexpr" if name.isupper() else name for name in names)])
    return f'@triton.jit\ndef {body.name}({typed}):\n    """{body.doc}"""\n{text}', names


def _function(body: Body, block_size: int, schedule: Schedule, *given: str) -> tuple[str, tuple[str, ...]]:
    if any(re.search(r"\bmine\b", line) for line in body.lines):
        text, names = _text(body, schedule, (*given, "mine"))
        return text, ("mine", *names)
    return _text(body, schedule, given)


def _kernel(body: Body, schedule: Schedule, stage: StagePlan | None) -> KernelSource:
    text, names = _text(body, schedule, ())
    sizes = body.widest, body.scratch, body.fewest, body.shape, body.finished, body.held, body.kinds
    return KernelSource(body.name, names, text, *sizes, stage)
