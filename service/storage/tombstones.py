"""Tombstones: what must stay done even when the database goes back to an earlier state, kept outside of it.

A database that is restored from a backup, or by its provider to a point in time, forgets every erasure, revoked key and
hold that came after. So each leaves one line in a journal beside the keyring, without content, before it counts as
done, and its id in the table `tombstones` of the database. A line whose id the database lacks is applied again at the
next start, before anything is served. Whoever makes such a thing

1. calls `append` (durable when it returns; for what cannot be taken back, an erasure, before the first act),
2. calls `note` in the transaction of the effect,
3. gives the composition root a function that applies a tombstone again; doing so twice is harmless.
"""

from __future__ import annotations

import fcntl
import os
import threading
from abc import ABC, abstractmethod
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, Final
from uuid import UUID, uuid5

import orjson
from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from service import clock
from service.errors import ConfigurationError, Unavailable
from service.scope import TenantId
from service.storage.belonging import hand_over, make_private_folder
from service.storage.tables import TombstoneRow

FILE: Final = "tombstones.jsonl"
NOTHING_BEFORE: Final = "0" * 64
_table: Final[Any] = TombstoneRow.__table__  # type: ignore[attr-defined]


class TombstoneKind(StrEnum):
    """What was done. The ids are: of the subject; of memories; none; of the key; of the hold, then its memories.

    The memories of a hold on subjects are left out.
    """

    SUBJECT_ERASED = "subject:erased"
    MEMORIES_ERASED = "memories:erased"
    TENANT_REMOVED = "tenant:removed"
    KEY_REVOKED = "key:revoked"
    HOLD_PLACED = "hold:placed"
    HOLD_RELEASED = "hold:released"


class TombstonesDamaged(ConfigurationError):
    """The journal is not what was written: nothing is served, for it may lack an erasure."""

    code = "tombstones_damaged"


@dataclass(frozen=True, slots=True)
class Tombstone:
    """One thing that stays done. `sealed` is ciphertext under a key of the tenant, for what needs more than ids."""

    id: UUID
    kind: TombstoneKind
    tenant_id: TenantId
    ids: tuple[UUID, ...]
    at: datetime
    sealed: bytes | None = None


def tombstone_id(kind: TombstoneKind, tenant_id: TenantId, what: UUID) -> UUID:
    """Return the id of the tombstone of something that happens once, so that doing it again leaves no second one."""
    return uuid5(tenant_id, f"{kind.value} {what}")


class Tombstones(ABC):
    """The journal: one line each, chained by hashes, only ever appended to. Writers of several processes take turns."""

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the journal is, for messages."""

    @abstractmethod
    def add(self, tombstone: Tombstone) -> None:
        """Add a tombstone as it is, unless it is there already; else as `append`."""

    @abstractmethod
    def all(self) -> Iterator[Tombstone]:
        """Yield all tombstones in the order of writing.

        Raises:
            TombstonesDamaged: when the journal is not what was written.
        """

    def append(
        self,
        kind: TombstoneKind,
        tenant_id: TenantId,
        ids: Sequence[UUID],
        *,
        tombstone: UUID | None = None,
        at: datetime | None = None,
        sealed: bytes | None = None,
    ) -> Tombstone:
        """Add a tombstone and return it once it is on the disk. With the id of one that is there, nothing is added.

        Raises:
            Unavailable: when it cannot be written; what it stands for must not be done then.
            TombstonesDamaged: when the journal is not what was written.
        """
        made = Tombstone(tombstone or clock.new_id(), kind, tenant_id, tuple(ids), at or clock.now(), sealed)
        self.add(made)
        return made

    def note(self, connection: Connection, tombstone: Tombstone) -> None:
        """Note in the database, in the transaction of the effect, that a tombstone is applied."""
        values = {
            "id": tombstone.id,
            "tenant_id": tombstone.tenant_id,
            "kind": tombstone.kind.value,
            "ids": list(tombstone.ids),
            "sealed": tombstone.sealed,
            "at": tombstone.at,
        }
        connection.execute(insert(_table).values(**values).on_conflict_do_nothing())

    def noted(self, connection: Connection) -> dict[UUID, Tombstone]:
        """Return what the database knows to be applied."""
        return {
            row.id: Tombstone(
                row.id, TombstoneKind(row.kind), TenantId(row.tenant_id), tuple(row.ids), row.at, row.sealed
            )
            for row in connection.execute(select(_table).order_by(_table.c.at, _table.c.id))
        }


class FileTombstones(Tombstones):
    """The journal in a file of a private folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / FILE
        self._lock = threading.Lock()
        self._known: set[UUID] = set()
        self._read = 0
        self._last = NOTHING_BEFORE

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def place(self) -> str:
        """The file."""
        return str(self._path)

    def add(self, tombstone: Tombstone) -> None:
        """Add a tombstone as it is, unless it is there already; else as `append`."""
        try:
            with self._lock, self._taken() as file:
                if tombstone.id in self._known:
                    return
                line = line_of(tombstone, self._last)
                file.seek(self._read)
                # What a killed process left of a line.
                file.truncate()
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
                self._advance(line, tombstone.id)
        except OSError as error:
            raise Unavailable(f"the journal of erasures and holds cannot be written ({error.strerror})") from None

    def all(self) -> Iterator[Tombstone]:
        """Yield all tombstones in the order of writing.

        Raises:
            TombstonesDamaged: when the journal is not what was written.
        """
        last = NOTHING_BEFORE
        try:
            with self._path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if not line.endswith(b"\n"):
                        return
                    yield parsed_line(line, last, f"{self._path}, line {number}")
                    last = digest_of(line)
        except FileNotFoundError:
            return
        except OSError as error:
            raise TombstonesDamaged(f"{self._path}: cannot be read ({error.strerror})") from None

    @contextmanager
    def _taken(self) -> Iterator[IO[bytes]]:
        """Open the journal alone, with everything read that other processes wrote."""
        make_private_folder(self._folder)
        with os.fdopen(self._open(), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_size == 0:
                self._forget()
                _sync(self._folder)
            elif os.fstat(file.fileno()).st_size < self._read:
                # Another journal was put in its place.
                self._forget()
            file.seek(self._read)
            for line in file:
                if line.endswith(b"\n"):
                    number = len(self._known) + 1
                    self._advance(line, parsed_line(line, self._last, f"{self._path}, line {number}").id)
            yield file

    def _open(self) -> int:
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return os.open(self._path, os.O_RDWR)
        hand_over(descriptor, self._folder)
        return descriptor

    def _forget(self) -> None:
        self._known, self._read, self._last = set(), 0, NOTHING_BEFORE

    def _advance(self, line: bytes, known: UUID) -> None:
        self._known.add(known)
        self._read += len(line)
        self._last = digest_of(line)


def parsed_line(line: bytes, previous: str, where: str) -> Tombstone:
    """Return the tombstone of a line that follows the one with the digest `previous`.

    Raises:
        TombstonesDamaged: when it is not what was written there.
    """
    try:
        fields: Any = orjson.loads(line)
        if fields["previous"] != previous:
            raise ValueError("a line that follows another one")
        return Tombstone(
            id=UUID(fields["id"]),
            kind=TombstoneKind(fields["kind"]),
            tenant_id=TenantId(UUID(fields["tenant"])),
            ids=tuple(UUID(one) for one in fields["ids"]),
            at=datetime.fromisoformat(fields["at"]),
            sealed=None if fields["sealed"] is None else b64decode(fields["sealed"], validate=True),
        )
    except (ValueError, TypeError, KeyError):
        raise TombstonesDamaged(
            f"{where}: is not what was written: restore it from the newest backup of the keyring; a line that "
            "is missing is an erasure or a hold that a restored database would not know of"
        ) from None


def digest_of(line: bytes) -> str:
    """Return what the line after this one says of it."""
    return sha256(line).hexdigest()


def line_of(tombstone: Tombstone, previous: str) -> bytes:
    """Return the line of a tombstone that follows the one with the digest `previous`."""
    fields = {
        "id": str(tombstone.id),
        "kind": tombstone.kind.value,
        "tenant": str(tombstone.tenant_id),
        "ids": tombstone.ids,
        "at": tombstone.at.astimezone(UTC).isoformat(timespec="microseconds"),
        "sealed": None if tombstone.sealed is None else b64encode(tombstone.sealed).decode(),
        "previous": previous,
    }
    return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS) + b"\n"


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
