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
BROKEN = GOOD.replace('"k_max": (1, head_dim)', '"k_max": (2, head_dim)')
SMALL = [
    *("--length", "1024", "--prompts-per-task", "2", "--heldout-per-task", "2", "--gate-per-task", "1"),
    *("--contenders", "0", "--tasks", "niah_single_1,vt", "--executor", "local", "--workers", "1"),
]


def test_a_repaired_flow_is_measured_and_becomes_a_parent(tmp_path: Path) -> None:
    asked = 0

    def script(request: dict[str, Any]) -> Reply:
        nonlocal asked
        asked += 1
        flow = BROKEN if asked == 1 else GOOD
        knobs = json.dumps({"block_size": 16, "topk_val": 10 + asked})
        return Reply(f"Hypothesis: a tighter bound\n\n```python\n{flow}\n```\n\n```json\n{knobs}\n```\n")

    with LLMServer(script) as server:
        environment = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": server.url, "OMP_NUM_THREADS": "1"}
        told = subprocess.run(
            [sys.executable, "-m", "agent.search", "--proposer", "llm", "--llm", "small", "--budget", "4"]
            + ["--runs-dir", str(tmp_path), "--json", *SMALL],
            cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert told.returncode == 0, told.stderr[-2000:]
        prompts = [json.dumps(request) for request in server.requests]
    with Ledger(tmp_path / "ledger.db") as ledger:
        run = ledger.find_run("last")
        rows = [row for row in ledger.candidates(run.id) if row.role is Role.PROPOSED]
        spend = ledger.spend(run.id)
    assert [row.status for row in rows[:2]] == [Status.REJECTED, Status.MEASURED]
    reason = rows[0].reason or ""
    assert "does not fit the field" in reason
    assert json.dumps(reason)[1:-1] in prompts[1]
    assert rows[1].evaluation("search") is not None
    assert rows[1].hash is not None
    assert any(rows[1].hash[:12] in prompt for prompt in prompts[2:])
    assert spend.calls == len(prompts)
    assert spend.prompt_tokens == 100 * len(prompts)
    everything = told.stdout + told.stderr + "".join(prompts)
    assert KEY not in everything
    assert KEY.encode() not in b"".join(path.read_bytes() for path in tmp_path.glob("ledger.db*"))
