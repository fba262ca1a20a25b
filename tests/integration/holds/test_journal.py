"""Holds and releases outlive a restore: a database that has lost them gets them again before it is served."""

from __future__ import annotations

import psycopg
import pytest

from service.errors import LegalHold, RecordUnavailable
from service.retention.hold_journal import HoldJournal
from service.scope import Caller, TenantId
from service.storage.tombstones import TombstoneKind
from service.wiring import Services
from service.wiring.settling import replays
from tests.conftest import Postgres
from tests.integration.holds.conftest import Add, Place

pytestmark = pytest.mark.integration


def lose_holds(database: Postgres) -> None:
    """Do to the database what a commit does that is lost, or a restore to a time before the holds."""
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("TRUNCATE hold_releases, hold_members, holds")
        connection.execute("DELETE FROM tombstones WHERE kind LIKE 'hold:%'")


def restore_to_before(database: Postgres) -> None:
    """Do to the database what a restore to a time before the holds and the keys of their people does."""
    lose_holds(database)
    with psycopg.connect(database.admin, autocommit=True) as connection:
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


def test_a_hold_whose_name_another_has_by_now_is_placed_under_one_of_its_own(
    services: Services, ada: Caller, add: Add, place: Place, database: Postgres
) -> None:
    """The commit of the first was lost after its line was written, and its person asked again."""
    held = add(channel="legal")
    name = "c" * 64
    lost = place(name, filters={"metadata": {"channel": "legal"}})
    (tombstone,) = (one for one in services.installation.tombstones.all() if one.kind is TombstoneKind.HOLD_PLACED)
    lose_holds(database)
    again = place(name, memory_ids=[held])
    for _ in range(2):
        replays(services.installation, services.erasing)[tombstone.kind](tombstone)
    holds = services.installation.holds
    found = holds.get(ada, ada.scope, lost.stored.id).stored
    assert (found.where, found.members) == (lost.stored.where, 1)
    assert found.name == "c" * 51 + "-" + lost.stored.id.hex[-12:]
    assert holds.get(ada, ada.scope, again.stored.id).stored.name == name


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


def test_what_cannot_be_put_into_the_trail_is_not_in_the_journal_either(
    services: Services, ben: Caller, place: Place, database: Postgres
) -> None:
    """A line of the journal is done again at the next start: there must be none of what was refused."""
    hold = place("kept", user="alice")
    holds, tombstones = services.installation.holds, services.installation.tombstones
    before = tombstones.path.read_text()
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '53100'; END $$"
        )
        connection.execute("CREATE TRIGGER no_room BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION no_room()")
    with pytest.raises(RecordUnavailable):
        holds.release(ben, ben.scope, hold.stored.id, "settled")
    with pytest.raises(RecordUnavailable):
        place("another", user="bob")
    assert tombstones.path.read_text() == before
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("DROP TRIGGER no_room ON audit")
    assert holds.get(ben, ben.scope, hold.stored.id).stored.released is None
