"""Nobody passes without a credential, and the few public routes tell nothing that is not for everybody."""

import re
import threading
import time
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import APIRoute, iter_route_contexts
from fastapi.testclient import TestClient

from service.api import deps
from service.api.deps import GuardedRoute
from service.main import create_app
from service.mcp.door import Door
from service.mcp.tools import TOOLS
from service.scope import Action, Caller, TenantId
from service.settings import load_settings
from service.wiring import Services
from tests.conftest import MakeServices, principal_of
from tests.integration.api.conftest import MakeClient, assert_error
from tests.isolation.attack import lines, surface
from tests.isolation.attack.scene import MAKERS
from tests.qdrant.hanging import hanging

pytestmark = pytest.mark.integration

PUBLIC = {"/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"}


def routes_of(app: FastAPI) -> list[tuple[str, str, object]]:
    """Method, path and route of everything that the app answers."""
    found = []
    for context in iter_route_contexts(app.routes):
        path = context.path or ""
        for method in context.methods or {"POST"}:
            found.append((method, path, context.original_route))
    return found


def readiness(client: TestClient, wanted: int) -> httpx.Response:
    """The readiness once it has the wanted status; it may be half a second old."""
    deadline = time.monotonic() + 5
    while (answer := client.get("/readyz")).status_code != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    assert answer.status_code == wanted
    return answer


def index_told(client: TestClient, state: str, *, seconds: float) -> Any:
    """What readiness tells once it tells this of the index."""
    deadline = time.monotonic() + seconds
    while (told := client.get("/readyz").json())["parts"]["index"]["status"] != state:
        assert time.monotonic() < deadline, told
        time.sleep(0.05)
    return told


def filled(path: str) -> str:
    """A path with something in the place of each parameter."""
    return re.sub(r"\{[^}]*\}", "x", path)


def test_every_route_stands_behind_the_doorway(app: FastAPI) -> None:
    routes = routes_of(app)
    assert len(routes) > 20, "the walk found too few routes to prove anything"
    for method, path, route in routes:
        if path in PUBLIC:
            assert method == "GET"
            continue
        guarded = isinstance(route, GuardedRoute) or isinstance(getattr(route, "app", None), Door)
        assert guarded, f"{method} {path} answers without a principal"
        if isinstance(route, APIRoute):
            names = {dependency.call.__name__ for dependency in route.dependant.dependencies if dependency.call}
            assert "_caller" in names, f"{method} {path} checks the key and does not use its principal"


def test_every_route_and_every_tool_is_attacked() -> None:
    """The lines by which tests/isolation/test_attack.py finds its way in; `attack/lines.py` says how to add one."""
    assert set(surface.guarded_routes()) == set(lines.ROUTES), (
        "a route without a line in tests/isolation/attack/lines.py"
    )
    assert set(TOOLS) == set(lines.TOOLS), "a tool has no line in tests/isolation/attack/lines.py"
    taken = {one.action.value for one in surface.operations().values() if one.action is not None}
    assert taken | set(lines.OF_THE_CLI) == {one.value for one in Action}, "an action that nobody takes"
    assert surface.unnamed_ids() == [], "say what these hold, in HOLDS of tests/isolation/attack/lines.py"
    held = {place.kind for one in surface.operations().values() for place in one.places}
    assert held - set(MAKERS) <= {"text", "scalar", "object", "number", "filters"}, "a kind without a maker in scene.py"


def test_a_route_that_names_no_action_is_not_built() -> None:
    router = APIRouter(route_class=GuardedRoute)
    with pytest.raises(TypeError, match="say which action"):
        router.get("/v1/unguarded/")(lambda: None)


def test_every_route_refuses_who_has_no_key(app: FastAPI, make_client: MakeClient) -> None:
    client = make_client(key=None)
    refused = 0
    for method, path, route in routes_of(app):
        if path in PUBLIC:
            continue
        for key in (None, "mv_wrong", "x" * 5000, "ünïcode"):
            headers = {} if key is None else {"Authorization": f"Token {key}".encode("latin-1")}
            if not isinstance(route, GuardedRoute):
                # The MCP face, whose errors have a shape of their own.
                answer = client.request(method, filled(path), headers=headers | {"Host": "127.0.0.1"}, content=b"{")
                assert answer.status_code == 401
            else:
                # A body that is no JSON at all: the credential is looked at before the body is.
                answer = client.request(method, filled(path), headers=headers, content=b"{")
                assert_error(answer, 401, "unauthenticated")
            assert "WWW-Authenticate" in answer.headers
            assert "mv_wrong" not in answer.text
            refused += 1
    assert refused > 80


def test_a_key_is_taken_in_each_spelling(make_client: MakeClient, services: Services, tenant: TenantId) -> None:
    _, secret = principal_of(services, tenant)
    client = make_client(key=None)
    for header in ("Token {}", "token {}", "Bearer {}", "bEaReR   {}"):
        assert client.get("/v1/ping/", headers={"Authorization": header.format(secret)}).status_code == 200
    assert client.get("/v1/ping/", headers={"X-API-Key": secret}).status_code == 200
    assert_error(client.get("/v1/ping/", headers={"Authorization": f"Basic {secret}"}), 401)
    assert_error(client.get("/v1/ping/", headers={"Authorization": secret}), 401)
    assert_error(client.get(f"/v1/ping/?api_key={secret}"), 401)


def test_who_is_known_is_let_in_without_a_thread_and_nobody_else_is(
    make_client: MakeClient, services: Services, tenant: TenantId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The short way lets in whom the long way has let in a moment ago, and leaves every refusal to it."""
    asked: list[str] = []
    whole = deps._admitted

    def watched(services_: Services, request: Request, action: Action | None) -> Caller:
        asked.append(request.url.path)
        return whole(services_, request, action)

    monkeypatch.setattr(deps, "_admitted", watched)
    principal, secret = principal_of(services, tenant)
    client = make_client(key=secret)
    for _ in range(3):
        assert client.get("/v1/ping/").status_code == 200
    assert asked == ["/v1/ping/"]
    # What has to be looked up or refused takes the long way, however well the key is known.
    assert_error(client.get(f"/v1/ping/?access_token={secret}"), 400)
    assert client.get("/v1/ping/", headers={"X-Acting-User": "alice"}).status_code in (200, 403)
    assert len(asked) == 3
    services.installation.keys.revoke_for_installation(principal.tenant_id, principal.id)
    deadline = time.monotonic() + services.settings.auth.cache_seconds + 10
    while client.get("/v1/ping/").status_code == 200 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert_error(client.get("/v1/ping/"), 401, "unauthenticated")
    reader = make_client(role="reader")
    reader.get("/v1/ping/")
    before = len(asked)
    assert_error(reader.delete("/v1/memories/?user_id=alice"), 403, "forbidden")
    assert len(asked) == before + 1


def test_a_reader_reads_and_does_nothing_else(make_client: MakeClient) -> None:
    reader = make_client(role="reader")
    assert reader.post("/v3/memories/", json={}).status_code == 200
    body = {"messages": [{"role": "user", "content": "tea"}], "user_id": "alice", "infer": False}
    assert_error(reader.post("/v3/memories/add/", json=body), 403, "forbidden")
    assert_error(reader.delete("/v1/memories/?user_id=alice"), 403, "forbidden")
    assert_error(reader.delete("/v2/entities/user/alice/"), 403, "forbidden")
    assert_error(reader.post("/v1/keys/", json={"role": "admin"}), 403, "forbidden")


def test_the_request_id_is_taken_when_it_is_sane_and_made_when_it_is_not(client: TestClient) -> None:
    assert client.get("/v1/ping/", headers={"X-Request-ID": "job-7_a.b"}).headers["X-Request-ID"] == "job-7_a.b"
    for bad in ("a b", "x" * 65, "a\tb", "<script>", ""):
        given = client.get("/v1/ping/", headers={"X-Request-ID": bad}).headers["X-Request-ID"]
        assert given != bad
        assert re.fullmatch(r"[0-9a-f-]{36}", given)
    body = assert_error(client.get("/v1/memories/x/", headers={"X-Request-ID": "mine"}), 404)
    assert body["request_id"] == "mine"


def test_every_answer_carries_the_security_headers(client: TestClient) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/v1/ping/", "/nope", "/v1/memories/x/"):
        headers = client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "server" not in headers
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_unknown_paths_and_methods_answer_in_the_error_shape(client: TestClient) -> None:
    assert_error(client.get("/nope"), 404, "not_found")
    # Slashes are exact: the official clients take a redirect for an error.
    assert_error(client.get("/v1/ping", follow_redirects=False), 404, "not_found")
    assert_error(client.post("/healthz/", json={}), 404, "not_found")
    # Clients of Mem0's cloud sign people up there, without a key.
    for path in ("/api/v1/auth/email_code/", "/api/v1/auth/email_code/verify/", "/api/v1/auth/agent_mode/"):
        body = assert_error(client.post(path, json={"email": "a@example.com"}, headers={"Authorization": ""}), 501)
        assert body["code"] == "not_offered"
        assert "memvault key create" in body["detail"]
    answer = client.patch("/v1/memories/x/")
    assert_error(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "DELETE, GET, PUT"
    assert client.request("OPTIONS", "/v1/memories/search/").headers["Allow"] == "POST"
    assert_error(client.request("FROBNICATE", "/v1/ping/"), 405)


def test_the_docs_page_loads_nothing(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    assert "/v3/memories/search/" in page.text
    assert "<script" not in page.text
    assert not re.findall(r"https?://", page.text)
    for attribute in re.findall(r'(?:src|href)="([^"]*)"', page.text):
        assert attribute == "openapi.json"


def test_the_openapi_document_declares_keys_errors_and_words_for_every_route(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    error = {"$ref": "#/components/schemas/ErrorOut"}
    seen = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            seen += 1
            assert operation["summary"], f"{method} {path}"
            assert operation["description"], f"{method} {path}"
            if path in PUBLIC:
                assert "security" not in operation
                continue
            assert operation["security"]
            assert {"400", "401", "403", "408", "413", "500", "503"} <= set(operation["responses"])
            assert "422" not in operation["responses"]
            for status, answer in operation["responses"].items():
                schema = answer["content"]["application/json"]["schema"]
                assert (schema == error) == (int(status) >= 400), f"{method} {path} {status}"
    assert seen > 20
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_metrics_name_routes_and_no_ids(client: TestClient) -> None:
    client.delete("/v2/entities/user/carol-canary/")
    client.get("/v1/memories/id-canary/?user_id=query-canary")
    client.get("/canary-path")
    text = client.get("/metrics").text
    assert 'memvault_http_requests_total{method="GET",route="/v1/memories/{memory_id}/",status="4xx"} 1.0' in text
    assert 'route="unmatched"' in text
    assert "memvault_http_request_seconds_bucket" in text
    assert "canary" not in text


def test_the_log_names_routes_and_no_content(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="memvault"):
        body = {"messages": [{"role": "user", "content": "text-canary"}], "user_id": "user-canary", "infer": False}
        assert client.post("/v3/memories/add/", json=body).status_code == 200
        client.delete("/v2/entities/user/user-canary/")
        client.get("/v1/ping/?q=query-canary")
        call = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        accept = "application/json, text/event-stream"
        client.post("/mcp", json=call, headers={"accept": accept, "host": "localhost"})
    lines = [record for record in caplog.records if record.name == "memvault.api"]
    assert [line.__dict__["route"] for line in lines] == [
        "/v3/memories/add/",
        "/v2/entities/{entity_type}/{name:path}/",
        "/v1/ping/",
        "/mcp",
    ]
    assert [repr(line.__dict__["status"]) for line in lines] == ["200"] * 4
    assert all(line.__dict__["tenant"] for line in lines)
    assert "canary" not in "".join(str(record.__dict__) for record in caplog.records)


def test_an_unknown_exception_answers_500_and_tells_nothing(
    client: TestClient, app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    @app.get("/boom")
    def boom() -> None:
        raise RuntimeError("secret-canary")

    answer = client.get("/boom")
    assert_error(answer, 500, "internal_error")
    assert "canary" not in answer.text
    assert "canary" not in "".join(str(record.__dict__) for record in caplog.records)
    assert any(record.__dict__.get("error") == "RuntimeError" for record in caplog.records)


def test_while_starting_the_process_lives_and_nothing_else_works(services: Services) -> None:
    go_on, opened = threading.Event(), threading.Event()

    def slow() -> Services:
        go_on.wait(30)
        opened.set()
        return services

    app = create_app(slow, settings=services.settings)
    with TestClient(app) as client:
        assert client.get("/healthz").status_code == 200
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert {part["status"] for part in answer.json()["parts"].values()} == {"starting"}
        refused = client.get("/v1/ping/")
        assert_error(refused, 503, "starting")
        assert int(refused.headers["Retry-After"]) > 0
        assert client.get("/openapi.json").status_code == 200
        go_on.set()
        assert opened.wait(30)
        answer = readiness(client, 200)
        assert answer.json()["parts"]["record"] == {"status": "ok", "reason": None}
        assert answer.json()["status"] == "ok"
        assert_error(client.get("/v1/ping/"), 401)


def test_services_that_cannot_be_opened_are_told_and_stop_nothing_else() -> None:
    failed = threading.Event()

    def broken() -> Services:
        raise RuntimeError("secret-canary")

    app = create_app(broken, settings=load_settings(environ={}), on_failure=lambda error: failed.set())
    with TestClient(app) as client:
        assert failed.wait(10)
        assert client.get("/healthz").status_code == 200
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["status"] == "failed"
        assert "canary" not in answer.text
        assert_error(client.get("/v1/ping/"), 503, "unavailable")


def test_an_index_that_is_away_is_told_and_takes_nothing_out_of_rotation(
    services: Services, client: TestClient
) -> None:
    assert readiness(client, 200).json()["parts"]["index"] == {"status": "ok", "reason": None}
    services.index.close()
    body = index_told(client, "failed", seconds=5)
    assert body["status"] == "ok"
    assert body["parts"]["index"]["reason"]
    assert body["parts"]["record"]["status"] == "ok"


def test_an_index_that_hangs_keeps_no_probe_waiting(make_services: MakeServices) -> None:
    with hanging() as (index, hang):
        services = make_services(index=index)
        with TestClient(create_app(services)) as client:
            index_told(client, "ok", seconds=30)
            hang.set()
            assert index_told(client, "failed", seconds=10)["status"] == "ok"
            for _ in range(5):
                began = time.monotonic()
                answer = client.get("/readyz")
                assert time.monotonic() - began < 2, "a probe that gives up after three seconds would fail"
                assert (answer.status_code, answer.json()["parts"]["index"]["status"]) == (200, "failed")
                time.sleep(0.6)
            hang.clear()
            index_told(client, "ok", seconds=30)


def test_a_service_that_starts_without_its_index_becomes_ready(make_services: MakeServices) -> None:
    with hanging() as (index, hang):
        hang.set()
        services = make_services(index=index | {"timeout": 1.0})
        with TestClient(create_app(services)) as client:
            # First it is tried whether the index is whole: who is let in after that need not wait for it.
            index_told(client, "failed", seconds=30)
            readiness(client, 200)
            hang.clear()
            index_told(client, "ok", seconds=30)
