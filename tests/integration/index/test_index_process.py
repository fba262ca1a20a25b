"""The process that has the embedded index open: it is lost and replaced, it ends with the service, and not before."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import psutil
import pytest

from service.errors import IndexUnavailable
from service.index import edge_shard
from service.index.edge import EdgeIndex
from service.index.edge_folder import IndexFolder
from service.index.interface import IndexDamaged
from tests.integration.index.points import SIZE, found, point, scope

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
_SECONDS = 30.0

_USER = """
import sys
from pathlib import Path
from service.index.edge import EdgeIndex
from tests.integration.index.points import SIZE, found, point, scope
index = EdgeIndex(Path(sys.argv[1]), dimensions=SIZE, model="test")
part = index.of(scope())
part.upsert([point(text="tea") for _ in range(100)])
assert len(found(part, text="tea")) > 0
assert index.compact()
assert "service.index.edge_engine" not in sys.modules, "a shard may be open here"
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def index(edge_index: EdgeIndex) -> EdgeIndex:
    """The embedded index: its process is what is tested here."""
    return edge_index


def _process(folder: Path) -> psutil.Process:
    """The only process that has a shard of this folder open."""
    (process,) = _processes(folder)
    return process


def _processes(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if "service.index.edge_worker" in words and any(word.startswith(f"{folder}/") for word in words):
            found.append(process)
    return found


def _until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + _SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def _counts(index: EdgeIndex, least: int) -> bool:
    return index.count() >= least


def test_a_lost_process_is_replaced_and_nothing_is_lost(index: EdgeIndex, tmp_path: Path) -> None:
    part, kept, gone = index.of(scope()), point(text="tea"), point(text="tea")
    part.upsert([kept, gone])
    part.delete([gone.memory_id])
    lost = _process(tmp_path / "index")
    lost.kill()
    assert found(part, text="tea").keys() == {kept.memory_id}
    _process(tmp_path / "index").kill()
    part.upsert([point()])
    assert index.count() == 2
    assert _process(tmp_path / "index").pid != lost.pid


def test_callers_do_not_notice(index: EdgeIndex, tmp_path: Path) -> None:
    tenant, ended = scope(), threading.Event()
    index.of(tenant).upsert([point(text="tea")])

    def work() -> list[UUID]:
        part, mine = index.of(tenant), [uuid4()]
        while not ended.is_set():
            mine.append(uuid4())
            part.upsert([point(mine[-1], "coffee")])
            assert len(found(part, text="coffee", limit=3)) > 0
        part.delete(mine[:1])
        return mine[1:]

    with ThreadPoolExecutor(2) as pool:
        tasks = [pool.submit(work) for _ in range(2)]
        try:
            for _ in range(3):
                _process(tmp_path / "index").kill()
                least = index.count() + 3
                _until(partial(_counts, index, least))
        finally:
            ended.set()
        made = {one for task in tasks for one in task.result()}
    assert index.of(tenant).existing(made).keys() == made


def test_while_it_cannot_be_replaced_that_is_said(
    index: EdgeIndex, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(edge_shard, "_AGAIN_SECONDS", 0.0)
    part = index.of(scope())
    part.upsert([point(text="tea")])
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", shutil.which("false"))
        _process(tmp_path / "index").kill()
        for _ in range(2):
            with pytest.raises(IndexUnavailable, match="index rebuild"):
                found(part, text="tea")
    assert len(found(part, text="tea")) == 1


def test_a_start_without_a_process_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "index"
    first = EdgeIndex(folder, dimensions=SIZE, model="test")
    first.of(scope()).upsert([point()])
    first.close()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", shutil.which("false"))
        with pytest.raises(IndexUnavailable) as refused:
            EdgeIndex(folder, dimensions=SIZE, model="test")
    assert not isinstance(refused.value, IndexDamaged)
    again = EdgeIndex(folder, dimensions=SIZE, model="test")
    assert again.count() == 1
    again.close()


def test_a_process_that_crashes_over_the_files_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "index"
    EdgeIndex(folder, dimensions=SIZE, model="test").close()
    crashing = tmp_path / "crashing"
    crashing.write_text("#!/bin/sh\nkill -ABRT $$\n")
    crashing.chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", str(crashing))
        with pytest.raises(IndexDamaged, match="index rebuild"):
            EdgeIndex(folder, dimensions=SIZE, model="test")


def test_what_was_closed_leaves_the_folder_to_its_next_owner(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    first = EdgeIndex(folder, dimensions=SIZE, model="test")
    first.close()
    second = EdgeIndex(folder, dimensions=SIZE, model="test")
    second.of(scope()).upsert([point()])
    assert second.compact()
    for late in (first.compact, lambda: first.rebuild().__enter__()):
        with pytest.raises(IndexUnavailable, match="shutting down"):
            late()
    second.close()
    third = EdgeIndex(folder, dimensions=SIZE, model="test")
    assert third.count() == 1
    third.close()


@pytest.mark.parametrize("step", ["sweep", "clear_removed", "renew_removed"])
def test_no_step_after_the_change_of_shards_undoes_it(
    index: EdgeIndex, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    part, kept = index.of(scope()), point(text="tea")
    part.upsert([kept])

    def fails(*given: object) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(IndexFolder, step, fails)
        assert index.compact()
    assert found(part, text="tea").keys() == {kept.memory_id}
    assert index.compact()


def test_signals_for_the_service_do_not_end_it(index: EdgeIndex, tmp_path: Path) -> None:
    index.of(scope()).upsert([point()])
    process = _process(tmp_path / "index")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process.send_signal(number)
        assert index.count() == 1
    assert _process(tmp_path / "index").pid == process.pid
    assert psutil.Process().pid == process.ppid()


def test_it_ends_with_the_index(index: EdgeIndex, tmp_path: Path) -> None:
    index.of(scope()).upsert([point()])
    assert index.compact()
    assert len(_processes(tmp_path / "index")) == 1
    index.close()
    assert _processes(tmp_path / "index") == []


def test_it_ends_with_a_service_that_is_killed_and_is_all_that_has_the_engine(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    command = [sys.executable, "-c", _USER, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == "ready\n"
        assert _process(folder).ppid() == user.pid
        user.kill()
    _until(lambda: _processes(folder) == [])


def test_it_imports_nothing_that_is_slow_to_import() -> None:
    slow = ("numpy", "pydantic", "sqlalchemy", "structlog", "asyncio")
    program = f"import sys, service.index.edge_worker; print([one for one in {slow} if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
