"""Puts memories into the shape of a JSON schema, without a language model: pure, by the names of the properties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from service.errors import InvalidInput
from service.records import Memory

_MOST_CHARS: Final = 50_000
_DEPTH: Final = 8
_TEXT: Final = frozenset({"memory", "text", "content", "data", "fact"})


def read_schema(raw: Any) -> dict[str, Any] | None:
    """Return a JSON schema as it was sent: an object, or a string that holds one; None where none was sent.

    Raises:
        InvalidInput: for anything else.
    """
    if raw is None or raw == "" or raw == {}:
        return None
    if isinstance(raw, str):
        if len(raw) > _MOST_CHARS:
            raise InvalidInput(f"schema: must have {_MOST_CHARS} characters at most")
        try:
            raw = orjson.loads(raw)
        except ValueError:
            raise InvalidInput("schema: is not JSON; send a JSON schema, as an object or as a string") from None
    if not isinstance(raw, dict) or not isinstance(raw.get("properties", {}), dict):
        raise InvalidInput("schema: must be a JSON schema with `properties`")
    return raw


def project(schema: Mapping[str, Any] | None, memories: Sequence[Memory]) -> Any:
    """Return the memories in the shape of the schema.

    A list of objects gets one object for each memory, a list of anything else the texts; a single value is that of the
    newest memory which has one. What has no such property is null.
    """
    if schema is None:
        return {"memories": [_plain(memory) for memory in memories]}
    return _object(schema, schema, memories, 0)


def _object(root: Mapping[str, Any], schema: Mapping[str, Any], memories: Sequence[Memory], depth: int) -> Any:
    properties = schema.get("properties")
    if not isinstance(properties, dict) or depth > _DEPTH:
        return {"memories": [_plain(memory) for memory in memories]}
    found: dict[str, Any] = {}
    for name, raw in properties.items():
        kind = _resolved(root, raw)
        if _is(kind, "array"):
            items = _resolved(root, kind.get("items", {}))
            if isinstance(items.get("properties"), dict):
                found[name] = [_of_memory(root, items, memory, depth + 1) for memory in memories]
            else:
                found[name] = _values(name, memories) or [memory.text for memory in memories]
        elif isinstance(kind.get("properties"), dict):
            found[name] = _object(root, kind, memories, depth + 1)
        else:
            values = [value for memory in memories if (value := _value(name, memory)) is not None]
            found[name] = values[-1] if values else None
    return found


def _of_memory(root: Mapping[str, Any], schema: Mapping[str, Any], memory: Memory, depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, raw in schema["properties"].items():
        kind = _resolved(root, raw)
        inner = isinstance(kind.get("properties"), dict) and _value(name, memory) is None and depth < _DEPTH
        found[name] = _of_memory(root, kind, memory, depth + 1) if inner else _value(name, memory)
    return found


def _resolved(root: Mapping[str, Any], schema: Any) -> Mapping[str, Any]:
    """Follow one reference into the schema's own definitions, and take the first of alternatives that is not null."""
    for _ in range(_DEPTH):
        if not isinstance(schema, dict):
            return {}
        if isinstance(reference := schema.get("$ref"), str):
            at: Any = root
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


def _is(schema: Mapping[str, Any], kind: str) -> bool:
    told = schema.get("type")
    return told == kind or (isinstance(told, list) and kind in told)


def _values(name: str, memories: Sequence[Memory]) -> list[Any]:
    found = [_value(name, memory) for memory in memories]
    flat = [one for value in found if value is not None for one in (value if isinstance(value, list) else [value])]
    return list(dict.fromkeys(one for one in flat if isinstance(one, str | int | float)))


def _value(name: str, memory: Memory) -> Any:
    if name in _TEXT:
        return memory.text
    plain = _plain(memory)
    return plain[name] if name in plain else memory.metadata.get(name)


def _plain(memory: Memory) -> dict[str, Any]:
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
