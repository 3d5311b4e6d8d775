"""What is exported is served and measured again in SGLang, by the commands that its README names."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.export.choose import choose
from agent.export.folder import export
from agent.export.report import LAUNCH, read_report
from agent.export.server import Server, free_port
from agent.export.verify import Verdict
from agent.ledger import Ledger, Role
from evaluators.measure.evaluate import evaluate
from evaluators.measure.spec import WorkloadSpec
from evaluators.measure.workload import Workload
from evaluators.probe import PROBE_PATH
from search_spaces.candidate import Candidate
from search_spaces.knobs import Knobs
from search_spaces.seeds import seed_graphs
from tests.agent.export.conftest import TASKS, Finished, new_run
from tests.sgl.engines import VARIABLES
from tests.sgl.servers import CPU_FLAGS, PROMPT
from vortex.config import VortexConfig

pytestmark = pytest.mark.full

FLOWS = {"quest": "gqa_quest_sparse_attention", "saves": "running_avg_block_sparse"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """Dense attention and two flows on the probe model, measured by transformers."""
    folder = tmp_path_factory.mktemp("run")
    with Ledger(folder / "ledger.db") as ledger:
        made = new_run(ledger, None, folder / "cache")
        spec = WorkloadSpec(model=PROBE_PATH, tasks=TASKS, length=512, samples=2, gate=1).heldout()
        workload = Workload.ensure(spec, made.cache)
        made.add("dense", None, Role.DENSE, evaluate(None, VortexConfig(block_size=16), workload))
        for name, flow in FLOWS.items():
            knobs = Knobs(topk_val=12, eos=2, block_size=8)
            candidate = Candidate(seed_graphs()[flow], knobs)
            found = evaluate(candidate.graph, candidate.config(), workload)
            made.add(name, candidate, Role.PROPOSED, found)
        yield made


def taken(finished: Finished, name: str, to: Path) -> Path:
    chosen = choose(finished.ledger, finished.run, finished.candidates[name].hash, floor=0.05)
    export(finished.ledger, finished.run, chosen, to)
    return to


def test_the_folder_is_measured_again_in_sglang_and_served(finished: Finished, tmp_path: Path) -> None:
    """`--verify --engine sglang --serve`: the score within the interval of transformers' record, a request
    over HTTP, sparse by the counters."""
    folder = taken(finished, "quest", tmp_path / "winner")
    report = read_report(folder)
    assert report.result.accuracy.mean >= 0.5  # of a model that answers
    command = [sys.executable, "-m", "agent.export", "--verify", str(folder), "--json"]
    command += ["--runs-dir", str(finished.cache.parent), "--engine", "sglang"]
    command += ["--serve", "--server-options", shlex.join(CPU_FLAGS)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=600, env={**os.environ, **VARIABLES}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    verdict = Verdict.model_validate(json.loads(done.stdout.splitlines()[-1]))
    assert verdict.holds
    assert (verdict.engine, verdict.device) == ("SGLang 0.5.16, torch_native", "cpu")
    assert "the record was measured by hf-cpu on cpu" in " ".join(verdict.notes)
    assert len(verdict.notes) == 1  # the prompts are the recorded ones
    assert verdict.accuracy == pytest.approx(report.result.accuracy.mean)  # both in float32
    served = verdict.served
    assert served is not None
    assert served.completion.completion_tokens == 16
    assert served.sparse_steps == 15
    assert served.graph == report.graph_hash
    assert 0 < served.blocks_read < served.blocks_total


def test_a_flow_that_saves_is_launched_without_prefix_cache(finished: Finished, tmp_path: Path) -> None:
    """From another working directory, which holds a file of the flow's name."""
    folder = taken(finished, "saves", tmp_path / "with spaces" / "winner")
    (tmp_path / "flow.py").write_text("raise SystemExit('the wrong file')")
    port = free_port()
    script = shlex.join([str(folder / LAUNCH), str(PROBE_PATH), *CPU_FLAGS])
    command = ["bash", "-c", f"cd {shlex.quote(str(tmp_path))} && exec {script}"]
    environment = {**VARIABLES, "PORT": str(port), "PYTHON": sys.executable}
    with Server(command, port, tmp_path / "log", environment) as server:
        info = server.info()
        assert (info["disable_radix_cache"], info["page_size"], info["tp_size"]) == (True, 16, 1)
        answer = server.complete(PROMPT, 8)
        assert answer == server.complete(PROMPT, 8)
        counters = server.counters()
    assert counters.graph == finished.candidates["saves"].graph.hash
    assert counters.sparse_steps == 14
