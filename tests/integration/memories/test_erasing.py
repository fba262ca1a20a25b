"""Erasing a subject: however much it has and whatever cuts it short, in the end nothing of it is left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from service.filters.ast import EVERYTHING
from service.memories import entities as entities_module
from service.records import EventStatus, Message, NewMemories, SubjectNames
from service.retention import sweeping
from service.scope import Caller, SubjectKind
from service.wiring import Services
from tests.conftest import MakeServices, Postgres, caller_of, principal_of
from tests.integration.memories.adding import add, found
from tests.integration.memories.test_extraction import ended
from tests.llm.scripted import ScriptedLLM

pytestmark = pytest.mark.integration

BOTH = SubjectNames(user_id="alice", agent_id="helper")
_MANY = 66_000


@pytest.fixture
def admin(database: Postgres) -> Iterator[psycopg.Connection[Any]]:
    """A superuser's connection to the test's database."""
    with psycopg.connect(database.admin, autocommit=True) as connection:
        yield connection


def count(admin: psycopg.Connection[Any], what: str) -> int:
    """How many rows there are."""
    row = admin.execute(f"SELECT count(*) FROM {what}").fetchone()  # type: ignore[arg-type]
    return int(row[0]) if row else 0


def begin(services: Services, caller: Caller, kind: SubjectKind, name: str) -> UUID:
    """Begin an erasure as a process does that is killed just after."""
    subjects = services.installation.subjects
    with services.installation.database.transaction(caller.scope) as connection:
        subject_id = subjects.find(connection, caller.scope, [(kind, name)])[(kind, name)]
        subjects.begin_erasing(connection, caller.scope, subject_id)
    return subject_id


def test_more_memories_than_a_statement_has_parameters(
    services: Services, caller: Caller, admin: psycopg.Connection[Any]
) -> None:
    event = add(services, caller, "bulk", subjects=SubjectNames(user_id="alice", app_id="slack"))
    add(services, caller, "stays")
    admin.execute(
        "INSERT INTO memories SELECT tenant_id, gen_random_uuid(), version, owner_id, user_id, agent_id, app_id,"
        " run_id, content, vector, embedder, tokens, NULL, created_at, updated_at, ingested_at, expires_on, event_id,"
        " principal_id FROM memories, generate_series(1, %s) WHERE id = %s",
        [_MANY, event.results[0].memory_id],
    )
    assert services.entities.delete(caller, caller.scope, SubjectKind.APP, "slack") == _MANY + 1
    assert count(admin, "memories") == 1
    assert found(services, caller, "bulk") == ["stays"]
    assert add(services, caller, "anew", subjects=SubjectNames(app_id="slack")).status is EventStatus.SUCCEEDED


def test_an_erasure_that_is_cut_short_is_finished_by_the_sweep(
    services: Services, caller: Caller, admin: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(services, caller, *(f"note {number}" for number in range(25)))
    add(services, caller, "stays", user="bob")
    real, calls = entities_module.purge_memories, []

    def purge(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise ZeroDivisionError
        return real(*given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(entities_module, "purge_memories", purge)
        patched.setattr(entities_module, "_ERASED_AT_ONCE", 10)
        with pytest.raises(ZeroDivisionError):
            services.entities.delete(caller, caller.scope, SubjectKind.USER, "alice")
        # The first batch stands for itself.
        assert count(admin, "memories") == 16
        services.jobs.sweep(0)
    assert len(calls) == 4
    assert [count(admin, table) for table in ("memories", "history", "subjects", "events")] == [1, 1, 1, 1]
    services.indexing.drain()
    assert services.index.count() == 1
    assert services.outbox.size() == 0


def test_an_erasure_that_fails_stops_no_other(
    services: Services, caller: Caller, admin: psycopg.Connection[Any], data_dir: Path
) -> None:
    for user in ("alice", "bob", "carol"):
        add(services, caller, "a note", user=user)
    waiting = sorted(begin(services, caller, SubjectKind.USER, user) for user in ("alice", "bob", "carol"))
    # A folder where a key should be: it can be neither read nor destroyed.
    path = next((data_dir / "keys").rglob(f"{waiting[0]}.key"))
    path.unlink()
    path.mkdir()
    services.jobs.sweep(0)
    assert [row[0] for row in admin.execute("SELECT DISTINCT user_id FROM memories")] == [waiting[0]]
    path.rmdir()
    services.jobs.sweep(0)
    assert count(admin, "memories") == 0


def test_a_key_that_is_bound_to_an_erased_user_only_is_revoked(
    services: Services, caller: Caller, admin: psycopg.Connection[Any]
) -> None:
    add(services, caller, "a note", user="alice")
    add(services, caller, "a note", user="bob")
    for users in ({"alice"}, {"alice", "bob"}):
        principal_of(services, caller.principal.tenant_id, role="agent", users=frozenset(users))
    services.entities.delete(caller, caller.scope, SubjectKind.USER, "alice")
    rows = admin.execute(
        "SELECT cardinality(user_ids), revoked_at IS NULL FROM api_keys WHERE user_ids IS NOT NULL ORDER BY 1"
    ).fetchall()
    assert rows == [(0, False), (1, True)]


def test_no_message_of_an_erased_agent_stays_with_its_user(
    make_services: MakeServices, admin: psycopg.Connection[Any]
) -> None:
    with ScriptedLLM() as llm:
        services = make_services(
            worker=True, llm={"provider": "openai", "config": llm.config, "timeout": 5.0}, queue={"poll_interval": 0.1}
        )
        caller = caller_of(services, services.installation.tenants.create("acme").id)
        for text, names in (("for the helper", BOTH), ("for nobody else", SubjectNames(user_id="alice"))):
            new = NewMemories([Message("user", text)], names)
            event = services.adds.add(caller, caller.scope, new)
            assert ended(services, caller, event).status is EventStatus.SUCCEEDED
        assert count(admin, "messages") == 2
        services.entities.delete(caller, caller.scope, SubjectKind.AGENT, "helper")
        assert [count(admin, table) for table in ("messages", "events")] == [1, 1]
        services.memories.delete_all(caller, caller.scope, SubjectNames(user_id="alice"))
        assert count(admin, "messages") == 0


@pytest.fixture
def extracting(make_services: MakeServices, llm: ScriptedLLM) -> Services:
    """Services that extract, and find nothing to remember."""
    llm.by_default(lambda _: '{"memory": []}')
    return make_services(
        worker=True, llm={"provider": "openai", "config": llm.config, "timeout": 5.0}, queue={"poll_interval": 0.1}
    )


def say(services: Services, caller: Caller, text: str, **names: str) -> None:
    """Have a message extracted."""
    event = services.adds.add(caller, caller.scope, NewMemories([Message("user", text)], SubjectNames(**names)))
    assert ended(services, caller, event).status is EventStatus.SUCCEEDED


def test_messages_leave_with_their_event_so_that_no_erasure_passes_them_by(
    extracting: Services, llm: ScriptedLLM, admin: psycopg.Connection[Any]
) -> None:
    caller = caller_of(extracting, extracting.installation.tenants.create("acme").id)
    say(extracting, caller, "my old secret", user_id="alice", run_id="r-1")
    then = "interval '91 days'"
    admin.execute(f"UPDATE events SET created_at = created_at - {then}, completed_at = completed_at - {then}")
    say(extracting, caller, "something new", user_id="alice", run_id="r-2")
    assert count(admin, "messages") == 2
    extracting.retention_jobs.run(str(caller.principal.tenant_id))
    assert [count(admin, table) for table in ("events", "messages")] == [1, 1]
    say(extracting, caller, "once more", user_id="alice", run_id="r-1")
    assert "old secret" not in llm.requests[-1].prompt
    extracting.entities.delete(caller, caller.scope, SubjectKind.RUN, "r-1")
    assert count(admin, "messages") == 1


def test_more_messages_than_are_erased_at_once_all_leave(
    extracting: Services, admin: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entities_module, "_ERASED_AT_ONCE", 1)
    caller = caller_of(extracting, extracting.installation.tenants.create("acme").id)
    for text in ("one", "two", "three"):
        say(extracting, caller, text, user_id="alice", agent_id="helper")
    # Those of the last event are found first, and the first event is.
    admin.execute("CREATE TEMP TABLE kept AS SELECT * FROM messages ORDER BY seq DESC")
    admin.execute("DELETE FROM messages")
    admin.execute("INSERT INTO messages OVERRIDING SYSTEM VALUE SELECT * FROM kept")
    extracting.entities.delete(caller, caller.scope, SubjectKind.AGENT, "helper")
    assert [count(admin, table) for table in ("messages", "events")] == [0, 0]


def test_messages_that_an_earlier_release_left_without_their_event_leave(
    extracting: Services, llm: ScriptedLLM, admin: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "_STRAY_AT_ONCE", 1)
    tenants = extracting.installation.tenants
    caller, rival = (caller_of(extracting, tenants.create(name).id) for name in ("acme", "rival"))
    for text in ("my old secret", "another", "a third"):
        say(extracting, caller, text, user_id="alice")
    admin.execute("DELETE FROM events")
    say(extracting, rival, "of the rival", user_id="alice")
    say(extracting, caller, "of bob", user_id="bob")
    extracting.retention_jobs.run(str(caller.principal.tenant_id))
    assert count(admin, "messages") == 2
    extracting.memories.delete_all(caller, caller.scope, SubjectNames(user_id="alice"))
    say(extracting, caller, "once more", user_id="alice")
    assert "old secret" not in llm.requests[-1].prompt


@pytest.mark.parametrize("kind", [SubjectKind.AGENT, SubjectKind.APP, SubjectKind.RUN, SubjectKind.USER])
def test_no_history_of_an_erased_subject_stays_with_another(
    kind: SubjectKind, make_services: MakeServices, admin: psycopg.Connection[Any]
) -> None:
    services = make_services(history={"keep_deleted": True})
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    both = SubjectNames(**{"user_id": "alice", f"{kind.value}_id": "the other"})
    gone = add(services, caller, "deleted long ago", subjects=both).results[0].memory_id
    services.memories.delete(caller, caller.scope, gone)
    add(services, caller, "there until now", subjects=both)
    add(services, caller, "stays", user="bob")
    assert count(admin, "history WHERE content IS NOT NULL") == 4
    services.entities.delete(caller, caller.scope, kind, "the other")
    assert count(admin, "history") == 1
    page = services.memories.list(caller, caller.scope, EVERYTHING, page=1, size=5, on=None)
    assert [memory.text for memory in page.items] == ["stays"]
