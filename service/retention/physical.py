"""The physical pass: no byte of what was deleted stays in the files of the index and of Postgres, one pass for many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from service.errors import IndexUnavailable
from service.index.interface import Index
from service.memories.changing import ModelChange
from service.memories.indexing import Indexing
from service.scope import TenantId
from service.storage.erasers import erasers
from service.storage.files import FilePass, check_files, rewrite_files
from service.storage.keyring import Keyring

NO_ROLE: Final = (
    "database.maintenance_url is not set: without the maintenance role no table can be rewritten and no WAL switched"
)


@dataclass(frozen=True, slots=True)
class Physical:
    """What a pass did to the index and to the files of Postgres."""

    files: FilePass

    def document(self) -> dict[str, Any]:
        """Return it as a receipt says it."""
        files = self.files
        database: dict[str, Any] = {
            "state": "done" if files.done else "not done",
            "tables_rewritten": sorted(files.tables),
            "checkpoint": files.checkpoint,
            "wal_switched": files.wal_switched,
            "wal_archived": files.wal_archived,
        }
        document: dict[str, Any] = {
            "state": "done" if files.done else "not done",
            "database": database,
            "index": {"state": "done"},
            "keyring": {"state": "done"},
            "logs": {"state": "done", "why": "logs hold no content and no names"},
        }
        if files.reason is not None:
            database["reason"] = document["reason"] = files.reason
        return document


class PhysicalPass:
    """Makes the pass. It takes long and locks tables, so it runs in the background."""

    def __init__(
        self,
        indexing: Indexing,
        index: Index,
        change: ModelChange,
        tenants: Callable[[], Sequence[TenantId]],
        dsn: str | None,
        keyring: Keyring,
        *,
        lock_timeout: float,
    ) -> None:
        self._keyring = keyring
        self._tenants = tenants
        self._indexing = indexing
        self._index = index
        self._change = change
        self._dsn = dsn
        self._lock_timeout = lock_timeout

    def make(self, *, names: bool) -> Physical:
        """Bring the index up to the record, write it anew without what was deleted, and so the tables.

        With `names` the table of the tenants too, where a deleted one had its name. It is asked first whether the
        tables can be written anew: the index takes long, and would be made again at each try.

        Raises:
            Unavailable: when a store is away or busy; the same call is to be made again later.
        """
        tables = sorted(one.name for one in erasers()) + (["tenants"] if names else [])
        if self._dsn is not None:
            check_files(self._dsn, tables, lock_timeout=self._lock_timeout)
        self._indexing.drain()
        self._keyring.rewrite()
        self._change.remove_idle()
        if not self._index.compacts:
            self._indexing.rebuild(self._tenants)
        elif not self._index.compact():
            raise IndexUnavailable("the index is being compacted or rebuilt already; it is tried again")
        if self._dsn is None:
            return Physical(FilePass(reason=NO_ROLE))
        return Physical(rewrite_files(self._dsn, tables, lock_timeout=self._lock_timeout))


def said(physical: Mapping[str, Any] | None) -> str:
    """Return in a word whether the pass was made."""
    return "not done" if physical is None else str(physical["state"])
