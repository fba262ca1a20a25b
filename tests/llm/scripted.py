"""An OpenAI-compatible chat server on the loopback interface, whose answers a test writes down beforehand.

    with ScriptedLLM() as llm:
        llm.facts("Alice likes tea").status(429, retry_after=7)
        ...                     # the first call gets the fact, the second a 429, all later ones the default
        assert "tea" in llm.requests[0].prompt

Without a script each user message becomes one fact, word for word, so that whole flows run unscripted.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

_NEW_MESSAGES = re.compile(r"^## New Messages\n(.*?)\n*^## Observation Date$", re.DOTALL | re.MULTILINE)
_USER_MESSAGE = re.compile(r"^user: (.*(?:\n  .*)*)", re.MULTILINE)

#: Answers of the wrong shape: raw text of the message, by kind.
ODD_SHAPES: Mapping[str, str] = {
    "root_list": '[{"text": "a fact"}]',
    "root_string": '"a fact"',
    "root_number": "7",
    "root_null": "null",
    "no_memory": '{"facts": ["a fact"]}',
    "memory_dict": '{"memory": {"text": "a fact"}}',
    "memory_string": '{"memory": "a fact"}',
    "memory_null": '{"memory": null}',
    "items_strings": '{"memory": ["a fact", "another"]}',
    "items_null": '{"memory": [null, null]}',
    "items_lists": '{"memory": [["text", "a fact"]]}',
    "text_number": '{"memory": [{"text": 7}]}',
    "text_object": '{"memory": [{"text": {"text": "a fact"}}]}',
    "text_null": '{"memory": [{"text": null}]}',
    "text_missing": '{"memory": [{"id": "0"}]}',
    "text_blank": '{"memory": [{"text": "  \\n "}]}',
    "text_surrogate": '{"memory": [{"text": "\\ud800"}]}',
    "text_nul": '{"memory": [{"text": "a\\u0000fact"}]}',
}


@dataclass(frozen=True)
class Request:
    """One call as it came in."""

    body: Mapping[str, Any]
    headers: Mapping[str, str]

    @property
    def messages(self) -> Sequence[Mapping[str, Any]]:
        """The messages of the call."""
        messages: Sequence[Mapping[str, Any]] = self.body["messages"]
        return messages

    @property
    def system(self) -> str:
        """The system prompt."""
        return "\n".join(m["content"] for m in self.messages if m["role"] == "system")

    @property
    def prompt(self) -> str:
        """All that is not the system prompt."""
        return "\n".join(str(m["content"]) for m in self.messages if m["role"] != "system")

    def section(self, heading: str) -> str:
        """Return one section of Mem0's extraction prompt, without its heading."""
        parts = re.split(r"^##? (.+)$", self.prompt, flags=re.MULTILINE)
        return dict(zip(parts[1::2], parts[2::2], strict=True))[heading].strip()


@dataclass(frozen=True)
class _Reply:
    """What one call gets."""

    status: int = 200
    content: Callable[[Request], str | None] = lambda _: None
    raw: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0


class ScriptedLLM:
    """The server. A context manager; every scripting method returns the server itself, so that calls can be chained."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._replies: deque[_Reply] = deque()
        self._default = _Reply(content=remember_each_message)
        self._changed = threading.Condition()
        self._gate = threading.Event()
        self._gate.set()
        self._stopping = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop serving; later calls are refused by the operating system."""
        self._stopping.set()
        self._gate.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        """The base URL, as OpenAI clients want it."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def config(self) -> dict[str, Any]:
        """The config of Mem0's provider `openai` that reaches this server."""
        return {"model": "scripted", "api_key": "sk-scripted", "openai_base_url": self.url}

    # What the next calls get, in the order in which it is written down.

    def facts(self, *facts: str | Mapping[str, Any]) -> Self:
        """Offer memories: texts, or whole items (`{"text": …, "attributed_to": …, "linked_memory_ids": […]}`)."""
        items = [{"text": fact, "attributed_to": "user"} if isinstance(fact, str) else dict(fact) for fact in facts]
        return self.answer(json.dumps({"memory": [{"id": str(i), **item} for i, item in enumerate(items)]}))

    def answer(self, content: str | None) -> Self:
        """Answer with this text as the message's content; None is what providers send for a refusal."""
        return self._script(_Reply(content=lambda _: content))

    def empty(self) -> Self:
        """Say truthfully that there is nothing to remember."""
        return self.facts()

    def broken_json(self) -> Self:
        """Answer with JSON that was cut off, as when the token limit is reached. It repeats what was said."""
        return self._script(_Reply(content=lambda request: f'{{"memory": [{{"text": "{request.prompt[-400:]}'))

    def odd_shape(self, kind: str) -> Self:
        """Answer with one of ODD_SHAPES."""
        return self.answer(ODD_SHAPES[kind])

    def slow(self, seconds: float) -> Self:
        """Answer like the default, but late."""
        return self._script(_Reply(content=remember_each_message, delay=seconds))

    def status(self, status: int, *, retry_after: float | str | None = None) -> Self:
        """Fail with this HTTP status. The body repeats the whole prompt, as some providers' do."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return self._script(_Reply(status=status, content=lambda request: request.prompt, headers=headers))

    def raw(self, body: bytes, *, content_type: str = "application/json") -> Self:
        """Answer 200 with this body in place of a chat completion."""
        return self._script(_Reply(raw=body, headers={"Content-Type": content_type}))

    def by_default(self, content: Callable[[Request], str | None]) -> Self:
        """Answer every call that is not scripted with what `content` returns."""
        self._default = _Reply(content=content)
        return self

    # Waiting.

    def hold(self) -> Self:
        """Keep all calls waiting, from now on, until `release`."""
        self._gate.clear()
        return self

    def release(self) -> Self:
        """Let the calls that wait, and all later ones, go on."""
        self._gate.set()
        return self

    def wait_for_requests(self, count: int, timeout: float = 10.0) -> Sequence[Request]:
        """Return the requests as soon as there are `count` of them; AssertionError if that takes too long."""
        with self._changed:
            arrived = self._changed.wait_for(lambda: len(self.requests) >= count, timeout)
            assert arrived, f"{len(self.requests)} of {count} requests after {timeout} s"
            return list(self.requests)

    def _script(self, reply: _Reply) -> Self:
        with self._changed:
            self._replies.append(reply)
        return self

    def _take(self, request: Request) -> _Reply:
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
            reply = self._replies.popleft() if self._replies else self._default
        self._gate.wait()
        self._stopping.wait(reply.delay)
        return reply


def remember_each_message(request: Request) -> str:
    """Return the default answer: each user message as one fact, or one sentence where a procedure is asked for."""
    if "response_format" not in request.body:
        return f"Procedure in {len(request.messages) - 2} steps."
    section = _NEW_MESSAGES.search(request.prompt)
    said = _USER_MESSAGE.findall(section.group(1)) if section else []
    texts = [message.replace("\n  ", "\n").strip() for message in said]
    return json.dumps(
        {"memory": [{"id": str(i), "text": t, "attributed_to": "user"} for i, t in enumerate(texts) if t]}
    )


def _handler_of(llm: ScriptedLLM) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """POST /v1/chat/completions."""

        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else head and body of an answer lie 40 ms apart

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path != "/v1/chat/completions":
                self._send(404, b'{"error": {"message": "no such path"}}', {})
                return
            request = Request(body, dict(self.headers))
            reply = llm._take(request)
            if reply.raw is not None:
                self._send(reply.status, reply.raw, reply.headers)
                return
            content = reply.content(request)
            document = _completion(request, content) if reply.status == 200 else {"error": {"message": content}}
            self._send(reply.status, json.dumps(document).encode(), reply.headers)

        def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
            try:
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the caller gave up, as it may

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent."""

    return Handler


def _completion(request: Request, content: str | None) -> dict[str, Any]:
    counts = {"prompt_tokens": len(request.prompt.split()), "completion_tokens": len((content or "").split())}
    return {
        "id": "chatcmpl-scripted",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": request.body.get("model", "scripted"),
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}],
        "usage": {**counts, "total_tokens": sum(counts.values())},
    }
