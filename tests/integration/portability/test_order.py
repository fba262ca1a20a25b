"""What is imported stands in its line by its times, in the record and the index, in whatever order it came."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

from service import clock
from service.audit.moves import ImportSource
from service.filters.ast import Condition, Field, Op
from service.portability import imports as imports_module
from service.portability.records import IncomingMemory, Placed
from service.portability.sources.stores import read_pgvector
from service.records import SubjectNames
from service.retention.holds import NewHold
from service.scope import Caller
from service.wiring import Services
from tests.conftest import MakeServices, Postgres, caller_of
from tests.integration.memories.adding import add
from tests.integration.portability.test_round_trip import exported, imported
from tests.qdrant.serving import Qdrant, qdrant

pytestmark = pytest.mark.integration

BEGUN = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches that are much smaller than a line."""
    monkeypatch.setattr(imports_module, "_BATCH", 3)
    monkeypatch.setattr(imports_module, "_MOVED_AT_ONCE", 2)


@pytest.fixture
def served() -> Iterator[Qdrant]:
    """A Qdrant server."""
    with qdrant(grpc=True) as running:
        yield running


def turns(count: int, user: str = "alice") -> list[Placed]:
    """Turns of a conversation in no order, under ids that tell nothing; two have the same time."""
    made = []
    for number in range(count):
        moment = BEGUN + timedelta(minutes=max(1, number))
        memory = IncomingMemory(clock.new_random_id(), f"{user} {number}", SubjectNames(user_id=user), moment, moment)
        made.append(Placed(f"{number}", memory))
    random.Random(7).shuffle(made)
    return made


def run(services: Services, caller: Caller, placed: Sequence[Placed]) -> None:
    """Import them."""
    services.imports.run(caller, caller.scope, lambda: placed, origin=ImportSource.PLATFORM)


def due(placed: Sequence[Placed], user: str = "alice") -> list[UUID]:
    """The ids as they are to stand."""
    memories = [one.what for one in placed if isinstance(one.what, IncomingMemory)]
    theirs = [one for one in memories if one.subjects.user_id == user]
    return [one.id for one in sorted(theirs, key=lambda one: (one.created_at, one.id))]


def recorded(database: Postgres, ids: Sequence[UUID]) -> list[UUID]:
    """Memories as they stand in their line in the record, each at a place of its own."""
    with psycopg.connect(database.admin) as connection:
        rows = connection.execute(
            "SELECT id, place FROM memories WHERE id = ANY(%s) ORDER BY place", [list(ids)]
        ).fetchall()
    assert len({place for _, place in rows}) == len(rows)
    assert len({place >> 24 for _, place in rows}) == 1
    return [row[0] for row in rows]


def indexed(services: Services, caller: Caller, user: str) -> list[UUID]:
    """The same, as the index has it."""
    services.indexing.drain()
    where = Condition(Field.USER, Op.EQ, user)
    stores = services.memories._stores
    with services.installation.database.transaction(caller.scope) as connection:
        lookup = stores.lookup(connection, caller.scope, where)
    vector, terms = stores.embedder.embed_query(user), services.indexing.terms(caller.scope).query(user)
    found = services.index.of(caller.scope).search(vector, terms, where, lookup, limit=100).candidates
    places = dict(zip(found.ids.tolist(), found.places.tolist(), strict=True))
    return [UUID(one) for one in sorted(places, key=lambda one: places[one])]


def check(services: Services, caller: Caller, database: Postgres, wanted: Sequence[UUID], user: str = "alice") -> None:
    """Compare record and index with what is to be."""
    assert recorded(database, wanted) == list(wanted)
    assert indexed(services, caller, user) == list(wanted)


def check_shuffled(services: Services, database: Postgres) -> None:
    """Import two conversations in no order, twice."""
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    placed = [*turns(10), *turns(7, "bob")]
    random.Random(3).shuffle(placed)
    run(services, caller, placed)
    for user in ("alice", "bob"):
        check(services, caller, database, due(placed, user), user)
    # Run again it changes nothing, and no memory is of another version for it.
    run(services, caller, placed)
    check(services, caller, database, due(placed))
    with psycopg.connect(database.admin) as connection:
        assert connection.execute("SELECT DISTINCT version FROM memories").fetchall() == [(1,)]


def test_a_source_in_no_order_stands_by_its_times(services: Services, database: Postgres) -> None:
    check_shuffled(services, database)


def test_so_it_does_in_an_index_that_several_processes_write_to(
    served: Qdrant, make_services: MakeServices, database: Postgres
) -> None:
    check_shuffled(make_services(index={"url": served.url, "grpc_port": served.grpc_port}), database)


def test_a_table_of_mem0_stands_by_its_times(services: Services, caller: Caller, database: Postgres) -> None:
    wanted = []
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA mem0")
        connection.execute("CREATE TABLE mem0.memories (id uuid PRIMARY KEY, payload jsonb)")
        for number in range(8):
            wanted.append(uuid4())
            moment = (BEGUN + timedelta(minutes=number)).isoformat()
            payload = {"data": f"turn {number}", "user_id": "alice", "created_at": moment, "updated_at": moment}
            connection.execute("INSERT INTO mem0.memories VALUES (%s, %s)", [wanted[-1], Jsonb(payload)])
    now = clock.now()
    services.imports.run(
        caller,
        caller.scope,
        lambda: read_pgvector(database.admin, "mem0.memories", None, now),
        origin=ImportSource.PGVECTOR,
    )
    check(services, caller, database, wanted)


def test_an_import_that_was_cut_short_is_in_order_once_it_is_done(
    services: Services, caller: Caller, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed = turns(12)

    def killed(stage: str, done: int) -> None:
        if stage == "import" and done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        services.imports.run(caller, caller.scope, lambda: placed, origin=ImportSource.PLATFORM, progress=killed)
    run(services, caller, placed)
    check(services, caller, database, due(placed))
    # One that ended between its last memory and the order is put in order by the next, which finds nothing new.
    more = turns(12, "bob")
    with monkeypatch.context() as patched:
        patched.setattr(services.imports, "_line_up", lambda *_: None)
        run(services, caller, more)
    assert recorded(database, due(more, "bob")) != due(more, "bob")
    run(services, caller, more)
    check(services, caller, database, due(more, "bob"), "bob")


def test_an_export_stands_by_its_times_elsewhere(services: Services, caller: Caller, database: Postgres) -> None:
    placed = turns(10)
    run(services, caller, placed)
    rival = caller_of(services, services.installation.tenants.create("rival").id)
    lines = exported(services, caller)
    services.memories.delete_all(caller, caller.scope, SubjectNames(user_id="alice"))
    imported(services, rival, lines)
    check(services, rival, database, due(placed))


def test_what_was_added_here_stays_behind_what_is_older(services: Services, caller: Caller, database: Postgres) -> None:
    here = [one.memory_id for one in add(services, caller, "one", "two", "three").results]
    placed = turns(5)
    run(services, caller, placed)
    check(services, caller, database, [*due(placed), *here])


def test_a_bound_key_moves_nothing_of_another_user(services: Services, caller: Caller, database: Postgres) -> None:
    placed = turns(6, "bob")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(services.imports, "_line_up", lambda *_: None)
        run(services, caller, placed)
    before = recorded(database, due(placed, "bob"))
    assert before != due(placed, "bob")
    alice = caller_of(services, caller.principal.tenant_id, users=frozenset({"alice"}))
    stolen = [
        replace(one, what=replace(one.what, subjects=SubjectNames(user_id="alice"))) for one in (*placed, *turns(3))
    ]
    run(services, alice, stolen)
    assert recorded(database, before) == before


def test_what_is_held_keeps_its_place(services: Services, caller: Caller, database: Postgres) -> None:
    officer = caller_of(services, caller.principal.tenant_id, role="compliance_officer", owner="ada@example.org")
    hold = NewHold("case-1", "litigation", subjects=SubjectNames(user_id="bob"))
    services.installation.holds.place(officer, officer.scope, hold)
    placed = [*turns(6), *turns(6, "bob")]
    run(services, caller, placed)
    check(services, caller, database, due(placed))
    bobs = due(placed, "bob")
    assert recorded(database, bobs) == [one.what.id for one in placed if one.what.id in bobs]
