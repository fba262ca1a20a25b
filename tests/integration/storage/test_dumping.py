"""Dumps go back into a server of the same version, whichever it is, and all of it or nothing."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from service.errors import ConfigurationError
from service.storage import dumping
from tests.conftest import Postgres, fresh_database

pytestmark = [pytest.mark.integration, pytest.mark.postgres_suite]


@pytest.fixture(params=["as the server is", "as an older server"], autouse=True)
def _server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way into servers before 17 is open to newer ones too."""
    if request.param == "as an older server":
        monkeypatch.setattr(dumping, "_KNOWS_ALL", 10**9)


def tables(dsn: str) -> set[str]:
    """The tables of a database."""
    with psycopg.connect(dsn) as connection:
        return {row[0] for row in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


def test_a_dump_is_restored_by_the_owner(database: Postgres, postgres: Postgres, tmp_path: Path) -> None:
    with psycopg.connect(database.owner) as owner:
        owner.execute("CREATE TABLE notes (text text)")
        # A line of a row that looks like one of the script's head is a line of a row.
        owner.execute(
            "INSERT INTO notes SELECT 'SET transaction_timeout = 0;' || repeat('x', 50) FROM generate_series(1, 5000)"
        )
    dumping.dump(database.admin, tmp_path / "dump")
    with fresh_database(postgres, empty=True) as empty:
        dumping.restore(empty.owner, tmp_path / "dump", owner=False)
        assert tables(empty.admin) == tables(database.admin)
        with psycopg.connect(empty.owner) as owner:
            assert owner.execute("SELECT count(*), min(length(text)) FROM notes").fetchone() == (5000, 78)


def test_a_dump_that_ends_in_the_middle_leaves_nothing(database: Postgres, postgres: Postgres, tmp_path: Path) -> None:
    with psycopg.connect(database.owner) as owner:
        owner.execute("CREATE TABLE notes AS SELECT md5(n::text) AS text FROM generate_series(1, 100000) n")
    dumping.dump(database.admin, tmp_path / "dump")
    whole = (tmp_path / "dump").read_bytes()
    (tmp_path / "dump").write_bytes(whole[: len(whole) * 2 // 3])
    with fresh_database(postgres, empty=True) as empty:
        with pytest.raises(ConfigurationError, match="could not be restored"):
            dumping.restore(empty.owner, tmp_path / "dump", owner=False)
        assert tables(empty.admin) == set()


def test_a_dump_for_which_there_is_no_room_says_so(database: Postgres) -> None:
    with pytest.raises(ConfigurationError, match="could not be dumped: there is no room on the disk"):
        dumping.dump(database.admin, Path("/dev/full"))
