"""What is asked of a served folder, and what of the answer contradicts the record; tests/sgl serves one."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from agent.export.choose import choose
from agent.export.folder import export
from agent.export.measure import recorded_engine
from agent.export.report import ExportError, ExportReport, Serving, read_report
from agent.export.serve import NEW, Served, context, sparse_from
from agent.export.server import Completion, Server, ServerError, free_port
from agent.export.verify import verify
from agent.search.settings import SearchSettings
from evaluators.probe import PROBE_PATH
from tests.agent.export.conftest import Finished
from vortex.budget import chosen_blocks
from vortex.budget.compiled import policy_of
from vortex.config import VortexConfig


@pytest.fixture(scope="module")
def folder(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("taken") / "winner"
    chosen = choose(finished.ledger, finished.run, finished.candidates["small"].hash, 0.05)
    export(finished.ledger, finished.run, chosen, to)
    return to


def served(report: ExportReport, **changes: object) -> Served:
    """What a right server answers, but for `changes`."""
    right = {
        "engine": "SGLang 0.5.16, flashinfer",
        "completion": Completion(text="", prompt_tokens=900, completion_tokens=NEW),
        "graph": report.graph_hash,
        "decode_steps": 20,
        "sparse_steps": NEW - 1,
        "blocks_read": 10,
        "blocks_total": 100,
    }
    return Served.model_validate({**right, **changes})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, None),
        ({"graph": "0" * 64}, "the server decodes with graph 000000000000, not "),
        ({"sparse_steps": 0}, "only 0 of 15 decode steps were sparse, or dense to be faster"),
        ({"sparse_steps": 0, "crossover_steps": NEW - 1}, None),
        ({"sparse_steps": 3, "crossover_steps": 2}, "only 5 of 15 decode steps"),
        (
            {"completion": Completion(text="", prompt_tokens=900, completion_tokens=3)},
            "the server answered 3 of 16 tokens",
        ),
    ],
)
def test_what_contradicts_the_record(folder: Path, changes: dict[str, object], says: str | None) -> None:
    report = read_report(folder)
    problems = served(report, **changes).problems(report)
    assert len(problems) == (says is not None)
    assert (says or "") in "".join(problems)


def test_a_server_that_was_dense_all_along_is_told_of(folder: Path) -> None:
    report = read_report(folder)
    assert served(report).notes == served(report, sparse_steps=1, crossover_steps=14).notes == []
    (note,) = served(report, sparse_steps=0, crossover_steps=15).notes
    assert "no sparse step was served: dense is faster" in note


@pytest.mark.parametrize(
    "fields",
    [
        {"topk_val": 4},
        {"topk_val": 4, "block_size": 8, "block_reserved_eos": 3},
        {"topk_val": 2, "topk_ratio": 0.9},
        {"schedule_policy": "return cached_block_len > 40 ? 8 : cached_block_len;"},
    ],
)
def test_a_prompt_from_which_on_every_step_is_sparse(fields: dict[str, object]) -> None:
    config = VortexConfig.model_validate({"block_size": 16, **fields})
    block, longest = config.block_size or 16, 4096
    tokens = sparse_from(config, longest)
    for length in range(tokens + 1, longest, 7):
        n = -(-length // block)
        assert chosen_blocks(policy_of(config), np.array([n]), config)[0] < n
    before = tokens // block - 1
    assert chosen_blocks(policy_of(config), np.array([before]), config)[0] == before


def test_a_budget_that_covers_the_context_cannot_be_sparse() -> None:
    with pytest.raises(ExportError, match="covers all of the 512 tokens"):
        sparse_from(VortexConfig(topk_val=30), 512)


def test_the_context_is_the_models(tmp_path: Path) -> None:
    assert context(PROBE_PATH) == 8192
    with pytest.raises(ExportError, match="--model"):
        context(tmp_path)


def test_the_record_says_which_engine_measures_again(finished: Finished, folder: Path) -> None:
    report = read_report(folder)
    assert report.serving is None
    assert recorded_engine(report) == "hf"
    settings = SearchSettings.model_validate_json(finished.run.settings)
    on_sglang = settings.model_copy(update={"engine": "sglang", "kv_dtype": "fp8_e4m3", "tp": 2})
    run = finished.run.model_copy(update={"settings": on_sglang.model_dump_json()})
    chosen = choose(finished.ledger, finished.run, finished.candidates["small"].hash, 0.05)
    again = export(finished.ledger, run, chosen, folder.parent / "sglang")
    assert again.serving == Serving(kv_cache_dtype="fp8_e4m3", tp_size=2)
    assert recorded_engine(again) == "sglang"
    assert read_report(folder.parent / "sglang") == again


def test_another_engine_is_a_note(finished: Finished, folder: Path, tmp_path: Path) -> None:
    report = read_report(folder)
    measured = report.result.measurement.model_copy(
        update={"engine": "SGLang 0.5.16, fa3", "device": "NVIDIA H200"}
    )
    result = report.result.model_copy(update={"measurement": measured})
    key = f"{report.prompts.key}-0123abcd"  # of prompts answered by an SGLang engine
    prompts = report.prompts.model_copy(update={"key": key})
    changed = report.model_copy(update={"result": result, "prompts": prompts})
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "report.json").write_text(changed.model_dump_json())
    verdict = verify(copy, finished.cache, engine="hf")
    assert verdict.holds
    assert verdict.notes == (
        "the record was measured by SGLang 0.5.16, fa3 on NVIDIA H200; its interval is compared anyway",
    )
    assert (verdict.engine, verdict.device) == ("hf-cpu", "cpu")


def test_a_server_that_ends_says_why(tmp_path: Path) -> None:
    script = "import sys; print('the reason'); sys.exit(3)"
    server = Server([sys.executable, "-c", script], free_port(), tmp_path / "log")
    with pytest.raises(ServerError, match="ended with status 3:\nthe reason"), server:
        pass


def test_what_a_server_started_ends_with_it(tmp_path: Path) -> None:
    """A real HTTP server with a child that ignores requests to end."""
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on'); time.sleep(99)"
    (tmp_path / "health").touch()
    (tmp_path / "child.py").write_text(child)
    port = free_port()
    program = (
        f"cd {tmp_path} && {sys.executable} -u child.py > child.log & "
        f"exec {sys.executable} -m http.server {port} --bind 127.0.0.1 --directory {tmp_path}"
    )
    with Server(["bash", "-c", program], port, tmp_path / "log") as server:
        while "on" not in (tmp_path / "child.log").read_text():
            time.sleep(0.05)
        with pytest.raises(ServerError, match="/server_info: 404"):
            server.info()
        group = server.pid
        assert "child.py" in processes(group)
    assert processes(group) == ""


def processes(group: int) -> str:
    """Command lines of a group of processes."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == group:
                found += process.cmdline()
    return " ".join(found)
