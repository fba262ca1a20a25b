"""When the trail cannot be written nothing happens and nothing is answered but 503; repaired, everything goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from fastapi.testclient import TestClient

from service.records import EventStatus
from tests.conftest import MakeServices, Postgres, caller_of
from tests.integration.audit_reading.conftest import MakeClient, add, search
from tests.integration.memories.test_extraction import ask, ended, texts
from tests.llm.scripted import ScriptedLLM

pytestmark = pytest.mark.integration

Break = Callable[[], AbstractContextManager[None]]
#: What must stay as it is while the trail cannot be written. The outbox only shrinks, and the queue has its own life.
_KEPT = (
    *("tenants", "key_index", "tasks", "subjects", "memories", "history"),
    *("events", "messages", "idempotency", "audit"),
)


def contents(database: Postgres) -> dict[str, Any]:
    """All rows of the tables that hold the record, and of the keys without when they were last used."""
    with psycopg.connect(database.admin) as connection:
        found: dict[str, Any] = {
            table: sorted(connection.execute(f"SELECT md5(t::text) FROM {table} t").fetchall())  # type: ignore[arg-type]
            for table in _KEPT
        }
        found["keys"] = sorted(connection.execute("SELECT id, revoked_at FROM api_keys").fetchall())
    return found


@contextmanager
def without_the_right(database: Postgres) -> Iterator[None]:
    """Take the right to add to the trail away."""
    with psycopg.connect(database.admin, autocommit=True) as admin:
        admin.execute("REVOKE INSERT ON audit FROM memvault_app")
        try:
            yield
        finally:
            admin.execute("GRANT INSERT ON audit TO memvault_app")


@contextmanager
def with_a_full_disk(database: Postgres) -> Iterator[None]:
    """Put the trail on a file system of its own and fill that up; where none can be mounted, say what Postgres says."""
    with psycopg.connect(database.admin, autocommit=True) as admin:
        folder = Path(tempfile.mkdtemp(prefix="memvault-full-"))
        mounted = os.getuid() == 0 and _mount(folder)
        if not mounted:
            folder.rmdir()
            with _refusing_trigger(admin):
                yield
            return
        name = f"full_{uuid4().hex}"
        inside = folder / "trail"
        inside.mkdir()
        data = Path(str(admin.execute("SHOW data_directory").fetchone()[0]))  # type: ignore[index]
        os.chown(inside, data.stat().st_uid, data.stat().st_gid)
        folder.chmod(0o711)
        admin.execute(f"CREATE TABLESPACE {name} LOCATION '{inside}'")  # type: ignore[arg-type]
        try:
            admin.execute(f"ALTER TABLE audit SET TABLESPACE {name}")  # type: ignore[arg-type]
            _fill(folder / "filler")
            _fill_pages(admin)
            yield
        finally:
            (folder / "filler").unlink(missing_ok=True)
            admin.execute("ALTER TABLE audit SET TABLESPACE pg_default")
            admin.execute(f"DROP TABLESPACE {name}")  # type: ignore[arg-type]
            subprocess.run(["umount", folder], check=True)
            shutil.rmtree(folder)


@contextmanager
def _refusing_trigger(admin: psycopg.Connection[Any]) -> Iterator[None]:
    admin.execute(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = '53100'; END $$"
    )
    admin.execute("CREATE TRIGGER full_disk BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION full_disk()")
    try:
        yield
    finally:
        admin.execute("DROP TRIGGER full_disk ON audit")
        admin.execute("DROP FUNCTION full_disk()")


def _mount(folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    return shutil.which("mount") is not None and subprocess.run(command, capture_output=True).returncode == 0


def _fill(file: Path) -> None:
    with file.open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(b"\0" * 4096)
        except OSError:
            return


def _fill_pages(admin: psycopg.Connection[Any]) -> None:
    """Take what room is left in the pages that the table has already, by the smallest rows that there can be."""
    smallest = (
        "INSERT INTO audit (tenant_id, id, at, event, outcome, subject_ids, client, face, request_id, target_ids,"
        " result_ids, detail) VALUES ('00000000-0000-0000-0000-000000000000', gen_random_uuid(), now(), '', '', '{}',"
        " '', '', '', '{}', '{}', '{}')"
    )
    with pytest.raises(psycopg.errors.DiskFull):  # noqa: PT012 - which one of them fails is not known
        for _ in range(10_000):
            admin.execute(smallest)


@pytest.fixture(params=["rights", "disk"])
def broken(request: pytest.FixtureRequest, database: Postgres) -> Break:
    """The two ways in which the trail is made unwritable."""
    ways = {"rights": without_the_right, "disk": with_a_full_disk}
    return lambda: ways[request.param](database)


def calls(memory_id: str, event_id: str) -> list[tuple[str, str, Any]]:
    """One call of each kind: writes, reads, and what is refused anyway."""
    message = [{"role": "user", "content": "I love snow"}]
    return [
        ("POST", "/v3/memories/add/", {"messages": message, "user_id": "alice", "infer": False}),
        ("POST", "/v3/memories/add/", {"messages": message, "user_id": "somebody new", "infer": False}),
        ("PUT", f"/v1/memories/{memory_id}/", {"text": "I love coffee"}),
        ("DELETE", f"/v1/memories/{memory_id}/", None),
        ("DELETE", "/v1/memories/?user_id=alice", None),
        ("DELETE", "/v2/entities/user/alice/", None),
        ("POST", "/v3/memories/search/", {"query": "tea"}),
        ("POST", "/v3/memories/", {}),
        ("GET", f"/v1/memories/{memory_id}/", None),
        ("GET", f"/v1/memories/{memory_id}/history/", None),
        ("GET", f"/v1/memories/{uuid4()}/", None),
        ("GET", "/v1/entities/", None),
        ("GET", "/v1/events/", None),
        ("GET", f"/v1/event/{event_id}/", None),
        ("GET", "/v1/ping/", None),
        ("GET", "/v1/keys/", None),
        ("POST", "/v1/keys/", {"role": "reader"}),
        ("DELETE", f"/v1/keys/{uuid4()}/", None),
        ("POST", "/v1/erasures/", {"user_id": "alice"}),
        ("GET", "/v1/erasures/", None),
        ("DELETE", "/v1/connectors/crm/", None),
        ("GET", "/v1/audit/", None),
        ("GET", "/v1/audit/export/", None),
        ("GET", "/v1/audit/known/?user_id=alice&at=2999-01-01", None),
        ("POST", "/v1/audit/match/", {"value": "tea", "user_id": "alice"}),
    ]


def refusals(memory_id: str) -> list[tuple[str, str, Any]]:
    """Calls that a reader may not make."""
    return [
        ("DELETE", f"/v1/memories/{memory_id}/", None),
        ("POST", "/v1/keys/", {"role": "admin"}),
        ("GET", "/v1/audit/", None),
    ]


def test_under_load_nothing_changes_and_nothing_but_503_is_answered(
    make_client: MakeClient, database: Postgres, broken: Break
) -> None:
    client, reader = make_client(), make_client("reader")
    stranger = TestClient(client.app, raise_server_exceptions=False)
    stranger.headers["Authorization"] = "Token mv_wrong"
    (memory_id,) = add(client, "I love tea")
    event_id = client.get("/v1/events/").json()["results"][0]["id"]
    work = [(client, *call) for call in calls(memory_id, event_id)]
    work += [(reader, *call) for call in refusals(memory_id)]
    work += [(stranger, "GET", "/v1/ping/", None)] * 3
    for one in (client, reader):
        assert one.post("/v3/memories/", json={}).status_code == 200
    answers: Counter[tuple[int, str]] = Counter()
    lock = threading.Lock()

    def run(offset: int) -> None:
        for number in range(len(work)):
            by, method, path, body = work[(number + offset) % len(work)]
            answer = by.request(method, path, json=body)
            with lock:
                answers[answer.status_code, answer.json().get("code", "")] += 1
                if answer.status_code == 503:
                    assert answer.headers["Retry-After"]

    with broken():
        before = contents(database)
        threads = [threading.Thread(target=run, args=(7 * number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        after = contents(database)
    assert dict(answers) == {(503, "record_unavailable"): 4 * len(work)}
    assert after == before
    assert search(client, "tea") == [memory_id]
    assert add(client, "I love snow")
    assert stranger.get("/v1/ping/").status_code == 401
    assert reader.delete(f"/v1/memories/{memory_id}/").status_code == 403
    assert client.delete(f"/v1/memories/{memory_id}/").status_code == 200


def test_an_outage_in_the_middle_of_the_load_leaves_a_row_for_each_effect(
    make_client: MakeClient, database: Postgres
) -> None:
    client = make_client()
    answers: Counter[int] = Counter()
    stop = threading.Event()

    def write(worker: int) -> None:
        number = 0
        while not stop.is_set():
            body = {
                "messages": [{"role": "user", "content": f"fact {worker}-{number}"}],
                "user_id": "a",
                "infer": False,
            }
            answers[client.post("/v3/memories/add/", json=body).status_code] += 1
            number += 1

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            stop.wait(0.4)
            with without_the_right(database):
                stop.wait(0.3)
    finally:
        stop.wait(0.3)
        stop.set()
        for thread in threads:
            thread.join()
    assert set(answers) == {200, 503}
    with psycopg.connect(database.admin) as connection:
        memories = {row[0] for row in connection.execute("SELECT id FROM memories")}
        query = "SELECT unnest(result_ids) FROM audit WHERE event = 'memory:added'"
        audited = [row[0] for row in connection.execute(query)]
    assert len(audited) == len(set(audited)) == answers[200]
    assert set(audited) == memories


def test_an_extraction_waits_for_the_trail(make_services: MakeServices, database: Postgres) -> None:
    with ScriptedLLM() as llm:
        flags = {"provider": "openai", "config": llm.config, "timeout": 5.0, "retry_wait": 0.05}
        services = make_services(worker=True, llm=flags, queue={"poll_interval": 0.1})
        caller = caller_of(services, services.installation.tenants.create("acme").id)
        llm.hold()
        # Asked twice: what the first answer made could not be committed.
        llm.facts("Alice loves tea")
        llm.facts("Alice loves tea")
        event = ask(services, caller, "I love tea")
        llm.wait_for_requests(1)
        with without_the_right(database):
            llm.release()
            threading.Event().wait(1.0)
            with psycopg.connect(database.admin) as connection:
                assert connection.execute("SELECT count(*) FROM memories").fetchone() == (0,)
        done = ended(services, caller, event)
        assert done.status is EventStatus.SUCCEEDED
        assert texts(services, caller) == ["Alice loves tea"]
