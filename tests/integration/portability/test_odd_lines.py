"""Lines that no export of ours has: each is refused before anything is written, or harms nothing afterwards."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest

from service import clock
from service.audit.moves import ImportSource
from service.errors import InvalidInput
from service.memories.actions import Edit
from service.portability.lines import read_lines
from service.portability.records import IncomingHistory, Placed, Unreadable
from service.portability.sources.mem0 import of_item, of_payload
from service.records import Change, SubjectNames
from service.retention.ledger import ErasureKind, ErasureStatus, Target
from service.retention.plan import Step
from service.scope import Caller
from service.wiring import Services
from tests.integration.portability.test_round_trip import exported, imported
from tests.integration.rules.conftest import Run, SetRule, run, set_rule

__all__ = ["run", "set_rule"]
pytestmark = pytest.mark.integration

AT = "2024-01-01T00:00:00+00:00"


def memory(**more: Any) -> dict[str, Any]:
    """The line of a memory."""
    line = {"type": "memory", "id": str(uuid4()), "text": "I love tea", "user_id": "alice"}
    return line | {"created_at": AT, "updated_at": AT} | more


def step(content: Any, memory_id: str | None = None) -> dict[str, Any]:
    """The line of a step, of a memory that is gone unless it is named."""
    line = {"type": "history", "id": str(uuid4()), "memory_id": memory_id or str(uuid4()), "user_id": "alice"}
    return line | {"change": "ADD", "content": content, "created_at": AT, "updated_at": AT}


def read(*lines: dict[str, Any]) -> list[Placed]:
    """Read lines."""
    return list(read_lines((f"line {number}", orjson.dumps(line)) for number, line in enumerate(lines, 1)))


def erase_connector(services: Services, caller: Caller) -> ErasureStatus:
    """Carry out the erasure of some connector, and return how it stands."""
    erasure = services.erasures.request(caller, caller.scope, Target(ErasureKind.CONNECTOR, "slack"))
    services.erasing.finish(caller.principal.tenant_id, erasure.id)
    return services.erasures.look(caller.principal.tenant_id, erasure.id).status


@pytest.mark.parametrize("content", [{}, {"new": "tea"}, {"new": "tea", "metadata": None, "later": 1}])
def test_what_a_step_lacks_is_nothing(services: Services, caller: Caller, content: dict[str, Any]) -> None:
    whose = memory()
    assert imported(services, caller, [whose, step(content, whose["id"]), step(content)]).history == 2
    (told,) = services.memories.history(caller, caller.scope, UUID(whose["id"]))
    assert (told.old_text, told.new_text, told.metadata) == (None, content.get("new"), {})
    lines = [line["content"] for line in exported(services, caller) if line["type"] == "history"]
    assert lines == [{"old": None, "new": None} | content | {"metadata": {}}] * 2
    assert erase_connector(services, caller) is ErasureStatus.COMPLETED


@pytest.mark.parametrize("content", [["x"], "x", {"old": 5}, {"new": {"x": "y"}}, {"new": "x", "metadata": ["x"]}])
def test_a_step_of_another_kind_is_refused(services: Services, caller: Caller, content: Any) -> None:
    whose = memory()
    for lines in ([whose, step(content, whose["id"])], [memory(), step(content)]):
        with pytest.raises(Unreadable, match="line 2: has a field of a wrong kind"):
            imported(services, caller, lines)
    assert [line["type"] for line in exported(services, caller)] == ["export", "end"]


@pytest.mark.parametrize("content", [{"new": "tea"}, {"old": None, "new": "tea", "metadata": ["slack"]}])
def test_steps_that_an_earlier_release_took_hold_up_no_erasure(
    services: Services, caller: Caller, content: dict[str, Any]
) -> None:
    at = datetime.fromisoformat(AT)
    past = IncomingHistory(uuid4(), uuid4(), Change.ADD, content, at, at, SubjectNames(user_id="alice"))
    services.imports.run(caller, caller.scope, lambda: [Placed("1", past)], origin=ImportSource.EXPORT)
    assert erase_connector(services, caller) is ErasureStatus.COMPLETED
    (line,) = (line for line in exported(services, caller) if line["type"] == "history")
    assert line["content"] == content


@pytest.mark.parametrize("version", [0, -1, 2**31 + 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_a_version_that_is_none_is_refused(services: Services, caller: Caller, version: int) -> None:
    with pytest.raises(InvalidInput, match=r"at line 2: version: must be from 1 to 2147483648\. Nothing was imported"):
        imported(services, caller, [memory(text="I love rain"), memory(version=version)])
    assert [line["type"] for line in exported(services, caller)] == ["export", "end"]


def test_the_highest_version_is_changed_hidden_and_deleted(
    services: Services, caller: Caller, set_rule: SetRule, run: Run
) -> None:
    line = memory(version=2**31)
    imported(services, caller, [line])
    memory_id = UUID(line["id"])
    services.memories.update(caller, caller.scope, memory_id, Edit(text="I love rain"))
    set_rule("hide", action="hide", age="P1Y", grace="P20Y")
    assert [(one.memory_id, one.step) for one in run(dry=False)] == [(memory_id, Step.HIDE)]
    services.indexing.drain()
    assert services.index.of(caller.scope).existing([memory_id]) == {memory_id: 2**31 + 2}
    services.memories.delete(caller, caller.scope, memory_id)
    services.indexing.drain()
    assert services.index.of(caller.scope).existing([memory_id]) == {}


@pytest.mark.parametrize("connector", [5, {"a": 1}, ["crm"], "", "x" * 256, "a\x00b"])
def test_a_connector_that_is_no_name_is_refused(services: Services, caller: Caller, connector: Any) -> None:
    with pytest.raises(InvalidInput, match="at line 1: connector: "):
        imported(services, caller, [memory(connector=connector)])
    assert [line["type"] for line in exported(services, caller)] == ["export", "end"]


def test_a_key_of_a_connector_imports_nothing_that_came_through_another(services: Services, caller: Caller) -> None:
    crm = replace(caller, principal=replace(caller.principal, connector="crm"))
    carried = {"metadata": {"connector": "crm"}}
    with pytest.raises(InvalidInput, match="at line 1: connector: this key is bound to a connector"):
        imported(services, crm, [memory(connector="slack", **carried)])
    lines = [memory(connector="crm", **carried), memory(connector=None, **carried), memory(**carried)]
    assert imported(services, crm, lines).memories == 3


def test_where_an_import_came_from_is_told_by_the_import_and_not_by_its_lines(
    services: Services, caller: Caller
) -> None:
    imported(services, caller, [memory(imported_from="platform", connector="slack")])
    (line,) = (line for line in exported(services, caller) if line["type"] == "memory")
    assert (line["imported_from"], line["connector"]) == (ImportSource.EXPORT.value, "slack")


def test_categories_are_a_list(services: Services, caller: Caller) -> None:
    assert read(memory(categories=["health"]))[0].what.categories == ("health",)  # type: ignore[union-attr]
    for wrong in ("health", 5, {"health": True}):
        with pytest.raises(Unreadable, match="line 1: has a field of a wrong kind"):
            read(memory(categories=wrong))


@pytest.mark.parametrize(
    ("given", "kept"), [("health", ("health",)), (["health", "北"], ("health", "北")), (None, ()), ("", ()), ([], ())]
)
def test_one_category_of_mem0_is_one(given: Any, kept: tuple[str, ...]) -> None:
    fields = {"data": "I love tea", "user_id": "alice", "categories": given}
    for placed in (
        of_payload("point 1", str(uuid4()), fields, [], clock.now()),
        of_item("item 1", fields, clock.now()),
    ):
        assert placed.what.categories == kept  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "more",
    [
        {"categories": 5},
        {"categories": {"a": 1}},
        {"history": 5},
        {"history": [5]},
        {"history": [{"id": "1", "event": "ADD", "new_memory": 5}]},
    ],
)
def test_what_is_of_another_kind_in_mem0_is_named(more: dict[str, Any]) -> None:
    with pytest.raises(Unreadable, match="item 1"):
        of_item("item 1", {"id": str(uuid4()), "memory": "I love tea", "user_id": "alice"} | more, clock.now())


def test_a_change_that_only_the_history_tells_of_counts() -> None:
    steps = [
        {"id": str(uuid4()), "event": event, "new_memory": "I love tea", "created_at": AT, "updated_at": changed}
        for event, changed in (("ADD", None), ("UPDATE", "2025-01-01T00:00:00Z"), ("UPDATE", "2024-06-01T00:00:00Z"))
    ]
    item = {"id": str(uuid4()), "memory": "I love tea", "user_id": "alice", "created_at": AT}
    for history, changed in ((steps, "2025-01-01T00:00:00+00:00"), (steps[:1], AT), ([], AT)):
        placed = of_item("item 1", item | {"history": history}, clock.now())
        assert placed.what.updated_at == datetime.fromisoformat(changed)  # type: ignore[union-attr]


def test_a_line_of_too_many_values_is_not_read() -> None:
    line = b'{"type": "subject", "kind": "user", "name": "alice", "more": [' + b"[]," * 250_000 + b"0]}"
    with pytest.raises(Unreadable, match="more values"):
        list(read_lines([("line 1", line)]))
