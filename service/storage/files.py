"""The physical pass over Postgres: rewrites tables without what was deleted, and lets go of the WAL that still has it.

After DELETE and VACUUM the bytes of a row stay in the heap, in TOAST and in the WAL. VACUUM FULL writes a table anew,
ANALYZE forgets the samples of its values, a switch of the WAL and two checkpoints drop the old WAL files, which the
embedded Postgres removes and does not use again (`wal_recycle=off`). The application role may do none of it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
from psycopg import sql

from service import clock
from service.errors import RecordBusy, RecordUnavailable

#: Where Postgres keeps samples of the values of all tables, and the jobs of the queue with their arguments.
_ALWAYS: Final = ("procrastinate_jobs", "procrastinate_events", "pg_statistic")
_LEFT: Final = re.compile(r"^(\d+)")
_AWAY: Final = ("08", "53", "57", "58")
#: Seconds that snapshots are waited for, which holds up nobody: a standby tells of its own every ten.
_SNAPSHOTS_END_IN: Final = 15.0
_LOOK_EVERY: Final = 0.05
#: The oldest transactions that somebody can still see as they were. A VACUUM that runs holds up no other.
_HELD: Final = """
    WITH held (xid) AS (
        SELECT unnest(ARRAY[backend_xid, backend_xmin]) FROM pg_stat_activity
        WHERE pid <> pg_backend_pid() AND pid NOT IN (SELECT pid FROM pg_stat_progress_vacuum)
            AND (datid IS NULL OR datid = (SELECT oid FROM pg_database WHERE datname = current_database()))
        UNION ALL SELECT transaction FROM pg_prepared_xacts WHERE database = current_database()
        UNION ALL SELECT xmin FROM pg_replication_slots
    )
    SELECT xid::text FROM held WHERE xid IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class FilePass:
    """What was done; `reason` is set where something was not, and says why."""

    tables: Sequence[str] = ()
    checkpoint: bool = False
    wal_switched: bool = False
    wal_archived: bool = False
    reason: str | None = None
    refused: Sequence[str] = field(default_factory=tuple)

    @property
    def done(self) -> bool:
        """Whether nothing of what was deleted is in the tables and the WAL of this server any more."""
        return self.reason is None


def check_files(dsn: str, tables: Sequence[str], *, lock_timeout: float) -> None:
    """Return when the tables could be rewritten now, with nothing done: what else the pass does would be in vain.

    Raises:
        RecordBusy, RecordUnavailable: as `rewrite_files`.
    """
    with _connected(dsn, lock_timeout) as connection:
        _wait_for_snapshots(connection)
        for table in [*tables, *_ALWAYS]:
            if not _may_rewrite(connection, table):
                continue
            # Who may rewrite a table as the owner of the database may not lock it so: that is found out later.
            with suppress(psycopg.errors.InsufficientPrivilege), connection.transaction(force_rollback=True):
                connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(table)))


def rewrite_files(dsn: str, tables: Sequence[str], *, lock_timeout: float) -> FilePass:
    """Rewrite the tables, with a lock on each for as long as that takes, and let go of the WAL.

    Raises:
        RecordBusy: when a table could not be locked in time, or a transaction elsewhere can still see deleted rows:
            nothing is wrong, and the same call can succeed later.
        RecordUnavailable: when Postgres does not answer.
    """
    with _connected(dsn, lock_timeout) as connection:
        return _rewrite(connection, [*tables, *_ALWAYS])


@contextmanager
def _connected(dsn: str, lock_timeout: float) -> Iterator[psycopg.Connection[Any]]:
    try:
        with psycopg.connect(dsn, autocommit=True, connect_timeout=5) as connection:
            connection.execute("SELECT set_config('lock_timeout', %s, false)", [f"{int(lock_timeout * 1000)}ms"])
            yield connection
    except psycopg.errors.LockNotAvailable:
        raise RecordBusy("a table is in use and could not be rewritten yet; it is tried again") from None
    except psycopg.Error as error:
        state = error.sqlstate or "08"
        if state[:2] in _AWAY:
            raise RecordUnavailable("Postgres does not answer the maintenance role; it is tried again") from None
        raise


def _wait_for_snapshots(connection: psycopg.Connection[Any]) -> None:
    """Wait until nobody can see what is deleted by now: each transaction that was open has ended."""
    row = connection.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint").fetchone()
    moment = 0 if row is None else int(row[0])
    deadline = clock.monotonic() + _SNAPSHOTS_END_IN
    while any(_precedes(int(xid), moment) for (xid,) in connection.execute(_HELD)):
        if clock.monotonic() > deadline:
            raise _still_seen()
        time.sleep(_LOOK_EVERY)


def _precedes(xid: int, moment: int) -> bool:
    """Tell whether a transaction is older than another. Their numbers begin anew after 32 bits."""
    return (xid - moment) % 2**32 >= 2**31


def _still_seen() -> RecordBusy:
    return RecordBusy("a transaction elsewhere can still see what was deleted; it is tried again")


def _rewrite(connection: psycopg.Connection[Any], tables: Sequence[str]) -> FilePass:
    refused = [table for table in tables if not _may_rewrite(connection, table)]
    left = LeftRows()
    connection.add_notice_handler(left)
    done = []
    for table in tables:
        if table in refused:
            continue
        # One after the other, each for itself: the lock on one ends before that on the next begins.
        connection.execute(sql.SQL("VACUUM (FULL, ANALYZE, VERBOSE) {}").format(sql.Identifier(table)))
        done.append(table)
        if left.rows:
            # The others need not be locked in vain.
            raise _still_seen()
    checkpoint = _allowed(connection, "CHECKPOINT")
    switched = _allowed(connection, "SELECT pg_switch_wal()")
    checkpoint = checkpoint and _allowed(connection, "CHECKPOINT")
    archived = _setting(connection, "archive_mode") not in (None, "off")
    reasons = [f"the maintenance role may not rewrite {', '.join(refused)}"] if refused else []
    reasons += [] if checkpoint else ["the maintenance role may not checkpoint (pg_checkpoint)"]
    reasons += [] if switched else ["the maintenance role may not switch the WAL (EXECUTE on pg_switch_wal)"]
    reason = "; ".join(reasons) or None
    return FilePass(tuple(done), checkpoint, switched, archived, reason, tuple(refused))


class LeftRows:
    """Counts the deleted rows that VACUUM had to carry over, since somebody can still see them."""

    def __init__(self) -> None:
        self.rows = 0

    def __call__(self, notice: Any) -> None:
        detail = notice.message_detail or ""
        if "dead row versions cannot be removed yet" in detail and (found := _LEFT.match(detail)):
            self.rows += int(found[1])


def _may_rewrite(connection: psycopg.Connection[Any], table: str) -> bool:
    """Tell whether the role may: VACUUM itself only warns when it may not."""
    # Before 17 there is no right to maintain: only who owns the table or the database may, and a superuser.
    right = (
        "has_table_privilege(current_user, to_regclass(%(table)s)::oid, 'MAINTAIN')"
        if connection.info.server_version >= 170000
        else "(SELECT rolsuper FROM pg_roles WHERE rolname = current_user)"
    )
    owners = (
        "(SELECT relowner FROM pg_class WHERE oid = to_regclass(%(table)s))",
        "(SELECT datdba FROM pg_database WHERE datname = current_database())",
    )
    may = " OR ".join([right, *(f"pg_has_role(current_user, {owner}, 'USAGE')" for owner in owners)])
    row = connection.execute(f"SELECT {may}".encode(), {"table": table}).fetchone()
    return bool(row and row[0])


def _allowed(connection: psycopg.Connection[Any], statement: str) -> bool:
    try:
        connection.execute(statement.encode())
    except psycopg.errors.InsufficientPrivilege:
        return False
    return True


def _setting(connection: psycopg.Connection[Any], name: str) -> str | None:
    row = connection.execute("SELECT current_setting(%s, true)", [name]).fetchone()
    return None if row is None or row[0] is None else str(row[0])
