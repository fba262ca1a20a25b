"""Copies of a keyring in a database: out into a folder for a backup, in from one, and in from a keyring of files."""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson
from sqlalchemy import text

from service.errors import ConfigurationError
from service.scope import TenantId
from service.storage.keyring import FileKeyring
from service.storage.keyring_database import KeyringDatabase
from service.storage.keyring_rows import OWN, DatabaseKeyring
from service.storage.tombstones import FILE
from service.storage.tombstones_rows import DatabaseTombstones

#: The file with the keys, each as it is wrapped: without the wrapping key, which is not in it, nothing opens.
KEYS: Final = "keys.jsonl"
_AT_ONCE: Final = 1000
_SOME: Final = text(
    "SELECT tenant_id, subject_id, wrapped, wrapped_by FROM keys"
    " WHERE (tenant_id, subject_id) > (:tenant, :subject) ORDER BY tenant_id, subject_id LIMIT 1000"
)


class _Line(NamedTuple):
    tenant_id: TenantId
    subject_id: UUID
    wrapped: bytes | None
    by: bytes | None


def write_keys(database: KeyringDatabase, folder: Path) -> None:
    """Write all keys, wrapped, and all tombstones of keys into a new file of a folder."""
    with _private(folder / KEYS) as file:
        tenant_id, subject_id = OWN, OWN
        while True:
            with database.reading() as connection:
                rows = connection.execute(_SOME, {"tenant": tenant_id, "subject": subject_id}).all()
            for row in rows:
                line = {
                    "tenant": str(row.tenant_id),
                    "subject": str(row.subject_id),
                    "wrapped": None if row.wrapped is None else b64encode(row.wrapped).decode(),
                    "by": None if row.wrapped_by is None else b64encode(row.wrapped_by).decode(),
                }
                file.write(orjson.dumps(line) + b"\n")
                tenant_id, subject_id = row.tenant_id, row.subject_id
            if not rows:
                return


def write_journal(tombstones: DatabaseTombstones, folder: Path) -> None:
    """Write the journal into a new file of a folder, line by line as it is, so that it is one of files."""
    with _private(folder / FILE) as file:
        for _, line in tombstones.lines():
            file.write(line)


def take_in(keyring: DatabaseKeyring, database: KeyringDatabase, folder: Path) -> int:
    """Add the keys of a copy that are missing, and return how many. What was destroyed in either stays destroyed.

    Raises:
        ConfigurationError: when the copy's keys are wrapped by another key, with nothing changed.
    """
    with database.writing() as connection:
        for by in {line.by for line in _lines(folder) if line.by is not None}:
            if not keyring.admit(connection, by):
                raise ConfigurationError(
                    "keyring.wrapping_key: is not the key that wraps the keys of this backup: set that one, or as "
                    "keyring.second_wrapping_key if it was changed since"
                )
    count, lines = 0, _lines(folder)
    while some := list(islice(lines, _AT_ONCE)):
        with database.writing() as connection:
            for line in some:
                if line.wrapped is not None and line.by is not None:
                    count += keyring.add_wrapped(connection, line.tenant_id, line.subject_id, line.wrapped, line.by)
        for line in some:
            if line.wrapped is None:
                keyring.destroy_subject(line.tenant_id, line.subject_id)
    return count


def move_in(keyring: DatabaseKeyring, database: KeyringDatabase, files: FileKeyring) -> int:
    """Add the keys of a keyring of files, wrapped anew, and return how many; else as `take_in`."""
    count, each = 0, files.each()
    while some := list(islice(each, _AT_ONCE)):
        with database.writing() as connection:
            for tenant_id, subject_id, key in some:
                if key is not None:
                    count += keyring.make_wrapped(connection, tenant_id, subject_id or OWN, key)
        for tenant_id, subject_id, key in some:
            if key is None:
                keyring.destroy_subject(tenant_id, subject_id or OWN)
    return count


def _lines(folder: Path) -> Iterator[_Line]:
    try:
        with (folder / KEYS).open("rb") as file:
            for line in file:
                fields: dict[str, Any] = orjson.loads(line)
                wrapped, by = fields["wrapped"], fields["by"]
                yield _Line(
                    TenantId(UUID(fields["tenant"])),
                    UUID(fields["subject"]),
                    None if wrapped is None else b64decode(wrapped),
                    None if by is None else b64decode(by),
                )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{folder}: holds no keys of a database ({type(error).__name__})") from None


def _private(path: Path) -> Any:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
