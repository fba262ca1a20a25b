"""Root below folders that only root may enter: the server works there, and nobody else notices how."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from service.storage.embedded import EmbeddedPostgres, ensure_database, make_template, supervisor
from service.storage.embedded import cluster as cluster_module
from service.storage.embedded import template as template_module
from service.storage.embedded.errors import FolderRefused
from service.storage.embedded.mounts import MountsRefused, run_in_private_mounts
from service.storage.embedded.programs import find_programs, read_by
from tests.integration.embedded.installations import (
    FAST,
    USE_SERVER,
    Other,
    is_running,
    kill_cluster,
    needs_root,
    new_place,
    processes_of,
)

pytestmark = needs_root

# As in an ordinary container: the capability is gone from the bounding set, so that no program gets it.
WITHOUT_MOUNTS = f"""
import ctypes, os, sys
assert ctypes.CDLL(None).prctl(24, 21, 0, 0, 0) == 0  # PR_CAPBSET_DROP, CAP_SYS_ADMIN
os.execv(sys.executable, [sys.executable, "-c", {USE_SERVER!r}, *sys.argv[1:]])
"""


@pytest.fixture(scope="module")
def mounts() -> None:
    """Skip where the system allows no mount namespaces."""
    place = new_place()
    try:
        run_in_private_mounts(lambda: None, closed=[place], shown=[], fixed=[])
    except MountsRefused as error:
        pytest.skip(f"this system does not let root have a mount namespace ({error.__cause__})")
    finally:
        place.rmdir()


@pytest.fixture(scope="module")
def closed_programs() -> Iterator[Path]:
    """A copy of the wheel's programs that only root can reach."""
    place = new_place()
    place.chmod(0o700)
    site = place / "environment" / "site"
    for folder in read_by(find_programs()):
        shutil.copytree(folder, site / folder.relative_to(find_programs().parents[2]), symlinks=True)
    yield site / find_programs().relative_to(find_programs().parents[2])
    shutil.rmtree(place)


@pytest.fixture
def closed(place: Path) -> Iterator[Path]:
    """A data folder with keys, two closed folders below an open one."""
    data_dir = place / "closed" / "also-closed" / "vault"
    data_dir.mkdir(parents=True)
    data_dir.chmod(0o711)
    for folder in (data_dir.parent, data_dir.parent.parent):
        folder.chmod(0o700)
    (data_dir / "keys").mkdir()
    yield data_dir
    kill_cluster(data_dir / "postgres")


@pytest.fixture
def closed_cluster(closed: Path, made_cluster: Path, mounts: None) -> Path:
    """A stopped installation below closed folders."""
    subprocess.run(["cp", "-a", str(made_cluster), str(closed / "postgres")], check=True)
    return closed / "postgres"


def state_above(folder: Path) -> dict[Path, tuple[int, int, int]]:
    found = {parent: parent.stat() for parent in folder.parents}
    return {parent: (stat.S_IMODE(s.st_mode), s.st_uid, s.st_gid) for parent, s in found.items()}


def mount_table(pid: int | str = "self") -> str:
    return Path(f"/proc/{pid}/mountinfo").read_text()


def namespaces() -> set[str]:
    found = set()
    for process in psutil.process_iter():
        try:
            found.add(os.readlink(f"/proc/{process.pid}/ns/mnt"))
        except OSError:
            continue
    return found


def rows(dsn: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(statement).fetchall()  # type: ignore[arg-type]


@pytest.mark.parametrize("way", ["namespace", "other name"])
def test_a_new_installation_with_data_and_programs_below_closed_folders(
    closed: Path, closed_programs: Path, mounts: None, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "find_programs", lambda: closed_programs)
    if way == "other name":
        monkeypatch.setattr(cluster_module, "enter_named_namespace", lambda uid, gid: None)
    folder = closed / "postgres"
    above, above_programs, table = state_above(closed), state_above(closed_programs), mount_table()
    embedded = EmbeddedPostgres(folder, settings=FAST)
    server = embedded.start()
    credentials = ensure_database(server, folder=folder)
    for dsn in (credentials.owner_dsn, credentials.app_dsn, credentials.maintenance_dsn):
        assert rows(dsn, "SELECT current_database()") == [("memvault",)]
    assert psutil.Process(server.pid).exe() == str(closed_programs / "postgres")
    assert psutil.Process(server.pid).uids().real == (folder / "data").stat().st_uid != 0
    assert rows(server.superuser_dsn(), "SHOW data_directory") == [(str(folder / "data"),)]
    assert mount_table() == table
    namespace = os.readlink(f"/proc/{server.pid}/ns/mnt")
    assert namespace != os.readlink("/proc/self/ns/mnt")
    embedded.stop()
    assert processes_of(folder) == []
    assert namespace not in namespaces()
    assert mount_table() == table
    assert (state_above(closed), state_above(closed_programs)) == (above, above_programs)
    assert {path.name for path in folder.iterdir()} >= {"data", "run", "log", "superuser.json"}
    shutil.rmtree(closed.parent)  # nothing is busy


def test_the_server_sees_its_own_and_nothing_else_of_a_closed_folder(
    closed_cluster: Path, closed_programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "find_programs", lambda: closed_programs)
    embedded = EmbeddedPostgres(closed_cluster, settings=FAST)
    server = embedded.start()
    seen = Path(f"/proc/{server.pid}/root")
    vault = closed_cluster.parent
    assert os.listdir(seen / vault.relative_to("/")) == ["postgres"]
    assert set(os.listdir(seen / closed_cluster.relative_to("/"))) == {
        *("data", "run", "log", "postgresql.conf", "pg_hba.conf")
    }
    assert set(os.listdir(vault)) == {"keys", "postgres"}
    mounted = {line.split()[4]: line.split()[5].split(",") for line in mount_table(server.pid).splitlines()}
    for folder in read_by(closed_programs):
        assert "ro" in mounted[str(folder)]
    assert "rw" in mounted[str(closed_cluster / "data")]
    embedded.stop()


def test_other_processes_adopt_it_and_the_last_one_stops_it(closed_cluster: Path, other: Callable[..., Other]) -> None:
    owner = other(closed_cluster)
    pid = owner.ready()
    owner.kill()
    assert is_running(closed_cluster)
    heir = EmbeddedPostgres(closed_cluster, settings=FAST)
    assert heir.start().pid == pid
    # Whoever only uses the server needs no mounts.
    without = other(closed_cluster, code=WITHOUT_MOUNTS)
    assert without.ready() == pid
    heir.stop()
    assert is_running(closed_cluster)
    without.close()
    assert processes_of(closed_cluster) == []


def test_committed_rows_survive_the_death_of_everything(closed_cluster: Path, other: Callable[..., Other]) -> None:
    owner = other(closed_cluster, fsync="on")
    pid = owner.ready()
    heir = EmbeddedPostgres(closed_cluster)
    with psycopg.connect(heir.attach().superuser_dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
        owner.process.kill()
        os.kill(pid, signal.SIGKILL)
    owner.close()
    server = heir.start()
    assert server.pid != pid
    assert rows(server.superuser_dsn(), "SELECT count(*) FROM kept") == [(1000,)]
    heir.stop()
    assert processes_of(closed_cluster) == []


def test_a_killed_initialisation_does_not_prevent_the_next_start(
    closed: Path, mounts: None, other: Callable[..., Other]
) -> None:
    folder = closed / "postgres"
    owner = other(folder, fsync="on")
    while not (folder / "data.partial" / "cluster" / "pg_wal").exists():
        assert owner.process.poll() is None
    owner.kill()
    server = EmbeddedPostgres(folder, settings=FAST)
    psycopg.connect(server.start().superuser_dsn()).close()
    server.stop()
    assert not (folder / "data.partial").exists()
    assert processes_of(folder) == []


def test_a_socket_path_that_is_too_long_there(closed: Path, made_cluster: Path, mounts: None) -> None:
    deep = closed / ("very-deep-folder-" * 6)
    deep.mkdir()
    subprocess.run(["cp", "-a", str(made_cluster), str(deep / "postgres")], check=True)
    embedded = EmbeddedPostgres(deep / "postgres", settings=FAST)
    server = embedded.start()
    assert not server.socket_dir.is_relative_to(closed)
    assert rows(server.superuser_dsn(), "SELECT 1") == [(1,)]
    embedded.stop()
    assert not server.socket_dir.exists()
    assert processes_of(deep / "postgres") == []


def test_templates_are_made_and_used_there(
    closed: Path, closed_programs: Path, mounts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (supervisor, template_module):
        monkeypatch.setattr(module, "find_programs", lambda: closed_programs)
    make_template(closed / "template")
    embedded = EmbeddedPostgres(closed / "postgres", settings=FAST, template=closed / "template")
    assert rows(embedded.start().superuser_dsn(), "SELECT 1") == [(1,)]
    embedded.stop()
    assert processes_of(closed / "postgres") == []


def test_where_mounts_are_forbidden_the_closed_folder_is_named_and_stays_closed(
    closed: Path, other: Callable[..., Other]
) -> None:
    above = state_above(closed)
    word, kind, *message = other(closed / "postgres", code=WITHOUT_MOUNTS).said()
    assert (word, kind) == ("refused", "FolderRefused")
    top = closed.parent.parent
    said = " ".join(message)
    assert f"cannot enter {top} (mode 0700), which holds the data" in said
    assert said.endswith(f"chmod o+x {top}")
    assert state_above(closed) == above
    assert not list((closed / "postgres").glob("data*"))


def test_where_mounts_are_forbidden_closed_programs_are_named(
    cluster: Path, closed_programs: Path, other: Callable[..., Other]
) -> None:
    find = (
        "from pathlib import Path\nfrom service.storage.embedded import supervisor\n"
        f"supervisor.find_programs = lambda: Path({str(closed_programs)!r})\n"
    )
    code = WITHOUT_MOUNTS.replace(repr(USE_SERVER), repr(find + USE_SERVER))
    word, kind, *message = other(cluster, code=code).said()
    assert (word, kind) == ("refused", "FolderRefused")
    assert "which holds the PostgreSQL programs: install memvault in a folder that everybody may enter" in " ".join(
        message
    )


def test_programs_that_only_root_may_read_are_named(
    cluster: Path, closed_programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "find_programs", lambda: closed_programs)
    closed_programs.chmod(0o700)
    try:
        with pytest.raises(FolderRefused, match=rf"cannot read {closed_programs} \(mode 0700\).*chmod -R go\+rX"):
            EmbeddedPostgres(cluster, settings=FAST).start()
    finally:
        closed_programs.chmod(0o755)
