"""Traces reach a collector as whole trees without content, logs carry ids, and nothing is sent unasked."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service import wiring
from service.errors import ConfigurationError
from service.main import create_app
from service.observability import tracing
from service.observability.logs import configure_logs
from service.observability.metrics import SPANS
from service.settings import load_settings
from tests.conftest import Postgres, fresh_database, open_on, principal_of
from tests.integration.seen.collector import Collector, Span
from tests.llm.scripted import ScriptedLLM

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).parents[3]
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
#: Content, names and secrets that are in the calls and must be in no span and no log.
SECRETS = ("walrus", "Ludmilla", "marmalade", "Bearer", "password", "sk-", "otlp-key")
#: Everything that a span may say.
ATTRIBUTES = {
    "db.operation.name",
    "db.system.name",
    "error.type",
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "http.request.method",
    "http.response.status_code",
    "http.route",
    "mcp.tool.name",
    "memvault.count",
    "memvault.outcome",
    "memvault.request_id",
    "memvault.task",
    "memvault.tenant",
    "memvault.tenant_id",
}


@dataclass(frozen=True)
class Seen:
    """What came of a search, an add with extraction and a call of a tool."""

    spans: list[Span]
    headers: list[dict[str, str]]
    resources: list[dict[str, Any]]
    lines: list[dict[str, Any]]
    log: str
    tenant: str
    closed: list[str]

    def one(self, name: str, **more: Any) -> Span:
        """The first span of a name and with these attributes."""
        return next(
            one for one in self.spans if one.name == name and all(one.attributes.get(k) == v for k, v in more.items())
        )

    def below(self, span: Span) -> set[str]:
        """The names of all spans under one."""
        children = [one for one in self.spans if one.parent == span.id]
        return {one.name for one in children}.union(*(self.below(one) for one in children))


@pytest.fixture(scope="module")
def seen(postgres: Postgres, migrated: Postgres, model_folder: Path) -> Iterator[Seen]:
    root, ours = logging.getLogger(), logging.getLogger("memvault")
    before = root.handlers[:], root.level, ours.level
    environ = {
        "OTEL_EXPORTER_OTLP_HEADERS": "x-leak=otlp-env",
        "OTEL_TRACES_SAMPLER": "always_off",
        "OTEL_RESOURCE_ATTRIBUTES": "leak=otlp-env",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
    }
    with pytest.MonkeyPatch.context() as patch, Collector() as collector, ScriptedLLM() as llm, ExitStack() as stack:
        for name, value in environ.items():
            patch.setenv(name, value)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "model").symlink_to(model_folder)
        telemetry = {"otlp_endpoint": collector.url, "headers": "x-key=otlp-key", "service_name": "memory"}
        flags = {
            "llm": {"provider": "openai", "config": llm.config, "retry_wait": 0.05},
            "queue": {"poll_interval": 0.1},
            "telemetry": telemetry,
        }
        stream = io.StringIO()
        configure_logs(level="info", format="json")
        handler = root.handlers[0]
        assert isinstance(handler, logging.StreamHandler)
        handler.setStream(stream)
        root.handlers[:] = [*before[0], handler]
        database = stack.enter_context(fresh_database(postgres))
        with ExitStack() as served:
            served.callback(setattr, ours, "level", before[2])
            wiring.open_tracing(load_settings(environ={}, flags={"data_dir": folder, **flags}), served)
            services = open_on(database, folder, served, worker=True, **flags)
            tenant = services.installation.tenants.create("acme").id
            _, secret = principal_of(services, tenant)
            with TestClient(create_app(services), raise_server_exceptions=False) as client:
                client.headers["Authorization"] = f"Token {secret}"
                _drive(client, secret)
        root.handlers[:] = before[0]
        log = stream.getvalue()
        yield Seen(
            spans=list(collector.spans),
            headers=list(collector.headers),
            resources=list(collector.resources),
            lines=[json.loads(line) for line in log.splitlines()],
            log=log,
            tenant=str(tenant),
            closed=[] if tracing.active() is None else ["still active"],
        )
    root.setLevel(before[1])


def _drive(client: TestClient, secret: str) -> None:
    body = {"messages": [{"role": "user", "content": "I keep a walrus"}], "user_id": "Ludmilla"}
    added = client.post("/v3/memories/add/", json=body, headers={"X-Request-ID": "the-add"})
    assert added.status_code == 200, added.text
    event, deadline = added.json()["event_id"], time.monotonic() + 60
    while client.get(f"/v1/event/{event}/").json()["status"] not in ("SUCCEEDED", "FAILED"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert client.get(f"/v1/event/{event}/").json()["status"] == "SUCCEEDED"
    found = client.post(
        "/v3/memories/search/",
        json={"query": "marmalade", "filters": {"user_id": "Ludmilla"}, "threshold": 0.0},
        headers={"X-Request-ID": "the-search", "traceparent": f"00-{TRACE}-{PARENT}-01"},
    )
    assert len(found.json()["results"]) == 1, found.text
    assert client.get("/v1/memories/Ludmilla/").status_code == 404
    arguments = {"query": "marmalade", "filters": {"user_id": "Ludmilla"}}
    told = client.post(
        "/mcp",
        json={
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": "search_memories", "arguments": arguments},
        },
        headers={
            "Authorization": f"Bearer {secret}",
            "Accept": "application/json, text/event-stream",
            "Host": "127.0.0.1",
            "MCP-Protocol-Version": "2025-11-25",
            "X-Request-ID": "the-tool",
        },
    )
    assert told.status_code == 200, told.text
    client.get("/healthz")


def test_a_search_is_one_tree_in_the_trace_of_its_caller(seen: Seen) -> None:
    root = seen.one("POST /v3/memories/search/")
    assert (root.trace, root.parent) == (TRACE, PARENT)
    assert root.attributes["memvault.request_id"] == "the-search"
    assert root.attributes["memvault.tenant_id"] == seen.tenant
    assert (root.attributes["http.response.status_code"], root.attributes["http.request.method"]) == (200, "POST")
    action = seen.one("memories.search", **{"memvault.request_id": "the-search"})
    assert (action.parent, action.attributes["memvault.count"]) == (root.id, 1)
    assert {"embeddings.embed_query", "index.search", "postgres SELECT", "postgres INSERT"} <= seen.below(action)


def test_an_add_is_one_tree_from_the_request_through_the_queue_to_the_llm(seen: Seen) -> None:
    root = seen.one("POST /v3/memories/add/")
    job = seen.one("job extract", **{"memvault.request_id": "the-add"})
    assert job.trace == root.trace
    assert root.parent == ""
    assert {"adds.add", "postgres INSERT", "job extract"} <= seen.below(root)
    assert job.attributes["memvault.tenant"] == seen.tenant
    assert {
        "engine.extract",
        "llm chat",
        "index.upsert",
        "postgres INSERT",
        "embeddings.embed_documents",
    } <= seen.below(job)
    call = seen.one("llm chat")
    assert "engine.extract" in {one.name for one in seen.spans if one.id == call.parent}
    assert call.attributes["gen_ai.usage.input_tokens"] > 0


def test_a_tool_is_below_its_request(seen: Seen) -> None:
    request = seen.one("POST /mcp")
    tool = seen.one("tool search_memories")
    assert tool.parent == request.id
    assert (tool.attributes["mcp.tool.name"], tool.attributes["memvault.outcome"]) == ("search_memories", "ok")
    assert "memories.search" in seen.below(tool)


def test_spans_say_ids_counts_and_kinds_and_nothing_else(seen: Seen) -> None:
    assert {name for span in seen.spans for name in span.attributes} <= ATTRIBUTES
    for span in seen.spans:
        assert not [one for one in SECRETS if one.lower() in span.text.lower()], span.name
        assert "Ludmilla" not in span.name
    assert not [span for span in seen.spans if span.name.startswith(("GET /healthz", "index.count"))]
    assert seen.closed == []


def test_the_environment_says_nothing_to_the_collector(seen: Seen) -> None:
    assert all(headers["x-key"] == "otlp-key" for headers in seen.headers)
    assert not [headers for headers in seen.headers if "x-leak" in headers]
    assert {resource["service.name"] for resource in seen.resources} == {"memory"}
    assert not [resource for resource in seen.resources if "leak" in resource]


def test_every_line_of_the_log_is_json_with_request_and_tenant_and_no_content(seen: Seen) -> None:
    requests = [line for line in seen.lines if line["event"] == "request"]
    assert {line["request_id"] for line in requests} >= {"the-add", "the-search", "the-tool"}
    asked = [line for line in requests if line["route"] not in ("/healthz", "unmatched")]
    assert asked
    assert {line["tenant"] for line in asked} == {seen.tenant}
    assert all(line["request_id"] and line["timestamp"] and line["level"] for line in requests)
    (extraction,) = (line for line in seen.lines if line["event"] == "job" and line["task"] == "extract")
    assert (extraction["tenant"], extraction["request_id"]) == (seen.tenant, "the-add")
    assert (extraction["status"], extraction["level"]) == ("done", "info")
    for one in SECRETS:
        assert one not in seen.log


def test_a_line_from_the_midst_of_a_request_has_its_ids(capsys: pytest.CaptureFixture[str]) -> None:
    from service.observability import logs

    root, ours = logging.getLogger(), logging.getLogger("memvault")
    before = root.handlers[:], root.level, ours.level
    try:
        configure_logs(level="info", format="json")
        with logs.about({"request_id": "r1", "tenant": None, "user_id": "no-such-field"}):
            logs.tell(tenant="t1")
            logging.getLogger("memvault.index").warning("behind", extra={"memories": 2})
            logging.getLogger("memvault.index").warning("other", extra={"tenant": "t2"})
        logging.getLogger("memvault.index").warning("outside")
    finally:
        root.handlers[:], root.level, ours.level = before[0], before[1], before[2]
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line.get("request_id"), line.get("tenant")) for line in lines] == [
        ("r1", "t1"),
        ("r1", "t2"),
        (None, None),
    ]
    assert "no-such-field" not in str(lines)


def test_while_traces_are_off_nothing_is_made_loaded_or_sent() -> None:
    """In a process of its own, whose environment asks OpenTelemetry for everything."""
    script = (
        "import sys\n"
        "from service.main import create_app\n"
        "from service.observability import tracing\n"
        "from service.settings import load_settings\n"
        "from service import wiring\n"
        "from contextlib import ExitStack\n"
        "from fastapi.testclient import TestClient\n"
        "settings = load_settings(environ={})\n"
        "def never(): raise SystemExit(3)\n"
        "with ExitStack() as stack:\n"
        "    wiring.open_tracing(settings, stack)\n"
        "    with TestClient(create_app(never, settings=settings)) as client:\n"
        "        client.get('/healthz'); client.get('/v1/ping/', headers={'traceparent': sys.argv[1]})\n"
        "    thing = object()\n"
        "    from service.wiring.tracing import traced, traced_index\n"
        "    assert traced(thing, 'thing') is thing and traced_index(thing) is thing\n"
        "    assert tracing.span('a') is tracing.span('b')\n"
        "assert tracing.active() is None\n"
        "loaded = [name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))]\n"
        "print(loaded)\n"
    )
    with Collector() as collector:
        environ = {
            **os.environ,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.url}/v1/traces",
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_LOGS_EXPORTER": "otlp",
            "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": "true",
            "OTEL_SDK_DISABLED": "false",
        }
        ended = subprocess.run(
            [sys.executable, "-c", script, f"00-{TRACE}-{PARENT}-01"],
            cwd=REPOSITORY,
            env=environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (ended.returncode, ended.stdout.strip()) == (0, "[]"), ended.stderr
        assert collector.headers == []


@pytest.mark.parametrize("kind", ["refuses", "is not there"])
def test_a_collector_that_takes_nothing_harms_nothing(kind: str, tmp_path: Path) -> None:
    with Collector(status=500) as collector:
        url = collector.url
        if kind == "is not there":
            collector.__exit__()
        before = SPANS.labels("dropped")._value.get()
        with ExitStack() as stack:
            flags = {"data_dir": tmp_path, "telemetry": {"otlp_endpoint": url}}
            wiring.open_tracing(load_settings(environ={}, flags=flags), stack)
            with tracing.continued("a", "server", None, {}):
                assert tracing.span("b", "internal") is not None
        assert tracing.active() is None
        assert SPANS.labels("dropped")._value.get() == before + 1


def test_a_ratio_of_zero_keeps_no_trace_whatever_a_client_asks_for(tmp_path: Path) -> None:
    with Collector() as collector, ExitStack() as stack:
        flags = {"data_dir": tmp_path, "telemetry": {"otlp_endpoint": collector.url, "sample_ratio": 0}}
        wiring.open_tracing(load_settings(environ={}, flags=flags), stack)
        with tracing.continued("a", "server", f"00-{TRACE}-{PARENT}-01", {}), tracing.span("b"):
            pass
        stack.close()
        assert collector.headers == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"otlp_endpoint": "http://collector.example.com:4318"},
        {"otlp_endpoint": "https://user:secret@collector.example.com"},
        {"otlp_endpoint": "collector:4318"},
        {"otlp_endpoint": "http://127.0.0.1:4318", "headers": "no-value"},
        {"otlp_endpoint": "http://127.0.0.1:4318", "headers": "a=b\nc=d"},
        {"sample_ratio": 1.5},
    ],
)
def test_settings_that_would_send_in_the_open_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="telemetry"):
        load_settings(environ={}, flags={"telemetry": wrong})


def test_certificates_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    flags = {"telemetry": {"otlp_endpoint": "https://127.0.0.1:4318", "ca_file": str(tmp_path / "none.pem")}}
    with ExitStack() as stack, pytest.raises(ConfigurationError, match=r"telemetry\.ca_file"):
        wiring.open_tracing(load_settings(environ={}, flags=flags), stack)
