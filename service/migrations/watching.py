"""Watches a migration from a second connection: what it waits for, who holds that, and how long it has run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import psycopg

from service import clock

#: Seconds between two lines about a migration that runs on.
_TELL_EVERY: Final = 10.0
_LOOK_EVERY: Final = 0.5
_WAITING: Final = """
SELECT coalesce(l.relation::regclass::text, ''), b.pid, coalesce(a.application_name, ''), coalesce(a.usename, '')
FROM pg_locks l
CROSS JOIN LATERAL unnest(pg_blocking_pids(l.pid)) AS b (pid)
LEFT JOIN pg_stat_activity a ON a.pid = b.pid
WHERE l.pid = %s AND NOT l.granted
ORDER BY b.pid LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Blocker:
    """Who holds a lock that a migration waits for, and on what (empty when it is not a table)."""

    table: str
    pid: int
    program: str
    role: str

    def __str__(self) -> str:
        what = f"a lock on {self.table}" if self.table else "other transactions to end"
        who = ", ".join(filter(None, (self.program, f"role {self.role}" if self.role else "")))
        return f"{what}, held by process {self.pid}{f' ({who})' if who else ''}"


class Watch:
    """Looks at one backend for the length of a block. Without a second connection it sees nothing, and that is all."""

    def __init__(self, dsn: str, pid: int, tell: Callable[[str], None], *, look_every: float = _LOOK_EVERY) -> None:
        self._dsn = dsn
        self._pid = pid
        self._tell = tell
        self._look_every = min(look_every, _LOOK_EVERY)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memvault-migration", daemon=True)
        self._running = ""
        self._since = clock.monotonic()
        #: Who was last seen in the way.
        self.blocker: Blocker | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(10)

    def begin(self, running: str) -> None:
        """Say which migration runs from now on."""
        self._running, self._since, self.blocker = running, clock.monotonic(), None

    def _watch(self) -> None:
        # It only explains: whatever fails here is no reason not to migrate.
        with suppress(psycopg.Error), psycopg.connect(self._dsn, autocommit=True, connect_timeout=10) as connection:
            told = clock.monotonic()
            while not self._ended.wait(self._look_every):
                row = connection.execute(_WAITING, [self._pid]).fetchone()
                if row is not None:
                    self.blocker = Blocker(*row)
                if clock.monotonic() - max(told, self._since) >= _TELL_EVERY:
                    told = clock.monotonic()
                    waiting = f", waiting for {Blocker(*row)}" if row is not None else ""
                    self._tell(f"{self._running}: has run for {told - self._since:.0f} s{waiting}")
