"""Looks at the body of a request before the protocol does, and refuses what it would take or tell too freely."""

from __future__ import annotations

import json
from functools import partial
from typing import Final

from mcp.types import jsonrpc_message_adapter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.types import Message, Receive

from service.errors import InvalidInput, TooLarge
from service.strict_json import refuse_many, without_duplicates

_VERSION_HEADER: Final = "mcp-protocol-version"
#: From this version on a stream costs nothing until there is something to tell, and closing it cancels the call.
_FIRST_STATELESS: Final = "2026-07-28"


def is_stateless(request: Request) -> bool:
    """Return whether a message is in the form that needs no session, by the version that its header tells."""
    return request.headers.get(_VERSION_HEADER, "").strip(" \t") >= _FIRST_STATELESS


def fault_of(body: bytes, *, stateless: bool) -> str | None:
    """Return what is wrong with a message, or None where the protocol may have it, which refuses what is no JSON.

    Of two users that one object names, neither may win by its place. In the older form of the protocol, the one that
    is not `stateless`, the library would repeat what it cannot read.
    """
    try:
        message = json.loads(body, object_pairs_hook=partial(without_duplicates, "body"))
        refuse_many(message, "body")
    except (InvalidInput, TooLarge) as error:
        return error.detail
    except (ValueError, RecursionError):
        return None
    if not stateless:
        try:
            jsonrpc_message_adapter.validate_python(message, by_name=False)
        except ValidationError:
            return "body: must be one message of JSON-RPC 2.0"
    return None


async def peeked(receive: Receive, limit: int) -> tuple[bytes, Receive]:
    """Return the body, and a `receive` that gives it once more. Of one over the limit, what came until then."""
    taken: list[Message] = []
    size, more = 0, True
    while more and size <= limit:
        message = await receive()
        taken.append(message)
        size += len(message.get("body", b""))
        more = message["type"] == "http.request" and message.get("more_body", False)
    waiting = iter(taken)

    async def again() -> Message:
        return next(waiting, None) or await receive()

    return b"".join(message.get("body", b"") for message in taken), again
