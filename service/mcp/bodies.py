"""Looks at the body of a request before the protocol does."""

from __future__ import annotations

from starlette.types import Message, Receive


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
