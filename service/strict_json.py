"""Reads the JSON of a request's body or query strictly: what two parsers could read differently is refused."""

from __future__ import annotations

import json
import threading
from contextlib import nullcontext
from functools import partial
from typing import Any, Final

import orjson

from service.errors import InvalidInput, TooLarge

LARGE: Final = 64 * 1024
"""Bytes of a body from which on it is not read where everybody waits."""
#: Values and keys that a body may hold. The most that is meant are a thousand changes with two hundred fields each.
_MOST_VALUES: Final = 250_000
#: What is read at the same time of what is large: some forty times its size while it is.
_READERS: Final = threading.BoundedSemaphore(2)


def read_object(raw: bytes, content_type: str | None) -> dict[str, Any]:
    """Return the JSON object in a request's body.

    Raises:
        InvalidInput: for another content type, an empty body, bad UTF-8, NaN, half a surrogate pair, nesting that is
            too deep, a key that stands twice in one object, and for anything that is not an object.
        TooLarge: for more than 250,000 values.
    """
    essence = (content_type or "").partition(";")[0].strip().lower()
    if essence != "application/json" and not (essence.startswith("application/") and essence.endswith("+json")):
        raise InvalidInput("Content-Type: must be application/json")
    return strict_object(raw, "body")


def strict_object(raw: bytes | str, where: str) -> dict[str, Any]:
    """Return the JSON object in a text, which `where` names in errors.

    Raises:
        InvalidInput, TooLarge: as `read_object` does for a body.
    """
    with _READERS if len(raw) > LARGE else nullcontext():
        return _strict_object(raw, where)


def _strict_object(raw: bytes | str, where: str) -> dict[str, Any]:
    if not raw.strip():
        raise InvalidInput(f"{where}: must be a JSON object, and is empty")
    try:
        # The strict parser looks first, since the standard one takes NaN, lone surrogates and any depth.
        refuse_many(orjson.loads(raw), where)
        # It lets the last of two equal keys win, and reads a huge whole number as a float: so the other one reads.
        value = json.loads(raw, object_pairs_hook=partial(without_duplicates, where))
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"{where}: is not valid JSON (line {error.lineno}, column {error.colno})") from None
    except (ValueError, RecursionError):
        raise InvalidInput(f"{where}: is not valid JSON (a number that is too long, or too many levels)") from None
    if not isinstance(value, dict):
        raise InvalidInput(f"{where}: must be a JSON object")
    return value


def refuse_many(value: Any, where: str) -> None:
    """Refuse a document of too many values, by looking at a bounded number of them.

    Each of them may become an error of its own where the shape is checked, a hundred times as large.

    Raises:
        TooLarge: for more than 250,000.
    """
    todo, count = [value], 0
    while todo:
        part = todo.pop()
        if isinstance(part, dict):
            inside = list(part.values())
        elif isinstance(part, list):
            inside = part
        else:
            continue
        count += len(inside)
        if count > _MOST_VALUES:
            raise TooLarge(f"{where}: has more than {_MOST_VALUES} values; send less at once")
        todo.extend(one for one in inside if isinstance(one, dict | list))


def without_duplicates(where: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs of one object, or raise InvalidInput when a key stands twice: neither may win by its place."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise InvalidInput(f"{where}: a key stands twice in one object")
    return value
