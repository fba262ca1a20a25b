"""The journal of what stays done: durable, in order, tamper-evident, shared by processes, and applied again."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import psycopg
import pytest

from service import clock
from service.auth.keys import Grant
from service.errors import ConfigurationError, Unavailable
from service.policy.table import ROLES
from service.records import SubjectNames
from service.scope import Caller, SubjectKind, TenantId
from service.storage.tombstones import FileTombstones, TombstoneKind, TombstonesDamaged, tombstone_id
from service.wiring import Services
from tests.conftest import MakeServices, Postgres, caller_of, principal_of
from tests.integration.memories.adding import add, found

pytestmark = pytest.mark.integration

TENANT = TenantId(clock.new_random_id())
ERASED = TombstoneKind.SUBJECT_ERASED


def test_what_is_appended_is_read_back_in_order_by_anybody(tmp_path: Path) -> None:
    first, other = FileTombstones(tmp_path / "t"), FileTombstones(tmp_path / "t")
    one = first.append(ERASED, TENANT, [clock.new_random_id()])
    two = other.append(TombstoneKind.HOLD_PLACED, TENANT, [clock.new_id() for _ in range(3)], sealed=b"\x00sealed")
    three = first.append(TombstoneKind.HOLD_RELEASED, TENANT, two.ids[:1])
    assert list(FileTombstones(tmp_path / "t").all()) == [one, two, three]
    assert (tmp_path / "t").stat().st_mode & 0o077 == 0
    assert first.path.stat().st_mode & 0o077 == 0


def test_what_happens_once_leaves_one_tombstone(tmp_path: Path) -> None:
    subject = clock.new_random_id()
    known = tombstone_id(ERASED, TENANT, subject)
    for _ in range(3):
        FileTombstones(tmp_path).append(ERASED, TENANT, [subject], tombstone=known)
    assert [one.id for one in FileTombstones(tmp_path).all()] == [known]


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    journals = [FileTombstones(tmp_path) for _ in range(4)]

    def write(journal: FileTombstones) -> None:
        for _ in range(25):
            journal.append(ERASED, TENANT, [clock.new_random_id()])

    threads = [threading.Thread(target=write, args=(journal,)) for journal in journals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len({one.id for one in FileTombstones(tmp_path).all()}) == 100


def test_a_journal_that_cannot_be_looked_for_is_not_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TombstonesDamaged, match="cannot be read"):
        list(FileTombstones(tmp_path / "file").all())


def test_what_a_killed_process_left_of_a_line_is_cut(tmp_path: Path) -> None:
    one = FileTombstones(tmp_path).append(ERASED, TENANT, [clock.new_random_id()])
    with FileTombstones(tmp_path).path.open("ab") as file:
        file.write(b'{"id":"')
    assert list(FileTombstones(tmp_path).all()) == [one]
    two = FileTombstones(tmp_path).append(ERASED, TENANT, [clock.new_random_id()])
    assert list(FileTombstones(tmp_path).all()) == [one, two]


@pytest.mark.parametrize("damage", ["a line is gone", "a line is edited", "two lines change places"])
def test_a_changed_journal_is_refused(tmp_path: Path, damage: str) -> None:
    journal = FileTombstones(tmp_path)
    for _ in range(4):
        journal.append(ERASED, TENANT, [clock.new_random_id()])
    lines = journal.path.read_bytes().splitlines(keepends=True)
    if damage == "a line is gone":
        del lines[1]
    elif damage == "a line is edited":
        lines[1] = lines[1].replace(b"subject:erased", b"hold:released")
    else:
        lines[1], lines[2] = lines[2], lines[1]
    journal.path.write_bytes(b"".join(lines))
    with pytest.raises(TombstonesDamaged, match="line"):
        list(FileTombstones(tmp_path).all())
    with pytest.raises(ConfigurationError, match="restore it from the newest backup"):
        FileTombstones(tmp_path).append(ERASED, TENANT, [])


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("a file where the folder should be")
    with pytest.raises(Unavailable, match="cannot be written"):
        FileTombstones(tmp_path / "t").append(ERASED, TENANT, [])
    assert os.listdir(tmp_path) == ["t"]


def test_an_erasure_and_a_revoked_key_are_done_again_in_a_database_that_does_not_know_of_them(
    make_services: MakeServices, database: Postgres
) -> None:
    """The rows come back as a restore brings them; the next start does both again before it serves."""
    services = make_services()
    tenant_id = services.installation.tenants.create("acme").id
    caller = caller_of(services, tenant_id)
    add(services, caller, "alice likes tea", subjects=SubjectNames(user_id="alice"))
    add(services, caller, "bob likes coffee", subjects=SubjectNames(user_id="bob"))
    principal, secret = principal_of(services, tenant_id)
    kept = ("subjects", "memories", "history", "events", "api_keys", "tombstones")
    superuser(database, *(f"CREATE TABLE kept_{table} AS TABLE {table}" for table in kept))
    services.entities.delete(caller, caller.scope, SubjectKind.USER, "alice")
    services.keys.revoke(caller, caller.scope, principal.id)
    assert {one.kind for one in services.installation.tombstones.all()} == {ERASED, TombstoneKind.KEY_REVOKED}
    superuser(
        database,
        *(f"DELETE FROM {table}" for table in reversed(kept)),
        *(f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM kept_{table}" for table in kept),
    )
    assert superuser(database, "SELECT count(*) FROM memories") == [(2,)]
    assert services.keys.find_principal(secret) is not None

    again = settled(services)
    assert again == 2
    assert superuser(database, "SELECT count(*) FROM memories") == [(1,)]
    assert superuser(database, "SELECT count(*) FROM subjects") == [(1,)]
    assert services.keys.find_principal(secret) is None
    assert found(services, caller, "likes", {"user_id": "bob"}) == ["bob likes coffee"]
    rows = superuser(database, "SELECT detail ->> 'kind' FROM audit WHERE event = 'tombstone:applied' ORDER BY seq")
    assert rows == [("subject:erased",), ("key:revoked",)]
    assert settled(services) == 0


def test_keys_that_ended_with_their_connector_or_their_user_stay_ended_in_a_restored_database(
    make_services: MakeServices, database: Postgres
) -> None:
    """Each has a line of its own in the journal: the keys come back with a restore, without what they hung on."""
    services = make_services()
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    for user in ("alice", "bob"):
        add(services, caller, f"{user} likes tea", subjects=SubjectNames(user_id=user))
    keys, role = services.installation.keys, ROLES["agent"]
    bound = {
        "crm": Grant(role, connector="crm"),
        "alice": Grant(role, users=frozenset({"alice"})),
        "both": Grant(role, users=frozenset({"alice", "bob"})),
        "slack": Grant(role, connector="slack"),
    }
    minted = {name: keys.mint_for_installation(caller.principal.tenant_id, grant) for name, grant in bound.items()}

    def live() -> set[str]:
        return {name for name, key in minted.items() if keys.find_principal(key.secret) is not None}

    restored = ("api_keys", "tombstones")
    superuser(database, "CREATE SCHEMA kept", *(f"CREATE TABLE kept.{table} AS TABLE {table}" for table in restored))
    erasure = services.erasures.remove_connector(caller, caller.scope, "crm")
    services.erasing.finish(caller.principal.tenant_id, erasure.id)
    services.entities.delete(caller, caller.scope, SubjectKind.USER, "alice")
    assert live() == {"both", "slack"}
    ended = [one.ids for one in services.installation.tombstones.all() if one.kind is TombstoneKind.KEY_REVOKED]
    assert ended == [(minted["crm"].id,), (minted["alice"].id,)]
    assert settled(services) == 0

    for table in restored:
        superuser(database, f"DELETE FROM {table}", f"INSERT INTO {table} SELECT * FROM kept.{table}")
    assert "crm" in live()
    assert settled(services) == 3
    assert live() == {"both", "slack"}
    assert settled(services) == 0


def test_a_journal_that_was_lost_is_made_again_from_the_database(services: Services, caller: Caller) -> None:
    add(services, caller, "alice likes tea", subjects=SubjectNames(user_id="alice"))
    services.entities.delete(caller, caller.scope, SubjectKind.USER, "alice")
    journal = services.installation.tombstones
    before = list(journal.all())
    journal.path.unlink()
    assert settled(services) == 0
    assert list(journal.all()) == before


def settled(services: Services) -> int:
    """Settle as a start does, and return how many tombstones were applied again."""
    from service.wiring.settling import settle

    return settle(services.installation, services.erasing, services.index).applied


def superuser(database: Postgres, *statements: str) -> list[tuple[object, ...]]:
    """Run statements past every policy and trigger; return the rows of the last."""
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        rows: list[tuple[object, ...]] = []
        for statement in statements:
            cursor = connection.execute(statement.encode())
            rows = cursor.fetchall() if cursor.description else []
        return rows
