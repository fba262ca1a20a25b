"""Who starts the server, who stops it, and what several processes at once make of it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from service.storage.embedded import EmbeddedPostgres, NotRunning, Server
from service.storage.embedded.errors import StartFailed, WrongVersion
from tests.integration.embedded.installations import FAST, Other, is_running, processes_of


def test_data_is_there_after_a_restart_and_nothing_runs_in_between(cluster: Path) -> None:
    server = EmbeddedPostgres(cluster)
    with psycopg.connect(server.start().superuser_dsn()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    server.stop()
    assert processes_of(cluster) == []
    with psycopg.connect(server.start().superuser_dsn()) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
    server.stop()
    server.stop()
    assert processes_of(cluster) == []


def test_attach_refuses_where_nothing_runs(place: Path, cluster: Path) -> None:
    with pytest.raises(NotRunning, match=str(cluster)):
        EmbeddedPostgres(cluster).attach()
    with pytest.raises(NotRunning):
        EmbeddedPostgres(place / "elsewhere").attach()
    assert not (place / "elsewhere").exists()


def test_the_last_user_stops_the_server_whoever_started_it(cluster: Path) -> None:
    first, second, third = (EmbeddedPostgres(cluster, settings=FAST) for _ in range(3))
    started = first.start()
    assert second.attach() == started
    assert third.start() == started
    first.stop()
    assert second.attach().pid == started.pid
    second.stop()
    with psycopg.connect(started.superuser_dsn()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    third.stop()
    assert not is_running(cluster)


def test_a_command_leaves_the_server_of_another_process_on(cluster: Path, other: Callable[..., Other]) -> None:
    service = other(cluster)
    pid = service.ready()
    command = EmbeddedPostgres(cluster, settings=FAST)
    assert command.start().pid == pid
    command.stop()
    assert is_running(cluster)
    service.close()
    assert processes_of(cluster) == []


def test_processes_that_start_a_new_installation_together_share_one_server(
    folder: Path, other: Callable[..., Other]
) -> None:
    users = [other(folder) for _ in range(3)]
    assert len({user.ready() for user in users}) == 1
    for user in users:
        user.close()
    assert processes_of(folder) == []


def test_threads_share_one_object(cluster: Path) -> None:
    shared = EmbeddedPostgres(cluster, settings=FAST)
    seen: list[Server] = []
    threads = [threading.Thread(target=lambda: seen.append(shared.start())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 4
    assert len(set(seen)) == 1
    shared.stop()
    assert processes_of(cluster) == []


def test_ctrl_c_reaches_us_and_not_the_server(cluster: Path, other: Callable[..., Other]) -> None:
    service = other(cluster)
    pid = service.ready()
    os.killpg(service.process.pid, signal.SIGINT)
    assert service.said() == ["interrupted", str(pid)]
    assert service.said() == ["stopped"]
    assert processes_of(cluster) == []


def test_a_server_that_died_is_started_again_for_the_same_user(cluster: Path) -> None:
    server = EmbeddedPostgres(cluster, settings=FAST)
    first = server.start()
    os.kill(first.pid, signal.SIGKILL)
    second = server.start()
    assert second.pid != first.pid
    psycopg.connect(second.superuser_dsn()).close()
    server.stop()
    assert processes_of(cluster) == []


def test_overrides_win(cluster: Path) -> None:
    server = EmbeddedPostgres(cluster, settings=FAST | {"work_mem": "3MB"})
    with psycopg.connect(server.start().superuser_dsn()) as connection:
        assert connection.execute("SHOW work_mem").fetchone() == ("3MB",)
    server.stop()


def test_a_server_that_cannot_start_says_why(cluster: Path) -> None:
    server = EmbeddedPostgres(cluster, settings={"shared_buffers": "nonsense"})
    with pytest.raises(StartFailed, match=r"start\.log"):
        server.start()
    assert processes_of(cluster) == []
    with pytest.raises(ValueError, match="line break"):
        EmbeddedPostgres(cluster, settings={"cluster_name": "a\nfsync = off"}).start()
    good = EmbeddedPostgres(cluster, settings=FAST)
    good.start()
    good.stop()


def test_a_cluster_of_another_version_is_left_alone(cluster: Path) -> None:
    (cluster / "data" / "PG_VERSION").write_text("17\n")
    with pytest.raises(WrongVersion, match="PostgreSQL 17"):
        EmbeddedPostgres(cluster).start()
    assert (cluster / "data" / "PG_VERSION").read_text() == "17\n"
