"""The plan: every attack on every operation, worked out from the operation's places and from nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from tests.isolation.attack import spellings
from tests.isolation.attack.calls import Call
from tests.isolation.attack.scene import MAKERS, NAMES
from tests.isolation.attack.surface import Operation, Parts, Place

Fill = Callable[[Parts], Parts]


@dataclass(frozen=True)
class Attack:
    """One attempt: `call` spells it out for a target of this kind; `fill` puts the attacker's own things into holes.

    `whole`: the answers for the victim's thing and for one that does not exist are the same to the byte; else only
    their statuses are, because what is asked differs by its words. `plain` ones are tried by every attacker.
    """

    family: str
    kind: str
    call: Callable[[str, Fill], Call]
    whole: bool = True
    plain: bool = False


def attacks_on(operation: Operation) -> Iterator[Attack]:
    """Yield the attacks on an operation."""
    for place in operation.places:
        yield from _in_place(operation, place)
    yield from _headers(operation)
    if operation.tool is None and operation.resource is None:
        yield from _paths(operation)
        yield from _methods(operation)
    if isinstance(operation.parts.body, dict):
        yield from _twice(operation)
        yield from _beside(operation)


def _in_place(operation: Operation, place: Place) -> Iterator[Attack]:
    def put(spelled: Callable[[str], Any], target: str, fill: Fill) -> Call:
        return operation.call(fill(operation.put(place, spelled(target))))

    kind = place.kind
    if kind == "filters":
        for aims_at, one in spellings.FILTERS:
            yield Attack(f"filter in {place}", aims_at, partial(put, one), plain=aims_at == "memory")
    elif kind == "number":
        for value in spellings.NUMBERS:
            yield Attack(f"number in {place}", "tenant", partial(put, lambda _, value=value: value))
    elif kind in NAMES:
        for number, one in enumerate(spellings.OF_NAME):
            yield Attack(f"name in {place}", kind, partial(put, one), plain=number == 0)
    elif kind in MAKERS:
        for number, one in enumerate(spellings.OF_ID):
            if kind == "idempotency" and one("once-1") == one("once-2"):
                # The same key for both would meet itself.
                continue
            yield Attack(f"id in {place}", kind, partial(put, one), plain=number == 0)
            if any(isinstance(key, int) for key in place.keys):
                yield Attack(f"ids of two owners in {place}", kind, partial(_mixed, operation, place, one))
    else:
        for one in spellings.SYNTAX:
            yield Attack(f"syntax in {place}", "tenant", partial(put, one), whole=False)


def _mixed(operation: Operation, place: Place, spelled: Callable[[str], Any], target: str, fill: Fill) -> Call:
    """Return a call that names the attacker's own thing and the target in one list."""
    at = max(number for number, key in enumerate(place.keys) if isinstance(key, int))
    items = []
    for value in (f"<{place.kind}>", spelled(target)):
        found = operation.put(place, value).body
        for key in place.keys[: at + 1]:
            found = found[key]
        items.append(found)
    return operation.call(fill(operation.parts.put(replace(place, keys=place.keys[:at]), items)))


def _headers(operation: Operation) -> Iterator[Attack]:
    def call(name: str, value: Callable[[str], str], target: str, fill: Fill) -> Call:
        return operation.call(fill(operation.parts)).with_headers((name, value(target)))

    for name, kind, value in spellings.HEADERS:
        yield Attack(f"header {name}", kind, partial(call, name, value), plain=name in ("X-Tenant-ID", "X-Acting-User"))


def _paths(operation: Operation) -> Iterator[Attack]:
    def call(detour: Callable[[str, str], str], target: str, fill: Fill) -> Call:
        plain = operation.call(fill(_aimed(operation, target)))
        return replace(plain, path=detour(plain.path, target))

    for number, detour in enumerate(spellings.PATHS):
        yield Attack(f"path {number}", "memory", partial(call, detour))


def _methods(operation: Operation) -> Iterator[Attack]:
    def call(method: str, target: str, fill: Fill) -> Call:
        return replace(operation.call(fill(_aimed(operation, target))), method=method)

    for method in ("HEAD", "OPTIONS", "TRACE", "PATCH", "FROBNICATE"):
        yield Attack(f"method {method}", "memory", partial(call, method))


def _aimed(operation: Operation, target: str) -> Parts:
    parts = operation.parts
    for place in operation.places:
        if place.part == "path" and place.kind in MAKERS:
            parts = parts.put(place, target)
    return parts


def _twice(operation: Operation) -> Iterator[Attack]:
    """Keys that stand twice in one object: of two readers, one takes the first and one the last."""

    def call(first: bool, key: str, value: Any, target: str, fill: Fill) -> Call:
        parts = fill(operation.parts)
        spelled = json.dumps(value(target))
        inner = json.dumps(parts.body)[1:-1]
        twice = f"{json.dumps(key)}: {spelled}"
        more = ", ".join(one for one in ((twice, inner) if first else (inner, twice)) if one)
        own = f"{json.dumps(key)}: {json.dumps('alice')}"
        text = f"{{{own}, {more}}}" if key not in parts.body else f"{{{more}}}"
        plain = operation.call(parts)
        if operation.tool is None:
            return replace(plain, body=text.encode())
        return replace(plain, body=plain.body.replace(json.dumps(parts.body).encode(), text.encode(), 1))

    for place in operation.places:
        if place.part == "body" and place.kind in (*MAKERS, "filters"):
            kind = "user" if place.kind == "filters" else place.kind
            key = str(place.keys[0])
            value = (lambda one: {"user_id": one}) if place.kind == "filters" else _around(place)
            for first in (True, False):
                yield Attack(f"{place} twice", kind, partial(call, first, key, value))


def _around(place: Place) -> Callable[[str], Any]:
    def value(target: str) -> Any:
        made: Any = target
        for key in reversed(place.keys[1:]):
            made = [made] if isinstance(key, int) else {key: made}
        return made

    return value


#: Fields that no call takes and that a careless server would obey.
_BESIDE: Final = (
    ("tenant_id", "tenant"),
    ("org_id", "tenant"),
    ("project_id", "tenant"),
    ("scope", "tenant"),
    ("principal_id", "key"),
    ("owner_id", "subject"),
    ("acting_user", "user"),
    ("as_user", "user"),
    ("id", "memory"),
    ("memory_id", "memory"),
    ("__proto__", "tenant"),
)


def _beside(operation: Operation) -> Iterator[Attack]:
    known = {str(place.keys[0]) for place in operation.places if place.part == "body"}

    def call(name: str, target: str, fill: Fill) -> Call:
        parts = fill(operation.parts)
        return operation.call(replace(parts, body={**parts.body, name: target}))

    for name, kind in _BESIDE:
        if name not in known:
            yield Attack(f"field {name} beside", kind, partial(call, name))
