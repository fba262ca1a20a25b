"""What a caller changes of a memory: the edit, what of it is set, and the memory that comes of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, Final

import orjson

from service.audit.details import Changed
from service.filters.metadata_limits import validate_metadata
from service.memories.provenance import with_connector
from service.records import Memory, Metadata, SubjectNames
from service.storage.stored import StoredMemory


class Unset:
    """Marks a value that an update leaves as it is, since None means "clear it"."""


UNSET: Final = Unset()


@dataclass(frozen=True, slots=True)
class Edit:
    """What an update changes; what is UNSET stays."""

    text: str | Unset = UNSET
    metadata: Metadata | Unset = UNSET
    expires_on: date | Unset | None = UNSET
    created_at: datetime | Unset = UNSET
    #: Whether the metadata is added to what is there, key by key, instead of taking its place.
    merge: bool = False


def changed_fields(edit: Edit) -> list[Changed]:
    """Return what of a memory an edit changes, as the trail names it."""
    return [one for one in Changed if not isinstance(getattr(edit, one.value), Unset)]


def as_given(memory: Memory, edit: Edit) -> Memory:
    """Return of a changed memory what its change has said itself, for whoever may write and not read."""
    return Memory(
        id=memory.id,
        text="" if isinstance(edit.text, Unset) else edit.text,
        subjects=SubjectNames(),
        metadata={} if isinstance(edit.metadata, Unset) else edit.metadata,
        categories=(),
        created_at=memory.created_at,
        updated_at=memory.updated_at,
        expires_on=None if isinstance(edit.expires_on, Unset) else edit.expires_on,
    )


def grows(before: StoredMemory, after: StoredMemory) -> bool:
    """Tell whether a memory takes more room than before, so that the tenant's limit has to be asked."""
    return _size(after) > _size(before)


def _size(memory: StoredMemory) -> int:
    return len(orjson.dumps([memory.text, memory.metadata]))


def edited(before: StoredMemory, edit: Edit, *, connector: str | None = None) -> StoredMemory:
    """Return a memory with an edit applied; its version is not counted up yet.

    `connector` is the one that the editing key is bound to: what the memory came through stays with it.

    Raises:
        InvalidInput: when metadata that is added to what is there breaks a limit together with it.
    """
    changes: dict[str, Any] = {
        name: value
        for name in ("text", "metadata", "expires_on", "created_at")
        if not isinstance(value := getattr(edit, name), Unset)
    }
    if edit.merge and "metadata" in changes:
        changes["metadata"] = {**before.metadata, **changes["metadata"]}
        validate_metadata(changes["metadata"])
    if "metadata" in changes:
        changes["metadata"] = with_connector(changes["metadata"], connector, before=before.metadata)
    return replace(before, **changes)
