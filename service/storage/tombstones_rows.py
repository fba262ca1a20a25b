"""The journal of tombstones in the keyring's database: the same chained lines as in the file, one row each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import text

from service.errors import KeyringUnavailable, Unavailable
from service.storage.keyring_database import KeyringDatabase
from service.storage.tombstones import (
    NOTHING_BEFORE,
    Tombstone,
    Tombstones,
    TombstonesDamaged,
    digest_of,
    line_of,
    parsed_line,
)

#: Writers take turns by the row that destructions of keys are numbered by.
_TAKE_TURN: Final = text("SELECT changes FROM keyring_state FOR UPDATE")
_KNOWN: Final = text("SELECT 1 FROM tombstones WHERE id = :id")
_LAST: Final = text("SELECT position, line FROM tombstones ORDER BY position DESC LIMIT 1")
_ADD: Final = text("INSERT INTO tombstones (position, id, line) VALUES (:position, :id, :line)")
_SOME: Final = text("SELECT position, line FROM tombstones WHERE position > :after ORDER BY position LIMIT 1000")


class DatabaseTombstones(Tombstones):
    """The journal in a table. Nothing in it is ever changed: the database refuses."""

    def __init__(self, database: KeyringDatabase) -> None:
        self._database = database

    @property
    def place(self) -> str:
        """The database."""
        return self._database.place

    def add(self, tombstone: Tombstone) -> None:
        """Add a tombstone as it is, unless it is there already."""
        try:
            with self._database.writing() as connection:
                connection.execute(_TAKE_TURN)
                if connection.execute(_KNOWN, {"id": tombstone.id}).first() is not None:
                    return
                last = connection.execute(_LAST).first()
                line = line_of(tombstone, NOTHING_BEFORE if last is None else digest_of(bytes(last.line)))
                position = 1 if last is None else last.position + 1
                connection.execute(_ADD, {"position": position, "id": tombstone.id, "line": line})
        except KeyringUnavailable as error:
            raise Unavailable(f"the journal of erasures and holds cannot be written: {error.detail}") from None

    def all(self) -> Iterator[Tombstone]:
        """Yield all tombstones in the order of writing."""
        last = NOTHING_BEFORE
        for number, line in self.lines():
            yield parsed_line(line, last, f"{self.place}, tombstone {number}")
            last = digest_of(line)

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield the lines as they were written, with their numbers."""
        after = 0
        while True:
            try:
                with self._database.reading() as connection:
                    rows = connection.execute(_SOME, {"after": after}).all()
            except KeyringUnavailable as error:
                raise TombstonesDamaged(error.detail) from None
            for row in rows:
                yield row.position, bytes(row.line)
                after = row.position
            if not rows:
                return
