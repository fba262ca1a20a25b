"""Files of Mem0: the platform's JSON export, and the zip that OpenMemory backs up to."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson

from service.errors import ConfigurationError
from service.portability.records import Placed, Unreadable
from service.portability.sources.mem0 import of_item

_LISTS: Final = ("results", "memories", "data", "items")
#: What a memory of OpenMemory is when it is neither in use nor deleted.
_STATE: Final = "openmemory_state"


def read_platform(path: Path, now: datetime) -> Iterator[Placed]:
    """Read an export of the platform: a list of memories, or an object that has one.

    Raises:
        ConfigurationError: when it is none, or one page of several, behind which memories would stay unsaid.
    """
    try:
        found: Any = orjson.loads(path.read_bytes())
    except (OSError, ValueError):
        raise ConfigurationError(f"{path}: is not JSON that can be read") from None
    if isinstance(found, dict):
        if found.get("next"):
            raise ConfigurationError(f"{path}: is one page of several; put the results of all pages into one list")
        found = next((found[name] for name in _LISTS if isinstance(found.get(name), list)), None)
    if not isinstance(found, list):
        raise ConfigurationError(f"{path}: is neither a list of memories nor an object with one ({', '.join(_LISTS)})")
    for number, item in enumerate(found):
        yield of_item(f"{path.name}[{number}]", item, now)


def read_openmemory(path: Path, now: datetime) -> Iterator[Placed]:
    """Read a backup of OpenMemory. What was deleted there stays behind; an app's name becomes the `app_id`.

    Raises:
        ConfigurationError: when it is none.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            user = _user(archive, path)
            for number, item in enumerate(_items(archive), 1):
                if isinstance(item, dict) and item.get("state") != "deleted":
                    yield of_item(f"memory {number}", _as_item(item, user), now)
    except (zipfile.BadZipFile, OSError, KeyError, ValueError, TypeError) as error:
        if isinstance(error, Unreadable):
            raise
        raise ConfigurationError(f"{path}: is no backup of OpenMemory ({type(error).__name__})") from None


def _as_item(item: dict[str, Any], user: str | None) -> dict[str, Any]:
    metadata = dict(item.get("metadata") or {})
    # Its own store keeps these beside the metadata, and some of its releases in it.
    for name in ("user_id", "hash", "data", "created_at", "updated_at", "source_app", "mcp_client"):
        metadata.pop(name, None)
    if (state := item.get("state")) not in (None, "active"):
        metadata[_STATE] = state
    return {
        "id": item["id"],
        "memory": item.get("content"),
        "metadata": metadata,
        "categories": item.get("categories") or [],
        "created_at": item.get("created_at"),
        "updated_at": item.get("updated_at"),
        "user_id": user,
        "app_id": item.get("app"),
    }


def _user(archive: zipfile.ZipFile, path: Path) -> str | None:
    whole = orjson.loads(archive.read(_member(archive, "memories.json", path)))
    user = whole["user"]["user_id"]
    return None if user is None else str(user)


def _items(archive: zipfile.ZipFile) -> Iterator[Any]:
    """Yield the memories one by one, from the compressed lines where they are there."""
    lines = _find(archive, "memories.jsonl.gz")
    if lines is not None:
        with archive.open(lines) as packed, gzip.GzipFile(fileobj=packed) as unpacked:
            for line in unpacked:
                if line.strip():
                    yield orjson.loads(line)
        return
    whole = orjson.loads(archive.read(str(_find(archive, "memories.json"))))
    apps = {app["id"]: app["name"] for app in whole.get("apps", [])}
    categories = {one["id"]: one["name"] for one in whole.get("categories", [])}
    for memory in whole["memories"]:
        named = [categories[one] for one in memory.get("category_ids", []) if one in categories]
        yield memory | {"app": apps.get(memory.get("app_id")), "categories": named}


def _find(archive: zipfile.ZipFile, name: str) -> str | None:
    return next((one for one in archive.namelist() if one.rsplit("/", 1)[-1] == name), None)


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> str:
    found = _find(archive, name)
    if found is None:
        raise ConfigurationError(f"{path}: lacks {name}; it is no backup of OpenMemory")
    return found
