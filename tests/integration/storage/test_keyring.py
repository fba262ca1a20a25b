"""The keyring: what a failure in the middle leaves, and what is refused when it is not the one of the record."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from service import wiring
from service.errors import ConfigurationError, KeyringUnavailable
from service.migrations.runner import downgrade
from service.scope import TenantId
from service.settings import load_settings
from service.storage.encryption import CannotOpen, Cipher, Place
from service.storage.keyring import FileKeyring, KeyDestroyed
from service.storage.tombstones import FileTombstones, TombstoneKind
from tests.conftest import Postgres
from tests.integration.embedded.installations import NAMELESS, needs_root

pytestmark = pytest.mark.integration

TENANT, SUBJECT = TenantId(UUID(int=1)), UUID(int=2)


def broken(*_: object) -> None:
    """Fail as a full disk does."""
    raise OSError(28, "No space left on device")


def key_file(folder: Path) -> Path:
    """The one subject's key."""
    return next((folder / "subjects").rglob("*.key"))


def test_a_tombstone_that_cannot_be_written_leaves_the_key_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FileKeyring(tmp_path).create_subject(TENANT, SUBJECT)
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", broken)
        with pytest.raises(KeyringUnavailable, match="No space"):
            FileKeyring(tmp_path).destroy_subject(TENANT, SUBJECT)
    assert FileKeyring(tmp_path).subject(TENANT, SUBJECT)


def test_a_key_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = FileKeyring(tmp_path)
    before = set(tmp_path.rglob("*"))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", broken)
        with pytest.raises(KeyringUnavailable, match="No space"):
            keyring.create_subject(TENANT, SUBJECT)
    assert [path for path in set(tmp_path.rglob("*")) - before if path.is_file()] == []
    assert keyring.create_subject(TENANT, SUBJECT)


@needs_root
def test_what_root_makes_belongs_to_the_owner_of_the_data_folder(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    os.chown(data, NAMELESS, NAMELESS)
    keyring = FileKeyring(data / "keys")
    keyring.create_tenant(TENANT)
    keyring.create_subject(TENANT, SUBJECT)
    keyring.destroy_subject(TENANT, SUBJECT)
    FileTombstones(data / "tombstones").append(TombstoneKind.TENANT_REMOVED, TENANT, [])
    made = list(data.rglob("*"))
    assert {path.name for path in made} >= {"master.key", "tenants", "subjects", "tombstones.jsonl"}
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(NAMELESS, NAMELESS)}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in made if path.is_file())


@needs_root
def test_a_folder_that_only_a_group_of_the_process_may_write_to_is_used() -> None:
    """As Kubernetes mounts a volume: root's, for the pod's group, and its mode is not the process's to change."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        Path(place).chmod(0o755)
        folder = Path(place, "keys")
        folder.mkdir()
        os.chown(folder, 0, NAMELESS)
        folder.chmod(0o2770)
        child = os.fork()
        if child == 0:
            try:
                os.setgroups([])
                os.setgid(NAMELESS)
                os.setuid(NAMELESS)
                FileKeyring(folder).create_tenant(TENANT)
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert all(path.stat().st_mode & 0o077 == 0 for path in folder.rglob("*") if path.is_file())


def test_what_ends_after_the_tombstone_leaves_the_key_destroyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FileKeyring(tmp_path).create_subject(TENANT, SUBJECT)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", broken)
        with pytest.raises(KeyringUnavailable, match="No space"):
            FileKeyring(tmp_path).destroy_subject(TENANT, SUBJECT)
    again = FileKeyring(tmp_path)
    with pytest.raises(KeyDestroyed):
        again.subject(TENANT, SUBJECT)
    again.destroy_subject(TENANT, SUBJECT)
    with pytest.raises(KeyDestroyed):
        again.create_subject(TENANT, SUBJECT)


def test_the_old_bytes_are_overwritten(tmp_path: Path) -> None:
    keyring = FileKeyring(tmp_path / "keys")
    keyring.create_subject(TENANT, SUBJECT)
    path, other_name = key_file(tmp_path / "keys"), tmp_path / "other-name"
    other_name.hardlink_to(path)
    wrapped = other_name.read_bytes()
    keyring.destroy_subject(TENANT, SUBJECT)
    assert len(other_name.read_bytes()) == len(wrapped)
    assert other_name.read_bytes() != wrapped
    assert path.read_bytes() == b"destroyed\n"


def test_a_key_that_is_destroyed_while_it_is_read_is_not_remembered(tmp_path: Path) -> None:
    class Destroying(FileKeyring):
        """Destroys each key just after it was read."""

        def _unwrapped(self, path: Path) -> bytes:
            key = super()._unwrapped(path)
            self.destroy_subject(TENANT, SUBJECT)
            return key

    FileKeyring(tmp_path).create_subject(TENANT, SUBJECT)
    keyring = Destroying(tmp_path)
    keyring.subject(TENANT, SUBJECT)
    with pytest.raises(KeyDestroyed):
        keyring.subject(TENANT, SUBJECT)


def test_a_tenant_s_key_that_is_destroyed_while_it_is_read_is_not_remembered(tmp_path: Path) -> None:
    class Destroying(FileKeyring):
        """Destroys each key just after it was read."""

        def _unwrapped(self, path: Path) -> bytes:
            key = super()._unwrapped(path)
            self.destroy_tenant(TENANT)
            return key

    FileKeyring(tmp_path).create_tenant(TENANT)
    keyring = Destroying(tmp_path)
    keyring.tenant_secret(TENANT, "names")
    with pytest.raises(KeyDestroyed):
        keyring.tenant_secret(TENANT, "names")


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: key_file(folder).unlink(),
        lambda folder: key_file(folder).write_bytes(os.urandom(40)),
        lambda folder: key_file(folder).write_bytes(b""),
        lambda folder: (folder / "master.key").write_bytes(os.urandom(32)),
        lambda folder: (key_file(folder).unlink(), shutil.rmtree(folder / "subjects"), (folder / "subjects").touch()),
    ],
    ids=["no key", "another key", "an empty key", "another master", "no folder"],
)
def test_a_key_that_does_not_open_is_told_as_503_with_the_folder(
    harm: Callable[[Path], object], tmp_path: Path
) -> None:
    FileKeyring(tmp_path).create_subject(TENANT, SUBJECT)
    harm(tmp_path)
    with pytest.raises(KeyringUnavailable, match=r"restore the folder, with its master\.key") as told:
        FileKeyring(tmp_path).subject(TENANT, SUBJECT)
    assert (told.value.status, told.value.code) == (503, "keyring_unavailable")
    assert str(tmp_path) in told.value.detail
    assert str(SUBJECT) not in told.value.detail


def test_a_value_that_does_not_open_is_told_as_503() -> None:
    place = Place(TENANT, "memories", uuid4(), "content")
    sealed = Cipher(bytes(32)).seal(b"tea", place)
    for key, value in ((b"\1" * 32, sealed), (bytes(32), b"\2" + sealed[1:]), (bytes(32), b"")):
        with pytest.raises(CannotOpen, match=r"memories\.content") as told:
            Cipher(key).open(value, place)
        assert (told.value.status, told.value.code) == (503, "keyring_unavailable")


def open_installation(database: Postgres, data_dir: Path, stack: ExitStack) -> wiring.Installation:
    """Open the record with the keyring of a data folder."""
    settings = load_settings(environ={}, flags={"data_dir": data_dir})
    return wiring.open_installation(settings, wiring.Connections(database.app, database.owner), stack)


@pytest.mark.parametrize(
    "harm",
    [
        shutil.rmtree,
        lambda keys: (keys / "master.key").write_bytes(os.urandom(32)),
        lambda keys: shutil.rmtree(keys / "tenants"),
    ],
    ids=["empty", "another master", "no tenants"],
)
def test_a_keyring_that_is_not_the_record_s_is_refused_at_the_start(
    harm: Callable[[Path], object], database: Postgres, data_dir: Path
) -> None:
    with ExitStack() as stack:
        open_installation(database, data_dir, stack).tenants.create("acme")
    harm(data_dir / "keys")
    with ExitStack() as stack, pytest.raises(ConfigurationError, match="not the one of this database") as told:
        open_installation(database, data_dir, stack)
    assert str(data_dir / "keys") in told.value.detail


def test_the_lost_key_of_one_tenant_does_not_stop_the_others(database: Postgres, data_dir: Path) -> None:
    with ExitStack() as stack:
        tenants = open_installation(database, data_dir, stack).tenants
        lost, kept = tenants.create("acme").id, tenants.create("rival").id
    (data_dir / "keys" / "tenants" / f"{lost}.key").unlink()
    with ExitStack() as stack:
        keyring = open_installation(database, data_dir, stack).keyring
        assert keyring.tenant_secret(kept, "subject-names")
        with pytest.raises(KeyringUnavailable):
            keyring.tenant_secret(lost, "subject-names")


def test_a_database_without_a_schema_takes_any_keyring(database: Postgres, data_dir: Path) -> None:
    downgrade(database.owner, app_role="memvault_app", revision="base")
    with ExitStack() as stack:
        open_installation(database, data_dir, stack)
