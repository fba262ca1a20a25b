"""Filter tokens: what the stores know of metadata, categories and actor without being able to read them.

Every set path and every `path=value` of a row becomes a text, and every text a keyed 64-bit number. A text starts with
the path as a JSON array under one of three roots, so keys with dots, quotes or equal signs cannot collide:

    ["metadata","a","b"]          the path is set: there is a value there and it is not null ({} and [] are values)
    ["metadata","a","b"]="x"      some value at the path equals "x"; the elements of a list count one by one
    ["categories"]="food"         likewise for categories, and for the actor under ["actor"]

Lists are transparent: `{"a": [{"b": 1}, [2]]}` sets `a` and `a.b`, with 1 at `a.b` and 2 at `a`. Null is "not set" and
makes no text. Numbers that are equal (1 and 1.0) make the same text; a boolean is no number; strings stay code point
for code point.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

from service.filters.ast import Condition, Field, Op
from service.records import Json, Metadata

_METADATA: Final = "metadata"
_CATEGORIES: Final = ("categories",)
_ACTOR: Final = ("actor",)
_KEY_BYTES: Final = 32


def token_texts(metadata: Metadata, categories: Iterable[str] = (), actor: str | None = None) -> set[str]:
    """Return the texts of a row. Metadata must have passed `validate_metadata`, which also bounds their number."""
    found: set[str] = set()
    for key, value in metadata.items():
        found.update(_walk((_METADATA, key), value))
    found.update(_walk(_CATEGORIES, list(categories) or None))
    found.update(_walk(_ACTOR, actor))
    return found


def condition_tokens(condition: Condition) -> tuple[str, ...] | None:
    """Return the texts that decide a condition, or None when tokens cannot decide it.

    With texts, the condition is exactly "the row has at least one of them", for `ne` its opposite. No text at all
    (`in` with an empty list) is a condition that no row meets. Exact are eq, ne, in and exists on metadata, categories
    and actor, and contains on categories, where it means "has the element".
    """
    root = _root(condition)
    if root is None:
        return None
    match condition.op:
        case Op.EXISTS:
            return (_path_text(root),)
        case Op.EQ | Op.NE:
            return (_value_text(root, condition.value),)
        case Op.CONTAINS if condition.field is Field.CATEGORIES:
            return (_value_text(root, condition.value),)
        case Op.IN:
            values = condition.value if isinstance(condition.value, tuple) else (condition.value,)
            return tuple(dict.fromkeys(_value_text(root, value) for value in values))
        case _:
            return None


def needed_token(condition: Condition) -> str | None:
    """Return a text that every row meeting an inexact metadata condition has, or None when there is no such text.

    `contains` and the ranges on metadata need a value to look at, so only the rows that set the path can meet them.
    """
    if condition.field is Field.METADATA and condition_tokens(condition) is None:
        return _path_text((_METADATA, *condition.path))
    return None


class Tokenizer:
    """Turns texts into the numbers of one tenant: the first 64 bits of HMAC-SHA256 under the tenant's key, signed."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) < _KEY_BYTES:
            raise ValueError(f"a filter token key has at least {_KEY_BYTES} bytes")
        self._key = key

    def token(self, text: str) -> int:
        """Return the token of one text."""
        return int.from_bytes(hmac.digest(self._key, text.encode("ascii"), "sha256")[:8], "big", signed=True)

    def row_tokens(self, metadata: Metadata, categories: Iterable[str] = (), actor: str | None = None) -> list[int]:
        """Return the tokens of a row, sorted and without repeats."""
        return sorted({self.token(text) for text in token_texts(metadata, categories, actor)})


def _root(condition: Condition) -> tuple[str, ...] | None:
    match condition.field:
        case Field.METADATA:
            return (_METADATA, *condition.path)
        case Field.CATEGORIES:
            return _CATEGORIES
        case Field.ACTOR:
            return _ACTOR
        case _:
            return None


def _walk(path: tuple[str, ...], value: Json) -> Iterator[str]:
    if value is None:
        return
    yield _path_text(path)
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _walk((*path, key), inner)
    elif isinstance(value, list | tuple):
        for element in value:
            yield from _walk(path, element)
    else:
        yield _value_text(path, value)


def _path_text(path: Collection[str]) -> str:
    return json.dumps(list(path), separators=(",", ":"))


def _value_text(path: Collection[str], value: Json) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"{_path_text(path)}={json.dumps(value)}"
