"""Scopes, points and searches for the tests of the index."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID, uuid4

import numpy as np

from service.filters.ast import EVERYTHING, Node
from service.index.candidates import Candidate
from service.index.interface import Point, ScopedIndex
from service.index.questions import SparseTerms
from service.index.terms import Bm25Terms
from service.records import Memory
from service.scope import Permission, Principal, Scope, SubjectKind, TenantId
from tests.filters.truth_rows import TOKENIZER, row_tokens, subject_id

SIZE = 8
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
TERMS = Bm25Terms(bytes(32))


def scope(tenant: UUID | None = None, users: frozenset[str] | None = None) -> Scope:
    """A scope of a new tenant, or of this one."""
    return Scope.of(Principal(TenantId(tenant or uuid4()), uuid4(), frozenset(Permission), users))


def vector(seed: int | None = None, size: int = SIZE) -> list[float]:
    """A vector of length 1: the same for the same seed; without a seed the first axis."""
    if seed is None:
        return [1.0] + [0.0] * (size - 1)
    values = np.random.default_rng(seed).standard_normal(size)
    return list(map(float, values / np.linalg.norm(values)))


def point(memory_id: UUID | None = None, text: str = "", **given: Any) -> Point:
    """A point with the words of a text; what is not given does not matter."""
    fields: dict[str, Any] = {
        "memory_id": memory_id or uuid4(),
        "version": 1,
        "dense": vector(),
        "text_terms": TERMS.document(text),
        "created_at": NOON,
        "updated_at": NOON,
    }
    return Point(**fields | given)


def point_of(memory: Memory) -> Point:
    """The point that stands for a row of the truth table."""
    subjects: dict[str, Any] = {f"{kind.value}_id": subject_id(kind, name) for kind, name in memory.subjects.items()}
    return point(
        memory.id,
        tokens=row_tokens(memory),
        created_at=memory.created_at,
        updated_at=memory.updated_at,
        expires_on=memory.expires_on,
        **subjects,
    )


class KnowsAll:
    """A lookup for which every name but `ghost` is a subject; no row is a ghost's."""

    def subject(self, kind: SubjectKind, name: str) -> UUID | None:
        """The surrogate of a name."""
        return None if name == "ghost" else subject_id(kind, name)

    def token(self, text: str) -> int:
        """The token of a text."""
        return TOKENIZER.token(text)


def found(
    index: ScopedIndex,
    where: Node = EVERYTHING,
    *,
    text: str = "",
    limit: int = 100,
    users: frozenset[UUID] | None = None,
    on: date | None = None,
) -> dict[UUID, Candidate]:
    """What a search finds, by id."""
    terms = TERMS.query(text) if text else SparseTerms()
    answer = index.search(vector(), terms, where, KnowsAll(), limit=limit, users=users, on=on)
    assert len({one.memory_id for one in answer.candidates}) == len(answer.candidates)
    return {one.memory_id: one for one in answer.candidates}
