"""Who a hold covers: fixed when it is placed and on every insert and update, whatever happens at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import text

from service.errors import Conflict, InvalidInput, LegalHold, NotFound, RecordBusy
from service.filters.ast import EVERYTHING
from service.holds.guard import refuse_held_subject, refuse_held_tenant
from service.memories.actions import Edit
from service.records import SubjectNames
from service.retention.holds import Hold, NewHold
from service.retention.ledger import ErasureKind, Target
from service.scope import Caller, SubjectKind, TenantId
from service.tenants.actions import begin_deleting
from service.wiring import Services
from tests.conftest import Postgres
from tests.integration.holds.conftest import Add, Place

pytestmark = pytest.mark.integration

Members = Callable[[Hold], set[UUID]]

#: Exact in SQL, decided on the decrypted rows only, and with a person in it.
FILTERS: tuple[dict[str, Any], ...] = (
    {"metadata": {"channel": "legal"}},
    {"text": {"icontains": "CONTRACT"}},
    {"AND": [{"user_id": "alice"}, {"metadata": {"amount": {"gte": 100}}}]},
    {"NOT": {"OR": [{"user_id": {"in": ["bob", "dora"]}}, {"metadata": {"channel": {"ne": "legal"}}}]}},
)
MATCHING = {"text": "the contract of May", "channel": "legal", "amount": 250}


@pytest.mark.parametrize("filters", FILTERS, ids=range(len(FILTERS)))
def test_a_filter_holds_what_matches_now_and_what_is_written_later(
    filters: dict[str, Any], services: Services, caller: Caller, ben: Caller, add: Add, place: Place, members: Members
) -> None:
    now, free = add(**MATCHING), add("I love tea", amount=1)
    hold = place(filters=filters)
    assert members(hold) == {now}
    later = add(**MATCHING | {"number": 2})
    add("no", user="bob", channel="chat")
    assert members(hold) == {now, later}
    services.memories.update(
        caller, caller.scope, free, Edit(text="contract", metadata={"channel": "legal", "amount": 300})
    )
    assert members(hold) == {now, later, free}
    with pytest.raises(LegalHold):
        services.memories.delete(caller, caller.scope, free)
    told = services.installation.holds.get(ben, ben.scope, hold.stored.id)
    assert told.where is not None
    services.installation.holds.release(ben, ben.scope, hold.stored.id, "settled")
    add(**MATCHING | {"number": 3})
    assert members(hold) == {now, later, free}


def test_what_is_stored_of_a_filter_names_nobody(services: Services, place: Place, database: Postgres) -> None:
    place(filters={"user_id": "zoe-canary", "text": {"contains": "text-canary"}})
    with psycopg.connect(database.admin) as connection:
        dumped = repr(connection.execute("SELECT * FROM holds").fetchall())
    assert "canary" not in dumped


def test_all_subjects_together_are_covered(add: Add, place: Place, members: Members) -> None:
    both, _, _ = add(agent="bot"), add("coffee"), add("coffee", user="bob", agent="bot")
    hold = place(user="alice", agent="bot")
    assert members(hold) == {both}
    later = add("water", agent="bot")
    assert members(hold) == {both, later}


def test_a_hold_on_memories_needs_them_to_exist_in_the_tenant(
    services: Services, ada: Caller, add: Add, place: Place, trail: Callable[[], list[dict[str, Any]]]
) -> None:
    held, unknown = add(), uuid4()
    with pytest.raises(NotFound, match="1 of them"):
        place(memory_ids=[held, unknown])
    assert trail()[-1]["outcome"] == "not_found"
    assert trail()[-1]["target_ids"] == [unknown]
    assert services.installation.holds.list(ada, ada.scope, None, page=1, size=5).total == 0


def test_a_name_is_used_once(place: Place) -> None:
    place("case", user="alice")
    with pytest.raises(Conflict, match="name"):
        place("case", user="bob")


@pytest.mark.parametrize(
    "new",
    [
        NewHold("Case", "why", SubjectNames("alice")),
        NewHold("-case", "why", SubjectNames("alice")),
        NewHold("c" * 65, "why", SubjectNames("alice")),
        NewHold("case", " ", SubjectNames("alice")),
        NewHold("case", "w" * 2001, SubjectNames("alice")),
        NewHold("case", "why"),
        NewHold("case", "why", where=EVERYTHING),
        NewHold("case", "why", SubjectNames("alice"), memory_ids=[uuid4()]),
    ],
    ids=range(8),
)
def test_a_hold_that_cannot_be_understood_is_refused(new: NewHold, services: Services, ada: Caller) -> None:
    with pytest.raises(InvalidInput):
        services.installation.holds.place(ada, ada.scope, new)


@contextmanager
def under_way(database: Postgres, tenant: TenantId, statement: str, *parameters: object) -> Iterator[Event]:
    """A transaction of the application role that has run a statement and commits once the event is set."""
    begun, end = Event(), Event()

    def run() -> None:
        with psycopg.connect(database.app) as connection:
            connection.execute("SELECT set_config('app.tenant', %s, true)", [str(tenant)])
            connection.execute(statement, parameters)  # type: ignore[arg-type]
            begun.set()
            assert end.wait(60)

    with ThreadPoolExecutor() as pool:
        done = pool.submit(run)
        try:
            assert begun.wait(60)
            yield end
        finally:
            end.set()
            done.result(60)


def waits(database: Postgres) -> bool:
    """Whether somebody waits for a lock that a hold needs; looked for within a bound."""
    with psycopg.connect(database.admin, autocommit=True) as connection:
        for _ in range(2000):
            row = connection.execute(
                "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
                " WHERE d.datname = current_database() AND locktype = 'advisory' AND NOT granted"
            ).fetchone()
            if row and row[0]:
                return True
            connection.execute("SELECT pg_sleep(0.01)")
    return False


def test_a_hold_waits_for_a_delete_that_is_under_way_and_a_later_one_sees_it(
    services: Services, caller: Caller, tenant: TenantId, add: Add, place: Place, members: Members, database: Postgres
) -> None:
    going, staying = add(), add("I love coffee")
    with (
        ThreadPoolExecutor() as pool,
        under_way(database, tenant, "DELETE FROM memories WHERE id = %s", going) as commit,
    ):
        placed = pool.submit(place, user="alice")
        assert waits(database)
        assert not placed.done()
        commit.set()
        hold = placed.result(60)
    assert members(hold) == {staying}
    with pytest.raises(LegalHold):
        services.memories.delete(caller, caller.scope, staying)


def test_no_hold_is_placed_on_who_is_being_erased_meanwhile(
    services: Services, caller: Caller, add: Add, place: Place, database: Postgres
) -> None:
    scope = caller.scope
    add()
    with services.installation.database.transaction(scope) as connection:
        alice = services.installation.subjects.find(connection, scope, [(SubjectKind.USER, "alice")])
    (subject_id,) = alice.values()
    with ThreadPoolExecutor() as pool:
        with services.installation.database.transaction(scope) as connection:
            refuse_held_subject(connection, scope, subject_id)
            services.entities.begin(connection, scope, subject_id)
            placed = [
                pool.submit(place, "on-her", user="alice"),
                pool.submit(place, "by-filter", filters={"user_id": "alice"}),
            ]
            assert waits(database)
        for one in placed:
            with pytest.raises(Conflict, match="being erased"):
                one.result(60)
    assert services.entities.finish(scope, subject_id) == 1


def test_no_hold_is_placed_on_a_tenant_that_is_being_deleted_meanwhile(
    services: Services, caller: Caller, add: Add, place: Place, database: Postgres
) -> None:
    add()
    with ThreadPoolExecutor() as pool:
        with services.installation.database.transaction(caller.scope) as connection:
            refuse_held_tenant(connection, caller.scope)
            begin_deleting(connection, caller.scope.tenant_id)
            placed = pool.submit(place, user="alice")
            assert waits(database)
        with pytest.raises(Conflict, match="deleted"):
            placed.result(60)


def test_an_add_and_an_update_that_meet_a_hold_being_placed_end_up_under_it(
    services: Services, caller: Caller, tenant: TenantId, add: Add, place: Place, members: Members, database: Postgres
) -> None:
    old = add("I love coffee", user="bob")
    exclusive = "SELECT hold_exclusive()"
    # Somebody places a hold. What is written meanwhile waits, and is looked at with that hold in sight.
    with ThreadPoolExecutor() as pool, under_way(database, tenant, exclusive) as commit:
        placed = pool.submit(place, filters={"text": {"contains": "tea"}})
        assert waits(database)
        added = pool.submit(add, "tea at noon")
        changed = pool.submit(services.memories.update, caller, caller.scope, old, Edit(text="more tea"))
        commit.set()
        hold, new, _ = placed.result(60), added.result(60), changed.result(60)
    assert members(hold) == {old, new}


def test_a_writer_waits_with_a_bound_while_a_hold_is_being_placed(
    services: Services, caller: Caller, tenant: TenantId, add: Add, database: Postgres
) -> None:
    old = add("I love coffee")
    writes: list[Callable[[], object]] = [
        lambda: add("tea at noon"),
        lambda: services.memories.update(caller, caller.scope, old, Edit(text="more tea")),
        lambda: services.memories.delete(caller, caller.scope, old),
        lambda: services.erasures.request(caller, caller.scope, Target(ErasureKind.USER, "alice")),
    ]
    with ThreadPoolExecutor() as pool, under_way(database, tenant, "SELECT hold_exclusive()"):
        for waiting in [pool.submit(write) for write in writes]:
            with pytest.raises(RecordBusy):
                waiting.result(60)
        assert services.memories.get(caller, caller.scope, old).text == "I love coffee"
    # The bound is of that wait alone.
    with services.installation.database.transaction(caller.scope) as connection:
        refuse_held_tenant(connection, caller.scope)
        assert connection.execute(text("SHOW lock_timeout")).scalar() == "0"
    assert services.memories.delete(caller, caller.scope, old) == 1


def test_many_writers_and_a_hold_at_once(
    services: Services, caller: Caller, add: Add, place: Place, members: Members
) -> None:
    with ThreadPoolExecutor(8) as pool:
        adds = [pool.submit(add, f"tea {number}", user=f"user {number % 3}") for number in range(24)]
        placed = pool.submit(place, filters={"text": {"contains": "tea"}})
        ids = {one.result(120) for one in adds}
    assert members(placed.result()) == ids
    for memory_id in list(ids)[:3]:
        with pytest.raises(LegalHold):
            services.memories.delete(caller, caller.scope, memory_id)


def test_what_is_being_erased_is_not_held_any_more(
    services: Services, caller: Caller, add: Add, place: Place, members: Members
) -> None:
    add(channel="legal")
    other = add(user="bob", channel="legal")
    scope, stores = caller.scope, services.installation
    with stores.database.transaction(scope) as connection:
        name = (SubjectKind.USER, "alice")
        subject = stores.subjects.find(connection, scope, [name])[name]
        stores.subjects.begin_erasing(connection, scope, subject)
    with pytest.raises(Conflict):
        place("person", user="alice")
    assert members(place("channel", filters={"metadata": {"channel": "legal"}})) == {other}
    assert services.entities.finish(scope, subject) == 1
