"""The application role cannot get past a hold with SQL of its own: triggers refuse it, and there is nothing to undo."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from service.errors import Forbidden, LegalHold
from service.scope import Caller, TenantId
from service.wiring import Services
from tests.conftest import Postgres
from tests.integration.holds.conftest import Add, Place

pytestmark = [pytest.mark.integration, pytest.mark.postgres_suite]

Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def app(database: Postgres, tenant: TenantId) -> Iterator[Connection]:
    """A connection of the application role, with the tenant set."""
    with psycopg.connect(database.app, autocommit=True) as connection:
        connection.execute("SELECT set_config('app.tenant', %s, false)", [str(tenant)])
        yield connection


STATEMENTS = (
    "DELETE FROM memories WHERE id = %(held)s",
    "DELETE FROM memories",
    "UPDATE memories SET content = '' WHERE id = %(held)s",
    "UPDATE memories SET expires_on = '2020-01-01' WHERE id = %(held)s",
    "UPDATE memories SET created_at = now(), ingested_at = now() WHERE id = %(held)s",
    "UPDATE memories SET user_id = NULL, owner_id = NULL WHERE id = %(held)s",
    "UPDATE memories SET id = gen_random_uuid() WHERE id = %(held)s",
    "UPDATE memories SET version = version + 1",
    "DELETE FROM history WHERE memory_id = %(held)s",
    "UPDATE history SET content = NULL WHERE memory_id = %(held)s",
    "UPDATE history SET memory_id = gen_random_uuid() WHERE memory_id = %(held)s",
)


@pytest.mark.parametrize("hold", ["user", "ids"])
def test_what_is_held_stays(hold: str, app: Connection, add: Add, place: Place) -> None:
    held, _ = add(), add("I love coffee", user="bob")
    place("case-9", **({"user": "alice"} if hold == "user" else {"memory_ids": [held]}))
    for statement in STATEMENTS:
        with pytest.raises(psycopg.DatabaseError) as refused:
            app.execute(statement, {"held": held})  # type: ignore[arg-type]
        assert (refused.value.sqlstate, refused.value.diag.message_primary) == ("MH409", "case-9"), statement
    app.execute("UPDATE memories SET tokens = '{}', identity_mac = NULL WHERE id = %s", [held])
    app.execute("DELETE FROM memories WHERE id <> %s", [held])
    app.execute("DELETE FROM history WHERE memory_id <> %s", [held])


def test_the_history_of_what_was_deleted_before_is_its_person_s_and_stays(
    app: Connection, services: Services, caller: Caller, add: Add, place: Place
) -> None:
    gone = add()
    services.memories.delete(caller, caller.scope, gone)
    place(user="alice")
    with pytest.raises(psycopg.DatabaseError):
        app.execute("DELETE FROM history WHERE memory_id = %s", [gone])


def test_holds_are_added_to_and_nothing_else(app: Connection, ben: Caller, services: Services, place: Place) -> None:
    services.installation.holds.release(ben, ben.scope, place("old", user="bob").stored.id, "settled")
    place("new", user="alice")
    for table in ("holds", "hold_members", "hold_releases"):
        for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET tenant_id = tenant_id", f"TRUNCATE {table}"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                app.execute(statement)  # type: ignore[arg-type]
    for statement in (
        "ALTER TABLE memories DISABLE TRIGGER hold_memory",
        "DROP TRIGGER hold_memory ON memories",
        "SET session_replication_role = replica",
        "CREATE OR REPLACE FUNCTION public.hold_on(uuid, uuid, uuid[]) RETURNS varchar LANGUAGE sql AS 'SELECT NULL'",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute(statement)  # type: ignore[arg-type]


RELEASE = (
    "INSERT INTO hold_releases (tenant_id, hold_id, reason, released_by, released_kind, released_person, released_at)"
    " VALUES (%s, %s, '', %s, 'key', %s, now())"
)


def test_a_release_by_hand_needs_another_person_s_live_key(
    app: Connection, services: Services, tenant: TenantId, ada: Caller, ben: Caller, caller: Caller, place: Place
) -> None:
    hold = place(user="alice").stored.id
    ada_person, ben_person = ada.principal.person, ben.principal.person
    forged: list[tuple[UUID, UUID | None]] = [
        (ada.principal.id, ada_person),
        (caller.principal.id, ada_person),
        (uuid4(), uuid4()),
        (ada.principal.id, ben_person),
        (ben.principal.id, uuid4()),
    ]
    for principal_id, person in forged:
        with pytest.raises(psycopg.DatabaseError) as refused:
            app.execute(RELEASE, [tenant, hold, principal_id, person])
        assert refused.value.sqlstate == "MH403"
    with pytest.raises(psycopg.DatabaseError) as refused:
        app.execute("UPDATE api_keys SET owner_id = %s WHERE id = %s", [ben_person, ada.principal.id])
    assert refused.value.sqlstate == "MH403"
    services.installation.keys.revoke_for_installation(tenant, ben.principal.id)
    with pytest.raises(psycopg.DatabaseError):
        app.execute(RELEASE, [tenant, hold, ben.principal.id, ben_person])


def test_code_that_forgets_to_ask_is_refused_all_the_same(
    services: Services, caller: Caller, add: Add, place: Place
) -> None:
    held = add()
    place("case-3", user="alice")
    record, database = services.installation.record, services.installation.database
    with database.transaction(caller.scope) as connection:
        found = list(record.find(connection, caller.scope, [held], users=None, on=None).values())
    with pytest.raises(LegalHold, match="case-3"), database.transaction(caller.scope) as connection:
        record.delete(connection, caller.scope, found, keep_texts=False)
    with pytest.raises(Forbidden), database.transaction(caller.scope) as connection:
        connection.exec_driver_sql("UPDATE api_keys SET created_by = gen_random_uuid()")
