"""The history database that open-source Mem0 keeps beside its vector store: an SQLite file, read and never written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

from service.errors import ConfigurationError
from service.portability.records import IncomingHistory
from service.portability.sources.mem0 import step_of, uuid_of

_STEPS: Final = (
    "SELECT id, memory_id, old_memory, new_memory, event, created_at, updated_at FROM history WHERE memory_id = ?"
    " ORDER BY coalesce(updated_at, created_at), rowid"
)


class HistoryFile:
    """The steps of each memory, by its id."""

    def __init__(self, connection: sqlite3.Connection | None, now: datetime) -> None:
        self._connection = connection
        self._now = now

    def of(self, memory_id: str) -> list[IncomingHistory]:
        """Return the steps of a memory, the oldest first; none where there is no file."""
        if self._connection is None:
            return []
        rows = self._connection.execute(_STEPS, [memory_id]).fetchall()
        return [step_of(f"history {row['id']}", dict(row), uuid_of(memory_id), self._now) for row in rows]


@contextmanager
def open_history(path: Path | None, now: datetime) -> Iterator[HistoryFile]:
    """Open the file, if there is one.

    Raises:
        ConfigurationError: when it is not Mem0's history.
    """
    if path is None:
        yield HistoryFile(None, now)
        return
    if not path.is_file():
        raise ConfigurationError(f"--history {path}: is not there")
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        try:
            connection.execute(_STEPS, [""]).fetchall()
        except sqlite3.Error:
            raise ConfigurationError(f"--history {path}: is not the history database of Mem0") from None
        yield HistoryFile(connection, now)
