"""Reads a Qdrant collection of another program, a local folder or a server: ids and payloads, nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import ApiException

from service.errors import ConfigurationError

_AT_ONCE: Final = 256


def read_collection(place: str, collection: str, *, api_key: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every point's id and payload, by id. `place` is a folder of Qdrant's local mode or the URL of a server.

    Raises:
        ConfigurationError: when the place cannot be opened or has no such collection.
    """
    remote = place.startswith(("http://", "https://"))
    try:
        # Without the check of versions: it asks in a thread of its own, which outlasts a short read and then complains.
        client = (
            QdrantClient(url=place, api_key=api_key, check_compatibility=False) if remote else QdrantClient(path=place)
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise ConfigurationError(f"{place}: cannot be opened; is the program that uses it still running?") from error
    try:
        if not client.collection_exists(collection):
            known = ", ".join(sorted(one.name for one in client.get_collections().collections)) or "none"
            raise ConfigurationError(f"{place}: has no collection {collection}; there are: {known}")
        offset: Any = None
        while True:
            points, offset = client.scroll(
                collection, limit=_AT_ONCE, offset=offset, with_payload=True, with_vectors=False
            )
            for point in points:
                yield str(point.id), dict(point.payload or {})
            if offset is None:
                return
    except (ApiException, OSError) as error:
        raise ConfigurationError(f"{place}: the collection cannot be read ({type(error).__name__})") from None
    finally:
        client.close()
