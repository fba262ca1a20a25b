"""Awkward places and users: deep folders, closed parents, foreign owners, users without a name, templates."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from service.storage.embedded import EmbeddedPostgres, make_template
from service.storage.embedded import cluster as cluster_module
from service.storage.embedded.errors import FolderRefused, InitialisationFailed, StartFailed
from service.storage.embedded.programs import find_programs
from tests.integration.embedded.installations import (
    BECOME_NAMELESS,
    FAST,
    NAMELESS,
    USE_SERVER,
    Other,
    is_running,
    needs_root,
    processes_of,
)

AS_NAMELESS = BECOME_NAMELESS + USE_SERVER
WITHOUT_NAMESPACES = (
    "from service.storage.embedded import cluster\ncluster.enter_named_namespace = lambda uid, gid: None\n"
)


def modes_above(folder: Path) -> dict[Path, int]:
    return {parent: stat.S_IMODE(parent.stat().st_mode) for parent in folder.parents}


@pytest.fixture
def nameless_folder(place: Path) -> Path:
    """A folder for the user without a name, who must also be able to reach the programs."""
    if not all(parent.stat().st_mode & stat.S_IXOTH for parent in find_programs().parents):
        pytest.skip(f"other users cannot enter the folders above {find_programs()}")
    os.chown(place, NAMELESS, NAMELESS)
    return place / "postgres"


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="mv", dir="/tmp"))
    made.chmod(0o755)
    make_template(made / "template")
    yield made / "template"
    shutil.rmtree(made)


def test_a_folder_too_deep_for_a_socket_gets_a_short_private_one(place: Path, made_cluster: Path) -> None:
    deep = place
    for _ in range(4):
        deep = deep / ("very-deep-folder-" * 3)
        deep.mkdir()
        if os.geteuid() == 0:
            deep.chmod(0o711)
    subprocess.run(["cp", "-a", str(made_cluster), str(deep / "postgres")], check=True)
    owner = (made_cluster / "data").stat()
    embedded = EmbeddedPostgres(deep / "postgres", settings=FAST)
    server = embedded.start()
    assert len(os.fsencode(server.socket_dir / ".s.PGSQL.5432")) <= 107
    assert server.socket_dir.stat().st_uid == owner.st_uid
    assert stat.S_IMODE(server.socket_dir.stat().st_mode) == 0o700
    beside = EmbeddedPostgres(deep / "postgres")
    assert beside.attach() == server
    with psycopg.connect(server.superuser_dsn()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    # Somebody tidies the temporary place: nobody can reach the server any more, so the next start replaces it.
    shutil.rmtree(server.socket_dir)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.superuser_dsn())
    with pytest.raises(StartFailed, match="was deleted while other commands use the server"):
        embedded.start()
    beside.stop()
    again = embedded.start()
    assert again.pid != server.pid
    psycopg.connect(again.superuser_dsn()).close()
    embedded.stop()
    assert not again.socket_dir.exists()
    assert processes_of(deep / "postgres") == []


def test_a_recorded_socket_folder_that_is_not_ours_any_more_is_not_used(place: Path, cluster: Path) -> None:
    (place / "trap").mkdir(mode=0o777)
    (place / "trap").chmod(0o777)
    (cluster / "socket_folder").write_text(f"{place / 'trap'}\n")
    (place / "trap" / ".s.PGSQL.5432").write_text("foreign")
    embedded = EmbeddedPostgres(cluster, settings=FAST)
    assert embedded.start().socket_dir == cluster / "run"
    embedded.stop()
    assert (place / "trap" / ".s.PGSQL.5432").exists()


def test_missing_folders_are_made_and_none_above_is_changed(place: Path) -> None:
    before = modes_above(place / "x")
    embedded = EmbeddedPostgres(place / "vault" / "postgres", settings=FAST)
    embedded.start()
    embedded.stop()
    assert modes_above(place / "x") == before
    assert stat.S_IMODE((place / "vault").stat().st_mode) == (0o711 if os.geteuid() == 0 else 0o700)


@needs_root
def test_a_link_in_place_of_a_folder_is_not_followed(place: Path, cluster: Path) -> None:
    (place / "foreign").mkdir(mode=0o755)
    (place / "foreign").chmod(0o755)
    shutil.rmtree(cluster / "log")
    (cluster / "log").symlink_to(place / "foreign")
    with pytest.raises(FolderRefused, match=f"{cluster / 'log'} is not a folder"):
        EmbeddedPostgres(cluster, settings=FAST).start()
    assert stat.S_IMODE((place / "foreign").stat().st_mode) == 0o755


@needs_root
def test_a_cluster_given_to_root_is_refused(cluster: Path) -> None:
    os.chown(cluster / "data", 0, 0)
    with pytest.raises(FolderRefused, match="never runs as root"):
        EmbeddedPostgres(cluster).start()


def test_a_place_that_cannot_be_made_is_named(place: Path) -> None:
    (place / "file").write_text("")
    with pytest.raises(FolderRefused, match="--data-dir"):
        EmbeddedPostgres(place / "file" / "postgres").start()


@needs_root
def test_another_users_folder_is_refused(cluster: Path, nameless_folder: Path, other: Callable[..., Other]) -> None:
    word, kind, *reason = other(cluster, code=AS_NAMELESS).said()
    assert (word, kind) == ("refused", "FolderRefused")
    assert "belongs" in reason
    assert not is_running(cluster)


@needs_root
def test_an_own_folder_that_may_not_be_written_is_not_told_as_another_user_s(
    nameless_folder: Path, other: Callable[..., Other]
) -> None:
    nameless_folder.mkdir(exist_ok=True)
    lock = nameless_folder / "lifecycle.lock"
    lock.touch(mode=0o400)
    for path in (nameless_folder, lock):
        os.chown(path, NAMELESS, NAMELESS)
    word, kind, *reason = other(nameless_folder, code=AS_NAMELESS).said()
    assert (word, kind) == ("refused", "FolderRefused")
    assert "chmod" in reason
    assert "belongs" not in reason


@needs_root
@pytest.mark.parametrize("way", ["namespace", "other name"])
def test_root_makes_a_cluster_with_and_without_namespaces(
    folder: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "other name":  # as in a container whose root may not make namespaces
        monkeypatch.setattr(cluster_module, "enter_named_namespace", lambda uid, gid: None)
    embedded = EmbeddedPostgres(folder, settings=FAST)
    psycopg.connect(embedded.start().superuser_dsn()).close()
    owners = {Path(parent, name).lstat().st_uid for parent, _, files in os.walk(folder / "data") for name in files}
    assert owners == {(folder / "data").stat().st_uid}
    assert owners != {0}
    embedded.stop()


@needs_root
def test_a_user_without_a_name_has_a_server_and_root_can_use_it_too(
    nameless_folder: Path, other: Callable[..., Other]
) -> None:
    service = other(nameless_folder, code=AS_NAMELESS)
    pid = service.ready()
    as_root = EmbeddedPostgres(nameless_folder, settings=FAST)
    assert as_root.start().pid == pid
    service.close()
    assert is_running(nameless_folder)
    as_root.stop()
    assert processes_of(nameless_folder) == []
    # Root starts it alone: it still runs as its owner, who can go on afterwards.
    as_root.start()
    as_root.stop()
    again = other(nameless_folder, code=AS_NAMELESS)
    again.ready()
    again.close()
    assert {path.lstat().st_uid for path in nameless_folder.rglob("*")} == {NAMELESS}


@needs_root
def test_a_user_without_a_name_and_without_namespaces_needs_a_template(
    nameless_folder: Path, other: Callable[..., Other], template: Path
) -> None:
    refused = other(nameless_folder, code=WITHOUT_NAMESPACES + AS_NAMELESS).said()
    assert refused[:2] == ["refused", "InitialisationFailed"]
    assert "database.embedded_template" in refused
    code = WITHOUT_NAMESPACES + AS_NAMELESS.replace(
        'settings={"fsync"', f'template=Path({str(template)!r}), settings={{"fsync"'
    )
    service = other(nameless_folder, code=code)
    service.ready()
    service.close()


def test_a_copy_of_a_template_has_a_password_of_its_own(place: Path, template: Path) -> None:
    known = json.loads((template / "superuser.json").read_text())["password"]
    embedded = EmbeddedPostgres(place / "postgres", settings=FAST, template=template)
    server = embedded.start()
    psycopg.connect(server.superuser_dsn()).close()
    assert server.password != known
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(server.dsn(dbname="postgres", user=server.superuser, password=known))
    embedded.stop()
    assert processes_of(place / "postgres") == []
    assert not (place / "postgres" / "data.partial").exists()


def test_a_template_that_is_none_is_named(place: Path) -> None:
    with pytest.raises(InitialisationFailed, match=str(place / "nothing")):
        EmbeddedPostgres(place / "postgres", template=place / "nothing").start()
    assert not (place / "postgres" / "data").exists()
    with pytest.raises(InitialisationFailed, match="exists already"):
        make_template(place)
