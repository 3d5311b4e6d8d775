"""The device path of a case against the reference, step by step: fields, the blocks that were chosen, and
attention over them. Before every step all that the kernels are to fill holds NaN and nonsense."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from tests.kernels.held import ANYTHING, Engine, Held
from tests.vortex.targets.generated import Case
from tests.vortex.targets.judge import attended, certain_and_possible, is_exact, same
from tests.vortex.targets.tolerance import OFF, SAMPLES, Range, Unsteady
from vortex.config import VortexConfig
from vortex.graph import FlowGraph, Format
from vortex.runtime.attention import Workspace
from vortex.runtime.decode import DeviceDecode, step_size
from vortex.runtime.plan import BlockList, Plan, SparseRows, make_plan
from vortex.runtime.table import BlockIds
from vortex.targets import LayerCache, Program, get_target

CPU = torch.device("cpu")


def check_on_device(
    case: Case, engine: Engine, device: torch.device = CPU, **settings: object
) -> DeviceDecode:
    """Raises AssertionError where the device path leaves what the reference allows. `settings`: of the
    config, besides those of the case."""
    check = DeviceCheck(case, engine, device, settings)
    for step in range(case.steps):
        check.run(step)
    return check.decode


def _saved(graph: FlowGraph) -> tuple[str, ...]:
    """Fields of blocks that the indexer saves: in a block that is used again they start at zero."""
    written = {node.output for node in graph.indexer}
    return tuple(f.name for f in graph.fields if f.format is Format.PAGED and f.name in written)


class _Side:
    """A program, and what it keeps for the layer."""

    def __init__(self, held: Held, program: Program, saved: tuple[str, ...]) -> None:
        self.program, self.saved = program, saved
        blocks = held.slots // held.case.block_size * held.share
        rows = (int(held.numbers.max()) + 1) * held.heads
        self.layer = LayerCache(
            held.case.layer,
            held.right_pool,
            {name: torch.full((blocks, *shape), torch.nan) for name, shape in program.fields.items()},
            {name: torch.zeros(rows, *shape) for name, shape in program.request_fields.items()},
        )

    def summarize(self, ids: torch.Tensor) -> None:
        for name in self.saved:
            self.layer.fields[name][ids] = 0
        self.program.summarize(self.layer, ids)


class DeviceCheck:
    def __init__(
        self, case: Case, engine: Engine, device: torch.device, settings: Mapping[str, object]
    ) -> None:
        self.case, self.engine, self.device = case, engine, device
        self.held = held = Held(case, engine, device)
        self.config: VortexConfig = case.config.model_copy(update={"dense_crossover": False, **settings})
        graph, at, self.reference = case.graph, case.geometry, get_target("reference")
        saved = _saved(graph)
        runs = [
            Unsteady(graph, at, 0.0, 0),
            *(Unsteady(graph, at, OFF["float32"], n) for n in range(SAMPLES)),
        ]
        self.right = _Side(held, self.reference.program(graph, at, case.dtype), saved)
        self.exact, *self.changed = (_Side(held, run, saved) for run in runs)
        longest = int(held.lengths(case.steps).max()) + case.block_size
        size = step_size(
            graph,
            at,
            self.config,
            requests=held.batch + 1,
            heads=held.heads,
            tokens=longest,
            share=held.share,
            device=device,
        )
        self.layer = LayerCache(case.layer, held.pool)
        self.layer.requests = {
            name: field.clone().to(device) for name, field in self.right.layer.requests.items()
        }
        self.decode = DeviceDecode(graph, at, self.config, {case.layer: self.layer}, size, device)
        self.scale = self._scale()
        self._prefill()

    def _scale(self) -> float:
        keys = self.held.clean_pool.k.float()
        return float(self.held.pool.head_dim**-0.5 / keys.std() ** 2)

    def _prefill(self) -> None:
        """The cache stage for the blocks of the prompts, in fields that hold nonsense."""
        for field in self.layer.fields.values():
            field.copy_(torch.full_like(field.float(), torch.nan).to(field.dtype))
        done = (self.held.lengths(0) - 1) // self.case.block_size
        ids = self._finished(np.zeros_like(done), done)
        if len(ids):
            for side in self._sides():
                side.summarize(ids)
            self.decode.summarize(self.case.layer, ids.to(self.device))
        self._fields("after prefill")
        self._level()

    def _finished(self, first: np.ndarray, last: np.ndarray) -> torch.Tensor:
        """Ids of the blocks at places `first` to `last - 1` of each request's rows."""
        ids = self.held.ids(int(last.max(initial=0)))
        of = np.repeat(np.arange(self.held.requests), self.held.heads)
        found = [row[first[request] : last[request]] for row, request in zip(ids, of, strict=True)]
        return torch.from_numpy(np.concatenate(found))

    def run(self, number: int) -> None:
        held, case = self.held, self.case
        lengths = held.lengths(number)
        held.write_current(number)
        plan = make_plan(lengths, case.block_size, self.config, None)
        q = held.queries()
        out = self._decode(lengths, q)
        n = lengths // case.block_size
        ids = self._finished(np.where(lengths % case.block_size == 0, n - 1, n), n)
        for side in self._sides():
            if len(ids):
                side.summarize(ids)
        self._plan(plan)
        rows = SparseRows(plan, case.heads, case.block_size, self.config, CPU, held.numbers)
        if len(rows):
            self._sparse(plan, rows, q, out)
        self._dense(plan, q, out)
        self._fields("after the step")
        self._level()

    def _decode(self, lengths: np.ndarray, q: torch.Tensor) -> torch.Tensor:
        held, batch = self.held, self.held.batch
        given = np.zeros(batch, dtype=np.int64)
        given[: held.requests] = lengths
        queries = torch.full((batch, *q.shape[1:]), torch.nan, dtype=q.dtype, device=self.device)
        queries[: held.requests] = q.to(self.device)
        poison(self.decode)
        numbers = torch.from_numpy(held.numbers).to(self.device)
        if self.engine.shared:
            table = torch.from_numpy(held.req_to_token()).to(self.device)
            self.decode.plan(torch.from_numpy(given).to(self.device), numbers, table)
        else:
            self.decode.step.table.copy_(torch.from_numpy(held.table(self.decode.step.size)))
            self.decode.plan(torch.from_numpy(given).to(self.device))
        out = torch.full(
            (batch, q.shape[1], held.pool.value_dim), torch.nan, dtype=q.dtype, device=self.device
        )
        found = self.decode.attend(self.case.layer, queries, self.scale, out)
        assert found.data_ptr() == out.data_ptr()
        return out[: held.requests].cpu()

    def _plan(self, plan: Plan) -> None:
        step, count = self.decode.step, self.held.requests
        for name, right in (("seq_len", plan.seq_len), ("n", plan.n), ("chosen", plan.chosen)):
            assert getattr(step, name)[:count].tolist() == right.tolist(), name
            assert not getattr(step, name)[count:].any(), f"{name} of padding"

    def _sparse(self, plan: Plan, rows: SparseRows, q: torch.Tensor, out: torch.Tensor) -> None:
        case, heads = self.case, self.case.heads
        of_row = (rows.requests[:, None] * heads + np.arange(heads)).ravel()
        ids = torch.from_numpy(self.held.ids(rows.blocks)[of_row])
        table, queries = BlockIds(ids, case.block_size), q.view(-1, case.group, q.shape[-1])[of_row]
        _, exact, *changed = (side.program.scores(queries, side.layer, table, rows) for side in self._sides())
        ranges = [
            Range.of(exact[at], [run[at] for run in changed]).rounded(case.dtype) for at in range(len(exact))
        ]
        lists, tokens = self.decode.step.lists.cpu(), self.decode.step.tokens.cpu()
        for row, place in enumerate(of_row):
            self._chosen(rows, ranges, row, ids[row], lists[place], int(tokens[place]))
        width = int((-(-tokens[of_row] // case.block_size)).max())
        counted = tokens[of_row].long()
        beyond = torch.arange(width * case.block_size) >= counted[:, None]
        own = lists[of_row, :width].long()
        own = torch.where(beyond[:, :: case.block_size], 0, own)
        listed = BlockList(own, counted, 0, beyond)
        attention = self.reference.attend(
            queries, self.held.right_pool, own, listed, case.block_size, self.scale, Workspace()
        )
        found = out.view(-1, case.group, out.shape[-1])[of_row]
        self._attended("sparse attention", found, attention, queries)

    def _chosen(
        self,
        rows: SparseRows,
        ranges: list[Range],
        row: int,
        ids: torch.Tensor,
        listed: torch.Tensor,
        tokens: int,
    ) -> None:
        """The list of one row: the reserved blocks in their places, between them what the scores allow."""
        size, n, valid = self.case.block_size, int(rows.host_n[row]), rows.valid[row]
        places = {int(block): place for place, block in enumerate(ids[:n])}
        count = -(-tokens // size)
        found = [places[int(block)] for block in listed[:count]]
        missing = int(rows.missing[row])
        assert tokens == count * size - missing, f"row {row}: {tokens} tokens of {count} blocks"
        assert found[: rows.bos] == list(range(rows.bos))
        assert found[count - rows.eos :] == list(range(n - rows.eos, n))
        middle = set(found[rows.bos : count - rows.eos])
        assert len(middle) == count - rows.bos - rows.eos, f"row {row}: a block twice in {found}"
        certain, possible, exact, room = set[int](), set[int](), True, 0
        for pick, allowed in zip(self.right.program.selections, ranges, strict=True):
            quota = rows.quota(pick.k)
            k = int(quota.host_k[row])
            must, may = certain_and_possible(allowed, row, valid, k)
            certain, possible, room = certain | must, possible | may, room + k
            exact = exact and is_exact(allowed, row, valid)
        assert certain <= middle <= possible, f"row {row}: {middle}, certain {certain}, possible {possible}"
        assert len(middle) == room or (len(ranges) > 1 and len(middle) < room)
        if exact:
            right = set[int]()
            for pick, allowed in zip(self.right.program.selections, ranges, strict=True):
                quota = rows.quota(pick.k)
                best = self.reference.select(allowed.exact, rows, quota)[row, : quota.host_k[row]]
                right |= set(best.tolist())
            assert middle == right, f"row {row}: {middle} for {right}"

    def _dense(self, plan: Plan, q: torch.Tensor, out: torch.Tensor) -> None:
        case = self.case
        requests = np.flatnonzero(~plan.sparse)
        of_row = (requests[:, None] * case.heads + np.arange(case.heads)).ravel()
        if len(of_row) == 0:
            return
        tokens = torch.from_numpy(np.repeat(plan.seq_len[requests], case.heads))
        n = int(plan.n[requests].max())
        beyond = torch.arange(n * case.block_size) >= tokens[:, None]
        ids = torch.from_numpy(self.held.ids(n)[of_row])
        queries = q.view(-1, case.group, q.shape[-1])[of_row]
        listed = BlockList(ids, tokens, 0, beyond)
        right = self.reference.attend(
            queries, self.held.right_pool, ids, listed, case.block_size, self.scale, Workspace()
        )
        found = out.view(-1, case.group, out.shape[-1])[of_row]
        self._attended("dense attention", found, right, queries)

    def _attended(self, what: str, found: torch.Tensor, right: torch.Tensor, q: torch.Tensor) -> None:
        stored = self.case.stored if self.engine.kv is None else "bfloat16"
        attended(what, found, right, q, self.held.clean_pool, self.scale, stored)

    def _sides(self) -> tuple[_Side, ...]:
        return (self.right, self.exact, *self.changed)

    def _fields(self, when: str) -> None:
        for kind in ("fields", "requests"):
            for name, found in getattr(self.layer, kind).items():
                exact, *changed = (getattr(side.layer, kind)[name] for side in (self.exact, *self.changed))
                allowed = Range.of(exact, changed).rounded(self.case.dtype)
                count = len(exact)
                same(f"{name} {when}", found[:count].float().cpu(), allowed)

    def _level(self) -> None:
        for kind in ("fields", "requests"):
            for name, value in getattr(self.right.layer, kind).items():
                for side in (self.exact, *self.changed):
                    getattr(side.layer, kind)[name].copy_(value)
                found = getattr(self.layer, kind)[name]
                found[: len(value)] = value.to(found.device).to(found.dtype)


def poison(decode: DeviceDecode) -> None:
    """Nonsense wherever a step is to write before it reads."""
    step = decode.step
    for numbers in (
        step.seq_len, step.n, step.chosen, step.owner, step.table, step.chunks, step.chunk_count, step.parts,
        step.part_count, step.part_first, step.lists, step.tokens,
    ):  # fmt: skip
        numbers.fill_(ANYTHING)
    for values in (*decode.buffers.tensors.values(), *decode.attention.partials):
        values.fill_(torch.nan)
