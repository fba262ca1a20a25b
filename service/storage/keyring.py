"""The keyring: one key for each tenant and subject, kept apart from the data, so that destroying one is an erasure.

Every key is stored wrapped (AES key wrap, RFC 3394) by the master key. A destroyed key leaves a tombstone, so that it
is never made anew for the same subject and "destroyed" can be told from "lost".
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Protocol
from uuid import UUID

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from service import clock
from service.errors import ConfigurationError, Conflict, KeyringUnavailable
from service.scope import TenantId
from service.storage.belonging import hand_over, make_private_folder
from service.storage.encryption import Cipher

_log: Final = logging.getLogger("memvault.keyring")
KEY_BYTES: Final = 32
CACHED_KEYS: Final = 20_000
BELIEVED_SECONDS: Final = 5.0
_TOMBSTONE: Final = b"destroyed\n"
_REMEDY: Final = "restore the folder, with its master.key, from the backup that belongs to the data"


class KeyDestroyed(Exception):
    """The key was destroyed; what it sealed cannot be read any more, on purpose."""


class KeyMissing(KeyringUnavailable):
    """There is no such key and no tombstone, or it does not open: the keyring is not the one of this data."""

    def __init__(self, place: str, why: str, remedy: str) -> None:
        super().__init__(f"the keyring, {place}, {why}; {remedy}")


class KeyLost(KeyMissing):
    """The keyring is there and has no such key: it is an earlier state of itself, which the key came after."""

    def __init__(self, place: str, remedy: str) -> None:
        super().__init__(place, "lacks a key of this data", remedy)


def lost_of(unreadable: Mapping[UUID, KeyringUnavailable]) -> set[UUID]:
    """Return the ids of rows that cannot be opened, with an error in the log, when all of their keys are lost.

    Raises:
        KeyringUnavailable: the reason of one that may be opened another time.
    """
    for reason in unreadable.values():
        if not isinstance(reason, KeyLost):
            raise reason
    if unreadable:
        _log.error("what is stored cannot be opened: its keys are lost", extra={"rows": len(unreadable)})
    return set(unreadable)


class Keyring(Protocol):
    """Where keys come from."""

    @property
    def place(self) -> str:
        """Where the keyring is, for messages."""

    @property
    def remedy(self) -> str:
        """What to do when it is not the one of the data."""

    def ping(self) -> None:
        """Raise KeyringUnavailable unless keys can be read."""

    def rewrite(self) -> None:
        """See to it that the bytes of destroyed keys are in no file of the keyring. Raises KeyringUnavailable."""

    def subject(self, tenant_id: TenantId, subject_id: UUID) -> Cipher:
        """Return the cipher of a subject. Raises KeyDestroyed or KeyMissing."""

    def new_subject(self, tenant_id: TenantId, subject_id: UUID) -> Cipher:
        """Make the key of a new subject, in this process only until `create_subject`, and return its cipher."""

    def create_subject(self, tenant_id: TenantId, subject_id: UUID) -> Cipher:
        """Make the key of a new subject durable, that of `new_subject` if there is one, and return its cipher.

        Raises KeyDestroyed for an erased id, and in an erased tenant.
        """

    def forget_new(self, tenant_id: TenantId, subject_id: UUID) -> None:
        """Drop a key of `new_subject` that was not made durable; of any other nothing changes."""

    def destroy_subject(self, tenant_id: TenantId, subject_id: UUID) -> None:
        """Destroy a subject's key, durably, before returning. Doing it again is harmless."""

    def create_tenant(self, tenant_id: TenantId) -> None:
        """Make the key of a new tenant durable. Doing it again is harmless."""

    def destroy_tenant(self, tenant_id: TenantId) -> None:
        """Destroy the tenant's key and those of all its subjects, durably. Doing it again is harmless."""

    def tenant_secret(self, tenant_id: TenantId, purpose: str) -> bytes:
        """Return the tenant's 256-bit secret for a purpose. Raises KeyDestroyed or KeyMissing."""

    def check(self, tenant_id: TenantId, subject_id: UUID | None = None) -> None:
        """Return when the key of a subject, or the tenant's own, is there now, whatever is remembered of it.

        Raises KeyDestroyed or KeyMissing.
        """


class FileKeyring:
    """A keyring of files in a private folder, one small file a key."""

    def __init__(self, folder: Path) -> None:
        """Open the keyring, making the folder and the master key on the first use.

        Raises:
            ConfigurationError: when the folder or the master key cannot be used.
        """
        self._folder = folder
        self._lock = threading.Lock()
        # Another process may destroy a key: after some seconds its file is looked at again.
        self._cache: OrderedDict[tuple[TenantId, UUID], tuple[float, Cipher]] = OrderedDict()
        self._secrets: dict[tuple[TenantId, str], tuple[float, bytes]] = {}
        self._new: dict[tuple[TenantId, UUID], bytes] = {}
        self._destroyed = 0
        try:
            make_private_folder(folder)
            found = folder.stat()
            # The folder of a volume may be somebody else's, who gave it to a group of this process.
            if found.st_mode & 0o077 and os.geteuid() in (0, found.st_uid):
                folder.chmod(0o700)
            self._master = self._read_or_make_master(folder / "master.key")
        except OSError as error:
            raise ConfigurationError(f"{folder}: the key folder cannot be used ({error.strerror})") from None

    @property
    def place(self) -> str:
        """The folder."""
        return str(self._folder)

    @property
    def remedy(self) -> str:
        """What to do when it is not the one of the data."""
        return _REMEDY

    def ping(self) -> None:
        """Raise KeyringUnavailable unless the folder is there."""
        if not (self._folder / "master.key").exists():
            raise KeyMissing(self.place, "is not there", self.remedy)

    def rewrite(self) -> None:
        """Do nothing: a destroyed key was written over in its place."""

    def subject(self, tenant_id: TenantId, subject_id: UUID) -> Cipher:
        """Return the cipher of a subject."""
        known = (tenant_id, subject_id)
        with self._lock:
            if (new := self._new.get(known)) is not None:
                return Cipher(new)
            since, cached = self._cache.get(known, (0.0, None))
            if cached is not None and clock.monotonic() - since <= BELIEVED_SECONDS:
                self._cache.move_to_end(known)
                return cached
            destroyed = self._destroyed
        cipher = Cipher(self._unwrapped(self._subject_path(tenant_id, subject_id)))
        self._remember(known, cipher, destroyed)
        return cipher

    def new_subject(self, tenant_id: TenantId, subject_id: UUID) -> Cipher:
        """Make the key of a new subject in memory."""
        key = secrets.token_bytes(KEY_BYTES)
        with self._lock:
            self._new[(tenant_id, subject_id)] = key
        return Cipher(key)

    def create_subject(self, tenant_id: TenantId, subject_id: UUID) -> Cipher:
        """Make the key of a new subject durable and return its cipher."""
        path = self._subject_path(tenant_id, subject_id)
        with self._lock:
            key = self._new.get((tenant_id, subject_id))
        self._make(path, key)
        # The tenant may have been erased meanwhile: then its keys were looked for before this one was there.
        if self._is_destroyed(self._tenant_path(tenant_id)):
            self._destroy(path)
        self.forget_new(tenant_id, subject_id)
        return self.subject(tenant_id, subject_id)

    def forget_new(self, tenant_id: TenantId, subject_id: UUID) -> None:
        """Drop a key that was not made durable."""
        with self._lock:
            self._new.pop((tenant_id, subject_id), None)

    def destroy_subject(self, tenant_id: TenantId, subject_id: UUID) -> None:
        """Replace a subject's key by a tombstone, durably, and forget it here."""
        self._destroy(self._subject_path(tenant_id, subject_id))
        with self._lock:
            self._destroyed += 1
            self._cache.pop((tenant_id, subject_id), None)

    def destroy_tenant(self, tenant_id: TenantId) -> None:
        """Replace the tenant's key and those of its subjects by tombstones, durably, and forget them here."""
        self._destroy(self._tenant_path(tenant_id))
        for path in sorted((self._folder / "subjects" / str(tenant_id)).glob("*/*.key")):
            self._destroy(path)
        with self._lock:
            self._destroyed += 1
            for known in [one for one in self._cache if one[0] == tenant_id]:
                del self._cache[known]
            for secret in [one for one in self._secrets if one[0] == tenant_id]:
                del self._secrets[secret]

    @staticmethod
    def _destroy(path: Path) -> None:
        with _writing(), ExitStack() as stack:
            make_private_folder(path.parent)
            old = stack.enter_context(path.open("r+b")) if path.exists() else None
            # The tombstone first: a process that is killed between the two leaves a key that is destroyed, not one that
            # is neither. Then the old bytes, where the file system writes in place: they have no name any more.
            _write_durably(path, _TOMBSTONE)
            if old is not None:
                old.write(secrets.token_bytes(os.fstat(old.fileno()).st_size))
                old.flush()
                os.fsync(old.fileno())

    def create_tenant(self, tenant_id: TenantId) -> None:
        """Make the key of a new tenant durable."""
        self._make(self._tenant_path(tenant_id))

    def tenant_secret(self, tenant_id: TenantId, purpose: str) -> bytes:
        """Return the tenant's secret for a purpose, derived with HKDF-SHA256 (RFC 5869) from the tenant's key."""
        known = (tenant_id, purpose)
        with self._lock:
            since, cached = self._secrets.get(known, (0.0, None))
            if cached is not None and clock.monotonic() - since <= BELIEVED_SECONDS:
                return cached
            destroyed = self._destroyed
        key = self._unwrapped(self._tenant_path(tenant_id))
        secret = HKDF(SHA256(), KEY_BYTES, salt=None, info=f"memvault/{purpose}".encode()).derive(key)
        with self._lock:
            # Else a key was destroyed since this one was read. It may be this one, and would be kept.
            if self._destroyed == destroyed:
                self._secrets[known] = (clock.monotonic(), secret)
        return secret

    def check(self, tenant_id: TenantId, subject_id: UUID | None = None) -> None:
        """Return when the key of a subject, or the tenant's own, is there now, whatever is remembered of it."""
        self._unwrapped(
            self._tenant_path(tenant_id) if subject_id is None else self._subject_path(tenant_id, subject_id)
        )

    def each(self) -> Iterator[tuple[TenantId, UUID | None, bytes | None]]:
        """Yield all keys with whose they are; None for a tenant's own subject, and for a key that was destroyed."""
        for path in sorted(self._folder.glob("tenants/*.key")):
            yield TenantId(UUID(path.stem)), None, self._found(path)
        for path in sorted(self._folder.glob("subjects/*/*/*.key")):
            yield TenantId(UUID(path.parts[-3])), UUID(path.stem), self._found(path)

    def _found(self, path: Path) -> bytes | None:
        try:
            return self._unwrapped(path)
        except KeyDestroyed:
            return None

    def _remember(self, known: tuple[TenantId, UUID], cipher: Cipher, destroyed: int) -> None:
        with self._lock:
            if self._destroyed != destroyed:
                # A key was destroyed since this one was read. It may be this one, and would be kept for ever.
                return
            self._cache.pop(known, None)
            self._cache[known] = (clock.monotonic(), cipher)
            while len(self._cache) > CACHED_KEYS:
                self._cache.popitem(last=False)

    def _subject_path(self, tenant_id: TenantId, subject_id: UUID) -> Path:
        # The last byte of a time-ordered id is random, so the keys spread evenly over 256 folders.
        return self._folder / "subjects" / str(tenant_id) / subject_id.hex[-2:] / f"{subject_id}.key"

    def _tenant_path(self, tenant_id: TenantId) -> Path:
        return self._folder / "tenants" / f"{tenant_id}.key"

    def _make(self, path: Path, key: bytes | None = None) -> None:
        with _writing():
            if not path.exists():
                _create_durably(path, aes_key_wrap(self._master, key or secrets.token_bytes(KEY_BYTES)))

    @staticmethod
    def _is_destroyed(path: Path) -> bool:
        with _writing():
            return path.exists() and path.read_bytes() == _TOMBSTONE

    def _unwrapped(self, path: Path) -> bytes:
        try:
            wrapped = path.read_bytes()
        except FileNotFoundError:
            # A folder that is not mounted lacks all keys, and has lost none.
            self.ping()
            raise KeyLost(self.place, self.remedy) from None
        except OSError as error:
            raise KeyMissing(self.place, f"cannot be read ({error.strerror})", self.remedy) from None
        if wrapped == _TOMBSTONE:
            raise KeyDestroyed(f"{path.name} was destroyed")
        try:
            return aes_key_unwrap(self._master, wrapped)
        except InvalidUnwrap:
            raise KeyMissing(self.place, "has a key that its master.key did not wrap", self.remedy) from None

    @staticmethod
    def _read_or_make_master(path: Path) -> bytes:
        if not path.exists():
            _create_durably(path, secrets.token_bytes(KEY_BYTES))
        master = path.read_bytes()
        if len(master) != KEY_BYTES:
            raise ConfigurationError(f"{path}: the master key must have {KEY_BYTES} bytes; restore it from its backup")
        return master


@contextmanager
def _writing() -> Iterator[None]:
    """Tell of a key that could not be written as of a store that is away: with room on the disk it can be again."""
    try:
        yield
    except OSError as error:
        raise KeyringUnavailable(f"the keyring cannot be written ({error.strerror})") from None


def adopt(source: Path, folder: Path) -> int:
    """Take over the keys of a copy of this keyring that are missing here, and return how many.

    What was destroyed in either stays destroyed: a key that is there is replaced by a tombstone, never the other way.

    Raises:
        Conflict: when the copy is another keyring's: keys of the two do not open with one master key.
    """
    theirs, ours = source / "master.key", folder / "master.key"
    if ours.exists() and ours.read_bytes() != theirs.read_bytes():
        raise Conflict(f"{folder}: is another keyring than the backup's: move it away, or name its own backup")
    # A copy that was cut short may have left one of a key, which no erasure would find. Nobody else is at work here.
    for left in folder.rglob(".*.key.*"):
        left.unlink()
    count = 0
    for path in sorted(source.rglob("*")):
        if not path.is_file():
            continue
        content, target = path.read_bytes(), folder / path.relative_to(source)
        if not target.exists():
            _create_durably(target, content)
            count += 1
        elif content == _TOMBSTONE and target.read_bytes() != _TOMBSTONE:
            _write_durably(target, content)
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o700)
    return count


def _create_durably(path: Path, content: bytes) -> None:
    """Write a new file that is either whole or absent; the first of several writers wins."""
    make_private_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    _write_private(temporary, content)
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    _sync_folder(path.parent)


def _write_durably(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    _write_private(temporary, content)
    os.replace(temporary, path)
    _sync_folder(path.parent)


def _write_private(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            hand_over(descriptor, path.parent)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink()
        raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
