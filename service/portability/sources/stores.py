"""The stores of open-source Mem0: a Qdrant collection or a pgvector table, each with the history file beside it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from service.errors import ConfigurationError
from service.portability.records import Placed
from service.portability.sources.history_file import open_history
from service.portability.sources.mem0 import of_payload
from service.storage.conninfo import bounded

_AT_ONCE: Final = 500


def read_qdrant(
    place: str, collection: str, api_key: str | None, history: Path | None, now: datetime
) -> Iterator[Placed]:
    """Read the memories of a collection."""
    # Here, since the client of a server takes 0.8 s to import, and nearly every start is without one.
    from service.index.foreign import read_collection

    with open_history(history, now) as steps:
        for raw_id, payload in read_collection(place, collection, api_key=api_key):
            yield of_payload(f"point {raw_id}", raw_id, payload, steps.of(raw_id), now)


def read_pgvector(dsn: str, table: str, history: Path | None, now: datetime) -> Iterator[Placed]:
    """Read the memories of a table."""
    with open_history(history, now) as steps:
        for raw_id, payload in _rows(dsn, table):
            yield of_payload(f"row {raw_id}", raw_id, payload, steps.of(raw_id), now)


def _rows(dsn: str, table: str) -> Iterator[tuple[str, dict[str, Any]]]:
    schema, _, name = table.rpartition(".")
    place = sql.Identifier(schema, name) if schema else sql.Identifier(name)
    try:
        connection: psycopg.Connection[TupleRow] = psycopg.connect(bounded(dsn), connect_timeout=10)
    except psycopg.Error:
        raise ConfigurationError("the source's database does not answer; check host, name and password") from None
    with connection:
        connection.read_only = True
        try:
            with connection.cursor(name="memvault_import") as cursor:
                cursor.itersize = _AT_ONCE
                cursor.execute(sql.SQL("SELECT id::text, payload FROM {} ORDER BY id").format(place))
                for raw_id, payload in cursor:
                    yield str(raw_id), dict(payload or {})
        except psycopg.errors.UndefinedTable:
            raise ConfigurationError(f"--collection {table}: there is no such table") from None
        except (psycopg.errors.UndefinedColumn, psycopg.errors.InsufficientPrivilege):
            raise ConfigurationError(f"--collection {table}: is no table of Mem0, or may not be read") from None
