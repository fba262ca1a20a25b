"""One migrator at a time; a lock or a statement that takes too long ends in one line that says what to do."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from service.cli.migrate import migrate
from service.errors import ConfigurationError, Conflict
from service.migrations import runner, scripts
from service.migrations.runner import check_schema, downgrade, look, upgrade
from service.settings.migrating import Migration
from service.storage.database import Database
from tests.conftest import Postgres, fresh_database
from tests.integration.migrations.newer import newer_release
from tests.process.memvault import REPOSITORY, command

pytestmark = pytest.mark.integration

APP = "memvault_app"
HASTY = Migration(lock_timeout=0.2, lock_attempts=2, statement_timeout=60, wait=0)


@pytest.fixture
def empty(postgres: Postgres) -> Iterator[Postgres]:
    """A database without a schema."""
    with fresh_database(postgres, empty=True) as made:
        yield made


def migrating(database: Postgres, folder: Path, *arguments: str, **environ: str) -> subprocess.Popen[str]:
    """Start `memvault migrate` on a database."""
    urls = {f"MEMVAULT_DATABASE__{name.upper()}": url for name, url in database.urls.items()}
    return subprocess.Popen(
        [*command(), "migrate", "--json", "--data-dir", str(folder), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "PYTHONPATH": str(REPOSITORY), **urls, **environ},
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for a command; return its exit code and what it printed."""
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_of_two_migrators_at_once_one_migrates_and_both_are_well(empty: Postgres, tmp_path: Path) -> None:
    with psycopg.connect(empty.owner, autocommit=True) as holder:
        # Both stand at the gate before either may go through it.
        holder.execute("SELECT pg_advisory_lock(%s)", [runner._MIGRATION_LOCK])
        both = [migrating(empty, tmp_path) for _ in range(2)]
        waiting = [_line(process) for process in both]
        assert all(f"waits for another migrator: process {holder.info.backend_pid}" in line for line in waiting)
        holder.execute("SELECT pg_advisory_unlock(%s)", [runner._MIGRATION_LOCK])
        results = [ended(process) for process in both]
    assert [code for code, _, _ in results] == [0, 0], results
    assert [json.loads(out) for _, out, _ in results] == [{"revision": scripts.head()}] * 2
    assert look(empty.app).trouble is None


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return process.stderr.readline()


def test_a_migrator_that_does_not_end_is_named(empty: Postgres, tmp_path: Path) -> None:
    with psycopg.connect(empty.owner, autocommit=True, application_name="memvault migrate, elsewhere") as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", [runner._MIGRATION_LOCK])
        code, out, err = ended(migrating(empty, tmp_path, MEMVAULT_MIGRATION__WAIT="0"))
        pid = holder.info.backend_pid
    assert (code, out) == (2, "")
    last = err.strip().splitlines()[-1]
    assert "another migrator is at work on this database and did not end within 0 s" in last
    assert f"process {pid} (memvault migrate, elsewhere)" in last
    assert f"pg_terminate_backend({pid})" in last
    assert look(empty.owner).found is None


def test_a_lock_that_another_session_holds_ends_in_a_line_that_names_it(database: Postgres) -> None:
    downgrade(database.owner, app_role=APP, revision="0010")
    told: list[str] = []
    with psycopg.connect(database.admin, application_name="a long report") as other:
        other.execute("LOCK TABLE memories IN SHARE MODE")
        with pytest.raises(ConfigurationError) as refused:
            upgrade(database.owner, app_role=APP, limits=HASTY, tell=told.append)
        pid = other.info.backend_pid
        other.rollback()
    line = refused.value.detail
    assert "\n" not in line
    assert "migration 0011: waited 2 times 0.2 s" in line
    assert f"for a lock on memories, held by process {pid} (a long report, role " in line
    assert "nothing of it was kept" in line
    assert any("again in" in one for one in told)
    assert look(database.owner).found == "0010"
    assert upgrade(database.owner, app_role=APP, limits=HASTY) == scripts.head()


def test_a_lock_that_is_let_go_in_time_is_waited_for(database: Postgres) -> None:
    downgrade(database.owner, app_role=APP, revision="0010")
    patient = Migration(lock_timeout=0.2, lock_attempts=50, statement_timeout=60, wait=0)
    with psycopg.connect(database.admin) as other:
        other.execute("LOCK TABLE memories IN SHARE MODE")
        refused = threading.Event()

        def tell(line: str) -> None:
            if "again in" in line and not refused.is_set():
                refused.set()
                other.rollback()

        assert upgrade(database.owner, app_role=APP, limits=patient, tell=tell) == scripts.head()
    assert refused.is_set()


def test_a_statement_that_takes_too_long_is_taken_back_and_named(database: Postgres, tmp_path: Path) -> None:
    limits = Migration(statement_timeout=0.3)
    told = r"migration 9000: a statement took longer than 0\.3 s"
    with newer_release(tmp_path, 'op.execute("SELECT pg_sleep(60)")'), pytest.raises(ConfigurationError, match=told):
        upgrade(database.owner, app_role=APP, limits=limits)
    assert look(database.owner).trouble is None


def test_each_migration_is_kept_by_itself(database: Postgres, tmp_path: Path) -> None:
    last = scripts.head()
    downgrade(database.owner, app_role=APP, revision="0013")
    with newer_release(tmp_path, 'op.execute("SELECT 1/0")'), pytest.raises(Exception, match="division by zero"):
        upgrade(database.owner, app_role=APP)
    assert look(database.owner).found == last


def test_an_older_release_serves_a_newer_schema_that_only_adds(database: Postgres, tmp_path: Path) -> None:
    with newer_release(tmp_path, 'op.execute("CREATE TABLE more (id int)")') as revision:
        assert upgrade(database.owner, app_role=APP) == revision
    # From here on as the release that does not know the revision: it starts, changes nothing, and says so.
    app = Database(database.app)
    try:
        with app.tenant_blind() as connection:
            note = check_schema(connection)
    finally:
        app.close()
    assert note == (
        f"the schema is at {revision}, which is newer than this release ({scripts.head()}) "
        "and says that it may be served"
    )
    assert upgrade(database.owner, app_role=APP) == revision


def test_an_older_release_refuses_a_newer_schema_that_takes_away(database: Postgres, tmp_path: Path) -> None:
    with newer_release(tmp_path, contract=True, unused_since="9.0.0", serves_from="9000") as revision:
        upgrade(database.owner, app_role=APP)
    told = rf"the schema is at {revision}, which is newer than this release .* needs one that knows {revision}: install"
    app = Database(database.app)
    try:
        with app.tenant_blind() as connection, pytest.raises(ConfigurationError, match=told):
            check_schema(connection)
    finally:
        app.close()
    with pytest.raises(ConfigurationError, match=told):
        upgrade(database.owner, app_role=APP)


def test_the_command_says_what_is_pending_and_goes_back_when_it_is_told_so(
    database: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, url in database.urls.items():
        monkeypatch.setenv(f"MEMVAULT_DATABASE__{name.upper()}", url)
    last = scripts.head()

    def ask(*, code: int = 0, **options: Any) -> Any:
        if code:
            with pytest.raises(SystemExit) as ended:
                migrate(data_dir=tmp_path, json=True, **options)
            assert ended.value.code == code
        else:
            migrate(data_dir=tmp_path, json=True, **options)
        return json.loads(capsys.readouterr().out)

    assert ask(check=True) == {"revision": last, "wanted": last, "pending": [], "served": True}
    with pytest.raises(ConfigurationError, match=r"removes the tables and columns of 0015.*Take a backup first.*--yes"):
        ask(to="0014")
    with (
        psycopg.connect(database.app),
        pytest.raises(Conflict, match=r"1 sessions of memvault_app .*stop the services"),
    ):
        ask(to="0014", yes=True)
    assert ask(to="0014", yes=True) == {"revision": "0014"}
    assert ask(check=True, code=1)["pending"] == scripts.after("0014")
    assert ask(to="0015") == {"revision": "0015"}
    assert ask() == {"revision": last}
    with pytest.raises(ConfigurationError, match="knows no revision nonsense"):
        ask(to="nonsense")
