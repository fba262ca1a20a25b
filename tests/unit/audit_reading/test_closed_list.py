"""The list of events is closed: each has an action or an emitter, one detail model, and no room for free text."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import service
from service.audit import connector_details, details, moves, tenant_details
from service.audit.details import DETAIL_OF, Code, Detail, MemoryAdded, MemoryAddEnded, holds_no_text
from service.audit.events import ACTIVITY_OF, EVENT_OF, AuditEvent
from service.policy.table import NEEDS
from service.scope import Action

pytestmark = pytest.mark.unit

SERVICE = Path(service.__file__).parent
#: What the trail itself emits, on behalf of its callers.
BY_THE_TRAIL = {"refuse": AuditEvent.ACCESS_DENIED, "credential_refused": AuditEvent.CREDENTIAL_REFUSED}


def calls_of(names: set[str]) -> Iterator[tuple[Path, ast.Call]]:
    """Every call of a method by one of these names, outside the trail itself."""
    for path in SERVICE.rglob("*.py"):
        if path == SERVICE / "audit" / "trail.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in names:
                yield path, node


def named_events(node: ast.AST) -> Iterator[AuditEvent]:
    """The events that a piece of code names."""
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id == "AuditEvent":
            yield AuditEvent[part.attr]


def emitted() -> set[AuditEvent]:
    """The events that some code writes: named in a call of `write`, or handed on to one."""
    found = {event for _, call in calls_of({"write", "_set_status"}) for event in named_events(call)}
    return found | {BY_THE_TRAIL[call.func.attr] for _, call in calls_of(set(BY_THE_TRAIL))}  # type: ignore[attr-defined]


def test_every_action_has_an_event_of_its_own_and_a_permission() -> None:
    assert set(EVENT_OF) == set(Action) == set(NEEDS)
    assert len(set(EVENT_OF.values())) == len(EVENT_OF)


def test_every_event_is_written_by_some_code_and_every_written_event_is_on_the_list() -> None:
    assert len(list(calls_of({"write"}))) > 20, "the walk found too few writers to prove anything"
    assert emitted() == set(AuditEvent)


def test_every_event_has_one_detail_model_and_one_activity() -> None:
    modules = (connector_details, tenant_details, moves, details)
    found = {name: kind for module in modules for name, kind in vars(module).items()}.values()
    models = [kind for kind in found if isinstance(kind, type) and issubclass(kind, Detail)]
    assert set(DETAIL_OF) == set(AuditEvent) == set(ACTIVITY_OF)
    assert sorted(DETAIL_OF.values(), key=str) == sorted((kind for kind in models if kind is not Detail), key=str)
    assert all(model.__doc__ for model in DETAIL_OF.values())


def test_every_writer_gives_the_detail_of_its_event() -> None:
    given = 0
    for path, call in calls_of({"write"}):
        for keyword in call.keywords:
            if keyword.arg != "detail" or not isinstance(keyword.value, ast.Call):
                continue
            (event,) = set(named_events(call.args[2]))
            assert ast.unparse(keyword.value.func) == DETAIL_OF[event].__name__, f"{path}:{call.lineno}"
            given += 1
    assert given > 10


def test_an_event_is_spelled_as_thing_and_what_happened_to_it() -> None:
    for event in AuditEvent:
        thing, colon, happened = event.value.partition(":")
        assert colon
        assert thing.isalpha()
        assert happened.replace("_", "").isalpha()
        assert event.name == event.value.replace(":", "_").upper()


@pytest.mark.parametrize(
    "kind", [str, bytes, Any, object, float | str, list[str], dict[str, int], tuple[int, str], StrEnum | str]
)
def test_a_detail_with_room_for_text_cannot_be_declared(kind: Any) -> None:
    assert not holds_no_text(kind)
    with pytest.raises(TypeError, match="could hold content"):
        type("Leaking", (Detail,), {"event": AuditEvent.AUDIT_READ, "__annotations__": {"note": kind}})
    assert DETAIL_OF[AuditEvent.AUDIT_READ] is details.AuditRead


@pytest.mark.parametrize("kind", [int, bool, datetime, Code, Code | None, list[AuditEvent], dict[Action, int]])
def test_numbers_ids_times_and_codes_are_no_text(kind: Any) -> None:
    assert holds_no_text(kind)


def test_a_second_model_for_an_event_cannot_be_declared() -> None:
    with pytest.raises(TypeError, match="two detail models"):
        type("Again", (Detail,), {"event": AuditEvent.AUDIT_READ, "__annotations__": {}})


@pytest.mark.parametrize("code", ["I love tea", "Tea", "tea\n", "", "x" * 65, "ä"])
def test_a_code_is_no_sentence(code: str) -> None:
    with pytest.raises(ValidationError):
        MemoryAddEnded(code=code)


def test_a_detail_takes_nothing_beside_its_fields() -> None:
    with pytest.raises(ValidationError):
        MemoryAdded(added=1, known=0, text="tea")  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        MemoryAdded(added="tea", known=0)  # type: ignore[arg-type]
