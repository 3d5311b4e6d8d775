"""Runs a guide: its code blocks in order, in one folder, and what they print put below them.

    python -m tests.docs.guide docs/language.md           prints the guide with fresh outputs
    python -m tests.docs.guide --write docs/language.md   writes them into it

```python name.py   a flow file: saved under that name and traced
```python           executed, in one namespace for the whole guide
```c                a schedule_policy: parsed
```console          commands after "$ ", each with its output
```text             right below one of the first three: its output, or the error that it ends with
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```\n(?:\n?```text\n(.*?)^```\n)?", re.M | re.S)


def refreshed(guide: str) -> str:
    """The text of a guide with the outputs that its code gives now. Runs in a folder of its own."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        return _BLOCK.sub(lambda found: _block(found, namespace), guide)


def _block(found: re.Match[str], namespace: dict[str, Any]) -> str:
    language, name, body, _ = found.groups()
    head = f"```{language}{f' {name}' if name else ''}\n"
    if language == "console":
        return f"{head}{_console(body)}```\n"
    if language not in ("python", "c"):
        return found[0]
    output = _output(language, name, body, namespace)
    return f"{head}{body}```\n" + (f"\n```text\n{output}```\n" if output else "")


def _output(language: str, name: str | None, body: str, namespace: dict[str, Any]) -> str:
    from vortex.budget import parse_policy
    from vortex.errors import VortexError
    from vortex.flow import load_graph

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), warnings.catch_warnings(record=True) as advice:
        warnings.simplefilter("always")
        try:
            if language == "c":
                parse_policy(body)
            elif name:
                Path(name).write_text(body)
                load_graph(name)
            else:
                exec(compile(body, "<guide>", "exec"), namespace)
        except VortexError as error:
            print(f"{type(error).__name__}: {error}")
    given = "".join(f"{one.category.__name__}: {one.message}\n" for one in advice)
    return (printed.getvalue() + given).replace(f"{Path.cwd()}/", "")


def _console(body: str) -> str:
    lines = []
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "110", "NO_COLOR": "1", "TERM": "dumb"}
    for command in re.findall(r"^\$ (.*)$", body, re.M):
        words = shlex.split(command)
        if words[0] != "python":
            raise ValueError(f"a guide runs python only, not {command!r}")
        done = subprocess.run(
            [sys.executable, *words[1:]], capture_output=True, text=True, check=False, env=environment
        )
        lines += [f"$ {command}", *(line.rstrip() for line in (done.stdout + done.stderr).splitlines())]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    path = Path(arguments[-1])
    text = refreshed(path.read_text())
    if "--write" in arguments:
        path.write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main(sys.argv[1:])
