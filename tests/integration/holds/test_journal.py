"""Holds and releases outlive a restore: a database that has lost them gets them again before it is served."""

from __future__ import annotations

import psycopg
import pytest

from service.errors import LegalHold
from service.retention.hold_journal import HoldJournal
from service.scope import Caller, TenantId
from service.storage.tombstones import TombstoneKind
from service.wiring import Services
from service.wiring.settling import replays
from tests.conftest import Postgres
from tests.integration.holds.conftest import Add, Place

pytestmark = pytest.mark.integration


def restore_to_before(database: Postgres) -> None:
    """Do to the database what a restore to a time before the holds and the keys of their people does."""
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("TRUNCATE hold_releases, hold_members, holds")
        connection.execute("DELETE FROM tombstones WHERE kind LIKE 'hold:%'")
        connection.execute("DELETE FROM api_keys WHERE owner_id IS NOT NULL AND label IS NULL")


def test_holds_and_releases_are_done_again(
    services: Services, caller: Caller, ada: Caller, ben: Caller, add: Add, place: Place, database: Postgres
) -> None:
    held, free = add(channel="legal"), add("I love coffee", user="bob", channel="chat")
    holds = services.installation.holds
    live = place("live", filters={"metadata": {"channel": "legal"}})
    alone = place("alone", memory_ids=[held])
    over = place("over", user="bob")
    holds.release(ben, ben.scope, over.stored.id, "settled")
    before = [holds.get(ada, ada.scope, one.stored.id) for one in (live, alone, over)]
    restore_to_before(database)
    replay = replays(services.installation, services.erasing)
    for tombstone in services.installation.tombstones.all():
        for _ in range(2):
            replay[tombstone.kind](tombstone)
    assert [holds.get(ada, ada.scope, one.stored.id) for one in (live, alone, over)] == before
    with pytest.raises(LegalHold, match="alone, live"):
        services.memories.delete(caller, caller.scope, held)
    services.memories.delete(caller, caller.scope, free)


def test_the_journal_tells_nobody_anything(services: Services, place: Place) -> None:
    place("case-canary", user="zoe-canary")
    text = services.installation.tombstones.path.read_text()
    assert TombstoneKind.HOLD_PLACED in text
    assert "canary" not in text


def test_a_tenant_that_the_restored_database_does_not_know_stops_nothing(
    services: Services, tenant: TenantId, place: Place, database: Postgres
) -> None:
    place(user="alice")
    tombstone = list(services.installation.tombstones.all())[-1]
    journal: HoldJournal = services.installation.hold_journal
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("DELETE FROM tenants WHERE id = %s", [tenant])
    journal.place_again(tombstone)
