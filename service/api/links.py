"""Where the other pages of an answer are, as the caller reaches this service."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request


def link(request: Request, **parameters: Any) -> str:
    """Return the URL of the same request with other query parameters.

    It begins with `server.public_url`. Where that is not set it is a path with its query: how a proxy in front is
    reached cannot be told from a request, and a guess could send the caller's key over plain HTTP.
    """
    url = request.url.include_query_params(**parameters)
    return f"{request.app.state.public_url or ''}{url.path}?{url.query}"
