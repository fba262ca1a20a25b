"""Reads the JSON of a request's body or query strictly: what two parsers could read differently is refused."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import orjson

from service.errors import InvalidInput


def read_object(raw: bytes, content_type: str | None) -> dict[str, Any]:
    """Return the JSON object in a request's body.

    Raises:
        InvalidInput: for another content type, an empty body, bad UTF-8, NaN, half a surrogate pair, nesting that is
            too deep, a key that stands twice in one object, and for anything that is not an object.
    """
    essence = (content_type or "").partition(";")[0].strip().lower()
    if essence != "application/json" and not (essence.startswith("application/") and essence.endswith("+json")):
        raise InvalidInput("Content-Type: must be application/json")
    return strict_object(raw, "body")


def strict_object(raw: bytes | str, where: str) -> dict[str, Any]:
    """Return the JSON object in a text, which `where` names in errors.

    Raises:
        InvalidInput: as `read_object` does for a body.
    """
    if not raw.strip():
        raise InvalidInput(f"{where}: must be a JSON object, and is empty")
    try:
        # The strict parser looks first, since the standard one takes NaN, lone surrogates and any depth.
        orjson.loads(raw)
        # It lets the last of two equal keys win, and reads a huge whole number as a float: so the other one reads.
        value = json.loads(raw, object_pairs_hook=partial(without_duplicates, where))
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"{where}: is not valid JSON (line {error.lineno}, column {error.colno})") from None
    except (ValueError, RecursionError):
        raise InvalidInput(f"{where}: is not valid JSON (a number that is too long, or too many levels)") from None
    if not isinstance(value, dict):
        raise InvalidInput(f"{where}: must be a JSON object")
    return value


def without_duplicates(where: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs of one object, or raise InvalidInput when a key stands twice: neither may win by its place."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise InvalidInput(f"{where}: a key stands twice in one object")
    return value
