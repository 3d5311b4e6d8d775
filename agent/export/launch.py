"""The launch script of an exported folder."""

from __future__ import annotations

from collections.abc import Mapping

from agent.export.report import CONFIG
from vortex.graph.model import FlowGraph
from vortex.ops import find_op

PAGE = 16
"""Tokens of a page of the KV cache, at least: SGLang's usual size for paged attention."""

_SCRIPT = r"""#!/usr/bin/env bash
# Serves MODEL over SGLang's OpenAI-compatible API, decoding with the sparse attention of this folder.
#
#   ./launch.sh MODEL [TP] [server options ...]
#
# MODEL    folder or name of a model with full attention
# TP       GPUs to split it over (1)
# options  of `python -m sglang.launch_server`; they win over the ones below
#
# Environment: HOST and PORT to listen on (127.0.0.1, 30000); PYTHON, an interpreter with SGLang and Vortex
# (python3).
set -euo pipefail

fail() {
  echo "${0##*/}: $1" >&2
  exit 2
}

case ${1:-} in
  "" | -*) fail "no MODEL. Usage: ${0##*/} MODEL [TP] [server options ...]" ;;
esac
model=$1
shift
tp=1
case ${1:-} in
  "" | -*) ;;
  0* | *[!0-9]*) fail "TP is a number of GPUs, got '$1'" ;;
  *) tp=$1 && shift ;;
esac

python=${PYTHON:-python3}
command -v "$python" >/dev/null || fail "no interpreter '$python': set PYTHON"
"$python" -c '
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
if find_spec("sglang") is None:
    sys.exit(f"{sys.executable} has no SGLang: pip install sglang==0.5.16, or set PYTHON")
if "vortex" not in entry_points(group="sglang.srt.plugins").names:
    sys.exit(f"{sys.executable} has SGLang without the Vortex plugin: pip install -e . in its repository")
' || exit 2

folder=$(dirname "$(readlink -f "$0")")
sparse=$("$python" -c '
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
config = json.loads((folder / "@CONFIG@").read_text())
print(json.dumps({**config, "module_path": str(folder / config["module_path"])}))
' "$folder") || fail "$folder/@CONFIG@ cannot be read"
exec "$python" -m sglang.launch_server \
  --model-path "$model" \
  --tp-size "$tp" \
  --host "${HOST:-127.0.0.1}" \
  --port "${PORT:-30000}" \
  --vortex-config "$sparse" \
@OPTIONS@
  "$@"
"""


def engine_options(graph: FlowGraph, block_size: int) -> dict[str, object]:
    """Arguments of `sgl.Engine` beside the flow's own settings. Pages hold whole blocks; a flow that saves
    fields goes without the prefix cache."""
    options: dict[str, object] = {
        "page_size": max(PAGE, block_size),
        "attention_backend": "flashinfer",
        "disable_overlap_schedule": True,
        "mem_fraction_static": 0.85,
    }
    if any(find_op(stage, node.op).side_effect for stage, node in graph.nodes()):
        options["disable_radix_cache"] = True
    return options


def launch_script(options: Mapping[str, object]) -> str:
    """A bash script that serves the flow of the folder it lies in with these options of the engine, from any
    working directory."""
    flags = [
        f"  --{name.replace('_', '-')}{'' if value is True else f' {value}'} \\"
        for name, value in options.items()
    ]
    return _SCRIPT.replace("@CONFIG@", CONFIG).replace("@OPTIONS@", "\n".join(flags))
