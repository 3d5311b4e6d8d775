"""A scripted OpenAI-compatible service over real HTTP that keeps what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Reply:
    """One reply. `content` becomes a chat completion unless `body` says what to send. delay: seconds."""

    content: str | None = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    delay: float = 0.0
    prompt_tokens: int = 100
    completion_tokens: int = 20

    def encoded(self, model: str) -> bytes:
        if self.body is not None:
            return self.body.encode()
        if self.status != 200:
            return json.dumps({"error": {"message": self.content, "type": "error"}}).encode()
        message = {"role": "assistant", "content": self.content}
        document: dict[str, Any] = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": self.prompt_tokens,
                "completion_tokens": self.completion_tokens,
                "total_tokens": self.prompt_tokens + self.completion_tokens,
            },
        }
        return json.dumps(document).encode()


Script = Sequence[Reply] | Callable[[dict[str, Any]], Reply]


class LLMServer:
    """Serves on 127.0.0.1 while its `with` block lasts. After its script it repeats the last reply.

    requests: the JSON bodies received, in order; keys: their Authorization headers.
    """

    def __init__(self, script: Script):
        self._script = script
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
                reply = owner._next(self.path, body, self.headers.get("Authorization", ""))
                time.sleep(reply.delay)
                data = reply.encoded(str(body.get("model")))
                try:
                    self.send_response(reply.status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(data)))
                    for name, value in reply.headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    return  # the client gave up waiting

            def log_message(self, format: str, *args: Any) -> None:
                return

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def prompts(self, index: int) -> list[str]:
        """The message texts of one request."""
        return [str(m["content"]) for m in self.requests[index]["messages"]]

    def _next(self, path: str, body: dict[str, Any], key: str) -> Reply:
        if path != "/v1/chat/completions":
            return Reply(f"no such path: {path}", status=404)
        self.requests.append(body)
        self.keys.append(key)
        if callable(self._script):
            return self._script(body)
        return self._script[min(len(self.requests), len(self._script)) - 1]

    def __enter__(self) -> LLMServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
