"""Makes points of the index from entries of the record, with vectors of the model that the index is of; writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from service.embeddings import Embedder, EmbeddingRefused
from service.index.interface import Point, ScopedIndex
from service.index.questions import SparseTerms
from service.storage.stored import IndexEntry

#: What every model takes.
_PLAIN: Final = "memvault"


def is_of(entry: IndexEntry, embedder: Embedder) -> bool:
    """Tell whether a vector is of a model, and of the size that it has now."""
    return entry.embedder == embedder.name and len(entry.vector) == embedder.dimensions


def embedded(embedder: Embedder, entries: Sequence[IndexEntry]) -> dict[UUID, IndexEntry]:
    """Return entries with the vectors of a model, by their memories."""
    if not entries:
        return {}
    vectors = embedder.embed_documents([entry.memory.searchable for entry in entries])
    return {
        entry.memory.id: IndexEntry(entry.memory, vector, embedder.name, entry.tokens)
        for entry, vector in zip(entries, vectors, strict=True)
    }


def takes_texts(embedder: Embedder) -> bool:
    """Tell whether a model that has refused a text takes any.

    Raises:
        EmbeddingUnavailable: when it does not answer.
    """
    try:
        embedder.embed_documents([_PLAIN])
    except EmbeddingRefused:
        return False
    return True


def latest(entry: IndexEntry, made: Mapping[UUID, IndexEntry]) -> IndexEntry:
    """Return the entry that was embedded again, if it is of the same version."""
    again = made.get(entry.memory.id)
    return again if again is not None and again.memory.version == entry.memory.version else entry


def point_of(entry: IndexEntry, text_terms: SparseTerms) -> Point:
    """Return the point of an entry whose words are these."""
    memory = entry.memory
    return Point(
        memory_id=memory.id,
        version=memory.version,
        dense=entry.vector,
        text_terms=text_terms,
        user_id=memory.user_id,
        agent_id=memory.agent_id,
        app_id=memory.app_id,
        run_id=memory.run_id,
        tokens=entry.tokens,
        created_at=memory.created_at,
        updated_at=memory.updated_at,
        expires_on=memory.expires_on,
        place=memory.place,
    )


def write(index: ScopedIndex, points: Sequence[Point], gone: Mapping[UUID, int], *, recorded: bool) -> None:
    """Write points and take memories out; `recorded` points, which are what is so, replace newer ones too.

    Raises:
        IndexUnavailable: with some of it done.
    """
    if recorded and points:
        # The index keeps the newer version of two.
        present = index.existing([one.memory_id for one in points])
        index.delete([one.memory_id for one in points if present.get(one.memory_id, 0) > one.version])
    if points:
        index.upsert(points)
    if gone:
        index.delete(list(gone))
