"""What is held of many rows under many holds: what each row by itself says, without comparing all with all."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Connection

from service.errors import LegalHold
from service.holds.guard import held_among, held_texts, refuse_held_subject
from service.records import Message, NewMemories, SubjectNames
from service.retention.holds import NewHold
from service.scope import Caller, SubjectKind, TenantId
from service.wiring import Services
from tests.conftest import MakeServices, Postgres, caller_of
from tests.integration.holds.conftest import Add, Place
from tests.integration.holds.test_shared import arrive

pytestmark = [pytest.mark.integration, pytest.mark.postgres_suite]

_COLUMNS = "ARRAY[user_id, agent_id, app_id, run_id]"


@dataclass
class Rows:
    """What the database has of a tenant, each row with its subjects."""

    memories: dict[UUID, set[UUID]] = field(default_factory=dict)
    history: list[tuple[UUID, set[UUID], bool]] = field(default_factory=list)
    holds: dict[str, tuple[set[UUID], set[UUID]]] = field(default_factory=dict)

    def keeping(self, subject: UUID) -> set[str]:
        """The live holds that keep somebody, row by row."""
        theirs = {one for one, subjects in self.memories.items() if subject in subjects}
        steps = {memory_id for memory_id, subjects, _ in self.history if subject in subjects}
        rows = [subjects for subjects in self.memories.values() if subject in subjects]
        rows += [own for memory_id, own, _ in self.history if subject in own or memory_id in theirs]
        return {
            name
            for name, (subjects, members) in self.holds.items()
            if subject in subjects or members & (theirs | steps) or (subjects and any(subjects <= row for row in rows))
        }

    def held(self) -> dict[UUID, set[str]]:
        """The live holds that keep a memory or something of its history, by the memory."""
        found: dict[UUID, set[str]] = {}
        for name, (subjects, members) in self.holds.items():
            covered = {memory_id for memory_id, own, _ in self.history if subjects and subjects <= own}
            for one in members | covered:
                found.setdefault(one, set()).add(name)
        return found

    def texts(self) -> set[UUID]:
        """The deleted memories of whose texts a live hold covers some."""
        left = [(one, own) for one, own, has_text in self.history if has_text and one not in self.memories]
        return {one for one, own in left for subjects, _ in self.holds.values() if subjects and subjects <= own}


def rows_of(database: Postgres, tenant: TenantId) -> Rows:
    """Read them beside the service."""
    rows = Rows()
    with psycopg.connect(database.admin) as connection:

        def all_of(query: str) -> Iterator[tuple[Any, ...]]:
            yield from connection.execute(query, [tenant])  # type: ignore[arg-type]

        for memory_id, subjects in all_of(f"SELECT id, {_COLUMNS} FROM memories WHERE tenant_id = %s"):
            rows.memories[memory_id] = known(subjects)
        query = f"SELECT memory_id, {_COLUMNS}, content IS NOT NULL FROM history WHERE tenant_id = %s"
        rows.history = [(memory_id, known(subjects), there) for memory_id, subjects, there in all_of(query)]
        for name, subjects, members in all_of(
            "SELECT name, subject_ids, ARRAY(SELECT memory_id FROM hold_members WHERE hold_id = id) FROM holds"
            " WHERE tenant_id = %s AND id NOT IN (SELECT hold_id FROM hold_releases)"
        ):
            rows.holds[name] = known(subjects or ()), set(members)
    return rows


def known(subjects: Iterable[UUID | None]) -> set[UUID]:
    """Those subjects that are there."""
    return {one for one in subjects if one is not None}


def refusing(connection: Connection, caller: Caller, subject: UUID) -> set[str]:
    """The holds that the guard names for somebody."""
    try:
        refuse_held_subject(connection, caller.scope, subject)
    except LegalHold as refusal:
        return set(refusal.names)
    return set()


@pytest.mark.parametrize("seed", range(4))
def test_the_guard_says_what_each_row_says(seed: int, make_services: MakeServices, database: Postgres) -> None:
    chance = random.Random(seed)
    services = make_services(history={"keep_deleted": True})
    tenant = services.installation.tenants.create("acme").id
    ada, ben = (caller_of(services, tenant, owner=f"{name}@example.org") for name in ("ada", "ben"))

    def some(most: int) -> SubjectNames:
        kinds = chance.sample(["user_id", "agent_id", "app_id", "run_id"], chance.randint(1, most))
        return SubjectNames(**{kind: f"{kind} {chance.randrange(3)}" for kind in kinds})

    added: list[UUID] = []
    for number in range(40):
        new = NewMemories([Message("user", f"note {number}")], some(4), {}, infer=False)
        added.append(services.adds.add(ada, ada.scope, new).results[0].memory_id)
    gone = chance.sample(added, 12)
    for memory_id in gone:
        services.memories.delete(ada, ada.scope, memory_id)
    for memory_id in gone[:4]:
        arrive(services, ada, memory_id, f"user_id {chance.randrange(3)}")
    there = [one for one in added if one not in gone]
    for number in range(8):
        what: dict[str, Any] = {"subjects": some(3)} if number % 4 else {"memory_ids": chance.sample(there, 2)}
        services.installation.holds.place(ada, ada.scope, NewHold(f"case-{number}", "litigation", **what))
    for hold in services.installation.holds.list(ada, ada.scope, None, page=1, size=50).items:
        if hold.stored.name in ("case-0", "case-1", "case-5"):
            services.installation.holds.release(ben, ben.scope, hold.stored.id, "settled")

    rows = rows_of(database, tenant)
    subjects = {one for _, own, _ in rows.history for one in own}
    assert len(rows.holds) == 5
    with services.installation.database.transaction(ada.scope) as connection:
        assert {one: refusing(connection, ada, one) for one in subjects} == {one: rows.keeping(one) for one in subjects}
        found = held_among(connection, ada.scope, added, history=True)
        assert {one: set(names) for one, names in found.items()} == rows.held()
        assert all(len(names) == len(set(names)) for names in found.values())
        assert set(held_texts(connection, ada.scope)) == rows.texts()


#: Steps of a memory that is not there any more, which is what is asked for last.
_STEPS = """
INSERT INTO history (tenant_id, id, memory_id, owner_id, user_id, run_id, change, created_at, updated_at)
SELECT %(tenant)s, gen_random_uuid(), gen_random_uuid(), %(user)s, %(user)s, %(run)s, 'ADD', now(), now()
  FROM generate_series(1, 10000)
"""


def test_a_hundred_holds_cost_hardly_more_than_one(
    services: Services, caller: Caller, tenant: TenantId, add: Add, place: Place, database: Postgres
) -> None:
    """To compare each row with each of them took a hundred times as long."""
    names = [(SubjectKind.USER, "alice"), (SubjectKind.RUN, "long")]
    new = NewMemories([Message("user", "tea")], SubjectNames(user_id="alice", run_id="long"), {}, infer=False)
    services.adds.add(caller, caller.scope, new)
    with services.installation.database.transaction(caller.scope) as connection:
        found = services.installation.subjects.find(connection, caller.scope, names)
    alice, run = (found[name] for name in names)
    with psycopg.connect(database.admin, autocommit=True) as admin:
        admin.execute(_STEPS, {"tenant": tenant, "user": alice, "run": run})
        admin.execute("ANALYZE history")
        memory_ids = [row[0] for row in admin.execute("SELECT memory_id FROM history WHERE user_id = %s", [alice])]

    def seconds(ask: Callable[[Connection], object]) -> float:
        taken = []
        for _ in range(3):
            with services.installation.database.transaction(caller.scope) as connection:
                began = perf_counter()
                ask(connection)
                taken.append(perf_counter() - began)
        return min(taken)

    asked: list[Callable[[Connection], object]] = [
        lambda connection: refuse_held_subject(connection, caller.scope, alice),
        lambda connection: held_among(connection, caller.scope, memory_ids, history=True),
    ]
    place("case-0", user="user 0")
    alone = [seconds(ask) for ask in asked]
    for number in range(1, 100):
        place(f"case-{number}", user=f"user {number}")
    # Of what took a hundred times as long there is room for a busy machine.
    for ask, before in zip(asked, alone, strict=True):
        assert seconds(ask) < 10 * before + 0.1
