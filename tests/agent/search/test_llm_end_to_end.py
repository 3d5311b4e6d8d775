"""The command with a language model behind real HTTP: a broken flow, its repair, and what comes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from agent.ledger import Ledger, Role, Status
from search_spaces.seeds import seed_flows
from tests.agent.proposers.llm_server import LLMServer, Reply

ROOT = Path(__file__).resolve().parents[3]
KEY = "test-secret-0123456789"
GOOD = seed_flows()["gqa_quest_sparse_attention"].replace("gqa_quest_sparse_attention", "mine")
OTHER = seed_flows()["block_sparse_attention"].replace("block_sparse_attention", "other")
BROKEN = GOOD.replace('"k_max": (1, head_dim)', '"k_max": (2, head_dim)')
SMALL = [
    *("--length", "1024", "--prompts-per-task", "2", "--heldout-per-task", "2", "--gate-per-task", "1"),
    *("--contenders", "0", "--tasks", "niah_single_1,vt", "--executor", "local", "--workers", "1"),
]


def test_a_repaired_flow_is_measured_and_becomes_a_parent(tmp_path: Path) -> None:
    asked = 0

    def script(request: dict[str, Any]) -> Reply:
        """A broken flow first, the right one when asked to repair it, another whenever else it is asked."""
        nonlocal asked
        asked += 1
        repair = "does not fit the field" in request["messages"][-1]["content"] and asked > 1
        flow = BROKEN if asked == 1 else GOOD if repair else OTHER
        knobs = json.dumps({"block_size": 16, "topk_val": 10 + asked})
        return Reply(f"Hypothesis: a tighter bound\n\n```python\n{flow}\n```\n\n```json\n{knobs}\n```\n")

    with LLMServer(script) as server:
        environment = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": server.url, "OMP_NUM_THREADS": "1"}
        told = subprocess.run(
            [sys.executable, "-m", "agent.search", *SMALL, "--proposer", "llm", "--llm", "small",
             "--budget", "5", "--runs-dir", str(tmp_path), "--json"],
            cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert told.returncode == 0, told.stderr[-2000:]
        prompts = [json.dumps(request) for request in server.requests]
    with Ledger(tmp_path / "ledger.db") as ledger:
        run = ledger.find_run("last")
        rows = [row for row in ledger.candidates(run.id) if row.role is Role.PROPOSED]
        spend = ledger.spend(run.id)
    broken, repaired = rows[0], next(row for row in rows if row.name == "mine" and row.hash)
    assert broken.status is Status.REJECTED
    assert "does not fit the field" in (broken.reason or "")
    assert any(json.dumps(broken.reason)[1:-1] in prompt for prompt in prompts)
    assert repaired.status is Status.MEASURED
    assert repaired.evaluation("search") is not None
    assert any((repaired.hash or "")[:12] in prompt for prompt in prompts)
    assert spend.calls == len(prompts)
    assert spend.prompt_tokens == 100 * len(prompts)
    everything = told.stdout + told.stderr + "".join(prompts)
    assert KEY not in everything
    assert KEY.encode() not in b"".join(path.read_bytes() for path in tmp_path.glob("ledger.db*"))
