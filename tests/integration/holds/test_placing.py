"""What is written while a hold is being looked for: writers do not wait for that, and what they did counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, text

from service.errors import Conflict, LegalHold, NotFound
from service.holds.register import Register
from service.memories.actions import Edit
from service.retention.holds import Hold
from service.scope import Caller, SubjectKind
from service.storage.tombstones import TombstoneKind
from service.wiring import Services
from tests.integration.holds.conftest import Add, Place

pytestmark = [pytest.mark.integration, pytest.mark.postgres_suite]

Meanwhile = Callable[[Callable[[], None]], None]

#: On subjects, exact in SQL, decided on the decrypted rows, and both.
WHATS: tuple[dict[str, Any], ...] = (
    {"user": "alice"},
    {"filters": {"metadata": {"channel": "legal"}}},
    {"filters": {"text": {"icontains": "CONTRACT"}}},
    {"filters": {"AND": [{"user_id": "alice"}, {"text": {"contains": "contract"}}]}},
)
MATCHING = {"text": "the contract of May", "channel": "legal"}
OTHER = Edit(text="I love tea", metadata={"channel": "chat"})


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Do something once all was looked for that a hold covers, just before writers have to wait."""
    lock = Register.lock

    def let(do: Callable[[], None]) -> None:
        def locked(register: Register, connection: Connection) -> None:
            do()
            lock(register, connection)

        monkeypatch.setattr(Register, "lock", locked)

    return let


@pytest.mark.parametrize("what", WHATS, ids=["subjects", "exact", "text", "both"])
def test_a_hold_covers_what_is_there_when_writers_wait(
    what: dict[str, Any],
    services: Services,
    caller: Caller,
    add: Add,
    place: Place,
    members: Callable[[Hold], set[UUID]],
    meanwhile: Meanwhile,
    trail: Callable[[], list[dict[str, Any]]],
) -> None:
    kept, going, changed, out = (add(**MATCHING, number=number) for number in range(4))
    into = add("I love coffee", channel="chat")
    add("nothing", user="bob", channel="chat")
    new: list[UUID] = []

    def write() -> None:
        services.memories.delete(caller, caller.scope, going)
        services.memories.update(caller, caller.scope, changed, Edit(text="the contract of June"))
        services.memories.update(caller, caller.scope, out, OTHER)
        services.memories.update(
            caller, caller.scope, into, Edit(text="a contract", metadata={"channel": "legal", "number": 9})
        )
        new.append(add(**MATCHING, number=10))

    meanwhile(write)
    hold = place(**what)
    expected = {kept, changed, into, *new} | ({out} if "user" in what else set())
    assert members(hold) == expected
    assert hold.stored.members == len(expected)
    (placed,) = (row for row in trail() if row["event"] == "hold:placed")
    assert (set(placed["result_ids"]), placed["detail"]["members"]) == (expected, len(expected))
    journalled = [one for one in services.installation.tombstones.all() if one.kind is TombstoneKind.HOLD_PLACED]
    told = set() if "user" in what else expected
    assert [(one.ids[0], set(one.ids[1:])) for one in journalled] == [(hold.stored.id, told)]
    for memory_id in expected:
        with pytest.raises(LegalHold):
            services.memories.delete(caller, caller.scope, memory_id)
    if out not in expected:
        services.memories.delete(caller, caller.scope, out)


def test_a_named_memory_that_is_deleted_meanwhile_is_not_there(
    services: Services, ada: Caller, caller: Caller, add: Add, place: Place, meanwhile: Meanwhile
) -> None:
    kept, going = add(), add("I love coffee")

    def delete() -> None:
        services.memories.delete(caller, caller.scope, going)

    meanwhile(delete)
    with pytest.raises(NotFound, match="1 of them"):
        place(memory_ids=[kept, going])
    assert services.installation.holds.list(ada, ada.scope, None, page=1, size=5).total == 0
    services.memories.delete(caller, caller.scope, kept)


def test_who_begins_to_be_erased_meanwhile_is_not_held(
    services: Services,
    caller: Caller,
    add: Add,
    place: Place,
    members: Callable[[Hold], set[UUID]],
    meanwhile: Meanwhile,
) -> None:
    kept = add(**MATCHING)
    add(**MATCHING, user="bob")

    def erase() -> None:
        scope, stores = caller.scope, services.installation
        with stores.database.transaction(scope) as connection:
            name = (SubjectKind.USER, "bob")
            for subject_id in stores.subjects.find(connection, scope, [name]).values():
                services.entities.begin(connection, scope, subject_id)

    meanwhile(erase)
    with pytest.raises(Conflict):
        place("person", user="bob")
    assert members(place("channel", filters={"metadata": {"channel": "legal"}})) == {kept}


def test_members_are_taken_back_of_no_hold_that_was_placed(
    services: Services, caller: Caller, add: Add, place: Place, members: Callable[[Hold], set[UUID]]
) -> None:
    held = add()
    hold = place(user="alice")
    with services.installation.database.transaction(caller.scope) as connection:
        connection.execute(
            text("SELECT hold_take_back(:hold, CAST(:ids AS uuid[]))"), {"hold": hold.stored.id, "ids": [held]}
        )
    assert members(hold) == {held}


def test_writers_do_not_wait_while_it_is_looked_for(
    services: Services,
    add: Add,
    place: Place,
    members: Callable[[Hold], set[UUID]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = add(**MATCHING)
    record, new = services.installation.record, list[UUID]()
    stream = record.stream

    def streamed(*given: Any, **more: Any) -> Any:
        if not new:
            new.append(add(**MATCHING, number=2))
        return stream(*given, **more)

    monkeypatch.setattr(record, "stream", streamed)
    assert members(place(filters={"text": {"contains": "contract"}})) == {there, *new}
    assert new
