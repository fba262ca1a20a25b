"""Limits on memories and bytes: exact whoever writes at once, with the room given back by every way of deleting."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from service import clock
from service.audit.tenant_details import ProjectField
from service.errors import IdempotencyConflict, MemvaultError, QuotaExceeded
from service.memories.adds import IDEMPOTENCY_LIFE
from service.memories.batch import BatchEdit
from service.memories.edits import Edit
from service.memories.reviews import Decision
from service.migrations.runner import downgrade, upgrade
from service.records import Change, Event, EventStatus, Message, NewMemories, SubjectNames
from service.scope import Caller, Limit, SubjectKind, TenantId
from service.storage.keyring import FileKeyring
from service.tenants import usage
from service.wiring import Services
from tests.conftest import MakeServices, Postgres, caller_of

pytestmark = pytest.mark.integration


def limited(services: Services, tenant: TenantId, **limits: int | None) -> Caller:
    """Set limits of a tenant and return a caller of it with a fresh key."""
    services.installation.tenants.set_limits(str(tenant), {Limit(name): most for name, most in limits.items()})
    return caller_of(services, tenant)


def add(services: Services, caller: Caller, *texts: str, user: str = "alice", **more: Any) -> Event:
    """Add memories verbatim."""
    new = NewMemories([Message("user", text) for text in texts], SubjectNames(user_id=user), infer=False)
    return services.adds.add(caller, caller.scope, new, **more)


def review(services: Services, caller: Caller) -> None:
    """Have the caller's tenant review."""
    own = str(caller.principal.tenant_id)
    services.projects.update(caller, caller.scope, own, own, {ProjectField.REVIEW_REQUIRED: True})


def wait(services: Services, caller: Caller, *texts: str, user: str = "alice", **more: Any) -> Event:
    """Add with `infer`, without a language model: under review the texts wait."""
    new = NewMemories([Message("user", text) for text in texts], SubjectNames(user_id=user), **more)
    event = services.adds.add(caller, caller.scope, new)
    assert {result.change for result in event.results} == {Change.QUARANTINED}
    return event


def held(services: Services, tenant: TenantId) -> tuple[int, int]:
    """The tenant's memories and bytes as they are counted."""
    counts = services.installation.quotas.used(tenant).counts
    return counts[Limit.MEMORIES], counts[Limit.BYTES]


def real(database: Postgres, tenant: TenantId) -> tuple[int, int]:
    """The tenant's memories and bytes as they are, those that wait for a reviewer among them."""
    with psycopg.connect(database.admin) as connection:
        query = (
            "SELECT count(*), coalesce(sum(octet_length(content)), 0)::bigint FROM"
            " (SELECT tenant_id, content FROM memories UNION ALL SELECT tenant_id, content FROM quarantine) AS kept"
            " WHERE tenant_id = %s"
        )
        row = connection.execute(query, [tenant]).fetchone()
        assert row is not None
        return int(row[0]), int(row[1])


def limit_rows(database: Postgres, tenant: TenantId) -> list[tuple[str, int]]:
    """What the trail says of limits that were reached: which, and how often."""
    with psycopg.connect(database.admin) as connection:
        query = (
            "SELECT detail ->> 'limit', (detail ->> 'count')::int FROM audit"
            " WHERE tenant_id = %s AND event = 'limit:reached' AND outcome = 'refused' ORDER BY seq"
        )
        return connection.execute(query, [tenant]).fetchall()


def test_the_last_place_is_given_once(services: Services, tenant: TenantId, database: Postgres) -> None:
    caller = limited(services, tenant, memories=3)
    add(services, caller, "one", "two")
    with pytest.raises(QuotaExceeded, match="may keep 3 memories"):
        add(services, caller, "three", "four")
    assert real(database, tenant)[0] == 2, "an add is stored wholly or not at all"
    add(services, caller, "three")
    with pytest.raises(QuotaExceeded):
        add(services, caller, "four")
    assert held(services, tenant) == real(database, tenant)
    assert limit_rows(database, tenant) == [("memories", 1)]


def test_the_limit_is_exact_when_many_write_at_once(services: Services, tenant: TenantId, database: Postgres) -> None:
    caller = limited(services, tenant, memories=10)
    start = threading.Barrier(8)

    def write(number: int) -> int:
        start.wait()
        stored = 0
        for step in range(4):
            try:
                add(services, caller, f"{number} {step}", user=f"user-{number}")
                stored += 1
            except QuotaExceeded:
                pass
        return stored

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(write, range(8))) == 10
    assert real(database, tenant)[0] == 10
    assert held(services, tenant) == real(database, tenant)


def test_bytes_are_limited_for_adds_and_for_edits(services: Services, tenant: TenantId, database: Postgres) -> None:
    caller = limited(services, tenant)
    first = add(services, caller, "x" * 1000).results[0].memory_id
    size = held(services, tenant)[1]
    caller = limited(services, tenant, bytes=size + 300)
    with pytest.raises(QuotaExceeded, match="bytes"):
        add(services, caller, "y" * 1000)
    with pytest.raises(QuotaExceeded, match="bytes"):
        services.memories.update(caller, caller.scope, first, Edit(text="z" * 2000))
    with pytest.raises(QuotaExceeded, match="bytes"):
        services.batches.update(caller, caller.scope, [BatchEdit(first, Edit(metadata={"a": "b" * 2000}))])
    assert services.memories.get(caller, caller.scope, first).text == "x" * 1000
    # Over its limit, a tenant can still make a memory smaller.
    caller = limited(services, tenant, bytes=10)
    services.memories.update(caller, caller.scope, first, Edit(text="x" * 10))
    assert held(services, tenant) == real(database, tenant)


DELETIONS: dict[str, Callable[[Services, Caller, Event], object]] = {
    "one": lambda s, c, event: s.memories.delete(c, c.scope, event.results[0].memory_id),
    "all of a scope": lambda s, c, event: s.memories.delete_all(c, c.scope, SubjectNames(user_id="alice")),
    "a batch": lambda s, c, event: s.batches.delete(c, c.scope, [event.results[0].memory_id]),
    "an entity": lambda s, c, event: s.entities.delete(c, c.scope, SubjectKind.USER, "alice"),
}


@pytest.mark.parametrize("deletion", DELETIONS)
def test_every_deletion_gives_the_room_back(
    deletion: str, services: Services, tenant: TenantId, database: Postgres
) -> None:
    caller = limited(services, tenant, memories=1)
    event = add(services, caller, "one")
    with pytest.raises(QuotaExceeded):
        add(services, caller, "two", user="bob")
    DELETIONS[deletion](services, caller, event)
    assert held(services, tenant) == (0, 0) == real(database, tenant)
    add(services, caller, "two", user="bob")
    assert held(services, tenant) == real(database, tenant)


def test_the_database_counts_whoever_writes(services: Services, tenant: TenantId, database: Postgres) -> None:
    """The counting is the database's own doing: a way of writing or removing memories cannot forget it."""
    caller = caller_of(services, tenant)
    add(services, caller, "one", "two", "three")
    review(services, caller)
    wait(services, caller, "four", "five")
    with psycopg.connect(database.admin, autocommit=True) as connection:
        for table in ("memories", "quarantine"):
            connection.execute(f"UPDATE {table} SET content = content || 'more' WHERE tenant_id = %s", [tenant])
            assert held(services, tenant) == real(database, tenant)
            connection.execute(f"DELETE FROM {table} WHERE tenant_id = %s", [tenant])
            assert held(services, tenant) == real(database, tenant)
    assert held(services, tenant) == (0, 0)


def test_an_add_that_is_refused_leaves_no_key(services: Services, tenant: TenantId) -> None:
    keyring = services.installation.keyring
    assert isinstance(keyring, FileKeyring)
    size = 1000
    caller = limited(services, tenant, bytes=size)
    add(services, caller, "tea", user="alice")
    before = list(keyring.each())
    for number in range(3):
        for key in (None, f"key-{number}"):
            with pytest.raises(QuotaExceeded):
                add(services, caller, "x" * size, user=f"user-{number}", idempotency_key=key)
    assert list(keyring.each()) == before
    caller = limited(services, tenant, bytes=None)
    memory_id = add(services, caller, "x" * size, user="user-1").results[0].memory_id
    assert services.memories.get(caller, caller.scope, memory_id).subjects.user_id == "user-1"
    assert len(list(keyring.each())) == len(before) + 1


def test_what_is_known_already_takes_no_room(services: Services, tenant: TenantId) -> None:
    caller = limited(services, tenant, memories=2)
    add(services, caller, "one")
    again = add(services, caller, "one")
    assert [result.change for result in again.results] == [Change.NONE]
    add(services, caller, "two")
    assert held(services, tenant)[0] == 2


def test_a_repeated_request_is_answered_when_there_is_no_room_left(services: Services, tenant: TenantId) -> None:
    caller = limited(services, tenant, memories=1)
    first = add(services, caller, "one", idempotency_key="k")
    assert add(services, caller, "one", idempotency_key="k").id == first.id
    with pytest.raises(QuotaExceeded):
        add(services, caller, "two", idempotency_key="other")


@pytest.fixture
def embedded(services: Services, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts were embedded, by call."""
    counts: list[int] = []
    embedder = services.adds._stores.embedder
    embed = embedder.embed_documents

    def counting(texts: list[str]) -> Any:
        counts.append(len(texts))
        return embed(texts)

    monkeypatch.setattr(embedder, "embed_documents", counting)
    return counts


def test_a_full_tenant_costs_no_embedding_and_leaves_others_alone(
    services: Services, tenant: TenantId, database: Postgres, embedded: list[int]
) -> None:
    full = limited(services, tenant, memories=0)
    other = caller_of(services, services.installation.tenants.create("rival").id)
    for number in range(20):
        with pytest.raises(QuotaExceeded):
            add(services, full, f"text {number}", idempotency_key=f"key-{number}" if number % 2 else None)
    assert embedded == []
    assert add(services, other, "one").status is EventStatus.SUCCEEDED
    # Refusals are counted, so that they cannot fill the trail.
    assert limit_rows(database, tenant) == [("memories", 1)]


def test_an_idempotency_key_costs_a_full_tenant_no_embedding(
    services: Services, tenant: TenantId, database: Postgres, embedded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = limited(services, tenant, memories=1)
    first = add(services, full, "one", idempotency_key="k")
    assert embedded == [1]
    assert add(services, full, "one", idempotency_key="k").id == first.id
    with pytest.raises(IdempotencyConflict):
        add(services, full, "two", idempotency_key="k")
    with psycopg.connect(database.admin) as connection:
        query = "SELECT count(*) FROM audit WHERE event = 'access:denied' AND outcome = 'refused'"
        assert connection.execute(query).fetchone() == (1,)
    # Once it is remembered no longer, the key is that of a new request.
    later = clock.now() + IDEMPOTENCY_LIFE + timedelta(seconds=1)
    monkeypatch.setattr(clock, "now", lambda: later)
    with pytest.raises(QuotaExceeded):
        add(services, full, "one", idempotency_key="k")
    assert embedded == [1]


def test_refusals_that_were_counted_are_written_down_in_the_end(
    services: Services, tenant: TenantId, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = limited(services, tenant, memories=0)
    for number in range(5):
        with pytest.raises(QuotaExceeded):
            add(services, caller, f"text {number}")
    monkeypatch.setattr("service.tenants.refusals.EVERY", 0.0)
    services.installation.refusals.flush()
    assert limit_rows(database, tenant) == [("memories", 1), ("memories", 4)]


def test_what_waits_for_a_reviewer_takes_room(services: Services, tenant: TenantId, database: Postgres) -> None:
    caller = limited(services, tenant, memories=3)
    review(services, caller)
    wait(services, caller, "one", "two")
    with pytest.raises(QuotaExceeded, match="may keep 3 memories"):
        wait(services, caller, "three", "four")
    assert real(database, tenant)[0] == 2, "an add is kept wholly or not at all"
    wait(services, caller, "two", "three")
    for infer in (True, False):
        new = NewMemories([Message("user", "four")], SubjectNames(user_id="bob"), infer=infer)
        with pytest.raises(QuotaExceeded):
            services.adds.add(caller, caller.scope, new)
    assert held(services, tenant) == real(database, tenant)
    assert held(services, tenant)[0] == 3
    assert limit_rows(database, tenant) == [("memories", 1)]


def test_bytes_that_wait_for_a_reviewer_are_limited(services: Services, tenant: TenantId, database: Postgres) -> None:
    caller = limited(services, tenant, bytes=4000)
    review(services, caller)
    wait(services, caller, "x" * 3000)
    with pytest.raises(QuotaExceeded, match="bytes"):
        wait(services, caller, "y" * 3000)
    assert held(services, tenant) == real(database, tenant)
    assert held(services, tenant)[0] == 1


def test_an_approved_memory_keeps_its_room(services: Services, tenant: TenantId, database: Postgres) -> None:
    caller = limited(services, tenant)
    review(services, caller)
    first, second = (result.memory_id for result in wait(services, caller, "one", "two").results)
    before = held(services, tenant)
    # Over its limits, a tenant can still have what waits decided on.
    caller = limited(services, tenant, memories=1, bytes=10)
    (decided,) = services.reviews.approve(caller, caller.scope, [first])
    assert decided.decision is Decision.APPROVED
    assert held(services, tenant) == before == real(database, tenant)
    services.reviews.reject(caller, caller.scope, [second])
    assert held(services, tenant) == real(database, tenant)
    assert held(services, tenant)[0] == 1


def test_what_waits_and_is_known_by_the_time_it_is_approved_gives_its_room_back(
    services: Services, tenant: TenantId, database: Postgres
) -> None:
    caller = limited(services, tenant, memories=2)
    review(services, caller)
    waits = wait(services, caller, "one").results[0].memory_id
    add(services, caller, "one")
    assert held(services, tenant)[0] == 2
    (decided,) = services.reviews.approve(caller, caller.scope, [waits])
    assert decided.decision is Decision.KNOWN
    assert held(services, tenant) == real(database, tenant)
    assert held(services, tenant)[0] == 1


def expire(services: Services, caller: Caller, event: Event) -> None:
    """Let what waits pass its last day, and sweep."""
    with services.installation.database.transaction(caller.scope) as connection:
        connection.exec_driver_sql("UPDATE quarantine SET expires_on = expires_on - 2")
    services.jobs.sweep_tenant(caller.principal.tenant_id)


ENDS: dict[str, Callable[[Services, Caller, Event], object]] = {
    "a rejection": lambda s, c, event: s.reviews.reject(c, c.scope, [event.results[0].memory_id]),
    "its last day": expire,
    **{name: DELETIONS[name] for name in ("all of a scope", "an entity")},
}


@pytest.mark.parametrize("end", ENDS)
def test_every_end_of_waiting_gives_the_room_back(
    end: str, services: Services, tenant: TenantId, database: Postgres
) -> None:
    caller = limited(services, tenant, memories=1)
    review(services, caller)
    event = wait(services, caller, "one", expires_on=clock.today() + timedelta(days=1))
    with pytest.raises(QuotaExceeded):
        wait(services, caller, "two", user="bob")
    ENDS[end](services, caller, event)
    assert held(services, tenant) == (0, 0) == real(database, tenant)
    wait(services, caller, "two", user="bob")


def test_what_waits_already_is_counted_by_the_migration(
    services: Services, tenant: TenantId, database: Postgres
) -> None:
    caller = caller_of(services, tenant)
    review(services, caller)
    add(services, caller, "one")
    wait(services, caller, "two", "three")
    other = caller_of(services, services.installation.tenants.create("rival").id)
    review(services, other)
    wait(services, other, "four")
    downgrade(database.owner, app_role="memvault_app", revision="0021")
    upgrade(database.owner, app_role="memvault_app")
    for who, count in ((tenant, 3), (other.principal.tenant_id, 1)):
        assert held(services, who) == real(database, who)
        assert held(services, who)[0] == count


def test_many_differences_are_added_up_and_the_sum_stays(
    services: Services, tenant: TenantId, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "_FEW_ROWS", 1)
    caller = caller_of(services, tenant)
    for number in range(4):
        add(services, caller, f"text {number}")
    review(services, caller)
    for number in range(4):
        wait(services, caller, f"waiting {number}")
    before = held(services, tenant)
    services.jobs.sweep_tenant(tenant)
    assert held(services, tenant) == before == real(database, tenant)
    with psycopg.connect(database.admin) as connection:
        for table in ("usage", "quarantine_usage"):
            query = f"SELECT memories FROM {table} WHERE tenant_id = %s"
            assert connection.execute(query, [tenant]).fetchall() == [(4,)]


def test_limits_default_to_the_settings(make_services: MakeServices) -> None:
    services = make_services(quotas={"memories": 1})
    tenant = services.installation.tenants.create("acme").id
    caller = caller_of(services, tenant)
    add(services, caller, "one")
    with pytest.raises(QuotaExceeded):
        add(services, caller, "two")
    add(services, limited(services, tenant, memories=None), "two")
    services.installation.tenants.set_limits("acme", {}, [Limit.MEMORIES])
    with pytest.raises(QuotaExceeded):
        add(services, caller_of(services, tenant), "three")


@pytest.mark.parametrize(("name", "most"), [("memories", -1), ("requests_per_second", 0), ("bytes", 2**60)])
def test_a_limit_that_means_nothing_is_refused(name: str, most: int, services: Services, tenant: TenantId) -> None:
    with pytest.raises(MemvaultError, match=name):
        services.installation.tenants.set_limits(str(tenant), {Limit(name): most})
