#!/usr/bin/env bash
# Serves MODEL over SGLang's OpenAI-compatible API, with sparse attention in decoding.
#
#   examples/server_launch.sh MODEL [TP] [server options ...]
#
#   examples/server_launch.sh Qwen/Qwen3-8B
#   examples/server_launch.sh /models/Qwen3-32B 4 --kv-cache-dtype fp8_e4m3
#   VORTEX_CONFIG=my.json PORT=8000 examples/server_launch.sh Qwen/Qwen3-8B
#
# MODEL    folder or name of a model with full attention
# TP       GPUs to split it over (1)
# options  of `python -m sglang.launch_server`; they win over the ones below
#
# Environment: HOST and PORT to listen on (127.0.0.1, 30000); PYTHON, an interpreter with SGLang and Vortex
# (python3); VORTEX_CONFIG, the fields of a VortexConfig as JSON or the path of such a file (Quest's bound
# on 62 blocks of 16 tokens, first and last block kept, first layer dense). docs/sglang.md says what the
# fields do.
#
#   curl http://127.0.0.1:30000/v1/completions -H 'Content-Type: application/json' \
#     -d '{"model": "default", "prompt": "The capital of France is", "max_tokens": 8}'
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

sparse='{"module_name": "gqa_quest_sparse_attention", "topk_val": 62, "block_size": 16, "layers_skip": [0]}'
exec "$python" -m sglang.launch_server \
  --model-path "$model" \
  --tp-size "$tp" \
  --host "${HOST:-127.0.0.1}" \
  --port "${PORT:-30000}" \
  --vortex-config "${VORTEX_CONFIG:-$sparse}" \
  --page-size 16 \
  --attention-backend flashinfer \
  --disable-overlap-schedule \
  --mem-fraction-static 0.85 \
  "$@"
