"""Reads the JSON of a request's body or query strictly: what two parsers could read differently is refused."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import islice
from typing import Any, Final

import orjson

from service.errors import InvalidInput, TooLarge

LARGE: Final = 64 * 1024
"""Bytes of a body from which on it is not read where everybody waits."""
#: What a value of another kind must be, by the type of a problem; the library's words are those of Python's classes.
_KINDS: Final = {
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "must be an object"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    "list_type": "must be a list",
    "string_type": "must be a text",
}
#: Values that a body may hold. The most that is meant are a thousand changes with two hundred fields each.
_MOST_VALUES: Final = 250_000
#: A text, which may lack its end; what is empty; what parts or begins values.
_MARKS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|\[\s*+\]|\{\s*+\}|[,\[{]', re.DOTALL)
#: Digits of a whole number: reading it takes time that grows with the square of them.
_MOST_DIGITS: Final = 1_000
#: What is read at the same time of what is large: some forty times its size while it is.
_READERS: Final = threading.BoundedSemaphore(2)


def wish(problem: Mapping[str, Any]) -> str:
    """Return what must be instead of what Pydantic found wrong with a value: for its kind, in the words of JSON."""
    return _KINDS.get(problem["type"]) or str(problem["msg"]).removeprefix("Value error, ")


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
    with reading(len(raw)):
        if not raw.strip():
            raise InvalidInput(f"{where}: must be a JSON object, and is empty")
        value = strict_value(raw, where)
    if not isinstance(value, dict):
        raise InvalidInput(f"{where}: must be a JSON object")
    return value


def strict_value(raw: bytes | str, where: str) -> Any:
    """Return what a JSON text holds, which `where` names in errors. One that is large needs a place of `reading`.

    Raises:
        InvalidInput, TooLarge: as `read_object` does for a body.
    """
    refuse_many(raw, where)
    try:
        # The strict parser looks first, since the standard one takes NaN, lone surrogates and any depth.
        orjson.loads(raw)
        # It lets the last of two equal keys win, and reads a huge whole number as a float: so the other one reads.
        return checked(raw, where)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"{where}: is not valid JSON (line {error.lineno}, column {error.colno})") from None
    except (ValueError, RecursionError):
        raise InvalidInput(f"{where}: is not valid JSON (a number that is too long, or too many levels)") from None


def reading(size: int) -> AbstractContextManager[Any]:
    """Return a place to read a text of a size in: two of those that are large are read at the same time."""
    return _READERS if size > LARGE else nullcontext()


def refuse_many(raw: bytes | str, where: str, most: int = _MOST_VALUES) -> None:
    """Refuse a document of too many values, by its marks and before it is read.

    A parser lets no other thread go on until it is through, and each value may become an error of its own where the
    shape is checked, a hundred times as large.

    Raises:
        TooLarge: for more than so many.
    """
    text = raw if isinstance(raw, bytes) else raw.encode(errors="surrogatepass")
    if sum(map(text.count, (b",", b"[", b"{"))) <= most:
        return
    # A value more for each comma and each list or object that holds one, but for those in texts.
    marks = (one for one in _MARKS.finditer(text) if one.end() - one.start() == 1 and text[one.start()] in b",[{")
    if next(islice(marks, most, None), None) is not None:
        raise TooLarge(f"{where}: has more than {most} values; send less at once")


def checked(raw: bytes | str, where: str) -> Any:
    """Return what a JSON document holds; it may hold NaN, lone surrogates and any depth.

    Raises:
        InvalidInput: when a key stands twice in one object: neither may win by its place.
        ValueError, RecursionError: for what is no JSON, and a whole number that is too long.
    """
    return json.loads(raw, object_pairs_hook=partial(_without_duplicates, where), parse_int=_whole_number)


def _without_duplicates(where: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise InvalidInput(f"{where}: a key stands twice in one object")
    return value


def _whole_number(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError("a whole number that is too long")
    return int(digits)
