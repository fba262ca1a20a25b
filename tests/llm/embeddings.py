"""An OpenAI-compatible embeddings server on the loopback interface: vectors of words, the same for the same text.

with ScriptedEmbeddings(dimensions=24) as server:
    server.hold()
    ...                     # calls wait
    server.release()
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class ScriptedEmbeddings:
    """The server. Two texts are alike by the words that they share."""

    def __init__(self, *, dimensions: int = 24, model: str = "words") -> None:
        self.dimensions = dimensions
        self.model = model
        #: The texts of each call, in the order in which they came.
        self.calls: list[list[str]] = []
        self._failures: list[int] = []
        #: Texts with this in them are refused, and whatever comes with them; None takes all.
        self.refused: str | None = None
        self._hold_from: int | None = None
        self._changed = threading.Condition()
        self._gate = threading.Event()
        self._gate.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._gate.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def settings(self) -> dict[str, Any]:
        """The `embeddings` section of the settings that names this server."""
        url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        config = {"model": self.model, "api_key": "sk-scripted", "openai_base_url": url}
        return {"provider": "openai", "config": config, "dimensions": self.dimensions}

    @property
    def name(self) -> str:
        """The name under which the service knows the model."""
        return f"openai/{self.model}"

    def hold(self) -> Self:
        """Keep all calls waiting, from now on, until `release`."""
        self._gate.clear()
        return self

    def hold_from(self, count: int) -> Self:
        """Keep the call of this number waiting, counted from the first one, and all later ones, until `release`."""
        self._hold_from = count
        return self

    def release(self) -> Self:
        """Let the calls that wait, and all later ones, go on."""
        self._hold_from = None
        self._gate.set()
        return self

    def fail(self, *statuses: int) -> Self:
        """Answer the next calls with these HTTP statuses."""
        self._failures += statuses
        return self

    def wait_for_calls(self, count: int, timeout: float = 30.0) -> None:
        """Return as soon as there were so many calls; AssertionError if that takes too long."""
        with self._changed:
            arrived = self._changed.wait_for(lambda: len(self.calls) >= count, timeout)
            assert arrived, f"{len(self.calls)} of {count} calls after {timeout} s"

    def _answer(self, texts: list[str]) -> tuple[int, dict[str, Any]]:
        with self._changed:
            self.calls.append(texts)
            if self._hold_from is not None and len(self.calls) >= self._hold_from:
                self._gate.clear()
            self._changed.notify_all()
            status = self._failures.pop(0) if self._failures else 200
            if self.refused is not None and any(self.refused in text for text in texts):
                status = 400
        self._gate.wait(60)
        if status != 200:
            return status, {"error": {"message": f"cannot embed {texts}"}}
        data = [{"object": "embedding", "index": row, "embedding": self._vector(one)} for row, one in enumerate(texts)]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return 200, {"object": "list", "model": self.model, "data": data, "usage": usage}

    def _vector(self, text: str) -> list[float]:
        vector = [0.01] * self.dimensions
        for word in re.findall(r"\w+", text.lower()):
            vector[hashlib.sha256(word.encode()).digest()[0] % self.dimensions] += 1.0
        return vector


def _handler_of(server: ScriptedEmbeddings) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """POST /v1/embeddings."""

        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            texts = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
            status, document = server._answer(texts)
            body = json.dumps(document).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent."""

    return Handler
