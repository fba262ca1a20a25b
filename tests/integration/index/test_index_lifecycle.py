"""The folder of the embedded index: owners, damage, crashes, compaction and rebuilds while it serves."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from service.errors import IndexUnavailable
from service.index.edge import EdgeIndex
from service.index.interface import IndexDamaged, IndexLocked, ScopedWriter
from tests.integration.index.points import NOON, SIZE, found, point, scope, vector

pytestmark = pytest.mark.integration

TENANT = UUID(int=1)
_WIDE = 384
ROOT = Path(__file__).parents[3]

_WRITER = """
import sys
from pathlib import Path
from uuid import UUID
from service.index.edge import EdgeIndex
from tests.integration.index.points import SIZE, point, scope
part = EdgeIndex(Path(sys.argv[1]), dimensions=SIZE, model="test").of(scope(UUID(int=1)))
for number in range(10**9):
    part.upsert([point(UUID(int=number), "tea")])
    print(number, flush=True)
"""


@pytest.fixture
def index(edge_index: EdgeIndex) -> EdgeIndex:
    """The embedded index: its folder is what is tested here."""
    return edge_index


def _open(folder: Path, **given: object) -> EdgeIndex:
    return EdgeIndex(folder, **{"dimensions": SIZE, "model": "test"} | given)  # type: ignore[arg-type]


def _generations(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if entry.is_dir()]


def test_it_is_there_after_a_restart(tmp_path: Path) -> None:
    first, id_ = _open(tmp_path), uuid4()
    first.of(scope(TENANT)).upsert([point(id_, "tea")])
    first.close()
    first.close()
    again = _open(tmp_path)
    assert found(again.of(scope(TENANT)), text="tea")[id_].bm25 > 0
    assert tmp_path.joinpath("lock").stat().st_mode & 0o077 == 0
    again.close()


def test_a_killed_process_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WRITER, str(tmp_path / "index")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 200:
                process.send_signal(signal.SIGKILL)
                break
        last = int(([line, *process.stdout])[-1])
    index = _open(tmp_path / "index")
    part = index.of(scope(TENANT))
    assert part.existing([UUID(int=number) for number in range(last + 1)]).keys() == {
        UUID(int=number) for number in range(last + 1)
    }
    assert len(found(part, text="tea", limit=last + 10)) >= last + 1
    index.close()


def test_a_second_process_is_refused(index: EdgeIndex, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    command = [sys.executable, "-c", _WRITER, str(folder)]
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode != 0
    assert "IndexLocked" in second.stderr
    assert str(folder) in second.stderr
    with pytest.raises(IndexLocked, match=r"in use by process [0-9]+"):
        _open(folder)
    index.of(scope()).upsert([point()])


def _cut_current(folder: Path) -> None:
    (folder / "current").write_text("{", encoding="utf-8")


def _lose_current(folder: Path) -> None:
    (folder / "current").unlink()


def _lose_generation(folder: Path) -> None:
    shutil.rmtree(_generations(folder)[0])


def _lose_segments(folder: Path) -> None:
    for file in _generations(folder)[0].rglob("*.json"):
        file.write_bytes(b"\0")


def _empty_generation(folder: Path) -> None:
    for entry in _generations(folder)[0].iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


@pytest.mark.parametrize("harm", [_cut_current, _lose_current, _lose_generation, _lose_segments, _empty_generation])
def test_damage_is_named_and_a_fresh_index_helps(tmp_path: Path, harm: object) -> None:
    index = _open(tmp_path)
    index.of(scope(TENANT)).upsert([point() for _ in range(10)])
    index.close()
    harm(tmp_path)  # type: ignore[operator]
    for _ in range(2):
        with pytest.raises(IndexDamaged, match="memvault index rebuild"):
            _open(tmp_path)
    fresh = _open(tmp_path, fresh=True)
    assert fresh.count() == 0
    fresh.of(scope(TENANT)).upsert([point()])
    fresh.close()
    again = _open(tmp_path)
    assert again.count() == 1
    again.close()


@pytest.mark.parametrize("other", [{"dimensions": SIZE + 1}, {"model": "another"}])
def test_vectors_of_two_models_do_not_mix(tmp_path: Path, other: dict[str, object]) -> None:
    _open(tmp_path).close()
    with pytest.raises(IndexDamaged, match="made for"):
        _open(tmp_path, **other)


def test_leftovers_are_swept(tmp_path: Path) -> None:
    index = _open(tmp_path)
    index.of(scope(TENANT)).upsert([point()])
    index.close()
    (tmp_path / "half" / "segments").mkdir(parents=True)
    index = _open(tmp_path)
    assert len(_generations(tmp_path)) == 1
    assert index.count() == 1
    index.close()


def _on_disk(folder: Path, value: float) -> bool:
    needle = struct.pack("<f", value)
    return any(needle in file.read_bytes() for file in folder.rglob("*") if file.is_file())


def test_compaction_takes_deleted_vectors_off_the_disk(index: EdgeIndex, tmp_path: Path) -> None:
    part = index.of(scope())
    # Cosine vectors are stored with length 1; these have it, so that their bytes can be looked for.
    secret, kept, replaced = vector(100), vector(101), vector(102)
    victim, keeper, changed = point(dense=secret), point(dense=kept, text="tea"), point(dense=replaced)
    part.upsert([victim, keeper, changed, *(point(dense=vector(seed)) for seed in range(50))])
    part.delete([victim.memory_id])
    part.upsert([point(changed.memory_id, version=2)])
    index.flush()
    assert _on_disk(tmp_path, secret[3])
    assert index.compact()
    assert not _on_disk(tmp_path, secret[3])
    assert not _on_disk(tmp_path, replaced[3])
    assert _on_disk(tmp_path, kept[3])
    assert len(_generations(tmp_path / "index")) == 1
    assert part.count() == 52
    assert found(part, text="tea")[keeper.memory_id].bm25 > 0
    assert not (tmp_path / "index" / "removed").exists()


def test_maintain_compacts_when_it_is_due(index: EdgeIndex) -> None:
    part = index.of(scope())
    ids = [uuid4() for _ in range(1100)]
    part.upsert([point(one) for one in ids])
    assert not index.maintain()
    part.delete(ids[:10])
    assert not index.maintain()
    part.delete(ids[10:1000])
    assert index.maintain()
    assert not index.maintain()
    assert part.count() == 100


def _removals(folder: Path) -> tuple[list[UUID], EdgeIndex]:
    """An index of which so much was removed that it is to be compacted, and what is left of it."""
    index, ids = _open(folder), [uuid4() for _ in range(1500)]
    part = index.of(scope(TENANT))
    part.upsert([point(one) for one in ids])
    part.delete(ids[:1050])
    return ids[1050:], index


def test_what_was_removed_before_a_restart_makes_a_compaction_due(tmp_path: Path) -> None:
    left, first = _removals(tmp_path)
    mark = tmp_path / "removed"
    os.utime(mark, (NOON.timestamp(),) * 2)
    first.of(scope(TENANT)).delete(left[:1])
    first.close()
    # Since when the first of it has been there outlives that it is counted.
    assert mark.stat().st_mtime == NOON.timestamp()
    os.utime(mark)
    second = _open(tmp_path)
    assert second.maintain()
    assert not second.maintain()
    assert second.count() == 449
    # Too few to be compacted, and counted on by the next process.
    second.of(scope(TENANT)).delete(left[1:400])
    second.close()
    third = _open(tmp_path)
    assert not third.maintain()
    third.of(scope(TENANT)).upsert([point(one, version=2) for one in left[400:] for _ in range(13)])
    assert third.maintain()
    assert not mark.exists()
    third.close()


def test_a_killed_process_leaves_how_much_was_removed(tmp_path: Path) -> None:
    _, index = _removals(tmp_path / "index")
    # What is on the disk at this moment, with nothing closed.
    shutil.copytree(tmp_path / "index", tmp_path / "killed")
    index.close()
    again = _open(tmp_path / "killed")
    assert again.maintain()
    assert again.count() == 450
    again.close()


def test_a_compaction_that_fails_stays_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, index = _removals(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", shutil.which("false"))
        with pytest.raises(IndexUnavailable, match="serves on"):
            index.maintain()
    assert index.maintain()
    assert not index.maintain()
    index.close()


def _wide(folder: Path) -> EdgeIndex:
    """An index whose vectors are long enough that some thousand are compressed."""
    return _open(folder, dimensions=_WIDE)


def _fill(part: ScopedWriter, count: int) -> None:
    part.upsert([point(text="tea" if number % 2 else "", dense=vector(number, _WIDE)) for number in range(count)])


def test_what_came_before_a_restart_is_compacted_once(tmp_path: Path) -> None:
    first = _wide(tmp_path)
    _fill(first.of(scope(TENANT)), 2200)
    first.close()
    second = _wide(tmp_path)
    assert second.maintain()
    assert not second.maintain()
    _fill(second.of(scope(TENANT)), 1900)
    assert not second.maintain()
    second.close()
    third = _wide(tmp_path)
    assert not third.maintain()
    _fill(third.of(scope(TENANT)), 200)
    assert third.maintain()
    third.close()


def test_a_rebuilt_index_is_compacted(tmp_path: Path) -> None:
    index = _wide(tmp_path)
    with index.rebuild() as rebuild:
        _fill(rebuild.of(scope(TENANT)), 2200)
    assert index.maintain()
    assert not index.maintain()
    index.close()


def test_what_is_too_little_to_be_compressed_is_not_compacted_over_and_over(index: EdgeIndex) -> None:
    part = index.of(scope())
    part.upsert([point() for _ in range(2100)])
    assert index.maintain()
    assert not index.maintain()
    part.upsert([point() for _ in range(2100)])
    assert index.maintain()
    assert not index.maintain()


def test_it_serves_and_takes_writes_while_it_is_compacted(index: EdgeIndex) -> None:
    part = index.of(scope())
    stay, go = [uuid4() for _ in range(2000)], [uuid4() for _ in range(500)]
    part.upsert([point(one, "tea") for one in stay + go])
    done, added, slowest = threading.Event(), [], 0.0
    with ThreadPoolExecutor(1) as pool:
        compaction = pool.submit(index.compact)
        compaction.add_done_callback(lambda _: done.set())
        while not done.is_set():
            begun = time.monotonic()
            added.append(uuid4())
            part.upsert([point(added[-1], "coffee")])
            if go:
                part.delete([go.pop()])
            assert found(part, text="coffee", limit=5)
            slowest = max(slowest, time.monotonic() - begun)
        assert compaction.result()
    assert len(added) > 10
    assert slowest < 2
    ids = {*stay, *go, *added}
    assert part.existing(ids).keys() == ids
    assert part.count() == len(ids)


def test_a_failed_compaction_changes_nothing(index: EdgeIndex, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    part = index.of(scope())
    part.upsert([point()])
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", shutil.which("false"))
        with pytest.raises(IndexUnavailable, match="serves on"):
            index.compact()
    part.upsert([point()])
    assert part.count() == 2
    assert len(_generations(tmp_path / "index")) == 1
    assert index.compact()


def test_closing_ends_a_compaction(tmp_path: Path) -> None:
    index = _open(tmp_path)
    index.of(scope(TENANT)).upsert([point() for _ in range(2000)])
    with ThreadPoolExecutor(1) as pool:
        compaction = pool.submit(index.compact)
        time.sleep(0.2)
        index.close()
        assert compaction.exception() is None or isinstance(compaction.exception(), IndexUnavailable)
    again = _open(tmp_path)
    assert again.count() == 2000
    again.close()


def test_a_rebuild_takes_over_with_what_was_written_meanwhile(index: EdgeIndex, tmp_path: Path) -> None:
    tenant = scope()
    part = index.of(tenant)
    old, deleted, changed, added = point(text="old"), point(), point(text="coffee"), point()
    lost = point(text="drifted")
    part.upsert([old, deleted, changed, lost])
    with index.rebuild() as rebuild:
        assert not index.compact()
        with pytest.raises(IndexUnavailable, match="already"), index.rebuild():
            pass
        part.delete([deleted.memory_id])
        part.upsert([point(changed.memory_id, "tea", version=2), added])
        assert part.count() == 4
        # The record as it was read before these writes.
        rebuild.of(tenant).upsert([old, deleted, changed])
    assert part.existing([p.memory_id for p in (old, deleted, changed, added, lost)]) == {
        old.memory_id: 1,
        changed.memory_id: 2,
        added.memory_id: 1,
    }
    assert found(part, text="tea")[changed.memory_id].bm25 > 0
    assert len(_generations(tmp_path / "index")) == 1


def test_a_rebuild_that_fails_is_abandoned(index: EdgeIndex, tmp_path: Path) -> None:
    part = index.of(scope())
    part.upsert([point()])
    with pytest.raises(ZeroDivisionError), index.rebuild():
        raise ZeroDivisionError
    part.upsert([point()])
    assert part.count() == 2
    assert len(_generations(tmp_path / "index")) == 1


def test_sixteen_threads(index: EdgeIndex) -> None:
    scopes = [scope() for _ in range(4)]

    def work(number: int) -> set[UUID]:
        part = index.of(scopes[number % 4])
        mine: set[UUID] = set()
        for round_ in range(25):
            ids = [uuid4(), uuid4()]
            part.upsert([point(one, "tea", created_at=NOON, dense=vector(round_)) for one in ids])
            assert found(part, text="tea", limit=500).keys() >= mine | set(ids)
            part.delete(ids[:1])
            mine.add(ids[1])
        return mine

    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(work, range(16)))
    for number, one in enumerate(scopes):
        expected = set().union(*made[number::4])
        assert found(index.of(one), limit=1000).keys() == expected
