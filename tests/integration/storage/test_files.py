"""The physical pass over Postgres: what it leaves nothing of, when it waits, and what it says when it may not."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from service import clock
from service.errors import RecordBusy
from service.storage import files
from service.storage.files import check_files, rewrite_files
from tests.conftest import Postgres

pytestmark = [pytest.mark.integration, pytest.mark.postgres_suite]


@pytest.fixture
def notes(database: Postgres) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A table in which one of two rows is deleted."""
    with psycopg.connect(database.admin, autocommit=True) as admin:
        admin.execute("CREATE TABLE notes (text text)")
        admin.execute("INSERT INTO notes VALUES ('stays'), ('goes')")
        admin.execute("ANALYZE notes")
        admin.execute("DELETE FROM notes WHERE text = 'goes'")
        yield admin


def test_the_table_the_samples_and_the_log_are_let_go_of(
    database: Postgres, notes: psycopg.Connection[tuple[object, ...]]
) -> None:
    where = "SELECT pg_relation_filenode('notes'), pg_walfile_name(pg_current_wal_lsn())"
    before = notes.execute(where).fetchone()
    done = rewrite_files(database.admin, ["notes"], lock_timeout=2)
    after = notes.execute(where).fetchone()
    assert (done.done, done.reason) == (True, None)
    assert done.checkpoint
    assert done.wal_switched
    assert {"notes", "pg_statistic", "procrastinate_jobs"} <= set(done.tables)
    assert before is not None
    assert after is not None
    assert before[0] != after[0]
    assert before[1] != after[1]
    samples = notes.execute(
        "SELECT most_common_vals::text, histogram_bounds::text FROM pg_stats WHERE tablename='notes'"
    )
    assert "goes" not in str(samples.fetchall())


def test_a_table_in_use_is_not_waited_for_long(
    database: Postgres, notes: psycopg.Connection[tuple[object, ...]]
) -> None:
    with psycopg.connect(database.admin) as other:
        other.execute("SELECT * FROM notes")
        with pytest.raises(RecordBusy, match="in use"):
            rewrite_files(database.admin, ["notes"], lock_timeout=0.2)
    assert rewrite_files(database.admin, ["notes"], lock_timeout=2).done


def test_a_deleted_row_that_somebody_can_still_see_is_no_success(
    database: Postgres, notes: psycopg.Connection[tuple[object, ...]]
) -> None:
    with psycopg.connect(database.admin) as other:
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT 1")
        notes.execute("DELETE FROM notes")
        with pytest.raises(RecordBusy, match="can still see"):
            rewrite_files(database.admin, ["notes"], lock_timeout=2)
    assert rewrite_files(database.admin, ["notes"], lock_timeout=2).done


def test_a_table_in_use_is_known_before_anything_is_done(
    database: Postgres, notes: psycopg.Connection[tuple[object, ...]]
) -> None:
    where = "SELECT pg_relation_filenode('notes')"
    before = notes.execute(where).fetchone()
    with psycopg.connect(database.admin) as other:
        other.execute("SELECT * FROM notes")
        with pytest.raises(RecordBusy, match="in use"):
            check_files(database.admin, ["notes"], lock_timeout=0.2)
    check_files(database.admin, ["notes"], lock_timeout=2)
    # Nor does it keep a lock or rewrite anything.
    assert notes.execute("SELECT count(*) FROM notes").fetchone() == (1,)
    assert notes.execute(where).fetchone() == before


def test_whoever_still_sees_what_was_deleted_is_known_before_anything_is_done(
    database: Postgres, notes: psycopg.Connection[tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_SNAPSHOTS_END_IN", 0.2)
    with psycopg.connect(database.admin) as other:
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT 1")
        notes.execute("DELETE FROM notes")
        with pytest.raises(RecordBusy, match="can still see"):
            check_files(database.admin, ["notes"], lock_timeout=2)
    # Who only writes holds rows too, and needs no snapshot for it.
    notes.execute("INSERT INTO notes VALUES ('goes')")
    with psycopg.connect(database.admin) as other:
        other.execute("INSERT INTO notes VALUES ('comes')")
        notes.execute("DELETE FROM notes")
        with pytest.raises(RecordBusy, match="can still see"):
            check_files(database.admin, [], lock_timeout=2)
    check_files(database.admin, ["notes"], lock_timeout=2)


def test_a_short_transaction_is_waited_for(
    database: Postgres, notes: psycopg.Connection[tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(database.admin) as other:
        other.execute("INSERT INTO notes VALUES ('comes')")
        notes.execute("DELETE FROM notes")
        waited: list[float] = []

        def wait(seconds: float) -> None:
            waited.append(seconds)
            other.commit()

        monkeypatch.setattr(files, "time", SimpleNamespace(sleep=wait))
        check_files(database.admin, ["notes"], lock_timeout=2)
        assert len(waited) == 1


def test_no_table_is_locked_after_one_that_was_rewritten_in_vain(
    database: Postgres, notes: psycopg.Connection[tuple[object, ...]]
) -> None:
    notes.execute("CREATE TABLE others (text text)")
    where = "SELECT pg_relation_filenode('others')"
    before = notes.execute(where).fetchone()
    with psycopg.connect(database.admin) as other:
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT 1")
        notes.execute("DELETE FROM notes")
        with pytest.raises(RecordBusy, match="can still see"):
            rewrite_files(database.admin, ["notes", "others"], lock_timeout=2)
    assert notes.execute(where).fetchone() == before


def test_numbers_of_transactions_are_compared_where_they_begin_anew() -> None:
    newest = 2**32 + 5
    assert files._precedes(4, newest)
    assert files._precedes(2**32 - 1, newest)
    assert not files._precedes(5, newest)
    assert not files._precedes(6, newest)


def test_a_role_that_may_not_says_what_it_lacks(
    database: Postgres, notes: psycopg.Connection[tuple[object, ...]]
) -> None:
    check_files(database.app, ["notes", "memories"], lock_timeout=2)
    refused = rewrite_files(database.app, ["notes", "memories"], lock_timeout=2)
    assert not refused.done
    assert refused.reason is not None
    for lacking in ("may not rewrite notes, memories", "pg_checkpoint", "pg_switch_wal"):
        assert lacking in refused.reason


def test_the_right_to_empty_a_table_is_not_the_one_to_rewrite_it(
    database: Postgres, notes: psycopg.Connection[tuple[object, ...]]
) -> None:
    """PostgreSQL only warns, so that the receipt would say what was not done."""
    name, password = f"emptier_{clock.new_id().hex}", clock.new_random_id().hex
    role = sql.Identifier(name)
    notes.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, sql.Literal(password)))
    try:
        notes.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(_named(database), role))
        notes.execute(sql.SQL("GRANT SELECT, TRUNCATE ON notes TO {}").format(role))
        done = rewrite_files(make_conninfo(database.admin, user=name, password=password), ["notes"], lock_timeout=2)
        assert not done.done
        assert "notes" in done.refused
        assert "may not rewrite" in str(done.reason)
    finally:
        notes.execute(sql.SQL("DROP OWNED BY {}").format(role))
        notes.execute(sql.SQL("DROP ROLE {}").format(role))


def _named(database: Postgres) -> sql.Identifier:
    return sql.Identifier(str(conninfo_to_dict(database.admin)["dbname"]))
