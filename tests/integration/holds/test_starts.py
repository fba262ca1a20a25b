"""Holds and starts: what was erased and is held in the database stops no start, and follows after the release."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Timer
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from service.audit.tenant_details import ProjectField
from service.errors import ConfigurationError
from service.filters.ast import EVERYTHING
from service.portability.settling import Settled, Settling
from service.records import Message, NewMemories, SubjectNames
from service.retention.holds import NewHold
from service.retention.ledger import ErasureKind, Target
from service.scope import Caller, SubjectKind
from service.storage.keyring import KeyDestroyed
from service.storage.tombstones import Tombstone, TombstoneKind, tombstone_id
from service.wiring import Services, open_portability
from service.wiring.settling import settle
from tests.conftest import Postgres, caller_of, open_on
from tests.integration.holds.conftest import Add, Place
from tests.integration.holds.test_erasures import texts

pytestmark = pytest.mark.integration

Trail = Callable[[], list[dict[str, Any]]]


def surrogate(services: Services, caller: Caller, kind: SubjectKind, name: str) -> UUID:
    """The surrogate of a subject."""
    with services.installation.database.transaction(caller.scope) as connection:
        found = services.installation.subjects.find_any(connection, caller.scope, kind, name)
    assert found is not None
    return found


def erased_elsewhere(services: Services, caller: Caller, kind: TombstoneKind, ids: Sequence[UUID]) -> Tombstone:
    """Write a line into the journal that the database does not know, as after a restore."""
    tenant_id = caller.scope.tenant_id
    once = tombstone_id(kind, tenant_id, ids[0]) if kind is TombstoneKind.SUBJECT_ERASED else None
    return services.installation.tombstones.append(kind, tenant_id, ids, tombstone=once)


def start(services: Services) -> Settled:
    """Do what each start does before it serves."""
    return settle(services.installation, services.erasing, services.index)


def pending(services: Services, caller: Caller) -> int:
    """How much the command line waits for a start to do before it exports the tenant."""
    one = services.installation
    settling = Settling(one.database, one.keyring, one.trail, one.tombstones, {})
    return settling.pending(caller.principal.tenant_id, one.erasures.are_held, one.erasures.are_leaving)


def applied(trail: Trail) -> list[dict[str, Any]]:
    """The rows of the trail of what was erased again."""
    return [row for row in trail() if row["event"] == "tombstone:applied"]


@pytest.mark.parametrize("hold", ["on the person", "on who shares a memory", "on who shared one"])
def test_an_erasure_that_a_hold_keeps_from_being_done_again_follows_its_release(
    hold: str,
    services: Services,
    caller: Caller,
    ben: Caller,
    add: Add,
    place: Place,
    trail: Trail,
    caplog: pytest.LogCaptureFixture,
) -> None:
    memory_id = add("evidence-canary", agent="helper")
    if hold == "on who shared one":
        services.memories.delete(caller, caller.scope, memory_id)
    placed = place("smith-v-acme", **({"user": "alice"} if hold == "on the person" else {"agent": "helper"}))
    alice = surrogate(services, caller, SubjectKind.USER, "alice")
    erased_elsewhere(services, caller, TombstoneKind.SUBJECT_ERASED, [alice])
    keyring, tenant_id = services.installation.keyring, caller.scope.tenant_id
    for _ in range(2):
        caplog.clear()
        assert start(services).applied == 0
        (logged,) = (record for record in caplog.records if record.name == "memvault.restore")
        assert logged.holds == [str(placed.stored.id)]  # type: ignore[attr-defined]
        assert "canary" not in caplog.text
        assert pending(services, caller) == 0
    keyring.check(tenant_id, alice)
    assert applied(trail) == []
    if hold != "on who shared one":
        assert texts(services, caller) == {"evidence-canary"}

    services.installation.holds.release(ben, ben.scope, placed.stored.id, "settled")
    assert pending(services, caller) == 1
    assert start(services).applied == 1
    with pytest.raises(KeyDestroyed):
        keyring.check(tenant_id, alice)
    assert texts(services, caller) == set()
    assert [row["subject_ids"] for row in applied(trail)] == [[alice]]
    assert (pending(services, caller), start(services).applied) == (0, 0)


def test_what_is_being_erased_and_other_tenants_stop_no_export(services: Services, caller: Caller, add: Add) -> None:
    other, third = (caller_of(services, services.installation.tenants.create(name).id) for name in ("rival", "third"))
    add("evidence")
    services.erasures.request(caller, caller.scope, Target(ErasureKind.USER, "alice"))
    services.erasures.request_for_installation(third.principal.tenant_id, Target(ErasureKind.TENANT))
    erased_elsewhere(services, third, TombstoneKind.TENANT_REMOVED, [])
    erased_elsewhere(services, other, TombstoneKind.MEMORIES_ERASED, [uuid4()])
    assert [pending(services, one) for one in (caller, third, other)] == [0, 0, 1]
    with ExitStack() as stack:
        open_portability(services.installation, stack, caller.principal.tenant_id)
        with pytest.raises(ConfigurationError, match="lacks 1 erasures"):
            open_portability(services.installation, stack, other.principal.tenant_id)
    # What this database knows nothing of is still to be done.
    subjects = services.installation.subjects
    with services.installation.database.transaction(caller.scope) as connection:
        bob = subjects.ensure(connection, caller.scope, SubjectNames(user_id="bob")).owner
    erased_elsewhere(services, caller, TombstoneKind.SUBJECT_ERASED, [bob])
    assert pending(services, caller) == 1


def test_what_commits_in_the_moment_of_an_export_stops_it_not(services: Services, caller: Caller, add: Add) -> None:
    """The line in the journal comes first, so that nothing that is done can be lost."""
    line = erased_elsewhere(services, caller, TombstoneKind.MEMORIES_ERASED, [add("evidence")])

    def commit() -> None:
        with services.installation.database.transaction(caller.scope) as connection:
            services.installation.tombstones.note(connection, line)

    later = Timer(0.3, commit)
    later.start()
    try:
        assert pending(services, caller) == 0
    finally:
        later.join()


def test_a_release_that_is_done_again_lets_go_in_the_same_start(
    services: Services, caller: Caller, ben: Caller, add: Add, place: Place, database: Postgres
) -> None:
    add("evidence")
    placed = place("smith-v-acme", user="alice")
    alice = surrogate(services, caller, SubjectKind.USER, "alice")
    erased_elsewhere(services, caller, TombstoneKind.SUBJECT_ERASED, [alice])
    services.installation.holds.release(ben, ben.scope, placed.stored.id, "settled")
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("TRUNCATE hold_releases")
        connection.execute("DELETE FROM tombstones WHERE kind = 'hold:released'")
    assert start(services).applied == 2
    assert texts(services, caller) == set()


def test_of_single_memories_those_follow_later_that_are_held(
    services: Services, caller: Caller, ben: Caller, add: Add, place: Place, trail: Trail
) -> None:
    held, free = add("evidence"), add("of another", user="bob")
    placed = place("smith-v-acme", memory_ids=[held])
    erased_elsewhere(services, caller, TombstoneKind.MEMORIES_ERASED, [held, free, uuid4()])
    assert pending(services, caller) == 1
    for _ in range(2):
        assert start(services).applied == 0
        assert texts(services, caller) == {"evidence"}
        assert [row["target_ids"] for row in applied(trail)] == [[free]]
        assert pending(services, caller) == 0
    services.installation.holds.release(ben, ben.scope, placed.stored.id, "settled")
    assert (pending(services, caller), start(services).applied) == (1, 1)
    assert texts(services, caller) == set()


def test_what_waits_for_a_review_and_is_held_is_not_erased_again(
    services: Services, caller: Caller, ben: Caller, place: Place
) -> None:
    own = str(caller.principal.tenant_id)
    services.projects.update(caller, caller.scope, own, own, {ProjectField.REVIEW_REQUIRED: True})
    names = SubjectNames(user_id="alice", agent_id="helper")
    services.adds.add(caller, caller.scope, NewMemories([Message("user", "evidence")], names))
    placed = place("smith-v-acme", user="alice")
    helper = surrogate(services, caller, SubjectKind.AGENT, "helper")
    erased_elsewhere(services, caller, TombstoneKind.SUBJECT_ERASED, [helper])

    def waiting() -> int:
        return services.reviews.list(caller, caller.scope, EVERYTHING, page=1, size=5).total

    assert (start(services).applied, pending(services, caller), waiting()) == (0, 0, 1)
    services.installation.holds.release(ben, ben.scope, placed.stored.id, "settled")
    assert (start(services).applied, waiting()) == (1, 0)


def test_an_installation_that_an_erasure_and_a_hold_had_stopped_starts(database: Postgres, data_dir: Path) -> None:
    """A release before this one destroyed the key, and then met the hold on who shares the history."""
    names = SubjectNames(user_id="alice", agent_id="helper")
    new = NewMemories([Message("user", "evidence")], names, infer=False)
    with ExitStack() as stack:
        services = open_on(database, data_dir, stack)
        tenant_id = services.installation.tenants.create("acme").id
        ada, ben = (caller_of(services, tenant_id, owner=f"{name}@example.org") for name in ("ada", "ben"))
        memory_id = services.adds.add(ada, ada.scope, new).results[0].memory_id
        services.memories.delete(ada, ada.scope, memory_id)
        helper = surrogate(services, ada, SubjectKind.AGENT, "helper")
        hold = NewHold("smith-v-acme", "litigation", subjects=SubjectNames(user_id="alice"))
        placed = services.installation.holds.place(ada, ada.scope, hold)
        with services.installation.database.transaction(ada.scope) as connection:
            services.entities.begin(connection, ada.scope, helper)
        erased_elsewhere(services, ada, TombstoneKind.SUBJECT_ERASED, [helper])
        services.installation.keyring.destroy_subject(tenant_id, helper)
    with ExitStack() as stack:
        services = open_on(database, data_dir, stack)
        assert services.entities.finish_all(ada.scope) == 0
        open_portability(services.installation, stack, ada.principal.tenant_id)
        services.installation.holds.release(ben, ben.scope, placed.stored.id, "settled")
        # Without another start as well: the sweep finishes what was begun.
        assert services.entities.finish_all(ada.scope) == 1
        services.adds.add(ada, ada.scope, new)
