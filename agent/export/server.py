"""A server in processes of its own, what is asked of it over HTTP, and its end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from pydantic import BaseModel, ConfigDict

from vortex.errors import VortexError

if TYPE_CHECKING:
    from vortex.engine.sgl.counters import EngineCounters

HOST = "127.0.0.1"
READY_SECONDS = 600.0
"""A first start on a GPU compiles kernels."""
END_SECONDS = 20.0


class ServerError(VortexError):
    """A server does not start or does not answer; the message has the end of its log."""


class Completion(BaseModel):
    """An answer; lengths in tokens."""

    model_config = ConfigDict(frozen=True)

    text: str
    prompt_tokens: int
    completion_tokens: int


class Server:
    """Runs a command that serves SGLang's HTTP API on `port`, from entering to leaving the context. Whatever
    happens, none of its processes is left. Its output goes to the file `log`."""

    def __init__(
        self, command: Sequence[str], port: int, log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.command = list(command)
        self.url = f"http://{HOST}:{port}"
        self.log = log
        self._environment = {**os.environ, **(environment or {})}

    def __enter__(self) -> Self:
        with self.log.open("w") as output:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,  # a group of its own, which is ended as a whole
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Of the server, and of the group of its processes."""
        return self._process.pid

    def info(self) -> dict[str, Any]:
        """What the server says of itself."""
        answer: dict[str, Any] = self._ask("/server_info")
        return answer

    def counters(self) -> EngineCounters:
        """What rank 0 has counted. Raises ServerError for a dense server."""
        from vortex.engine.sgl.counters import EngineCounters

        state = self.info()["internal_states"][0]
        if "vortex" not in state:
            raise ServerError(f"{self.url} is dense: it has no counters of Vortex")
        return EngineCounters.model_validate(state["vortex"])

    def complete(self, prompt: str, new: int) -> Completion:
        """Greedy completion of exactly `new` tokens."""
        asked = {
            "model": "default",
            "prompt": prompt,
            "max_tokens": new,
            "temperature": 0,
            "ignore_eos": True,
        }
        answer = self._ask("/v1/completions", asked)
        return Completion(text=answer["choices"][0]["text"], **answer["usage"])

    def close(self) -> None:
        """Ask the server to end, and kill what is left of it."""
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_SECONDS)
        until = time.monotonic() + END_SECONDS
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < until:  # killed processes take a moment to be gone
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.poll()
                time.sleep(0.05)

    def _wait_until_ready(self) -> None:
        until = time.monotonic() + READY_SECONDS
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise ServerError(f"the server ended with status {self._process.returncode}:\n{self._tail()}")
            try:
                self._ask("/health", seconds=5)
                return
            except ServerError:
                time.sleep(0.25)
        raise ServerError(f"the server was not ready after {READY_SECONDS:.0f} s:\n{self._tail()}")

    def _ask(self, path: str, document: Mapping[str, Any] | None = None, seconds: float = 300) -> Any:
        data = None if document is None else json.dumps(document).encode()
        request = Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with urlopen(request, timeout=seconds) as answer:
                text = answer.read()
        except HTTPError as error:
            raise ServerError(f"{path}: {error.code}: {error.read().decode(errors='replace')}") from None
        except (URLError, OSError) as error:
            raise ServerError(f"{self.url} does not answer: {error}\n{self._tail()}") from None
        return json.loads(text) if text else None

    def _tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])
