"""Notices that the database is not the one any more that this process has worked with, as after a restore under it."""

from __future__ import annotations

import logging
import threading
from typing import Final

from sqlalchemy import text

from service.storage.database import Database

_log = logging.getLogger("memvault.audit")

#: Checkpoints are only ever added, also where old parts of the trail are dropped and where a restore is declared.
_LOOK: Final = text(
    "SELECT number, body FROM audit_checkpoints"
    " WHERE number IN (:known, (SELECT max(number) FROM audit_checkpoints)) ORDER BY number"
)


class Continuity:
    """Remembers the newest checkpoint that was seen: a database that lacks it lost that, and what was done since.

    Needs no key, so that every process can tell, whether it signs or not. Before the first checkpoint nothing can be
    told. A database that has it again, as a standby that was late, is taken for good again.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._known: tuple[int, str] | None = None
        self._problem: str | None = None

    @property
    def problem(self) -> str | None:
        """What is wrong with the database as it was seen last, or None."""
        return self._problem

    def look(self) -> None:
        """Ask the database now.

        Raises:
            RecordUnavailable: when it does not answer; what was found before still stands.
        """
        with self._lock:
            number = 0 if self._known is None else self._known[0]
            with self._database.tenant_blind() as connection:
                found = [(row.number, row.body) for row in connection.execute(_LOOK, {"known": number})]
            if self._known is None or self._known in found:
                if self._problem is not None:
                    _log.warning("the database has what it lacked again", extra={"checkpoint": number})
                self._known, self._problem = found[-1] if found else None, None
                return
            if self._problem is None:
                _log.error("the database was replaced by another state of it", extra={"checkpoint": number})
            self._problem = (
                f"checkpoint {number}, which this process has seen, is not in the database: it was restored to an"
                " earlier state or replaced; stop all services and workers and start them again"
            )
