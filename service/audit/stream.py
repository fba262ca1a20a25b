"""Sends the trail on as it grows, at least once and in order, to standard output, a file or a syslog collector.

Rows are taken in the order in which they are sealed and only when no older one can appear any more, so that a
transaction that commits late is not passed over. What has arrived is noted in the database after it has arrived: after
a crash, or while a receiver is down, rows are sent again or later, never left out.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import orjson
from sqlalchemy import select, text, tuple_

from service import clock
from service.audit.entries import SETTLED, Entry, audit_table, document, entry_of
from service.audit.places import Places
from service.audit.syslog import SinkUnavailable
from service.errors import RecordUnavailable
from service.scope import Scope, TenantId, service_principal
from service.storage.database import Database

_log = logging.getLogger("memvault.audit")
_a: Final[Any] = audit_table.c
_BATCH: Final = 500
_HELD_SECONDS: Final = 60.0
_LONGEST_WAIT: Final = 60.0


class Sink(Protocol):
    """Where entries go. `name` is the stream's name in the database."""

    @property
    def name(self) -> str:
        """The stream's name."""

    def send(self, entries: Sequence[Entry]) -> None:
        """Send a batch; return once it has arrived. Raises SinkUnavailable."""


class StandardOutput:
    """JSON lines to standard output."""

    name = "stdout"

    def send(self, entries: Sequence[Entry]) -> None:
        """Write a batch."""
        try:
            sys.stdout.buffer.write(_lines(entries))
            sys.stdout.buffer.flush()
        except (OSError, ValueError) as error:
            raise SinkUnavailable(f"standard output: {type(error).__name__}") from None


class LinesFile:
    """JSON lines at the end of a file, which may be moved away at any time: each batch opens it anew."""

    name = "file"

    def __init__(self, path: Path) -> None:
        self._path = path

    def send(self, entries: Sequence[Entry]) -> None:
        """Append a batch, durably, behind the line that a full disk or a killed process may have cut."""
        try:
            lines = b"\n" + _lines(entries) if self._is_cut() else _lines(entries)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise SinkUnavailable(f"{self._path}: {error.strerror}") from None

    def _is_cut(self) -> bool:
        if not self._path.is_file() or not self._path.stat().st_size:
            return False
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"


class AuditStream:
    """One stream: a thread that keeps a sink up to date. Of several processes one sends at a time."""

    def __init__(self, database: Database, sink: Sink, *, interval: float = 1.0) -> None:
        self._database = database
        self._sink = sink
        self._interval = interval
        self._places = Places(database, sink.name)
        self._held_until = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"memvault-audit-{sink.name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the batch that is under way."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(30)

    def send_news(self) -> int:
        """Send what has come since; return how many rows. Nothing while another process has the stream.

        Raises:
            SinkUnavailable, RecordUnavailable: with the rest still to be sent.
        """
        if not self._hold():
            return 0
        news, sent = self._places.news(), 0
        for tenant_id in news.tenants:
            count, to_the_end = self._send_tenant(tenant_id)
            sent += count
            if not to_the_end:
                return sent
        self._places.seen(news.seen)
        return sent

    def _hold(self) -> bool:
        """Keep the stream; the database is asked well before the time is over, not every time."""
        asked = clock.monotonic()
        if asked < self._held_until - _HELD_SECONDS / 2:
            return True
        if not self._places.hold(_HELD_SECONDS):
            return False
        self._held_until = asked + _HELD_SECONDS
        return True

    def _send_tenant(self, tenant_id: TenantId) -> tuple[int, bool]:
        """Send a tenant's rows; return how many, and whether there are no more."""
        scope = Scope.of(service_principal(tenant_id))
        place, sent = self._places.of(tenant_id), 0
        while not self._stopping.is_set() and self._hold():
            query = (
                select(audit_table)
                .where(_a.tenant_id == tenant_id, tuple_(_a.xid, _a.seq) > place, text(SETTLED))
                .order_by(_a.xid, _a.seq)
                .limit(_BATCH)
            )
            with self._database.transaction(scope) as connection:
                entries = [entry_of(row) for row in connection.execute(query)]
            if not entries:
                return sent, True
            self._sink.send(entries)
            place = (entries[-1].xid, entries[-1].seq)
            self._places.move(tenant_id, place)
            sent += len(entries)
        return sent, False

    def _run(self) -> None:
        wait, failing = self._interval, False
        while not self._stopping.wait(wait):
            try:
                self.send_news()
                wait = self._interval
                if failing:
                    failing = False
                    _log.info("the audit stream goes on", extra={"stream": self._sink.name})
            except Exception as error:
                # Whatever it was, the stream goes on: a thread that ended would leave rows out in silence.
                wait = min(max(wait, self._interval) * 2, _LONGEST_WAIT)
                if not failing:
                    failing = True
                    extra = {"stream": self._sink.name, "error": type(error).__name__}
                    _log.warning("the audit stream waits for its receiver", extra=extra)
        if self._held_until:
            try:
                self._places.release()
            except RecordUnavailable:
                return


def _lines(entries: Sequence[Entry]) -> bytes:
    return b"".join(orjson.dumps(document(entry), option=orjson.OPT_APPEND_NEWLINE) for entry in entries)
