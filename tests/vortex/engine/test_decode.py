"""Stored prompts decoded through graphs: equal to dense where they must be, sparse where they may be."""

from __future__ import annotations

import copy
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from tests.vortex.engine.conftest import NEW, Flows, flows_for, geometry, is_mla
from vortex.config import VortexConfig
from vortex.engine.hf import PromptStore, decode
from vortex.engine.hf.prefill import prefill
from vortex.engine.hf.store import META
from vortex.errors import ConfigError
from vortex.graph import FlowGraph
from vortex.graph.cost import row_costs
from vortex.runtime.hooks import Hooks, ScoreInput, oracle_scores, random_scores
from vortex.runtime.pool import PAGE
from vortex.runtime.table import BlockTable

SPARSE = VortexConfig(topk_val=2, block_size=8)
EVERYTHING = VortexConfig(topk_val=1000, block_size=8)


@pytest.fixture(scope="module")
def store(
    model: PreTrainedModel, prompts: list[list[int]], tmp_path_factory: pytest.TempPathFactory
) -> PromptStore:
    return PromptStore.build(tmp_path_factory.mktemp("store") / "prompts", model, prompts, NEW)


def tokens(
    model: PreTrainedModel, store: PromptStore, graph: FlowGraph | None, **kwargs: object
) -> list[list[int]]:
    kwargs = {"config": SPARSE, "max_new_tokens": NEW, "rows": None, **kwargs}
    return [list(row) for row in decode(model, store, graph=graph, **kwargs).tokens]  # type: ignore[arg-type]


def test_dense_and_full_budget_are_the_models_own_tokens(
    model: PreTrainedModel, flows: Flows, store: PromptStore, dense: list[list[int]]
) -> None:
    assert tokens(model, store, None) == dense
    for graph in (flows.centroid, flows.quest):
        assert tokens(model, store, graph, config=EVERYTHING) == dense
        # Sparse by one block in the longest rows, and the scored path runs with all layers but none dense.
        nearly = VortexConfig(topk_val=1, topk_ratio=1.0, block_size=8)
        assert tokens(model, store, graph, config=nearly) == dense


def test_sparse_decoding_agrees_between_targets_and_differs_from_dense(
    model: PreTrainedModel, flows: Flows, store: PromptStore, dense: list[list[int]]
) -> None:
    for graph in (flows.centroid, flows.quest):
        sparse = tokens(model, store, graph)
        assert sparse == tokens(model, store, graph, target="reference")
        assert sparse != dense
        assert [sparse[1], sparse[5]] == [dense[1], dense[5]]  # too short to be sparse


def test_skipped_layers_are_dense(
    model: PreTrainedModel, flows: Flows, store: PromptStore, dense: list[list[int]]
) -> None:
    seen: set[int] = set()
    hooks = Hooks(selected=lambda given, blocks: seen.add(given.layer.index))
    config = SPARSE.model_copy(update={"layers_skip": (0, 2)})
    tokens(model, store, flows.centroid, config=config, hooks=hooks)
    assert seen == {1}
    everything = SPARSE.model_copy(update={"layers_skip": (0, 1, 2)})
    result = decode(model, store, None, flows.centroid, everything, NEW)
    assert [list(row) for row in result.tokens] == dense
    assert result.bytes_per_step == result.dense_bytes_per_step
    with pytest.raises(ConfigError, match="layer 3"):
        decode(model, store, None, flows.centroid, SPARSE.model_copy(update={"layers_skip": (3,)}), NEW)


def test_rows_do_not_see_each_other(model: PreTrainedModel, flows: Flows, store: PromptStore) -> None:
    """Subsets, another order, other limits and early stops leave the tokens of a row alone."""
    graph = flows.quest
    together = tokens(model, store, graph)
    assert tokens(model, store, graph, rows=[4, 0, 2]) == [together[4], together[0], together[2]]
    limits = [3, 12, 1, 7, 12, 2]
    assert tokens(model, store, graph, max_new_tokens=limits) == [
        row[:limit] for row, limit in zip(together, limits, strict=True)
    ]
    stopped = tokens(model, store, graph, stop=lambda place, new: len(new) == place + 2)
    assert stopped == [row[: place + 2] for place, row in enumerate(together)]


def test_summaries_are_those_of_the_whole_prompt(
    model: PreTrainedModel, flows: Flows, store: PromptStore
) -> None:
    """Fields that decoding has updated block by block equal those made at once from the final cache."""
    graph, checked = flows.centroid, []

    def check(given: ScoreInput, blocks: torch.Tensor) -> None:
        if given.step == NEW - 2:
            (field,) = given.layer.fields.values()
            k, _ = given.layer.pool.blocks(8)
            for row, request in enumerate(given.requests):
                finished = (len(store.prompts[request].tokens) + NEW - 1) // 8
                own = given.table.ids[row, :finished]
                torch.testing.assert_close(
                    field[own, 0], k[own].mean(1).bfloat16().float(), rtol=1e-2, atol=1e-6
                )
                checked.append(row)

    tokens(model, store, graph, hooks=Hooks(selected=check))
    assert len(checked) > 0


def test_bytes_are_row_costs_averaged_over_steps(
    model: PreTrainedModel, flows: Flows, store: PromptStore
) -> None:
    graph, config = flows.quest, SPARSE.model_copy(update={"layers_skip": (1,)})
    result = decode(model, store, [0], graph, config, 4, stop=lambda place, new: False)
    at, heads = geometry(model, 8), 1 if is_mla(model) else 2
    lengths = [len(store.prompts[0].tokens) + step for step in (1, 2, 3)]
    full = np.mean([row_costs(None, at).row(length, -(-length // 8)).bytes for length in lengths])
    kept = np.mean([row_costs(graph, at).row(length, 4).bytes for length in lengths])
    assert result.dense_bytes_per_step[0] == pytest.approx(3 * heads * full)
    assert result.bytes_per_step[0] == pytest.approx(heads * (2 * kept + full))
    assert kept < full
    stored = 2 * np.mean(lengths) * (48 if is_mla(model) else 2 * 16)  # bfloat16; a latent is read once
    assert full == pytest.approx(stored)


def test_oracle_equals_the_flow_that_reads_the_keys_and_random_is_reproducible(
    model: PreTrainedModel, flows: Flows, store: PromptStore
) -> None:
    picks: dict[str, list[list[int]]] = {"oracle": [], "flow": [], "random": [], "again": []}

    def watch(name: str, scores: object = None) -> Hooks:
        def selected(given: ScoreInput, blocks: torch.Tensor) -> None:
            picks[name].extend(sorted(row) for row in blocks.tolist())

        return Hooks(scores=scores, selected=selected)  # type: ignore[arg-type]

    oracle = tokens(model, store, None, hooks=watch("oracle", oracle_scores))
    assert oracle == tokens(model, store, flows.keys, hooks=watch("flow"))
    assert picks["oracle"] == picks["flow"]
    tokens(model, store, None, hooks=watch("random", random_scores(3)))
    alone = tokens(model, store, None, rows=[2], hooks=watch("again", random_scores(3)))
    assert len(alone) == 1
    assert picks["random"] != picks["oracle"]
    assert len(picks["random"]) > len(picks["again"]) > 0


def test_noise_changes_the_selection(model: PreTrainedModel, flows: Flows, store: PromptStore) -> None:
    def noise(given: ScoreInput, scores: torch.Tensor) -> torch.Tensor:
        return scores - 2 * scores

    assert tokens(model, store, flows.quest, hooks=Hooks(noise=noise)) != tokens(model, store, flows.quest)
    flipped = tokens(model, store, flows.quest, hooks=Hooks(noise=noise), target="reference")
    assert flipped == tokens(model, store, flows.quest, hooks=Hooks(noise=noise))


def test_a_sparse_step_reads_only_the_chosen_blocks(
    model: PreTrainedModel, flows: Flows, store: PromptStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a layer attends, every block of its pool that was not chosen is NaN, and the tokens stay the
    same.
    """
    graph = flows.centroid
    expected = tokens(model, store, graph, rows=[0, 4])
    hidden: list[tuple[torch.Tensor, torch.Tensor]] = []

    def hide(given: ScoreInput, blocks: torch.Tensor) -> None:
        chosen = given.table.ids.gather(1, blocks).ravel()
        for stored in given.layer.pool.stored:
            data = stored.view(-1, 8, stored.shape[1])
            before = data.clone()
            data.fill_(torch.nan)
            data[chosen] = before[chosen]
            hidden.append((data, before))

    def uncover(given: ScoreInput, scores: torch.Tensor) -> torch.Tensor:
        while hidden:
            data, before = hidden.pop()
            data.copy_(torch.where(data.isnan(), before, data))
        return scores

    read = BlockTable.read

    def read_fields_only(
        self: BlockTable, data: torch.Tensor, first: int, last: int, blocks: int
    ) -> torch.Tensor:
        assert data.shape[1:] == (1, geometry(model, 8).head_dim)
        return read(self, data, first, last, blocks)

    monkeypatch.setattr(BlockTable, "read", read_fields_only)
    own = PromptStore.open(store.path)
    assert tokens(model, own, graph, rows=[0, 4], hooks=Hooks(selected=hide, noise=uncover)) == expected
    assert hidden


def test_what_does_not_fit_is_refused(model: PreTrainedModel, flows: Flows, store: PromptStore) -> None:
    with pytest.raises(ConfigError, match="room for"):
        decode(model, store, [0], None, None, 2000)
    with pytest.raises(ConfigError, match="exceeds the limit of 100"):
        decode(model, store, [0], None, VortexConfig(max_seq_lens=100), NEW)
    with pytest.raises(ConfigError, match="must divide the page"):
        decode(model, store, [0], flows.centroid, VortexConfig(block_size=256), NEW)
    with pytest.raises(ConfigError, match="twice"):
        decode(model, store, [0, 1, 0], None, None, NEW)
    with pytest.raises(ConfigError, match="at least 1"):
        decode(model, store, [0], None, None, 0)
    with pytest.raises(ConfigError, match="SGLang"):
        decode(model, store, [0], None, VortexConfig(attention_backend="trtllm"), NEW)
    with pytest.raises(ConfigError, match="impl_backend='cuda' is not supported"):
        decode(model, store, [0], None, VortexConfig(impl_backend="cuda"), NEW)
    with pytest.raises(ConfigError, match="the torch target generates no kernels"):
        decode(model, store, [0], None, VortexConfig(use_tensor_core=True), NEW, target="torch")
    with pytest.raises(ConfigError, match="known: reference, torch"):
        decode(model, store, [0], flows.centroid, SPARSE, NEW, target="tritn")
    with pytest.raises(ConfigError, match="the model needs a vFlow"):
        decode(model, store, [0], flows_for(not is_mla(model)).centroid, SPARSE, NEW)
    assert decode(model, store, [], None).tokens == ()


def test_a_decode_leaves_the_files_alone(model: PreTrainedModel, flows: Flows, store: PromptStore) -> None:
    files = sorted(store.path.iterdir())
    assert len(files) == 1 + 3 * (1 if is_mla(model) else 2)
    before = [file.read_bytes() for file in files]
    first = tokens(model, store, flows.quest)
    assert tokens(model, store, flows.quest) == first
    assert [file.read_bytes() for file in files] == before
    assert not [path for path in store.path.parent.iterdir() if path != store.path]


def test_an_interrupted_build_leaves_nothing(
    model: PreTrainedModel, prompts: list[list[int]], tmp_path: Path
) -> None:
    with pytest.raises(IndexError):
        PromptStore.build(tmp_path / "broken", model, [prompts[1], [10**6]], NEW)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="at least one token"):
        PromptStore.build(tmp_path / "broken", model, [[]], NEW)


def test_a_store_of_another_model_is_refused(
    model: PreTrainedModel, store: PromptStore, tmp_path: Path
) -> None:
    for change in ({"heads": 3}, {"kv_lora_rank": 16}):
        meta = store.meta.model_copy(update={**change, "prompts": ()})
        with pytest.raises(ConfigError, match="another model"):
            decode(model, PromptStore(tmp_path, meta, store.pools), [], None)
    other = store.meta.model_copy(update={"page": 64})
    (tmp_path / META).write_text(other.model_dump_json())
    with pytest.raises(ConfigError, match="64 tokens"):
        PromptStore.open(tmp_path)


def test_half_precision_is_stored_bit_by_bit(
    model: PreTrainedModel, flows: Flows, prompts: list[list[int]], tmp_path: Path
) -> None:
    half = copy.deepcopy(model).to(torch.bfloat16)
    opened = PromptStore.build(tmp_path / "half", half, prompts[4:], 4)
    for index, prompt in enumerate(prompts[4:]):
        done = prefill(half, prompt)
        slots = opened.pages([index])
        for layer, pool in enumerate(opened.pools):
            for head in range(opened.meta.heads):
                start = int(slots.pages[head, 0]) * PAGE
                for data, part in zip(pool.stored, done.layers[layer], strict=True):
                    assert torch.equal(data[start : start + len(prompt)], part[head])
    assert [len(row) for row in tokens(half, opened, flows.quest, max_new_tokens=4)] == [4, 4]
    with pytest.raises(ConfigError, match="another model"):
        decode(model, opened, [0], None, None, 4)


def _decode_in_process(args: tuple[bytes, FlowGraph, str]) -> list[list[int]]:
    import io

    torch.set_num_threads(1)
    blob, graph, path = args
    model = torch.load(io.BytesIO(blob), weights_only=False)
    opened = PromptStore.open(path)
    for _ in range(3):
        found = tokens(model, opened, graph)
    return found


def test_processes_share_a_store(model: PreTrainedModel, flows: Flows, store: PromptStore) -> None:
    import io

    blob = io.BytesIO()
    torch.save(model, blob)
    job = (blob.getvalue(), flows.quest, str(store.path))
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        assert list(pool.map(_decode_in_process, [job, job])) == [tokens(model, store, flows.quest)] * 2
