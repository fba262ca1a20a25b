"""The keyring in a database: what only a database can get wrong."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import event

from service import clock, wiring
from service.errors import ConfigurationError, KeyringUnavailable, Unavailable
from service.migrations.keyring import upgrade_keyring
from service.scope import SubjectKind, TenantId
from service.storage.encryption import Place
from service.storage.keyring import FileKeyring, KeyDestroyed
from service.storage.keyring_copies import take_in, write_journal, write_keys
from service.storage.keyring_database import KeyringDatabase
from service.storage.tombstones import FileTombstones, TombstoneKind, TombstonesDamaged
from service.wiring.keys import move_keys, open_database_keys, rewrap_keys
from tests.conftest import MakeServices, Postgres, caller_of, fresh_database
from tests.integration.memories.adding import add, found
from tests.integration.storage.keyrings import (
    SUBJECT,
    TENANT,
    Chosen,
    House,
    database_name,
    new_key,
    settings_of,
    stopped,
)

pytestmark = [pytest.mark.integration, pytest.mark.postgres_suite]


def test_the_keyring_asks_once_in_seconds_and_not_for_each_call(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    now = stopped(monkeypatch)
    keyring = house.open().keyring
    for number in range(2, 12):
        keyring.create_subject(TENANT, UUID(int=number))
    keyring.create_tenant(TENANT)
    keyring.tenant_secret(TENANT, "names")
    asked: list[str] = []
    engine = keyring._database._engine
    event.listen(engine, "before_cursor_execute", lambda *call: asked.append(str(call[2])))
    for _ in range(3):
        for number in range(2, 12):
            keyring.subject(TENANT, UUID(int=number))
        keyring.tenant_secret(TENANT, "names")
    assert asked == []
    monkeypatch.setattr(clock, "monotonic", lambda: now + 3)
    for number in range(2, 12):
        keyring.subject(TENANT, UUID(int=number))
    assert len(asked) == 1


def test_a_key_that_is_destroyed_while_it_is_read_is_not_remembered(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring = house.open().keyring
    keyring.create_subject(TENANT, SUBJECT)
    keyring = house.open().keyring
    read = keyring._read

    def destroying(tenant_id: TenantId, subject_id: UUID) -> bytes:
        key = read(tenant_id, subject_id)
        keyring.destroy_subject(tenant_id, subject_id)
        return key

    monkeypatch.setattr(keyring, "_read", destroying)
    keyring.subject(TENANT, SUBJECT)
    with pytest.raises(KeyDestroyed):
        keyring.subject(TENANT, SUBJECT)


def test_a_keyring_that_is_away_is_believed_for_seconds_and_then_503(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = stopped(monkeypatch)
    keys = house.open()
    keyring = keys.keyring
    keyring.create_subject(TENANT, SUBJECT)
    monkeypatch.setattr(keys.database, "_dsn", "host=127.0.0.1 port=1 dbname=away connect_timeout=2")
    keys.database.close()
    monkeypatch.setattr(clock, "monotonic", lambda: start + 3)
    assert keyring.subject(TENANT, SUBJECT)
    monkeypatch.setattr(clock, "monotonic", lambda: start + 6)
    for _ in range(2):
        with pytest.raises(KeyringUnavailable, match="does not answer") as told:
            keyring.subject(TENANT, SUBJECT)
        assert told.value.status == 503
    for refused in (keyring.ping, lambda: keyring.destroy_subject(TENANT, SUBJECT)):
        with pytest.raises(KeyringUnavailable):
            refused()
    with pytest.raises(Unavailable, match="journal"):
        keys.tombstones.append(TombstoneKind.SUBJECT_ERASED, TENANT, [SUBJECT])
    monkeypatch.undo()
    keys.database.close()
    assert keyring.subject(TENANT, SUBJECT)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE keys SET destroyed_no = NULL, destroyed_at = NULL, wrapped = '\\x00',"
        " wrapped_by = (SELECT check_value FROM wrapping_keys)",
        "DELETE FROM keys",
        "TRUNCATE keys",
        "UPDATE tombstones SET line = ''",
        "DELETE FROM tombstones",
        "TRUNCATE tombstones",
    ],
)
def test_the_database_itself_refuses_to_undo(house: House, statement: str) -> None:
    keys = house.open()
    keys.keyring.destroy_subject(TENANT, SUBJECT)
    keys.tombstones.append(TombstoneKind.SUBJECT_ERASED, TENANT, [SUBJECT])
    with psycopg.connect(house.chosen["url"]) as connection, pytest.raises(psycopg.errors.RaiseException):
        connection.execute(statement.encode())


def test_keys_are_wrapped_for_their_place_and_by_their_key_only(house: House) -> None:
    keyring = house.open().keyring
    keyring.create_subject(TENANT, SUBJECT)
    other = UUID(int=3)
    keyring.create_subject(TENANT, other)
    with psycopg.connect(house.chosen["url"]) as connection:
        connection.execute(
            "UPDATE keys SET wrapped = (SELECT wrapped FROM keys WHERE subject_id = %s) WHERE subject_id = %s",
            [SUBJECT, other],
        )
    with pytest.raises(KeyringUnavailable, match="changed or moved") as told:
        house.open().keyring.subject(TENANT, other)
    assert str(other) not in told.value.detail
    with pytest.raises(ConfigurationError, match=r"keyring\.wrapping_key: is not the key") as refused:
        house.open(wrapping_key=new_key())
    assert house.chosen["wrapping_key"] not in str(refused.value)
    with pytest.raises(KeyringUnavailable, match="lacks a key"):
        keyring.subject(TENANT, uuid4())


def test_the_wrapping_key_is_changed_while_all_runs(house: House) -> None:
    old, new = house.chosen["wrapping_key"], new_key()
    place = Place(TENANT, "memories", uuid4(), "content")
    running = house.open()
    sealed = {number: running.keyring.create_subject(TENANT, UUID(int=number)).seal(b"tea", place) for number in (2, 3)}
    # One replica after the other: both keys open, then the new one wraps.
    both, turned = house.open(second_wrapping_key=new), house.open(wrapping_key=new, second_wrapping_key=old)
    made = turned.keyring.create_subject(TENANT, UUID(int=4)).seal(b"tea", place)
    assert both.keyring.subject(TENANT, UUID(int=4)).open(made, place) == b"tea"
    with pytest.raises(KeyringUnavailable, match="did not wrap"):
        running.keyring.subject(TENANT, UUID(int=4))

    settings = settings_of(house.chosen, house.folder, wrapping_key=new, second_wrapping_key=old)
    assert rewrap_keys(settings) == 2
    assert rewrap_keys(settings) == 0
    after = house.open(wrapping_key=new).keyring
    assert all(after.subject(TENANT, UUID(int=n)).open(one, place) == b"tea" for n, one in sealed.items())
    assert len(house.rows("SELECT * FROM wrapping_keys")) == 1
    # Whoever still has the old key only can neither start nor make keys that nobody could open.
    with pytest.raises(ConfigurationError, match=r"keyring\.wrapping_key"):
        house.open(wrapping_key=old)
    with pytest.raises(KeyringUnavailable):
        running.keyring.create_subject(TENANT, UUID(int=5))


def test_a_destroyed_key_is_in_no_file_of_the_table(house: House, postgres: Postgres) -> None:
    keys = house.open()
    keys.keyring.create_subject(TENANT, SUBJECT)
    [(wrapped,)] = house.rows("SELECT wrapped FROM keys")
    with psycopg.connect(postgres.on(database_name(house)).admin, autocommit=True) as admin:

        def file() -> bytes:
            admin.execute("CHECKPOINT")
            row = admin.execute("SELECT pg_read_binary_file(pg_relation_filepath('keys'))").fetchone()
            assert row is not None
            return bytes(row[0])

        assert wrapped in file()
        keys.keyring.destroy_subject(TENANT, SUBJECT)
        assert wrapped in file()
        with psycopg.connect(house.chosen["url"]) as reader:
            reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            reader.execute("SELECT 1 FROM wrapping_keys").fetchall()
            keys.keyring.create_subject(TENANT, UUID(int=3))
            keys.keyring.destroy_subject(TENANT, UUID(int=3))
            with pytest.raises(KeyringUnavailable, match="can still see"):
                keys.keyring.rewrite()
        keys.keyring.rewrite()
        assert wrapped not in file()
    with pytest.raises(KeyDestroyed):
        keys.keyring.subject(TENANT, SUBJECT)


def test_a_journal_that_was_changed_is_refused(house: House) -> None:
    keys = house.open()
    for _ in range(3):
        keys.tombstones.append(TombstoneKind.SUBJECT_ERASED, TENANT, [uuid4()])
    with psycopg.connect(house.chosen["url"]) as connection:
        connection.execute("ALTER TABLE tombstones DISABLE TRIGGER USER")
        connection.execute("DELETE FROM tombstones WHERE position = 2")
    with pytest.raises(TombstonesDamaged, match="tombstone 3: is not what was written"):
        list(keys.tombstones.all())


def test_a_copy_goes_into_another_database_and_brings_nothing_back(
    house: House, postgres: Postgres, tmp_path: Path
) -> None:
    keys = house.open()
    place = Place(TENANT, "memories", uuid4(), "content")
    keys.keyring.create_tenant(TENANT)
    sealed = {n: keys.keyring.create_subject(TENANT, UUID(int=n)).seal(b"tea", place) for n in (2, 3, 4)}
    keys.keyring.destroy_subject(TENANT, UUID(int=3))
    keys.tombstones.append(TombstoneKind.SUBJECT_ERASED, TENANT, [UUID(int=3)])
    write_keys(keys.database, tmp_path / "copy")
    write_journal(keys.tombstones, tmp_path / "copy")
    assert (tmp_path / "copy" / "keys.jsonl").stat().st_mode & 0o077 == 0
    assert list(FileTombstones(tmp_path / "copy").all()) == list(keys.tombstones.all())

    with fresh_database(postgres, empty=True) as made, ExitStack() as stack:
        url = made.urls["owner_url"]
        upgrade_keyring(url)
        wrong = open_database_keys(settings_of({"url": url, "wrapping_key": new_key()}, tmp_path), stack)
        with pytest.raises(ConfigurationError, match="not the key that wraps the keys of this backup"):
            take_in(wrong.keyring, wrong.database, tmp_path / "copy")
    with fresh_database(postgres, empty=True) as made, ExitStack() as stack:
        url = made.urls["owner_url"]
        upgrade_keyring(url)
        other = open_database_keys(settings_of(house.chosen | {"url": url}, tmp_path), stack)
        other.keyring.destroy_subject(TENANT, UUID(int=4))
        assert take_in(other.keyring, other.database, tmp_path / "copy") == 2
        assert take_in(other.keyring, other.database, tmp_path / "copy") == 0
        assert other.keyring.subject(TENANT, UUID(int=2)).open(sealed[2], place) == b"tea"
        assert other.keyring.tenant_secret(TENANT, "names") == keys.keyring.tenant_secret(TENANT, "names")
        for gone in (3, 4):
            with pytest.raises(KeyDestroyed):
                other.keyring.subject(TENANT, UUID(int=gone))


def test_a_keyring_of_files_moves_into_the_database(house: House) -> None:
    settings = settings_of(house.chosen, house.folder)
    with pytest.raises(ConfigurationError, match="holds no keyring"):
        move_keys(settings)
    files, journal = FileKeyring(house.folder / "keys"), FileTombstones(house.folder / "tombstones")
    place = Place(TENANT, "memories", uuid4(), "content")
    files.create_tenant(TENANT)
    sealed = files.create_subject(TENANT, SUBJECT).seal(b"tea", place)
    files.destroy_subject(TENANT, UUID(int=3))
    journal.append(TombstoneKind.SUBJECT_ERASED, TENANT, [UUID(int=3)])
    moved, again = move_keys(settings), move_keys(settings)
    assert (moved.keys, moved.tombstones, again.keys, again.tombstones) == (2, 1, 0, 0)
    keys = house.open()
    assert keys.keyring.subject(TENANT, SUBJECT).open(sealed, place) == b"tea"
    assert keys.keyring.tenant_secret(TENANT, "names") == files.tenant_secret(TENANT, "names")
    with pytest.raises(KeyDestroyed):
        keys.keyring.subject(TENANT, UUID(int=3))
    assert list(keys.tombstones.all()) == list(journal.all())


def test_the_record_s_database_is_refused(database: Postgres, tmp_path: Path) -> None:
    url = database.urls["owner_url"]
    with pytest.raises(ConfigurationError, match="names the database of the record"):
        upgrade_keyring(url)
    with closing(KeyringDatabase(url)) as found, pytest.raises(ConfigurationError, match="names the database of the"):
        found.check()
    with psycopg.connect(database.owner) as connection:
        assert connection.execute("SELECT to_regclass('public.keyring_state')").fetchone() == (None,)


def test_tables_that_are_not_this_release_s_are_refused(house: House, postgres: Postgres) -> None:
    told = pytest.raises(ConfigurationError, match="has no tables yet: run `memvault migrate`")
    with fresh_database(postgres, empty=True) as empty:
        url = empty.urls["owner_url"]
        with closing(KeyringDatabase(url)) as found, told:
            found.check()
    assert upgrade_keyring(house.chosen["url"]) == upgrade_keyring(house.chosen["url"]) == 1
    for version, said in ((0, "run `memvault migrate`"), (99, "install a newer Memvault")):
        with psycopg.connect(house.chosen["url"]) as connection:
            connection.execute("UPDATE keyring_schema SET version = %s", [version])
        with pytest.raises(ConfigurationError, match=said):
            house.open()
    with pytest.raises(ConfigurationError, match="install a newer Memvault"):
        upgrade_keyring(house.chosen["url"])
    with pytest.raises(ConfigurationError, match=r"keyring\.url: cannot be used") as refused:
        upgrade_keyring("postgresql://nobody:a-secret-0123456789@127.0.0.1:1/keys")
    assert "a-secret" not in str(refused.value)


def test_an_installation_lives_on_it_and_a_keyring_that_went_back_is_brought_up(
    make_services: MakeServices, keyring_settings: Chosen, data_dir: Path
) -> None:
    services = make_services(keyring=keyring_settings)
    tenant = services.installation.tenants.create("acme").id
    caller = caller_of(services, tenant)
    add(services, caller, "alice keeps bees", user="alice")
    add(services, caller, "bob keeps goats", user="bob")
    assert not (data_dir / "keys" / "tenants").exists()
    assert not (data_dir / "tombstones").exists()
    assert next(part.state for part in services.readiness() if part.name == "keyring") == "ok"
    with psycopg.connect(keyring_settings["url"]) as connection:
        before = connection.execute("SELECT * FROM keys WHERE destroyed_no IS NULL").fetchall()
    services.entities.delete(caller, caller.scope, SubjectKind.USER, "alice")
    with psycopg.connect(keyring_settings["url"]) as connection:
        destroyed = connection.execute("SELECT * FROM keys WHERE destroyed_no IS NOT NULL").fetchall()
        assert len(destroyed) == 1
        assert len(before) >= 3
        # The database of the keyring is put back to what it was.
        connection.execute("ALTER TABLE keys DISABLE TRIGGER USER")
        connection.execute("ALTER TABLE tombstones DISABLE TRIGGER USER")
        connection.execute("DELETE FROM tombstones")
        connection.execute("DELETE FROM keys")
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO keys VALUES (%s, %s, %s, %s, %s, %s, %s)", before)
        connection.execute("UPDATE keyring_state SET changes = 0")
        connection.execute("ALTER TABLE keys ENABLE TRIGGER USER")
        connection.execute("ALTER TABLE tombstones ENABLE TRIGGER USER")
    settled = wiring.settle(services.installation, services.erasing, services.index)
    assert settled.recovered == 1
    with psycopg.connect(keyring_settings["url"]) as connection:
        now = connection.execute("SELECT tenant_id, subject_id FROM keys WHERE destroyed_no IS NOT NULL").fetchall()
    assert now == [row[:2] for row in destroyed]
    assert [one.kind for one in services.installation.tombstones.all()] == [TombstoneKind.SUBJECT_ERASED]
    assert found(services, caller, "goats", {"user_id": "bob"}) == ["bob keeps goats"]
