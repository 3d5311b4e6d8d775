#!/usr/bin/env bash
# Makes the environment of tests/sgl, $VENV_SGL (.venv-sgl by default), from requirements.txt: SGLang on a CPU.
# Does nothing where that is done. $PYTHON: Python 3.11 or 3.12.
set -euo pipefail
cd "$(dirname "$0")/../.."

venv=${VENV_SGL:-.venv-sgl}
folder=tests/sgl
wanted=$(cat "$folder/requirements.txt" pyproject.toml | sha256sum)
if [ "$(cat "$venv/.installed" 2>/dev/null)" = "$wanted" ]; then
  exit 0
fi

echo "installing SGLang for the CPU into $venv (a minute the first time)"
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
pip=("$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-deps)
if ! "${pip[@]}" --requirement "$folder/requirements.txt"; then
  echo "torch is wanted as its CPU build: pip must be told of an index that has it (PIP_EXTRA_INDEX_URL)" >&2
  exit 1
fi
# SGLang finds plugins by the metadata of installed packages.
"${pip[@]}" --no-build-isolation --editable .
# On the path of every process of this environment, those that SGLang starts included.
realpath "$folder/stubs" >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/stubs.pth"
echo "$wanted" >"$venv/.installed"
