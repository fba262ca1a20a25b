"""Reviews: what a tenant's reviewers see and decide of the memories that wait in quarantine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from itertools import groupby
from typing import Final
from uuid import UUID

import numpy as np
from sqlalchemy import Connection

from service import clock
from service.audit.events import AuditEvent, Outcome
from service.audit.tenant_details import ReviewApproved, ReviewRejected, ReviewsExpired, ReviewsListed, ReviewsSearched
from service.errors import NotFound, TooLarge
from service.filters.ast import Node
from service.filters.evaluate import matches
from service.memories.events import settle_results, settle_unapproved
from service.memories.indexing import Indexing
from service.memories.limits import check_query
from service.memories.recognising import as_said
from service.memories.stores import Stores
from service.records import Change, Memory, Page
from service.scope import Action, Caller, Scope, installation_caller
from service.storage.filter_sql import compile_sql
from service.storage.places import lined_up
from service.storage.quarantine import Waiting, quarantine_table
from service.storage.stored import IndexEntry, Slice
from service.storage.superseding import restate_as_said, supersede

#: Decisions in one call.
MOST_AT_ONCE: Final = 1000
#: What a search looks at, those that wait longest first.
_MOST_SEARCHED: Final = 5_000
_EXPIRED_AT_ONCE: Final = 500


class Decision(StrEnum):
    """What became of one that was to be decided on. `known`: the record has the same memory already."""

    APPROVED = "approved"
    KNOWN = "known"
    REJECTED = "rejected"
    NOT_FOUND = "not_found"


@dataclass(frozen=True, slots=True)
class Review:
    """A memory that waits, as a reviewer sees it. `score` is its likeness to a query, where one was asked."""

    memory: Memory
    since: datetime
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision. `memory_id` is the memory that there is now; it may be another one that says the same."""

    review_id: UUID
    decision: Decision
    memory_id: UUID | None = None


class Reviews:
    """The memories in quarantine that a caller can reach. A reviewer that is bound to users sees those of its users."""

    def __init__(self, stores: Stores, indexing: Indexing) -> None:
        self._stores = stores
        self._indexing = indexing

    def list(self, caller: Caller, scope: Scope, where: Node, *, page: int, size: int) -> Page[Review]:
        """Return one page of what waits and matches, the longest waiting first."""
        stores = self._stores
        stores.gate.check(caller, Action.LIST_REVIEWS)
        self._stores.check_users(caller, Action.LIST_REVIEWS, where)
        with stores.database.transaction(scope) as connection:
            lookup = stores.lookup(connection, scope, where)
            compiled = compile_sql(where, lookup, quarantine_table)
            part = Slice((page - 1) * size, size) if compiled.exact else Slice(0, _MOST_SEARCHED)
            waiting, total = stores.quarantine.page(
                connection, scope, compiled.clause, part, users=lookup.users, on=clock.today()
            )
            reviews = self._presented(connection, scope, waiting)
            if not compiled.exact:
                found = [one for one in reviews if matches(where, one.memory)]
                reviews, total = found[(page - 1) * size : page * size], len(found)
            stores.trail.write(
                connection,
                caller,
                AuditEvent.REVIEWS_LISTED,
                subjects=lookup.subject_ids(),
                results=[one.memory.id for one in reviews],
                detail=ReviewsListed(page=page, total=total),
            )
        return Page(reviews, total, page, size)

    def search(self, caller: Caller, scope: Scope, query: str, where: Node, *, limit: int) -> Sequence[Review]:
        """Return what waits and is most like the query, the best first. It compares vectors one by one.

        Raises:
            InvalidInput: for an empty or overlong query.
        """
        stores = self._stores
        stores.gate.check(caller, Action.SEARCH_REVIEWS)
        self._stores.check_users(caller, Action.SEARCH_REVIEWS, where)
        check_query(query, stores.settings.limits)
        embedder = stores.embedder
        vector = np.asarray(embedder.embed_query(query))
        with stores.database.transaction(scope) as connection:
            lookup = stores.lookup(connection, scope, where)
            clause = compile_sql(where, lookup, quarantine_table).clause
            part = Slice(0, _MOST_SEARCHED)
            waiting, _ = stores.quarantine.page(connection, scope, clause, part, users=lookup.users, on=clock.today())
            scores = {one.memory.id: _likeness(vector, one, embedder.name) for one in waiting}
            found = [one for one in self._presented(connection, scope, waiting) if matches(where, one.memory)]
            ranked = sorted(found, key=lambda one: -scores[one.memory.id])[:limit]
            stores.trail.write(
                connection,
                caller,
                AuditEvent.REVIEWS_SEARCHED,
                subjects=lookup.subject_ids(),
                results=[one.memory.id for one in ranked],
                query=query,
                detail=ReviewsSearched(limit=limit),
            )
        return [Review(one.memory, one.since, scores[one.memory.id]) for one in ranked]

    def get(self, caller: Caller, scope: Scope, review_id: UUID) -> Review:
        """Return one that waits.

        Raises:
            NotFound: when none waits under this id within the caller's scope.
        """
        stores = self._stores
        stores.gate.check(caller, Action.GET_REVIEW, targets=[review_id])
        with stores.database.transaction(scope) as connection:
            waiting = self._find(connection, scope, [review_id])
            found = self._presented(connection, scope, waiting)
            stores.trail.write(
                connection,
                caller,
                AuditEvent.REVIEW_READ,
                subjects=waiting[0].memory.subject_ids() if waiting else (),
                targets=[review_id],
                outcome=Outcome.DONE if found else Outcome.NOT_FOUND,
            )
        if not found:
            raise NotFound("there is no such memory in quarantine")
        return found[0]

    def approve(self, caller: Caller, scope: Scope, review_ids: Sequence[UUID]) -> Sequence[Decided]:
        """Make those that wait memories like any other, and say of each what became of it.

        Raises:
            TooLarge: for more than a thousand at once.
        """
        stores = self._stores
        stores.gate.check(caller, Action.APPROVE_REVIEWS, targets=review_ids)
        wanted = _checked(review_ids)
        decided: dict[UUID, Decided] = {}
        settled: dict[UUID, tuple[UUID, Change]] = {}
        entries: list[IndexEntry] = []
        with stores.database.transaction(scope) as connection:
            waiting = self._living(connection, scope, self._find(connection, scope, wanted, lock=True))
            for group in _alike(waiting):
                placed, added = self._approve(connection, caller, scope, group)
                entries += added
                for one in group:
                    review_id, now_id = one.memory.id, placed[one.memory.id]
                    new = now_id == review_id
                    decided[review_id] = Decided(review_id, Decision.APPROVED if new else Decision.KNOWN, now_id)
                    settled[review_id] = now_id, Change.ADD if new else Change.NONE
            # They keep the room that they have: of what waits and what is stored the sum is limited.
            stores.quarantine.remove(connection, list(decided))
            settle_results(connection, settled, owner_ids=[one.memory.owner_id for one in waiting])
            missing = [one for one in wanted if one not in decided]
            if missing or not decided:
                stores.trail.write(
                    connection,
                    caller,
                    AuditEvent.REVIEW_APPROVED,
                    targets=missing,
                    outcome=Outcome.NOT_FOUND,
                    detail=ReviewApproved(added=0, known=0),
                )
        self._indexing.apply(scope, entries)
        return [decided.get(one, Decided(one, Decision.NOT_FOUND)) for one in wanted]

    def reject(self, caller: Caller, scope: Scope, review_ids: Sequence[UUID]) -> Sequence[Decided]:
        """Remove those that wait, with their texts, for good, and say of each what became of it.

        Raises:
            TooLarge: for more than a thousand at once.
            LegalHold: when a hold keeps any of them: nothing is removed then.
        """
        stores = self._stores
        stores.gate.check(caller, Action.REJECT_REVIEWS, targets=review_ids)
        wanted = _checked(review_ids)
        recorded = stores.gate.recorded(caller, Action.REJECT_REVIEWS, targets=wanted)
        with recorded, stores.database.transaction(scope) as connection:
            waiting = self._find(connection, scope, wanted, lock=True)
            stores.waiting_holds.remove(connection, scope, [one.memory.id for one in waiting])
            settle_unapproved(connection, {one.memory.id: one.memory.owner_id for one in waiting})
            rejected = {one.memory.id for one in waiting}
            missing = [one for one in wanted if one not in rejected]
            if waiting:
                stores.trail.write(
                    connection,
                    caller,
                    AuditEvent.REVIEW_REJECTED,
                    subjects=dict.fromkeys(subject for one in waiting for subject in one.memory.subject_ids()),
                    targets=[one.memory.id for one in waiting],
                    detail=ReviewRejected(count=len(waiting)),
                )
            if missing or not waiting:
                stores.trail.write(
                    connection,
                    caller,
                    AuditEvent.REVIEW_REJECTED,
                    targets=missing,
                    outcome=Outcome.NOT_FOUND,
                    detail=ReviewRejected(count=0),
                )
        return [Decided(one, Decision.REJECTED if one in rejected else Decision.NOT_FOUND) for one in wanted]

    def forget_expired(self, scope: Scope) -> int:
        """Remove what is past its last visible day and nobody decided on, unless a hold keeps it; return how many."""
        stores, removed = self._stores, 0
        after: UUID | None = None
        while True:
            with stores.database.transaction(scope) as connection:
                expired = stores.quarantine.expired(connection, clock.today(), after=after, limit=_EXPIRED_AT_ONCE)
                if not expired:
                    return removed
                after = max(expired)
                free = stores.waiting_holds.remove_free(connection, scope, expired)
                gone = {one: subjects for one, subjects in expired.items() if one in free}
                if not gone:
                    continue
                settle_unapproved(connection, {one: subjects[0] for one, subjects in gone.items()})
                stores.trail.write(
                    connection,
                    installation_caller(scope.tenant_id),
                    AuditEvent.REVIEWS_EXPIRED,
                    subjects=dict.fromkeys(subject for subjects in gone.values() for subject in subjects),
                    targets=list(gone),
                    detail=ReviewsExpired(count=len(gone)),
                )
            removed += len(gone)

    def _approve(
        self, connection: Connection, caller: Caller, scope: Scope, group: Sequence[Waiting]
    ) -> tuple[Mapping[UUID, UUID], Sequence[IndexEntry]]:
        """Write what one audit row can tell of into the record, with that row.

        Return the id that each has now, by the one under which it waited, and what the index needs of the new ones.
        """
        stores = self._stores
        memories = lined_up(connection, [one.memory for one in group])
        vectors, tokens = [one.vector for one in group], [one.tokens for one in group]
        placed = stores.record.insert(connection, scope, memories, vectors, tokens, embedder=group[0].embedder)
        said, older = as_said((placed[memory.id], memory) for memory in memories)
        restate_as_said(connection, {one: said[one] for one in said if placed.get(one) != one})
        supersede(connection, scope, older, said=said)
        entries = [
            IndexEntry(memory, one.vector, one.embedder, one.tokens)
            for memory, one in zip(memories, group, strict=True)
            if placed[memory.id] == memory.id
        ]
        stores.trail.write(
            connection,
            caller,
            AuditEvent.REVIEW_APPROVED,
            subjects=memories[0].subject_ids(),
            targets=[memory.id for memory in memories],
            results=[entry.memory.id for entry in entries],
            texts=[entry.memory.text for entry in entries],
            detail=ReviewApproved(
                added=len(entries), known=len(group) - len(entries), expires_on=memories[0].expires_on
            ),
        )
        return placed, entries

    def _find(
        self, connection: Connection, scope: Scope, ids: Sequence[UUID], *, lock: bool = False
    ) -> Sequence[Waiting]:
        users = self._stores.bound_users(connection, scope)
        found = self._stores.quarantine.find(connection, scope, ids, users=users, on=clock.today(), lock=lock)
        return list(found.values())

    def _living(self, connection: Connection, scope: Scope, waiting: Sequence[Waiting]) -> Sequence[Waiting]:
        """Return those whose subjects are not being erased, and keep these from it until the transaction ends."""
        subjects = {subject for one in waiting for subject in one.memory.subject_ids()}
        living = self._stores.subjects.lock(connection, subjects)
        return [one for one in waiting if living.issuperset(one.memory.subject_ids())]

    def _presented(self, connection: Connection, scope: Scope, waiting: Sequence[Waiting]) -> Sequence[Review]:
        since = {one.memory.id: one.since for one in waiting}
        memories = self._stores.presented(connection, scope, [one.memory for one in waiting])
        return [Review(memory, since[memory.id]) for memory in memories]


def _likeness(vector: np.ndarray, waiting: Waiting, embedder: str) -> float:
    """Return the cosine, or -1 where another model made the vector: the two cannot be compared."""
    if waiting.embedder != embedder or waiting.vector.shape != vector.shape:
        return -1.0
    norms = float(np.linalg.norm(vector) * np.linalg.norm(waiting.vector))
    return float(np.dot(vector, waiting.vector)) / norms if norms else 0.0


def _checked(review_ids: Sequence[UUID]) -> list[UUID]:
    wanted = list(dict.fromkeys(review_ids))
    if len(wanted) > MOST_AT_ONCE:
        raise TooLarge(f"ids: more than {MOST_AT_ONCE} in one call")
    return wanted


def _alike(waiting: Sequence[Waiting]) -> Iterator[list[Waiting]]:
    """Group what one audit row can tell of: the same subjects and last day, and one model's vectors."""

    def key(one: Waiting) -> tuple[list[str], date, str]:
        return [str(subject) for subject in one.memory.subject_ids()], one.memory.expires_on or date.max, one.embedder

    for _, group in groupby(sorted(waiting, key=key), key=key):
        yield list(group)
