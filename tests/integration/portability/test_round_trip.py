"""What is exported is imported elsewhere without loss: ids, texts, times, history, links, metadata and subjects."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import psycopg
import pytest

from service import clock
from service.audit.moves import ImportSource
from service.errors import ConfigurationError, Conflict, Forbidden, InvalidInput, LegalHold, NotFound
from service.memories.actions import Edit
from service.portability import exports as exports_module
from service.portability import folder as folder_module
from service.portability.exports import Wanted
from service.portability.folder import ExportFolder, read_folder, verified
from service.portability.imports import Imported
from service.portability.lines import read_lines
from service.portability.records import IncomingMemory, Placed, Unreadable
from service.records import Message, NewMemories, SubjectNames
from service.retention.holds import NewHold
from service.scope import Caller
from service.wiring import Services
from tests.conftest import Postgres, caller_of
from tests.integration.memories.adding import found

pytestmark = pytest.mark.integration

ABOUT = {"tenant_id": "t", "user": None}
#: What is new at every import.
NEW = ("ingested_at", "event_id", "principal_id", "imported_from")


def exported(services: Services, caller: Caller, wanted: Wanted | None = None, after: str | None = None) -> list[Any]:
    """All lines of an export."""
    batches = services.exports.read(caller, caller.scope, wanted or Wanted(), after=after)
    return [orjson.loads(line) for batch in batches for line in batch.lines]


def imported(services: Services, caller: Caller, lines: list[Any], **more: Any) -> Imported:
    """Import lines."""

    def source() -> Iterator[Placed]:
        return read_lines((f"line {number}", orjson.dumps(line)) for number, line in enumerate(lines, 1))

    return services.imports.run(caller, caller.scope, source, origin=ImportSource.EXPORT, **more)


def comparable(lines: list[Any]) -> list[Any]:
    """What must not change, without the surrogates of subjects, which are each installation's own."""
    kept = []
    for line in lines:
        if line["type"] in ("export", "end"):
            continue
        left_out = (*NEW, "id") if line["type"] == "subject" else NEW
        kept.append({name: value for name, value in line.items() if name not in left_out})
    return sorted(kept, key=lambda line: orjson.dumps(line, option=orjson.OPT_SORT_KEYS))


def test_a_tenant_comes_into_an_empty_one_without_loss(
    services: Services, caller: Caller, rival: Caller, lived: list[UUID], database: Postgres
) -> None:
    before = exported(services, caller)
    assert before[0]["format"] == "memvault-export-1"
    assert before[-1] == {"type": "end", "lines": len(before) - 1}
    kinds = [line["type"] for line in before]
    assert (kinds.count("subject"), kinds.count("memory")) == (5, 5)
    steps = [line["change"] for line in before if line["type"] == "history" and line["memory_id"] == str(lived[2])]
    assert steps == ["ADD", "UPDATE", "UPDATE"]
    assert any(line["change"] == "DELETE" for line in before if line["type"] == "history")
    # The same ids in another tenant overwrite nothing of the first.
    report = imported(services, rival, before)
    assert (report.memories, report.known, report.refused, report.subjects) == (5, 0, 0, 5)
    assert comparable(exported(services, rival)) == comparable(before)
    assert comparable(exported(services, caller)) == comparable(before)
    assert found(services, rival, "where does she live?", {"user_id": "alice"})[0] == "Ich wohne in Ålesund 北"
    with psycopg.connect(database.admin) as connection:
        rows = connection.execute(
            "SELECT count(*), bool_and(ingested_at > now() - interval '1 hour'), count(DISTINCT event_id)"
            " FROM memories WHERE tenant_id = %s",
            [rival.principal.tenant_id],
        ).fetchone()
    assert rows == (5, True, 1)
    history = services.memories.history(rival, rival.scope, lived[2])
    assert [step.new_text for step in history] == ["first draft", "second draft", "second draft"]


def test_an_import_that_is_run_again_adds_nothing(
    services: Services, caller: Caller, rival: Caller, lived: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = exported(services, caller)
    calls = itertools.count()
    apply = services.indexing.apply

    def dies(*arguments: Any, **more: Any) -> None:
        apply(*arguments, **more)
        if next(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("service.portability.imports._BATCH", 2)
    monkeypatch.setattr(services.indexing, "apply", dies)
    with pytest.raises(KeyboardInterrupt):
        imported(services, rival, lines)
    partial = [line for line in exported(services, rival) if line["type"] == "memory"]
    assert 0 < len(partial) < 5
    report = imported(services, rival, lines)
    assert (report.memories, report.known) == (5 - len(partial), len(partial))
    assert comparable(exported(services, rival)) == comparable(lines)


def test_a_dry_run_changes_nothing_and_says_what_would_be_done(
    services: Services, caller: Caller, rival: Caller, lived: list[UUID]
) -> None:
    lines = exported(services, caller)
    report = imported(services, rival, lines, dry_run=True)
    assert (report.dry_run, report.memories, report.known) == (True, 5, 0)
    assert [line["type"] for line in exported(services, rival)] == ["export", "end"]
    real = imported(services, rival, lines)
    assert (real.memories, real.history, real.subjects) == (report.memories, report.history, report.subjects)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"created_at": (clock.now() + timedelta(days=1)).isoformat()}, "future"),
        ({"updated_at": (clock.now() + timedelta(days=1)).isoformat()}, "future"),
        ({"text": ""}, "must not be empty"),
        ({"user_id": None, "agent_id": None, "app_id": None, "run_id": None}, "names no user"),
        ({"metadata": {"tenant_id": "x"}}, "tenant_id"),
        ({"categories": [""]}, "categories"),
        ({"user_id": "bob\nb"}, "user_id: must not hold line breaks"),
        ({"app_id": ".."}, "app_id: must not be '.' or '..'"),
    ],
)
def test_what_cannot_be_imported_is_refused_as_a_whole_or_passed_over(
    services: Services, caller: Caller, rival: Caller, lived: list[UUID], change: dict[str, Any], why: str
) -> None:
    lines = exported(services, caller)
    number = next(place for place, line in enumerate(lines, 1) if line["type"] == "memory")
    lines[number - 1] |= change
    with pytest.raises(InvalidInput, match="Nothing was imported") as refused:
        imported(services, rival, lines)
    assert why in refused.value.detail
    assert f"line {number}" in refused.value.detail
    assert [line["type"] for line in exported(services, rival)] == ["export", "end"]
    assert imported(services, rival, lines, skip_refused=True).memories == 4


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("memory", "created_at"),
        ("memory", "updated_at"),
        ("history", "created_at"),
        ("history", "updated_at"),
        ("subject", "created_at"),
    ],
)
def test_a_time_that_no_calendar_has_in_utc_is_refused(
    services: Services, caller: Caller, rival: Caller, lived: list[UUID], kind: str, name: str, moment: str
) -> None:
    """Stored, it could never be read again, and every list and every rebuild of the index would fail at it."""
    lines = exported(services, caller)
    number = next(place for place, line in enumerate(lines, 1) if line["type"] == kind)
    lines[number - 1] |= {name: moment}
    with pytest.raises(Unreadable, match="year") as refused:
        imported(services, rival, lines)
    assert refused.value.where == f"line {number}"
    assert [line["type"] for line in exported(services, rival)] == ["export", "end"]


def test_the_first_and_the_last_moment_are_imported(
    services: Services, caller: Caller, rival: Caller, lived: list[UUID]
) -> None:
    lines = exported(services, caller)
    at = {line["type"]: line for line in lines}
    at["memory"] |= {"created_at": "0001-01-01T14:00:00+14:00", "updated_at": "0001-01-01T00:00:00Z"}
    at["subject"] |= {"created_at": "0001-01-01T00:00:00+00:00"}
    assert imported(services, rival, lines).refused == 0
    (memory,) = (one for one in exported(services, rival) if one.get("id") == at["memory"]["id"])
    assert memory["created_at"] == memory["updated_at"] == "0001-01-01T00:00:00.000000+00:00"
    services.indexing.drain()
    assert not services.indexing.left_out


def test_a_person_s_export_has_all_of_that_person_and_nothing_of_others(
    services: Services, caller: Caller, lived: list[UUID]
) -> None:
    lines = exported(services, caller, Wanted(SubjectNames(user_id="bob")))
    assert {line["user_id"] for line in lines if line["type"] in ("memory", "history")} == {"bob"}
    assert [line["name"] for line in lines if line["type"] == "subject"] == ["bob"]
    # What was deleted is told without its text.
    assert {line["memory_id"] for line in lines if line["type"] == "history"} >= {str(lived[3])}
    assert "doomed" not in repr(lines)
    nobody = exported(services, caller, Wanted(SubjectNames(user_id="nobody")))
    assert [line["type"] for line in nobody] == ["export", "end"]


def test_a_bound_key_exports_and_imports_its_user_s_alone(
    services: Services, caller: Caller, lived: list[UUID]
) -> None:
    bob = caller_of(services, caller.principal.tenant_id, users=frozenset({"bob"}))
    lines = exported(services, bob)
    assert {line["user_id"] for line in lines if line["type"] in ("memory", "history")} == {"bob"}
    assert "alice" not in repr(lines)
    with pytest.raises(Forbidden):
        exported(services, bob, Wanted(SubjectNames(user_id="alice")))
    mine = services.exports.request(caller, caller.scope, Wanted())
    with pytest.raises(NotFound):
        services.exports.find(bob, bob.scope, mine)
    everything = exported(services, caller)
    with pytest.raises(InvalidInput, match="bound to a user"):
        imported(services, bob, everything)


def test_a_bound_key_does_not_go_on_behind_another_user_s_step(
    services: Services, caller: Caller, lived: list[UUID]
) -> None:
    bob, alice = (caller_of(services, caller.principal.tenant_id, users=frozenset({name})) for name in ("bob", "alice"))
    (step,) = (
        line["id"] for line in exported(services, bob) if line["type"] == "history" and line["change"] == "DELETE"
    )
    assert exported(services, bob, after=f"deleted:{step}")[-1]["type"] == "end"
    with pytest.raises(InvalidInput, match="not there"):
        exported(services, alice, after=f"deleted:{step}")


def test_a_line_of_history_adds_nothing_to_a_memory_that_is_there(
    services: Services, caller: Caller, lived: list[UUID]
) -> None:
    """Else a bound key reads, behind a step of its own, what another user's memory tells of itself."""
    alice = caller_of(services, caller.principal.tenant_id, users=frozenset({"alice"}))
    (bobs,) = (line for line in exported(services, caller) if line.get("text") == "second draft")
    (own,) = (
        line for line in exported(services, alice) if line["type"] == "history" and line["memory_id"] == str(lived[0])
    )
    forged = own | {"id": str(clock.new_id()), "memory_id": bobs["id"]}
    assert imported(services, alice, [forged]).history == 0
    for reader in (alice, caller):
        steps = [] if reader is alice else services.memories.history(reader, reader.scope, UUID(bobs["id"]))
        assert forged["id"] not in {str(step.id) for step in steps}
    with pytest.raises(NotFound):
        services.memories.history(alice, alice.scope, UUID(bobs["id"]))


def test_what_was_deleted_and_is_imported_again_is_found(services: Services, caller: Caller, lived: list[UUID]) -> None:
    before = exported(services, caller)
    services.indexing.drain()
    services.memories.delete(caller, caller.scope, lived[0])
    imported(services, caller, before)
    assert services.indexing.behind
    services.indexing.drain()
    assert found(services, caller, "where does she live?", {"user_id": "alice"})[0] == "Ich wohne in Ålesund 北"
    services.memories.update(caller, caller.scope, lived[0], Edit(text="She lives in Bergen"))
    assert not services.indexing.behind
    assert found(services, caller, "where does she live?", {"user_id": "alice"})[0] == "She lives in Bergen"


def test_what_another_process_deleted_and_is_imported_again_is_found(
    services: Services, caller: Caller, lived: list[UUID]
) -> None:
    before = exported(services, caller)
    services.memories.update(caller, caller.scope, lived[0], Edit(text="She lives in Bergen"))
    services.indexing.drain()
    # Another process tells of it by the outbox alone.
    with services.installation.database.transaction(caller.scope) as connection:
        record = services.installation.record
        doomed = record.find(connection, caller.scope, [lived[0]], users=None, on=None)
        record.delete(connection, caller.scope, list(doomed.values()), keep_texts=False)
    imported(services, caller, before)
    services.indexing.drain()
    assert services.index.of(caller.scope).existing([lived[0]]) == {lived[0]: 1}


def test_an_event_does_not_show_what_came_to_be_another_user_s(
    services: Services, caller: Caller, lived: list[UUID]
) -> None:
    alice = caller_of(services, caller.principal.tenant_id, users=frozenset({"alice"}))
    new = NewMemories([Message("user", "my own")], SubjectNames(user_id="alice"), infer=False)
    event = services.adds.add(alice, alice.scope, new)
    memory_id = event.results[0].memory_id
    (line,) = (one for one in exported(services, alice) if one.get("id") == str(memory_id))
    assert services.events.get(alice, alice.scope, event.id).results[0].text == "my own"
    services.memories.delete(alice, alice.scope, memory_id)
    imported(services, caller, [line | {"text": "carol's secret", "user_id": "carol", "actor": "Carol"}])
    (shown,) = services.events.get(alice, alice.scope, event.id).results
    assert (shown.text, shown.actor, shown.subjects.user_id) == (None, None, "alice")
    assert services.events.get(caller, caller.scope, event.id).results[0].text == "carol's secret"


def test_a_dry_run_is_in_the_trail(services: Services, caller: Caller, lived: list[UUID], database: Postgres) -> None:
    report = imported(services, caller, exported(services, caller), dry_run=True)
    assert report.known > 0
    with psycopg.connect(database.admin) as connection:
        rows = connection.execute("SELECT target_ids, detail FROM audit WHERE event = 'memories:imported'").fetchall()
    assert rows == [
        ([report.import_id], {"source": "memvault_export", "imported": 0, "known": report.known, "history": 0})
    ]


def test_an_export_goes_on_behind_any_batch(
    services: Services, caller: Caller, lived: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports_module, "_BATCH", 1)
    whole = list(services.exports.read(caller, caller.scope, Wanted()))
    assert len(whole) > 4
    for number, batch in enumerate(whole[:-1]):
        rest = list(services.exports.read(caller, caller.scope, Wanted(), after=batch.after))
        again = [line for one in [*whole[: number + 1], *rest] for line in one.lines]
        want = [line for one in whole for line in one.lines]
        assert comparable([orjson.loads(line) for line in again]) == comparable([orjson.loads(line) for line in want])
    # Where a step stands among those of all tenants is no place to go on at: it would tell how much others do.
    for wrong in ("x", "memories:x", "deleted:x", "deleted:7", f"deleted:{clock.new_id()}", "subjects:"):
        with pytest.raises(InvalidInput, match="after"):
            exported(services, caller, after=wrong)


def test_a_folder_that_was_left_unfinished_is_gone_on_with(
    services: Services,
    caller: Caller,
    rival: Caller,
    lived: list[UUID],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exports_module, "_BATCH", 1)
    monkeypatch.setattr(folder_module, "_PART_BYTES", 1)
    batches = services.exports.read(caller, caller.scope, Wanted())
    with pytest.raises(RuntimeError):
        ExportFolder(tmp_path / "out", about=ABOUT).write(_cut(batches, 3))
    with pytest.raises(ConfigurationError, match="unfinished"):
        verified(tmp_path / "out")
    with pytest.raises(Conflict, match="something else"):
        ExportFolder(tmp_path / "out", about=ABOUT | {"user": "bob"})
    again = ExportFolder(tmp_path / "out", about=ABOUT)
    written = again.write(services.exports.read(caller, caller.scope, Wanted(), after=again.after))
    assert (written.resumed, written.memories) == (True, 5)
    report = services.imports.run(rival, rival.scope, lambda: read_folder(tmp_path / "out"), origin=ImportSource.EXPORT)
    assert (report.memories, report.known) == (5, 0)
    assert comparable(exported(services, rival)) == comparable(exported(services, caller))
    with pytest.raises(Conflict, match="not empty"):
        ExportFolder(tmp_path / "out", about=ABOUT)
    part = tmp_path / "out" / "part-00001.jsonl"
    part.write_bytes(part.read_bytes().replace(b"export", b"expOrt"))
    with pytest.raises(ConfigurationError, match="checksum"):
        list(read_folder(tmp_path / "out"))
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "out").iterdir()} == {0}


def test_everything_can_be_imported_as_one_user_s(
    services: Services, caller: Caller, rival: Caller, lived: list[UUID]
) -> None:
    before = exported(services, caller)
    dry = imported(services, rival, before, user="carol", dry_run=True)
    report = imported(services, rival, before, user="carol")
    lines = exported(services, rival, Wanted(SubjectNames(user_id="carol")))
    assert sum(line["type"] == "memory" for line in lines) == 5
    # Nobody else comes in, not even by name; agents, apps and runs do.
    subjects = [(line["kind"], line["name"]) for line in exported(services, rival) if line["type"] == "subject"]
    assert sorted(subjects) == [("agent", "helper"), ("app", "slack"), ("run", "r-1"), ("user", "carol")]
    assert report.subjects == dry.subjects == 3


def test_content_of_a_later_release_is_kept(
    services: Services, caller: Caller, rival: Caller, lived: list[UUID]
) -> None:
    lines = [line | {"later": {"x": 1}} if line["type"] == "memory" else line for line in exported(services, caller)]
    imported(services, rival, lines)
    assert all(line["later"] == {"x": 1} for line in exported(services, rival) if line["type"] == "memory")


def test_links_are_kept(services: Services, caller: Caller) -> None:
    moment = clock.now() - timedelta(days=3)
    one = IncomingMemory(clock.new_random_id(), "one", SubjectNames(user_id="alice"), moment, moment)
    two = replace(one, id=clock.new_random_id(), text="two", links=(one.id,))
    services.imports.run(caller, caller.scope, lambda: [Placed("1", one), Placed("2", two)], origin=ImportSource.EXPORT)
    lines = {line["id"]: line for line in exported(services, caller) if line["type"] == "memory"}
    assert lines[str(two.id)]["links"] == [str(one.id)]
    assert lines[str(one.id)]["created_at"] == moment.isoformat(timespec="microseconds")


def _cut(batches: Iterator[Any], after: int) -> Iterator[Any]:
    yield from itertools.islice(batches, after)
    raise RuntimeError


def test_what_is_imported_joins_the_holds_that_cover_it(
    services: Services, caller: Caller, rival: Caller, lived: list[UUID]
) -> None:
    officer = caller_of(services, rival.principal.tenant_id, role="compliance_officer", owner="ada@example.org")
    services.installation.holds.place(
        officer, officer.scope, NewHold("case-1", "litigation", subjects=SubjectNames(user_id="bob"))
    )
    imported(services, rival, exported(services, caller))
    with pytest.raises(LegalHold):
        services.memories.delete(rival, rival.scope, lived[2])
    services.memories.delete(rival, rival.scope, lived[0])
