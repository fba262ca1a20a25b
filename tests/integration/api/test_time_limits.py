"""Nothing hangs: a body that does not arrive and an action that does not end are answered in time, and clearly."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import psycopg
import pytest

from service.main import create_app
from tests.clients.serving import serving
from tests.conftest import MakeServices, Postgres, principal_of

pytestmark = pytest.mark.integration

ADD = "/v3/memories/add/"
BODY = {"messages": [{"role": "user", "content": "Likes tea"}], "user_id": "alice", "infer": False}


def dripped(url: str, key: str) -> bytes:
    """Announce a body, send its beginning and no more; return the whole answer."""
    where = urlsplit(url)
    head = f"POST {ADD} HTTP/1.1\r\nHost: {where.netloc}\r\nAuthorization: Token {key}\r\nContent-Length: 500\r\n"
    with socket.create_connection((str(where.hostname), int(where.port or 0)), timeout=30) as connection:
        connection.sendall(f"{head}Content-Type: application/json\r\nConnection: close\r\n\r\n{{".encode())
        received = b""
        while part := connection.recv(65536):
            received += part
            if b"too_slow" in received:
                break
        return received


def test_a_body_that_does_not_arrive_is_408(make_services: MakeServices) -> None:
    services = make_services(server={"body_seconds": 0.5})
    tenant = services.installation.tenants.create("acme").id
    _, key = principal_of(services, tenant)
    with serving(create_app(services)) as url:
        answer = dripped(url, key)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"server.body_seconds" in answer
        assert b"x-request-id" in answer.lower()
        assert b"nosniff" in answer
        # A body that comes at once is served as before.
        assert httpx.post(f"{url}{ADD}", json=BODY, headers={"Authorization": f"Token {key}"}).status_code == 200


def test_a_body_that_its_client_breaks_off_is_no_error_of_the_service(
    make_services: MakeServices, caplog: pytest.LogCaptureFixture
) -> None:
    services = make_services()
    _, key = principal_of(services, services.installation.tenants.create("acme").id)
    with serving(create_app(services)) as url, caplog.at_level("INFO", logger="memvault.api"):
        where = urlsplit(url)
        head = f"POST {ADD} HTTP/1.1\r\nHost: {where.netloc}\r\nAuthorization: Token {key}\r\nContent-Length: 500\r\n"
        with socket.create_connection((str(where.hostname), int(where.port or 0)), timeout=30) as connection:
            connection.sendall(f"{head}Content-Type: application/json\r\n\r\n{{".encode())
            time.sleep(0.5)
        counted, until = "", time.monotonic() + 20
        while ADD not in counted and time.monotonic() < until:
            time.sleep(0.05)
            counted = httpx.get(f"{url}/metrics").text
    assert f'memvault_http_requests_total{{method="POST",route="{ADD}",status="4xx"}} 1.0' in counted
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def _somebody_waits(connection: psycopg.Connection) -> bool:
    """Whether an action has come as far as the table that is locked."""
    found = connection.execute(
        "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'memories'::regclass LIMIT 1"
    ).fetchone()
    return found is not None


def test_an_action_that_does_not_end_is_503_and_goes_on(make_services: MakeServices, database: Postgres) -> None:
    services = make_services(server={"answer_seconds": 0.5, "event_wait": 0})
    tenant = services.installation.tenants.create("acme").id
    _, key = principal_of(services, tenant)
    headers = {"Authorization": f"Token {key}"}
    with serving(create_app(services)) as url, httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        with psycopg.connect(database.admin) as lock:
            lock.execute("LOCK TABLE memories IN ACCESS EXCLUSIVE MODE")
            # On a busy machine the time may be over before the action began: then nothing is under way, so ask anew.
            deadline = time.monotonic() + 60
            while True:
                answer = client.post(ADD, json=BODY)
                if _somebody_waits(lock) or time.monotonic() > deadline:
                    break
            assert answer.status_code == 503
            assert answer.json()["code"] == "unavailable"
            assert "may still be written" in answer.json()["detail"]
            assert int(answer.headers["Retry-After"]) > 0
            assert answer.headers["X-Request-ID"] == answer.json()["request_id"]
            # Others are served meanwhile: at once, where the machine is not busy.
            while (other := client.get("/v1/ping/")).status_code == 503 and time.monotonic() < deadline:
                time.sleep(0.05)
            assert other.status_code == 200
        # What was under way was not cut off in the middle. On a busy machine, reading may be over its time as well.
        found: list[str] = []
        deadline = time.monotonic() + 30
        while not found and time.monotonic() < deadline:
            answer = client.post("/v3/memories/", json={})
            if answer.status_code == 200:
                found = [one["memory"] for one in answer.json()["results"]]
            time.sleep(0.05)
        assert set(found) == {"Likes tea"}


def test_an_action_that_never_had_a_thread_is_not_done_later(make_services: MakeServices, database: Postgres) -> None:
    services = make_services(server={"answer_seconds": 1.0, "event_wait": 0, "threads": 2})
    tenant = services.installation.tenants.create("acme").id
    _, key = principal_of(services, tenant)
    headers = {"Authorization": f"Token {key}"}
    with serving(create_app(services)) as url, httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        deadline = time.monotonic() + 90

        def done(path: str, body: dict[str, object]) -> httpx.Response:
            # On a busy machine the time may be over all the same; the same add is one memory.
            while (answer := client.post(path, json=body)).status_code == 503 and time.monotonic() < deadline:
                time.sleep(0.05)
            assert answer.status_code == 200
            return answer

        done(ADD, BODY)
        with psycopg.connect(database.admin) as lock, ThreadPoolExecutor(8) as callers:
            lock.execute("LOCK TABLE memories IN ACCESS EXCLUSIVE MODE")
            bodies = [{**BODY, "messages": [{"role": "user", "content": f"Note {n}"}]} for n in range(8)]
            answers = list(callers.map(lambda body: client.post(ADD, json=body), bodies))
            assert {answer.status_code for answer in answers} == {503}
        # What comes now waits for no more than the two that had a thread.
        done(ADD, {**BODY, "messages": [{"role": "user", "content": "Last"}]})
        assert 2 <= done("/v3/memories/", {}).json()["count"] <= 4


def test_probes_and_metrics_are_answered_while_requests_keep_every_thread(
    make_services: MakeServices, database: Postgres
) -> None:
    services = make_services(server={"threads": 2})
    _, key = principal_of(services, services.installation.tenants.create("acme").id)
    headers = {"Authorization": f"Token {key}"}
    with serving(create_app(services)) as url, httpx.Client(base_url=url, headers=headers, timeout=30) as client:
        while client.get("/readyz").status_code != 200:
            time.sleep(0.05)
        with ThreadPoolExecutor(4) as pool, psycopg.connect(database.admin) as lock:
            lock.execute("LOCK TABLE memories IN ACCESS EXCLUSIVE MODE")
            adds = [pool.submit(client.post, ADD, json=BODY | {"user_id": f"user {number}"}) for number in range(4)]
            while not _somebody_waits(lock):
                time.sleep(0.05)
            # More than the readiness is remembered for.
            for _ in range(3):
                assert client.get("/readyz").status_code == 200
                assert client.get("/metrics").status_code == 200
                time.sleep(0.4)
            assert not any(one.done() for one in adds)
            lock.rollback()
            assert {one.result().status_code for one in adds} == {200}


@pytest.mark.parametrize("dry_run", [False, True], ids=["real", "dry"])
def test_imports_keep_no_thread_that_others_need(
    dry_run: bool, make_services: MakeServices, database: Postgres
) -> None:
    """One of many lines takes long, and whoever may import could have kept all threads of a service with a few."""
    services = make_services(server={"threads": 2})
    _, key = principal_of(services, services.installation.tenants.create("acme").id)
    headers = {"Authorization": f"Token {key}"}
    moment = "2024-01-01T00:00:00+00:00"
    line = {"type": "memory", "text": "Likes tea", "user_id": "alice", "created_at": moment, "updated_at": moment}
    with serving(create_app(services)) as url, httpx.Client(base_url=url, headers=headers, timeout=60) as client:

        def imported(number: int) -> httpx.Response:
            content = json.dumps(line | {"id": str(UUID(int=number))})
            return client.post("/v1/imports/", params={"dry_run": dry_run}, content=content)

        with ThreadPoolExecutor(3) as pool, psycopg.connect(database.admin) as lock:
            lock.execute("LOCK TABLE memories IN ACCESS EXCLUSIVE MODE")
            imports = [pool.submit(imported, number) for number in range(1, 4)]
            while not _somebody_waits(lock):
                time.sleep(0.05)
            for _ in range(3):
                assert client.get("/v1/events/").status_code == 200
                time.sleep(0.2)
            assert not any(one.done() for one in imports)
            lock.rollback()
            assert [one.result().json()["imported"] for one in imports] == [1, 1, 1]


def test_dry_runs_of_retention_keep_no_thread_that_others_need(make_services: MakeServices, database: Postgres) -> None:
    """One looks at all that a tenant has, and takes as long: a few could have kept all threads of a service."""
    services = make_services(server={"threads": 2})
    _, key = principal_of(services, services.installation.tenants.create("acme").id)
    headers = {"Authorization": f"Token {key}"}
    with serving(create_app(services)) as url, httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        assert client.post(ADD, json=BODY).status_code == 200

        def run(dry: bool) -> httpx.Response:
            return client.post("/v1/retention/runs/", json={"dry_run": dry})

        with ThreadPoolExecutor(5) as pool, psycopg.connect(database.admin) as lock:
            lock.execute("LOCK TABLE memories IN ACCESS EXCLUSIVE MODE")
            runs = [pool.submit(run, True) for _ in range(5)]
            while not _somebody_waits(lock):
                time.sleep(0.05)
            for _ in range(3):
                assert client.get("/v1/ping/").status_code == 200
                time.sleep(0.2)
            # A real one is begun here and carried out elsewhere.
            assert run(False).status_code == 201
            assert not any(one.done() for one in runs)
            lock.rollback()
            assert [one.result().json()["seen"] for one in runs] == [1] * 5
