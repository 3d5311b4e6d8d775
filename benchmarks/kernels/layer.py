"""A flow on the layers of a model: what `DeviceDecode` does in a decode step, and whether it is right."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.kernels.cases import Case
from benchmarks.kernels.timing import Work
from vortex.config import VortexConfig
from vortex.graph.cost import row_costs
from vortex.graph.model import FlowGraph
from vortex.runtime.attention import Workspace
from vortex.runtime.decode import DeviceDecode, step_size
from vortex.runtime.plan import BlockList, SparseRows, make_plan
from vortex.runtime.pool import KVPool
from vortex.runtime.select import choose_blocks
from vortex.runtime.table import BlockIds
from vortex.targets import get_target
from vortex.targets.base import LayerCache

ULP = 2.0**-7
"""Relative distance of two neighbouring bfloat16 numbers, at most."""


class SparseLayers:
    """A flow on some layers of a case, whose prompts are summarised and whose step is planned: sparse
    wherever the policy says so."""

    def __init__(
        self, case: Case, config: VortexConfig, graph: FlowGraph, pools: list[KVPool], table: torch.Tensor
    ) -> None:
        model = case.model
        self.case, self.table, self.device = case, table, table.device
        self.config, self.graph = config.model_copy(update={"dense_crossover": False}), graph
        self.layers = {index: LayerCache(index, pool) for index, pool in enumerate(pools)}
        size = step_size(
            self.graph,
            model.geometry,
            self.config,
            requests=case.batch,
            heads=model.heads,
            tokens=case.context,
            share=model.heads,
            device=self.device,
        )
        self.decode = DeviceDecode(self.graph, model.geometry, self.config, self.layers, size, self.device)
        self.seq_len = torch.full((case.batch,), case.context, dtype=torch.int32, device=self.device)
        for index in self.layers:
            self.decode.summarize(index, slice(0, case.batch * case.blocks * model.heads))
        self.decode.step.table[: case.batch, : case.blocks] = table
        self.decode.plan(self.seq_len)

    def works(self, q: list[torch.Tensor], out: torch.Tensor) -> list[Work]:
        """The decode step of each layer."""
        scale = self.case.model.logit_scale

        def work(index: int) -> Work:
            return lambda: self.decode.attend(index, q[index], scale, out)

        return [work(index) for index in self.layers]

    @property
    def floor_bytes(self) -> dict[str, float]:
        """Bytes of a layer's step by stage, from the cost model. A block is finished in this step, where the
        model spreads its summary over the tokens of the block."""
        case = self.case
        plan = make_plan(np.array([case.context]), case.model.block_size, self.config, None)
        cost = row_costs(self.graph, case.model.geometry, sharing=case.batch * case.model.heads).row(
            case.context, int(plan.chosen[0]), self.config.block_reserved_bos, self.config.block_reserved_eos
        )
        rows = case.batch * case.model.heads
        return {
            "summary": cost.summaries.bytes * case.model.block_size * rows,
            "scores": cost.scores.bytes * rows,
            "selection": cost.selection.bytes * rows,
            "attention": cost.attention.bytes * rows,
        }

    def check(self, q: torch.Tensor, layer: int = 0) -> tuple[float, float]:
        """Run one layer against the `reference` target on the same fields: recall of its blocks, and the
        largest relative error of an output over the blocks that were chosen here.

        Raises AssertionError where a summary is wrong, or a block was chosen whose score is more than two
        roundings below the last one that the reference takes.
        """
        case, model, cache = self.case, self.case.model, self.layers[layer]
        rows_q = q.view(case.batch * model.heads, model.group, -1)
        ids = self._ids()
        reference, program = get_target("reference"), None
        before = LayerCache(
            layer,
            cache.pool,
            {name: field.clone() for name, field in cache.fields.items()},
            {name: field.clone() for name, field in cache.requests.items()},
        )
        finished = ids[:, -1]
        for field in cache.fields.values():
            field[finished] = torch.nan
        out = q.new_full((*q.shape[:2], cache.pool.value_dim), torch.nan)
        self.decode.attend(layer, q, model.logit_scale, out)

        program = reference.program(self.graph, model.geometry, self.config.dtype)
        program.summarize(before, finished)
        plan = make_plan(self.seq_len.cpu().numpy(), model.block_size, self.config, None)
        rows = SparseRows(plan, model.heads, model.block_size, self.config, self.device)
        scores = program.scores(rows_q, before, BlockIds(ids, model.block_size), rows)
        quotas = [pick.k for pick in program.selections]
        listed = choose_blocks(reference, scores, rows, quotas, self.config.dtype)
        for name, field in cache.fields.items():
            _close(field[ids.flatten()], before.fields[name][ids.flatten()], f"field {name}")

        step = self.decode.step
        tokens = step.tokens[: len(ids)].long()
        width = int(-(-tokens.max() // model.block_size))
        chosen = step.lists[: len(ids), :width].long()
        recall = self._right_choice(ids, chosen, listed, scores)
        own = BlockList(chosen, tokens, 0, torch.zeros(0, device=self.device))
        expected = reference.attend(
            rows_q, cache.pool, chosen, own, model.block_size, model.logit_scale, Workspace()
        )
        off = (out.view_as(expected).float() - expected.float()).norm(dim=-1)
        return recall, float((off / expected.float().norm(dim=-1)).nan_to_num(nan=torch.inf).max())

    def _ids(self) -> torch.Tensor:
        """Block ids `[rows, blocks]`."""
        heads = self.case.model.heads
        ids = self.table.long()[:, None] * heads + torch.arange(heads, device=self.device)[:, None]
        return ids.view(-1, self.case.blocks)

    def _right_choice(
        self, ids: torch.Tensor, chosen: torch.Tensor, listed: BlockList, scores: torch.Tensor
    ) -> float:
        """Recall of the lists of ids `chosen`; asserts that they are what they must be."""
        place = ids.new_full((int(ids.max()) + 1,), -1)
        owner = place.clone()
        place[ids] = torch.arange(ids.shape[1], device=self.device).expand_as(ids)
        owner[ids] = torch.arange(len(ids), device=self.device)[:, None].expand_as(ids)
        rows = torch.arange(len(ids), device=self.device)[:, None]
        assert (owner[chosen] == rows).all(), "a list holds a block of another row"
        found = place[chosen]
        n, bos, eos = ids.shape[1], self.config.block_reserved_bos, self.config.block_reserved_eos
        assert (found.sort(1).values.diff(dim=1) > 0).all(), "a list holds a block twice"
        assert (found[:, -1] == n - 1).all(), "the last block is not last"
        reserved = [*range(bos), *range(n - eos, n)]
        held = torch.zeros_like(ids, dtype=torch.bool).scatter_(1, found, True)
        assert held[:, reserved].all(), "a reserved block is missing"
        wanted = torch.zeros_like(held).scatter_(1, listed.positions, True)
        if len(scores) == 1:
            free = wanted.clone()
            free[:, reserved] = False
            least = scores[0].masked_fill(~free, torch.inf).amin(1, keepdim=True)
            picked = held.clone()
            picked[:, reserved] = False
            slack = 2 * ULP * torch.maximum(least.abs(), scores[0].abs())
            slack += 1e-4 * scores[0].abs().amax(1, keepdim=True)  # sums that cancel
            assert not (picked & (scores[0] < least - slack)).any(), "a block with a low score was chosen"
        return float((held & wanted).sum() / wanted.sum())


def _close(found: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    """Equal up to two roundings, or to the sum of float32 that was rounded."""
    found, expected = found.float(), expected.float()
    slack = 2 * ULP * expected.abs() + 1e-3 * float(expected.abs().max())
    assert not ((found - expected).abs() > slack).any(), f"{what} is not what the reference writes"
    assert not (found.isnan() & ~expected.isnan()).any(), f"{what} has places that nothing has written"
