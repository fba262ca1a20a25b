"""Looks at the body of a request before the protocol does, and refuses what it would take or tell too freely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mcp import types
from mcp.types import jsonrpc_message_adapter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.types import Message, Receive

from service.errors import InvalidInput, TooLarge
from service.strict_json import checked, reading, refuse_many

_VERSION_HEADER: Final = "mcp-protocol-version"
#: From this version on a stream costs nothing until there is something to tell, and closing it cancels the call.
_FIRST_STATELESS: Final = "2026-07-28"
#: Values that a message may hold. The most that is meant are the messages of one add, with three fields each.
_MOST_VALUES: Final = 50_000


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a message, in words without its own and by the number of JSON-RPC."""

    detail: str
    number: int = types.INVALID_REQUEST


def is_stateless(request: Request) -> bool:
    """Return whether a message is in the form that needs no session, by the version that its header tells."""
    return request.headers.get(_VERSION_HEADER, "").strip(" \t") >= _FIRST_STATELESS


def fault_of(body: bytes, *, stateless: bool) -> Fault | None:
    """Return what is wrong with a message, or None where the protocol may have it.

    Of two users that one object names, neither may win by its place. The library reads a message once more where
    everybody waits, so it gets none that is no JSON or holds more than any tool takes; and in the older form of the
    protocol, the one that is not `stateless`, it would repeat what it cannot read.
    """
    with reading(len(body)):
        return _fault_of(body, stateless=stateless)


def _fault_of(body: bytes, *, stateless: bool) -> Fault | None:
    try:
        refuse_many(body, "body", _MOST_VALUES)
        message = checked(body.decode(), "body")
    except (InvalidInput, TooLarge) as error:
        return Fault(error.detail)
    except (ValueError, RecursionError):
        return Fault("body: is not valid JSON", types.PARSE_ERROR)
    if not stateless:
        try:
            jsonrpc_message_adapter.validate_python(message, by_name=False)
        except ValidationError:
            return Fault("body: must be one message of JSON-RPC 2.0")
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
