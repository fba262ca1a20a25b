"""What `kill -9` at any moment leaves behind, and that the next start puts it right."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest

from service.storage.embedded import EmbeddedPostgres, Watch
from service.storage.embedded.errors import InUseElsewhere, StartFailed, StartTimeout
from service.storage.embedded.locks import FileLock
from service.storage.embedded.server import Server
from tests.integration.embedded.installations import FAST, Other, is_running, processes_of


def wait_for(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.005)


@contextmanager
def stranger(cluster: Path) -> Iterator[int]:
    """A living process of the cluster's user that has nothing to do with the cluster; yields its process id."""
    owner = (cluster / "data").stat()
    become = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    process = subprocess.Popen(["sleep", "60"], cwd="/", **become)  # type: ignore[call-overload]
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def leave_behind(path: Path, text: str, owner: os.stat_result) -> None:
    path.write_text(text)
    path.chmod(0o600)
    os.chown(path, owner.st_uid, owner.st_gid)


def test_a_server_whose_owner_was_killed_is_adopted_and_then_really_stopped(
    cluster: Path, other: Callable[..., Other]
) -> None:
    owner = other(cluster)
    pid = owner.ready()
    owner.kill()
    assert is_running(cluster)
    heir = EmbeddedPostgres(cluster, settings=FAST)
    assert heir.start().pid == pid
    heir.stop()
    assert processes_of(cluster) == []


def test_a_killed_user_counts_no_more(cluster: Path, other: Callable[..., Other]) -> None:
    server = EmbeddedPostgres(cluster, settings=FAST)
    server.start()
    user = other(cluster)
    user.ready()
    user.kill()
    server.stop()
    assert processes_of(cluster) == []


def test_committed_rows_survive_the_death_of_everything_and_start_waits_for_recovery(
    cluster: Path, other: Callable[..., Other]
) -> None:
    owner = other(cluster, fsync="on")
    pid = owner.ready()
    heir = EmbeddedPostgres(cluster)
    with psycopg.connect(heir.attach().superuser_dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (n int)")
        connection.execute("INSERT INTO kept SELECT generate_series(1, 50000)")
        owner.process.kill()
        os.kill(pid, signal.SIGKILL)
    owner.close()
    with psycopg.connect(heir.start().superuser_dsn()) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (50000,)
    heir.stop()
    assert processes_of(cluster) == []
    logs = "".join(log.read_text() for log in (cluster / "log").glob("*.log"))
    assert "automatic recovery in progress" in logs


def test_a_stale_process_id_is_ignored_dead_or_reused(cluster: Path) -> None:
    data = (cluster / "data").stat()
    dead = subprocess.Popen(["true"])
    dead.wait()
    server = EmbeddedPostgres(cluster, settings=FAST)
    with stranger(cluster) as reused:
        for pid in (dead.pid, reused):
            leave_behind(
                cluster / "data" / "postmaster.pid",
                f"{pid}\n{cluster / 'data'}\n1700000000\n5432\n{cluster / 'run'}\n\n  1 1\nready\n",
                data,
            )
            leave_behind(cluster / "run" / ".s.PGSQL.5432.lock", f"{pid}\n{cluster / 'data'}\n", data)
            assert server.start().pid not in (dead.pid, reused)
            server.stop()
        os.kill(reused, 0)  # still there: nobody took it for ours


def test_a_broken_process_id_file_is_ignored(cluster: Path) -> None:
    leave_behind(cluster / "data" / "postmaster.pid", "", (cluster / "data").stat())
    server = EmbeddedPostgres(cluster, settings=FAST)
    server.start()
    server.stop()


@pytest.mark.parametrize("also_initdb", [False, True])
def test_a_killed_initialisation_does_not_prevent_the_next_start(
    folder: Path, other: Callable[..., Other], *, also_initdb: bool
) -> None:
    owner = other(folder, fsync="on")
    wait_for(lambda: (folder / "data.partial" / "cluster" / "pg_wal").exists())
    owner.process.kill()
    if also_initdb:
        for process in processes_of(folder):
            process.kill()
    owner.close()
    assert not (folder / "data").exists()
    server = EmbeddedPostgres(folder, settings=FAST)
    psycopg.connect(server.start().superuser_dsn()).close()
    server.stop()
    assert not (folder / "data.partial").exists()
    assert not list(folder.glob(".*"))


def test_a_cluster_held_by_processes_out_of_sight_is_not_touched(cluster: Path) -> None:
    holder = FileLock(cluster / "cluster.lock")
    assert holder.try_acquire()
    leave_behind(cluster / "data" / "postmaster.pid", "999999999\n", (cluster / "data").stat())
    with pytest.raises(InUseElsewhere, match="another container"):
        EmbeddedPostgres(cluster, start_timeout=0.3).start()
    assert (cluster / "data" / "postmaster.pid").exists()
    holder.release()


def test_another_process_that_hangs_in_its_start_is_named_after_the_timeout(cluster: Path) -> None:
    holder = FileLock(cluster / "lifecycle.lock")
    assert holder.try_acquire()
    with pytest.raises(StartTimeout, match="another memvault process"):
        EmbeddedPostgres(cluster, start_timeout=0.3).start()
    holder.release()


def test_a_start_that_runs_out_of_time_leaves_the_server_to_the_next(cluster: Path) -> None:
    with pytest.raises(StartTimeout, match="not ready after 0 s"):
        EmbeddedPostgres(cluster, start_timeout=0, settings=FAST).start()
    patient = EmbeddedPostgres(cluster, settings=FAST)
    patient.start()
    patient.stop()
    assert processes_of(cluster) == []


def test_a_password_file_of_another_cluster_is_named(cluster: Path, other: Callable[..., Other]) -> None:
    service = other(cluster)
    service.ready()
    shutil.copy(cluster / "superuser.json", cluster / "saved")
    (cluster / "superuser.json").write_text('{"user": "postgres", "password": "wrong"}')
    with pytest.raises(StartFailed, match=r"superuser\.json"):
        EmbeddedPostgres(cluster).start()
    assert is_running(cluster)
    service.close()
    assert processes_of(cluster) == []
    # Also one that it started itself is of no use to anybody, and does not stay behind.
    with pytest.raises(StartFailed, match=r"superuser\.json"):
        EmbeddedPostgres(cluster, settings=FAST).start()
    assert processes_of(cluster) == []


def test_an_interrupted_start_ends_the_server_that_is_only_just_there(
    cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(EmbeddedPostgres, "_pause", interrupt)
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        EmbeddedPostgres(cluster, settings=FAST).start()
    assert time.monotonic() - begun < 30
    assert processes_of(cluster) == []


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGQUIT])
def test_a_server_that_ends_under_its_user_is_started_again(cluster: Path, ending: signal.Signals) -> None:
    postgres = EmbeddedPostgres(cluster, settings=FAST)
    first = postgres.start()
    watch = Watch(postgres)
    watch.start()
    try:
        os.kill(first.pid, ending)
        wait_for(lambda: not first_lives(first.pid))
        wait_for(lambda: answers(first))
    finally:
        watch.stop()
        postgres.stop()
    assert processes_of(cluster) == []


def test_a_start_that_fails_outside_of_postgres_is_tried_again(cluster: Path, caplog: pytest.LogCaptureFixture) -> None:
    postgres = EmbeddedPostgres(cluster, settings=FAST)
    first = postgres.start()
    watch = Watch(postgres)
    # What is written at each start cannot be, as on a full disk.
    rules = next(cluster.glob("*hba*"))
    rules.unlink()
    (rules / "in-the-way").mkdir(parents=True)
    watch.start()
    try:
        os.kill(first.pid, signal.SIGQUIT)
        wait_for(lambda: any("does not start" in record.message for record in caplog.records))
        shutil.rmtree(rules)
        wait_for(lambda: answers(first))
    finally:
        watch.stop()
        postgres.stop()
    assert processes_of(cluster) == []


def answers(server: Server) -> bool:
    """Whether a server can be asked."""
    try:
        with psycopg.connect(server.superuser_dsn()) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


def first_lives(pid: int) -> bool:
    """Whether a process lives, which its parent may not have asked about yet."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
