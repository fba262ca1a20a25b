"""What was deleted here and is imported again has its history again, and nothing else has."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from service.errors import LegalHold
from service.memories.actions import Edit
from service.portability.exports import Wanted
from service.records import Change, SubjectNames
from service.scope import Caller
from service.wiring import Services
from tests.conftest import MakeServices, caller_of
from tests.integration.holds.conftest import Add, Place, ada, add, place
from tests.integration.portability.test_round_trip import exported, imported

__all__ = ["ada", "add", "place"]
pytestmark = pytest.mark.integration

LIVED = [(Change.ADD, None, "I love tea"), (Change.UPDATE, "I love tea", "I love rain")]
EMPTIED = [(change, None, None) for change, _, _ in LIVED]
DELETED = (Change.DELETE, None, None)


@pytest.fixture
def gone(services: Services, caller: Caller, add: Add) -> tuple[UUID, list[Any]]:
    """A memory that was changed and deleted, with the lines of an export of before."""
    memory_id = add("I love tea")
    services.memories.update(caller, caller.scope, memory_id, Edit(text="I love rain"))
    lines = exported(services, caller)
    services.memories.delete(caller, caller.scope, memory_id)
    return memory_id, lines


def told(services: Services, caller: Caller, memory_id: UUID) -> list[tuple[Change, str | None, str | None]]:
    """The history of a memory."""
    steps = services.memories.history(caller, caller.scope, memory_id)
    return [(step.change, step.old_text, step.new_text) for step in steps]


def test_the_history_comes_back_as_often_as_it_is_deleted(
    services: Services, caller: Caller, gone: tuple[UUID, list[Any]]
) -> None:
    memory_id, lines = gone
    assert told(services, caller, memory_id) == [*EMPTIED, DELETED]
    for deletions in (1, 2):
        dry = imported(services, caller, lines, dry_run=True)
        report = imported(services, caller, lines)
        assert (report.memories, report.history) == (dry.memories, dry.history) == (1, 2)
        assert told(services, caller, memory_id) == [*LIVED, *[DELETED] * deletions]
        assert imported(services, caller, lines).history == 0
        services.memories.delete(caller, caller.scope, memory_id)
        assert told(services, caller, memory_id) == [*EMPTIED, *[DELETED] * (deletions + 1)]
    # One that comes without history is told to have come in.
    alone = [line for line in lines if line["type"] == "memory"]
    for _ in range(2):
        assert imported(services, caller, alone).history == 1
        assert (Change.ADD, None, "I love rain") in told(services, caller, memory_id)[-2:]
        services.memories.delete(caller, caller.scope, memory_id)


def test_only_what_a_deletion_emptied_is_written(
    services: Services, caller: Caller, gone: tuple[UUID, list[Any]]
) -> None:
    memory_id, lines = gone
    (line,) = (line for line in lines if line["type"] == "memory")
    steps = [line for line in lines if line["type"] == "history"]
    # Without the memory; another's of the same id; of another memory; of another change.
    assert imported(services, caller, steps).history == 0
    assert told(services, caller, memory_id) == [*EMPTIED, DELETED]
    for change in ({"user_id": "bob"}, {"id": str(uuid4())}, {}):
        other = line | change
        wrong = {} if change else {"change": "DELETE"}
        past = [one | {"memory_id": other["id"], "user_id": other["user_id"]} | wrong for one in steps]
        report = imported(services, caller, [other, *past])
        assert (report.memories, report.history) == (1, 0)
        if other["id"] == line["id"]:
            assert told(services, caller, memory_id)[:3] == [*EMPTIED, DELETED]
        services.memories.delete(caller, caller.scope, UUID(other["id"]))
    # A step that comes twice is written once.
    assert imported(services, caller, [line, *steps, steps[0]]).history == 2
    assert told(services, caller, memory_id)[:2] == LIVED


def test_texts_that_were_kept_stay(make_services: MakeServices) -> None:
    services = make_services(history={"keep_deleted": True})
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    line = {"type": "memory", "id": str(uuid4()), "text": "I love tea", "user_id": "alice"}
    line |= {"created_at": "2024-01-01T00:00:00Z", "updated_at": "2024-01-01T00:00:00Z"}
    imported(services, caller, [line])
    services.memories.delete(caller, caller.scope, UUID(line["id"]))
    (step, _) = (one for one in exported(services, caller) if one["type"] == "history")
    report = imported(services, caller, [line, step | {"content": {"new": "I never loved tea"}}])
    assert (report.memories, report.history) == (1, 0)
    assert told(services, caller, UUID(line["id"]))[0] == (Change.ADD, None, "I love tea")


def test_an_export_has_the_history_of_whom_it_is_of_and_not_of_who_had_the_id_before(
    make_services: MakeServices,
) -> None:
    services = make_services(history={"keep_deleted": True})
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    line = {"type": "memory", "id": str(uuid4()), "text": "Alice has a cat", "user_id": "alice"}
    line |= {"created_at": "2024-01-01T00:00:00Z", "updated_at": "2024-01-01T00:00:00Z"}
    imported(services, caller, [line])
    services.memories.delete(caller, caller.scope, UUID(line["id"]))
    imported(services, caller, [line | {"user_id": "carol", "text": "Carol has a dog"}])
    services.memories.update(caller, caller.scope, UUID(line["id"]), Edit(text="Carol has two dogs"))

    def told(wanted: Wanted) -> dict[str, list[Any]]:
        lines = exported(services, caller, wanted)
        users = {one["user_id"] for one in lines if one["type"] in ("memory", "history")}
        steps = [one for one in lines if one["type"] == "history"]
        return {
            user: [one["content"] and one["content"]["new"] for one in steps if one["user_id"] == user]
            for user in users
        }

    hers, others = ["Alice has a cat", None], ["Carol has two dogs"]
    assert told(Wanted(SubjectNames(user_id="carol"))) == {"carol": others}
    assert told(Wanted(SubjectNames(user_id="alice"))) == {"alice": hers}
    assert told(Wanted()) == {"alice": hers, "carol": others}


def test_what_a_hold_keeps_stays_as_it_is(
    services: Services, caller: Caller, place: Place, gone: tuple[UUID, list[Any]]
) -> None:
    memory_id, lines = gone
    place(user="alice")
    report = imported(services, caller, lines)
    assert (report.memories, report.history) == (1, 0)
    assert told(services, caller, memory_id) == [*EMPTIED, DELETED]
    with pytest.raises(LegalHold):
        services.memories.delete(caller, caller.scope, memory_id)
