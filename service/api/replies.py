"""JSON answers, written by orjson in the thread that made them."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response


class Reply(Response):
    """An answer with a JSON body; every answer of this face has one, deletes too."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return orjson.dumps(content)
