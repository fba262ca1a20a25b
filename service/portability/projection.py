"""Puts memories into the shape of a JSON schema, without a language model: pure, by the names of the properties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from service.errors import InvalidInput
from service.records import Memory

_MOST_CHARS: Final = 50_000
_DEPTH: Final = 8
#: Properties that a schema may come to with its references followed, since a few of them can stand for billions.
_MOST_PROPERTIES: Final = 10_000
#: The same of what is repeated for each memory: more than the fields and the metadata that one can have.
_MOST_OF_EACH: Final = 250
_TEXT: Final = frozenset({"memory", "text", "content", "data", "fact"})


def read_schema(raw: Any) -> dict[str, Any] | None:
    """Return a JSON schema as it was sent: an object, or a string that holds one; None where none was sent.

    Raises:
        InvalidInput: for anything else, and for one that is too large or comes to too many properties.
    """
    if raw is None or raw == "" or raw == {}:
        return None
    if isinstance(raw, str):
        if len(raw) > _MOST_CHARS:
            raise _too_long()
        try:
            raw = orjson.loads(raw)
        except ValueError:
            raise InvalidInput("schema: is not JSON; send a JSON schema, as an object or as a string") from None
    if not isinstance(raw, dict) or not isinstance(raw.get("properties", {}), dict):
        raise InvalidInput("schema: must be a JSON schema with `properties`")
    try:
        # As it is kept, within the request.
        written = orjson.dumps({"schema": raw}).decode()
    except TypeError:
        raise InvalidInput("schema: has a number that is too long, or too many levels, to be kept") from None
    if len(written) > _MOST_CHARS + len('{"schema":}'):
        raise _too_long()
    _Shape(raw).check()
    return raw


def project(schema: Mapping[str, Any] | None, memories: Sequence[Memory]) -> Any:
    """Return the memories in the shape of the schema.

    A list of objects gets one object for each memory, a list of anything else the texts; a single value is that of the
    newest memory which has one. What has no such property is null, and so is what lies deeper than eight objects: a
    schema that contains itself ends there.

    Raises:
        InvalidInput: for a schema that comes to too many properties.
    """
    if schema is None or not isinstance(schema.get("properties"), dict):
        return {"memories": [plain(memory) for memory in memories]}
    shape = _Shape(schema)
    shape.check()
    return _object(shape, schema, _Values(memories), 0)


def plain(memory: Memory) -> dict[str, Any]:
    """Return a memory as it comes where no schema asks for another shape."""
    return {
        "id": str(memory.id),
        "memory": memory.text,
        "user_id": memory.subjects.user_id,
        "agent_id": memory.subjects.agent_id,
        "app_id": memory.subjects.app_id,
        "run_id": memory.subjects.run_id,
        "metadata": dict(memory.metadata),
        "categories": list(memory.categories),
        "created_at": memory.created_at.isoformat(),
        "updated_at": memory.updated_at.isoformat(),
        "expiration_date": None if memory.expires_on is None else memory.expires_on.isoformat(),
    }


class _Shape:
    """A schema whose references are followed, each of its parts once."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        # By their addresses: they are parts of the root, which keeps them.
        self._resolved: dict[int, Mapping[str, Any]] = {}
        self._properties = 0
        self._of_each = 0

    def resolved(self, schema: Any) -> Mapping[str, Any]:
        """Follow references into the schema's own definitions, and take the first of alternatives that is not null."""
        if not isinstance(schema, dict):
            return {}
        if id(schema) not in self._resolved:
            self._resolved[id(schema)] = self._follow(schema)
        return self._resolved[id(schema)]

    def check(self) -> None:
        """Return if what is made of memories is bounded.

        Raises:
            InvalidInput: naming the bound.
        """
        self._properties = self._of_each = 0
        properties = self._root.get("properties")
        if isinstance(properties, dict):
            self._count(properties, 0)

    def _count(self, properties: Mapping[str, Any], depth: int) -> None:
        for raw in properties.values():
            self._add()
            kind = self.resolved(raw)
            inner = kind.get("properties")
            if _is(kind, "array"):
                items = self.resolved(kind.get("items")).get("properties")
                if isinstance(items, dict):
                    self._count_of_each(items, depth + 1)
                else:
                    self._add(of_each=True)
            elif isinstance(inner, dict) and depth < _DEPTH:
                self._count(inner, depth + 1)

    def _count_of_each(self, properties: Mapping[str, Any], depth: int) -> None:
        for raw in properties.values():
            self._add(of_each=True)
            inner = self.resolved(raw).get("properties")
            if isinstance(inner, dict) and depth < _DEPTH:
                self._count_of_each(inner, depth + 1)

    def _add(self, *, of_each: bool = False) -> None:
        if of_each:
            self._of_each += 1
        else:
            self._properties += 1
        if self._properties > _MOST_PROPERTIES:
            raise InvalidInput(
                f"schema: comes to more than {_MOST_PROPERTIES} properties once its references are followed; "
                "ask for fewer"
            )
        if self._of_each > _MOST_OF_EACH:
            raise InvalidInput(
                f"schema: comes to more than {_MOST_OF_EACH} properties of each memory once its references are "
                "followed; ask for fewer"
            )

    def _follow(self, schema: Any) -> Mapping[str, Any]:
        for _ in range(_DEPTH):
            if not isinstance(schema, dict):
                return {}
            if isinstance(reference := schema.get("$ref"), str):
                at: Any = self._root
                for part in reference.removeprefix("#/").split("/"):
                    at = at.get(part, {}) if isinstance(at, dict) else {}
                schema = at
                continue
            alternatives = schema.get("anyOf") or schema.get("oneOf")
            if isinstance(alternatives, list):
                schema = next((one for one in alternatives if isinstance(one, dict) and not _is(one, "null")), {})
                continue
            return schema
        return {}


class _Values:
    """What memories have by the names of properties, the oldest memory first."""

    def __init__(self, memories: Sequence[Memory]) -> None:
        self.each: Sequence[Mapping[str, Any]] = [_named(memory) for memory in memories]
        self.newest: dict[str, Any] = {}
        for one in self.each:
            self.newest.update((name, value) for name, value in one.items() if value is not None)

    def of(self, name: str) -> list[Any]:
        """Return the different plain values of a property, those in lists too."""
        found = [value for one in self.each if (value := one.get(name)) is not None]
        flat = [one for value in found for one in (value if isinstance(value, list) else [value])]
        return list(dict.fromkeys(one for one in flat if isinstance(one, str | int | float)))


def _object(shape: _Shape, schema: Mapping[str, Any], values: _Values, depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, raw in schema["properties"].items():
        kind = shape.resolved(raw)
        if _is(kind, "array"):
            items = shape.resolved(kind.get("items"))
            if isinstance(items.get("properties"), dict):
                found[name] = [_of_memory(shape, items, one, depth + 1) for one in values.each]
            else:
                found[name] = values.of(name) or [one["memory"] for one in values.each]
        elif isinstance(kind.get("properties"), dict):
            found[name] = _object(shape, kind, values, depth + 1) if depth < _DEPTH else None
        else:
            found[name] = values.newest.get(name)
    return found


def _of_memory(shape: _Shape, schema: Mapping[str, Any], memory: Mapping[str, Any], depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, raw in schema["properties"].items():
        kind, value = shape.resolved(raw), memory.get(name)
        inner = isinstance(kind.get("properties"), dict) and value is None and depth < _DEPTH
        found[name] = _of_memory(shape, kind, memory, depth + 1) if inner else value
    return found


def _is(schema: Mapping[str, Any], kind: str) -> bool:
    told = schema.get("type")
    return told == kind or (isinstance(told, list) and kind in told)


def _too_long() -> InvalidInput:
    return InvalidInput(f"schema: must have {_MOST_CHARS} characters at most, written as JSON")


def _named(memory: Memory) -> dict[str, Any]:
    """Return the values of a memory by the names that a property may have for them."""
    return {**memory.metadata, **plain(memory), **dict.fromkeys(_TEXT, memory.text)}
