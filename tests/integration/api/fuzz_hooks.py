"""What schemathesis must be told of our media types, in the test's process and in its command's."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def json_lines(context: Any, value: Any) -> bytes:
    """Write a made-up body of JSON lines as it is."""
    return str(value).encode("utf-8", "replace")
