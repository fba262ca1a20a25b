"""What metadata may be: JSON that every store can hold, with a bounded number of filter tokens and no reserved keys."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Final

from service.errors import InvalidInput, ReservedMetadata
from service.filters.connector_fields import check_connector_fields
from service.filters.values import check_characters
from service.records import Metadata

MAX_DEPTH: Final = 8
MAX_BYTES: Final = 32 * 1024
MAX_LEAVES: Final = 200
MAX_KEY: Final = 128
_INT64: Final = range(-(2**63), 2**63)

#: Keys that metadata may not have at its top level, and what to do instead. Mem0 keeps a memory and its metadata in one
#: flat payload, so metadata under one of these names would overwrite a fact of the record or be lost on the way back.
RESERVED: Final[Mapping[str, str]] = {
    "tenant_id": "the tenant comes from the credential",
    "user_id": "use the field user_id of the request",
    "agent_id": "use the field agent_id of the request",
    "app_id": "use the field app_id of the request",
    "run_id": "use the field run_id of the request",
    "actor_id": "the actor comes from a message's name",
    "role": "the role comes from the message",
    "attributed_to": "extraction sets it",
    "id": "the service gives ids",
    "memory": "use the text of the memory",
    "data": "use the text of the memory",
    "hash": "the service computes it",
    "text_lemmatized": "the service computes it",
    "created_at": "use the field timestamp of the request",
    "updated_at": "the service sets it",
    "expiration_date": "use the field expiration_date of the request",
    "categories": "use the categories of the request",
}


def validate_metadata(metadata: object, *, where: str = "metadata") -> Metadata:
    """Return the metadata, checked; None is no metadata.

    Limits: an object of JSON values, at most 8 objects or lists inside each other (the outermost counts), 200 values
    (an empty object or list counts as one), 32 KiB as UTF-8 JSON, keys of at most 128 characters, finite numbers, whole
    numbers of 64 bits, no null characters, no half surrogate pairs. The connectors' keys have their shape.

    Raises:
        ReservedMetadata: when a top-level key is one that the service keeps for itself.
        InvalidInput: when a limit is broken. Neither tells values; only reserved keys are named.
    """
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        raise InvalidInput(f"{where}: must be an object")
    for key, instead in RESERVED.items():
        if key in metadata:
            raise ReservedMetadata(f"{where}: the key {key} is reserved; {instead}")
    check_connector_fields(metadata, where=where)
    _check_values(metadata, where, 1, MAX_LEAVES)
    size = len(json.dumps(metadata, ensure_ascii=False, separators=(",", ":")).encode())
    if size > MAX_BYTES:
        raise InvalidInput(f"{where}: has {size} bytes as JSON; at most {MAX_BYTES} are allowed")
    return metadata


def _check_values(value: object, where: str, depth: int, left: int) -> int:
    """Check a value with all that is in it, of which `left` may come; return how many may come after it."""
    inner = value if isinstance(value, dict | list) else ()
    # An object or list has at least as many values as it is long, so nothing is looked at beyond the bound.
    if max(len(inner), 1) > left:
        raise InvalidInput(f"{where}: has more than {MAX_LEAVES} values, which are allowed at most")
    if not isinstance(value, dict | list):
        _check_scalar(value, where)
        return left - 1
    if depth > MAX_DEPTH:
        raise InvalidInput(f"{where}: at most {MAX_DEPTH} objects or lists may stand inside each other")
    if isinstance(value, dict):
        for key in value:
            _check_key(key, where)
    after = left
    for one in value.values() if isinstance(value, dict) else value:
        after = _check_values(one, where, depth + 1, after)
    return min(after, left - 1)


def _check_key(key: object, where: str) -> None:
    if not isinstance(key, str):
        raise InvalidInput(f"{where}: the keys must be strings")
    if len(key) > MAX_KEY:
        raise InvalidInput(f"{where}: a key has {len(key)} characters; at most {MAX_KEY} are allowed")
    check_characters(key, where)


def _check_scalar(value: object, where: str) -> None:
    match value:
        case None | bool():
            pass
        case str():
            check_characters(value, where)
        case int() if value not in _INT64:
            raise InvalidInput(f"{where}: whole numbers must fit in 64 bits")
        case float() if not math.isfinite(value):
            raise InvalidInput(f"{where}: numbers must be finite")
        case int() | float():
            pass
        case _:
            raise InvalidInput(
                f"{where}: only JSON values are allowed (objects, lists, strings, numbers, booleans, null)"
            )
