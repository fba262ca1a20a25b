"""Extractions while Postgres hiccups, workers die and jobs get lost: every event still ends, and nothing is lost."""

from __future__ import annotations

import logging
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from service.errors import IndexUnavailable
from service.memories import extraction
from service.observability.logs import configure_logs
from service.queue import tasks
from service.records import EventStatus
from service.scope import Caller
from service.wiring import Services, open_services
from tests.conftest import MakeServices, Postgres, caller_of
from tests.integration.memories.test_extraction import Start, ask, column, ended, start, texts
from tests.llm.scripted import ScriptedLLM
from tests.process.fixtures import MakeMemvault, make_memvault, written_model
from tests.process.memvault import eventually

__all__ = ["make_memvault", "start", "written_model"]

pytestmark = pytest.mark.integration

CANARY = "canary-4711"
_OF_EXTRACTION = "FROM procrastinate_jobs WHERE task_name = 'extract'"


@pytest.fixture
def admin(database: Postgres) -> Iterator[psycopg.Connection[Any]]:
    """A superuser's connection, each statement committed at once."""
    with psycopg.connect(database.admin, autocommit=True) as connection:
        yield connection


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that look for lost jobs often, and commits that are not patient."""
    monkeypatch.setattr(tasks, "_SIGNS", 100)
    monkeypatch.setattr(extraction, "_COMMIT_WAITS", ())


Break = Callable[..., None]


@pytest.fixture
def break_(admin: psycopg.Connection[Any]) -> Break:
    """Let what a trigger watches fail with a state, whose message holds what must not be told."""

    def broken(timing: str, table: str, *, state: str, when: str = "true") -> None:
        admin.execute(
            f"CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF {when} THEN"  # type: ignore[arg-type]
            f" RAISE EXCEPTION '{CANARY}' USING ERRCODE = '{state}'; END IF; RETURN coalesce(NEW, OLD); END $$"
        )
        admin.execute(f"CREATE TRIGGER broken {timing} ON {table} FOR EACH ROW EXECUTE FUNCTION broken()")  # type: ignore[arg-type]

    return broken


def mend(admin: psycopg.Connection[Any]) -> None:
    """Let it work again."""
    admin.execute("DROP FUNCTION broken CASCADE")


def sweep(services: Services, caller: Caller, *, older_than: timedelta = timedelta(0)) -> int:
    """Look for events whose job is lost."""
    return services.jobs._extractions.retry_unfinished(caller.scope, older_than=older_than)


def test_a_hiccup_at_the_commit_costs_no_second_question(
    start: Start, llm: ScriptedLLM, admin: psycopg.Connection[Any], break_: Break
) -> None:
    services, caller = start()
    llm.facts("Alice loves tea").hold()
    event = ask(services, caller, "I love tea")
    llm.wait_for_requests(1)
    break_("BEFORE INSERT", "memories", state="53100")
    llm.release()
    time.sleep(0.7)
    mend(admin)
    assert ended(services, caller, event).status is EventStatus.SUCCEEDED
    assert texts(services, caller) == ["Alice loves tea"]
    assert len(llm.requests) == 1


@pytest.mark.parametrize(("timing", "table"), [("BEFORE INSERT", "memories"), ("BEFORE UPDATE", "events")])
def test_while_the_record_is_away_the_same_job_waits_with_its_lock(
    timing: str,
    table: str,
    start: Start,
    llm: ScriptedLLM,
    admin: psycopg.Connection[Any],
    break_: Break,
    database: Postgres,
    quick: None,
) -> None:
    services, caller = start()
    break_(timing, table, state="53100")
    first = ask(services, caller, "I love tea")
    (job,) = column(database, f"SELECT id {_OF_EXTRACTION}")
    eventually(lambda: column(database, f"SELECT 1 {_OF_EXTRACTION} AND status = 'todo' AND attempts > 0"))
    assert not services.events.get(caller, caller.scope, first.id).status.is_final
    second = ask(services, caller, "I love coffee")
    waiting = admin.execute(f"SELECT id, lock {_OF_EXTRACTION} ORDER BY id").fetchall()  # type: ignore[arg-type]
    assert [waiting[0][0], waiting[0][1]] == [job, waiting[1][1]]
    mend(admin)
    assert ended(services, caller, second).status is EventStatus.SUCCEEDED
    # The second has the first's lock and came later: the first is done by now.
    assert services.events.get(caller, caller.scope, first.id).status is EventStatus.SUCCEEDED
    assert len(texts(services, caller)) == 2


def test_while_the_index_is_away_an_event_waits_and_no_try_is_counted(
    start: Start, make_services: MakeServices, llm: ScriptedLLM, database: Postgres
) -> None:
    services, caller = start(worker=False, attempts=1)
    event = ask(services, caller, "I love tea")
    job = str(caller.principal.tenant_id), str(event.id)
    services.index.close()
    for _ in range(3):
        with pytest.raises(IndexUnavailable):
            services.jobs.handlers()["extract"](*job)
        waiting = services.events.get(caller, caller.scope, event.id)
        assert (waiting.status, waiting.code, waiting.attempts) == (EventStatus.PENDING, "index_unavailable", 0)
    assert llm.requests == []
    assert column(database, "SELECT calls FROM llm_usage") == [0]
    again = make_services(llm=services.settings.llm.model_dump())
    again.jobs.handlers()["extract"](*job)
    done = again.events.get(caller, caller.scope, event.id)
    assert (done.status, done.code, done.attempts) == (EventStatus.SUCCEEDED, None, 1)
    assert column(database, "SELECT calls FROM llm_usage") == [1]


def test_while_the_index_is_made_again_an_event_waits(start: Start, llm: ScriptedLLM) -> None:
    """The model would see nothing of what is known, and name nothing that a new fact makes untrue."""
    services, caller = start(worker=False)
    llm.facts("Alice lives in Rome")
    first, second = ask(services, caller, "I live in Rome"), ask(services, caller, "I moved to Oslo")
    extract = services.jobs.handlers()["extract"]
    extract(str(caller.principal.tenant_id), str(first.id))
    services.index.close()
    asked = len(llm.requests)
    shutil.rmtree(services.settings.data_dir / "index")
    with ExitStack() as stack:
        again = open_services(services.installation, stack, upkeep=False)
        with pytest.raises(IndexUnavailable):
            again.jobs.handlers()["extract"](str(caller.principal.tenant_id), str(second.id))
        waiting = again.events.get(caller, caller.scope, second.id)
        assert (waiting.status, waiting.code) == (EventStatus.PENDING, "index_unavailable")
        assert len(llm.requests) == asked
        again.indexing.heal(again.installation.tenants.living_ids)
        llm.facts({"text": "Alice lives in Oslo", "attributed_to": "user", "supersedes": ["0"]})
        again.jobs.handlers()["extract"](str(caller.principal.tenant_id), str(second.id))
        assert again.events.get(caller, caller.scope, second.id).status is EventStatus.SUCCEEDED
        assert "Alice lives in Rome" in llm.requests[-1].prompt


@pytest.mark.parametrize("held_up", ["keyring", "record"])
def test_while_what_the_prompt_is_made_of_cannot_be_read_the_same_job_waits(
    held_up: str,
    start: Start,
    llm: ScriptedLLM,
    admin: psycopg.Connection[Any],
    break_: Break,
    database: Postgres,
) -> None:
    services, caller = start(attempts=1)
    ended(services, caller, ask(services, caller, "I love tea"))
    if held_up == "keyring":
        admin.execute("UPDATE messages SET content = content || '\\x00'::bytea")
    else:
        break_("BEFORE INSERT", "audit", state="53100", when="NEW.event = 'memory:recalled'")
    event = ask(services, caller, "I love coffee")
    eventually(lambda: column(database, f"SELECT 1 {_OF_EXTRACTION} AND status = 'todo' AND attempts > 1"))
    waiting = services.events.get(caller, caller.scope, event.id)
    assert (waiting.status, waiting.code, waiting.attempts) == (EventStatus.PENDING, f"{held_up}_unavailable", 0)
    assert len(llm.requests) == 1
    if held_up == "keyring":
        admin.execute("DELETE FROM messages")
    else:
        mend(admin)
    assert ended(services, caller, event).status is EventStatus.SUCCEEDED


@pytest.mark.parametrize("state", ["P0001", "23514"])
def test_what_nobody_expected_ends_failed_without_content(
    state: str,
    start: Start,
    admin: psycopg.Connection[Any],
    break_: Break,
    database: Postgres,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    configure_logs(level="info", format="json")
    services, caller = start()
    break_("BEFORE INSERT", "memories", state=state)
    done = ended(services, caller, ask(services, caller, f"I love {CANARY}"))
    assert (done.status, done.code) == (EventStatus.FAILED, "internal_error")
    assert done.reason
    assert CANARY not in done.reason
    query = "SELECT outcome FROM audit WHERE event = 'memory:add_ended' AND detail->>'code' = 'internal_error'"
    assert column(database, query) == ["failed"]
    logged = capfd.readouterr().err
    assert "an extraction failed" in logged
    assert CANARY not in logged
    assert str(done.id) not in logged
    mend(admin)
    assert ended(services, caller, ask(services, caller, "I love coffee")).status is EventStatus.SUCCEEDED
    assert eventually(lambda: column(database, f"SELECT count(*) {_OF_EXTRACTION}") == [0])


def test_connections_that_are_cut_while_the_llm_thinks_lose_nothing(
    start: Start, llm: ScriptedLLM, admin: psycopg.Connection[Any]
) -> None:
    services, caller = start()
    llm.facts("Alice loves tea").hold()
    event = ask(services, caller, "I love tea")
    llm.wait_for_requests(1)
    admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE usename = 'memvault_app' AND datname = current_database()"
    )
    llm.release()
    query = "SELECT status FROM events"
    eventually(lambda: admin.execute(query).fetchall() == [("SUCCEEDED",)], seconds=30)
    assert texts(services, caller) == ["Alice loves tea"]
    assert ended(services, caller, ask(services, caller, "I love coffee")).status is EventStatus.SUCCEEDED
    assert services.events.get(caller, caller.scope, event.id).attempts == 1


def test_a_job_whose_end_was_not_noted_does_not_keep_its_lock(
    start: Start, admin: psycopg.Connection[Any], break_: Break, quick: None
) -> None:
    services, caller = start()
    break_("BEFORE DELETE", "procrastinate_jobs", state="53100", when="OLD.task_name = 'extract'")
    first = ask(services, caller, "I love tea")
    assert ended(services, caller, first).status is EventStatus.SUCCEEDED
    second = ask(services, caller, "I love coffee")
    time.sleep(0.5)
    assert services.events.get(caller, caller.scope, second.id).status is EventStatus.PENDING
    mend(admin)
    assert ended(services, caller, second).status is EventStatus.SUCCEEDED
    assert len(texts(services, caller)) == 2


def test_looking_for_lost_jobs_goes_on_after_a_look_that_failed(
    start: Start, admin: psycopg.Connection[Any], quick: None
) -> None:
    services, caller = start()
    ended(services, caller, ask(services, caller, "I love tea"))
    admin.execute("ALTER TABLE procrastinate_workers RENAME TO away")
    time.sleep(1.0)
    admin.execute("ALTER TABLE away RENAME TO procrastinate_workers")
    with services.installation.database.transaction(caller.scope) as connection:
        services.installation.queue.defer(connection, "rebuild_index", {"task_id": str(caller.principal.id)})
        connection.exec_driver_sql(
            "UPDATE procrastinate_jobs SET status = 'doing', worker_id = NULL WHERE task_name = 'rebuild_index'"
        )
    query = "SELECT count(*) FROM procrastinate_jobs WHERE task_name = 'rebuild_index'"
    eventually(lambda: admin.execute(query).fetchone() == (0,), seconds=20)


def test_an_event_that_was_begun_too_often_ends_failed(start: Start, admin: psycopg.Connection[Any]) -> None:
    services, caller = start(worker=False)
    event = ask(services, caller, "I love tea")
    admin.execute("UPDATE events SET attempts = %s", [extraction._MOST_STARTS])
    services.jobs.handlers()["extract"](str(caller.principal.tenant_id), str(event.id))
    done = services.events.get(caller, caller.scope, event.id)
    assert (done.status, done.code) == (EventStatus.FAILED, "internal_error")


def test_only_an_event_without_a_job_is_queued_again_and_with_its_lock(
    start: Start, admin: psycopg.Connection[Any]
) -> None:
    services, caller = start(worker=False)
    lost, kept = ask(services, caller, "I love tea"), ask(services, caller, "I love coffee", user="bob")
    assert sweep(services, caller) == 0
    query = f"SELECT lock, queue_name, args {_OF_EXTRACTION} AND args->>'event_id' = %s"
    (before,) = admin.execute(query, [str(lost.id)]).fetchall()  # type: ignore[arg-type]
    admin.execute("DELETE FROM procrastinate_jobs WHERE args->>'event_id' = %s", [str(lost.id)])
    assert sweep(services, caller, older_than=timedelta(minutes=1)) == 0
    assert sweep(services, caller) == 1
    assert sweep(services, caller) == 0
    assert admin.execute(query, [str(lost.id)]).fetchall() == [before]  # type: ignore[arg-type]
    assert admin.execute(f"SELECT count(*) {_OF_EXTRACTION}").fetchone() == (2,)  # type: ignore[arg-type]
    assert kept.id != lost.id


def test_the_sweep_reads_unfinished_events_only(start: Start, admin: psycopg.Connection[Any]) -> None:
    services, caller = start(worker=False)
    ask(services, caller, "I love tea")
    columns = ", ".join(
        row[0]
        for row in admin.execute("SELECT column_name FROM information_schema.columns WHERE table_name = 'events'")
        if row[0] not in ("id", "status")
    )
    admin.execute(
        f"INSERT INTO events (id, status, {columns}) SELECT gen_random_uuid(), 'SUCCEEDED', {columns}"  # type: ignore[arg-type]
        " FROM events, generate_series(1, 20000)"
    )
    admin.execute("ANALYZE events")
    read = "SELECT coalesce(seq_tup_read, 0) FROM pg_stat_user_tables WHERE relname = 'events'"

    def rows_read() -> int:
        admin.execute("SELECT pg_stat_clear_snapshot()")
        row = admin.execute(read).fetchone()
        assert row is not None
        return int(row[0])

    time.sleep(1.5)
    before = rows_read()
    # Often enough that Postgres plans for any parameters and not for the given ones.
    for _ in range(12):
        assert sweep(services, caller) == 0
    services.installation.database.close()
    time.sleep(1.5)
    assert rows_read() - before < 20000


def test_a_part_of_the_sweep_that_fails_keeps_no_other_from_being_done(
    start: Start, admin: psycopg.Connection[Any], break_: Break, monkeypatch: pytest.MonkeyPatch
) -> None:
    services, caller = start(worker=False)
    monkeypatch.setattr("service.jobs.handlers._LOST_AFTER", timedelta(0))
    rival = caller_of(services, services.installation.tenants.create("rival").id)
    for one in (caller, rival):
        ask(services, one, "I love tea")
        ask(services, one, "I love coffee", user="bob")
    admin.execute(
        "UPDATE subjects SET erasing_at = now() WHERE id IN (SELECT owner_id FROM events ORDER BY id LIMIT 1)"
    )
    break_("BEFORE DELETE", "subjects", state="P0001")
    admin.execute("DELETE FROM procrastinate_jobs")
    services.jobs.sweep(0)
    waiting = {row[0] for row in admin.execute(f"SELECT args->>'tenant_id' {_OF_EXTRACTION}")}  # type: ignore[arg-type]
    assert waiting == {str(caller.principal.tenant_id), str(rival.principal.tenant_id)}


def test_a_worker_that_is_killed_while_the_llm_thinks_is_replaced(
    make_memvault: MakeMemvault, llm: ScriptedLLM
) -> None:
    memvault = make_memvault(
        MEMVAULT_LLM__PROVIDER="openai",
        MEMVAULT_LLM__MODEL="scripted",
        MEMVAULT_LLM__API_KEY="sk-none",
        MEMVAULT_LLM__BASE_URL=llm.url,
    ).start()
    llm.facts("Alice loves tea").hold()
    message = {"role": "user", "content": "I love tea"}
    with memvault.client() as client:
        answer = client.post("/v3/memories/add/", json={"messages": [message], "user_id": "alice"})
        event_id = answer.json()["event_id"]
        llm.wait_for_requests(1)
    memvault.kill()
    llm.release().facts("Alice loves tea")
    with psycopg.connect(memvault.superuser_dsn(), autocommit=True) as admin:
        assert admin.execute("SELECT status FROM events").fetchall() == [("RUNNING",)]
        # Its last sign of life is made older instead of waiting for it to become so.
        admin.execute("UPDATE procrastinate_workers SET last_heartbeat = last_heartbeat - interval '5 minutes'")
    memvault.start()
    with memvault.client() as client:
        got = eventually(
            lambda: found if (found := client.get(f"/v1/event/{event_id}/").json())["status"] == "SUCCEEDED" else None,
            seconds=40,
        )
    assert [result["memory"] for result in got["results"]] == ["Alice loves tea"]
    assert memvault.stop(signal.SIGTERM) == 0
