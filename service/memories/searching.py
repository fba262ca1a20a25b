"""Searches: the candidates of the index, put in order, read from the record and shown with an audit row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from itertools import islice
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, true

from service import clock
from service.audit.details import MemorySearched
from service.audit.events import AuditEvent
from service.embeddings.embedder import Vector
from service.filters.ast import EVERYTHING, Condition, Field, Node, Op
from service.filters.build import and_
from service.filters.evaluate import matches
from service.index.fusion import Ranking, falling, fuse, most_left
from service.index.interface import Index, SearchAnswer
from service.index.questions import SparseTerms
from service.memories.anchors import anchored
from service.memories.asked_times import AskedTime, asked_time
from service.memories.indexing import Indexing
from service.memories.limits import check_query
from service.memories.stores import Stores, TenantLookup
from service.memories.timing import boosts, day_end, of_times, within
from service.records import Hit
from service.scope import Action, Caller, Scope
from service.storage.superseding import current, is_current

USUAL_THRESHOLD: Final = 0.1
"""The least score that counts where a search names none."""
#: Candidates that are asked of the index for each memory wanted, so that fusion has something to choose from.
_CANDIDATES_EACH: Final = 4
_FEWEST_CANDIDATES: Final = 60
#: The part of the candidates by meaning that is to be of a named time. Where most memories are, asking for these alone
#: takes three times as long as asking for all (their condition is asked of every point), and finds hardly another one.
_OF_TIME: Final = 1 / 3
_MOST_CANDIDATES: Final = 50_000
#: Rows that are read and opened in one go where few of the candidates are wanted.
_MOST_AT_ONCE: Final = 640
#: Memories that are looked for by their ids where so many candidates have too few that are wanted; fewer than these.
_MOST_CHOSEN: Final = 10_000


@dataclass(frozen=True, slots=True)
class Query:
    """A search. `threshold` is the least score that counts, None for the usual one, which what is of the time that the
    text names need not reach. `on` is the day that expiry is judged by, None for never; `reference` the day on which
    the question is asked, which "last week" is counted from, None for today. `latest` leaves out what a newer memory
    supersedes. `asked` is the time that the text asks about, where it was read already.
    """

    text: str
    where: Node = EVERYTHING
    limit: int = 10
    threshold: float | None = 0.0
    on: date | None = field(default_factory=clock.today)
    reference: date | None = None
    latest: bool = False
    asked: AskedTime | None = None


class Searching:
    """Finds the memories that a caller can reach."""

    def __init__(self, stores: Stores, indexing: Indexing) -> None:
        self._stores = stores
        self._indexing = indexing

    def search(self, caller: Caller, scope: Scope, query: Query) -> Sequence[Hit]:
        """Return the best hits, the best first, by meaning and by words; as many as asked for if so many exist.

        Raises:
            InvalidInput: for an empty or overlong query.
            IndexUnavailable: when the index cannot answer.
        """
        stores = self._stores
        stores.gate.check(caller, Action.SEARCH)
        stores.check_users(caller, Action.SEARCH, query.where)
        check_query(query.text, stores.settings.limits)
        self._indexing.check()
        lookup = self._lookup(scope, query.where)
        # By the day, so that the same search has the same answer all day.
        today = query.reference or clock.today()
        asked_for, until = query.asked or self.asked_time(scope, query.text, today), day_end(today)
        text = asked_for.rest or query.text
        question, terms = stores.generations.question(text), self._indexing.terms(scope).query(text)
        if asked_for.event is not None:
            asked_for = anchored(stores, self._indexing, scope, asked_for, asked_for.event, query, lookup)
        asked = max(_FEWEST_CANDIDATES, query.limit * _CANDIDATES_EACH)
        threshold = USUAL_THRESHOLD if query.threshold is None else query.threshold
        unwanted: set[UUID] = set()
        while True:
            answer = question.ask(partial(self._near, scope, terms, query, lookup, asked_for, asked))
            timed = boosts(answer.candidates.created, asked_for, until)
            ranked = fuse(
                answer.candidates,
                threshold=threshold,
                neighbours=answer.exact,
                boosts=timed,
                spared=of_times(answer.candidates.created, asked_for.spans) if query.threshold is None else None,
            )
            # What is left may be below the threshold: a question about something else would go through everything.
            exhausted = answer.exhausted or most_left(answer) < threshold
            exact = answer.exact and not query.latest
            with stores.database.transaction(scope) as connection:
                hits = self._fill(connection, scope, ranked, query, lookup, exact=exact, unwanted=unwanted)
                if len(hits) >= query.limit or exhausted or (exact and asked >= _MOST_CANDIDATES):
                    stores.trail.write(
                        connection,
                        caller,
                        AuditEvent.MEMORY_SEARCHED,
                        subjects=lookup.subject_ids(),
                        results=[hit.memory.id for hit in hits],
                        query=query.text,
                        detail=MemorySearched(limit=query.limit),
                        may_wait=True,
                    )
                    scores = falling([hit.signals.fused for hit in hits])
                    return [replace(hit, score=score) for hit, score in zip(hits, scores, strict=True)]
                if asked >= _MOST_CANDIDATES:
                    query = self._chosen(connection, scope, query, lookup)
                    continue
            asked *= 4

    def asked_time(self, scope: Scope, question: str, today: date) -> AskedTime:
        """Return the time that a question names in English or in the language of the tenant, as understood on a day.

        Raises:
            InvalidInput: for an empty or overlong question.
        """
        check_query(question, self._stores.settings.limits)
        return asked_time(question, today, self._indexing.language(scope))

    @staticmethod
    def _near(
        scope: Scope,
        terms: SparseTerms,
        query: Query,
        lookup: TenantLookup,
        asked_for: AskedTime,
        limit: int,
        index: Index,
        vector: Vector,
    ) -> SearchAnswer:
        search = partial(index.of(scope).search, vector, terms, lookup=lookup, users=lookup.users, on=query.on)
        answer = search(query.where, limit=limit, neighbours=True)
        if not asked_for.spans or answer.exhausted or _holds_enough(answer, asked_for, limit):
            return answer
        # What is of the named time need not be among the nearest of all times.
        of_time = search(and_(query.where, within(asked_for.spans)), limit=limit)
        return replace(answer, candidates=answer.candidates.with_also(of_time.candidates))

    def _fill(
        self,
        connection: Connection,
        scope: Scope,
        ranked: Ranking,
        query: Query,
        lookup: TenantLookup,
        *,
        exact: bool,
        unwanted: set[UUID],
    ) -> Sequence[Hit]:
        """Read ranked candidates until the asked number of hits is there; what the record does not give is no hit.

        What is `unwanted` is not read, and what is found to be so is added to it.
        """
        hits: list[Hit] = []
        start, step = 0, query.limit if exact else query.limit * _CANDIDATES_EACH
        while start < len(ranked):
            part = [one for one in ranked.part(start, start + step) if one.memory_id not in unwanted]
            start, step = start + step, step if exact else min(step * 2, max(step, _MOST_AT_ONCE))
            ids = [one.memory_id for one in part]
            if query.latest:
                ids = list(current(connection, ids, query.on))
            found = self._stores.record.find(connection, scope, ids, users=lookup.users, on=query.on)
            presented = {memory.id: memory for memory in self._stores.presented(connection, scope, [*found.values()])}
            for one in part:
                memory = presented.get(one.memory_id)
                # Evaluated on the row even when the index was exact: it may be a version behind.
                if memory is None or not matches(query.where, memory):
                    unwanted.add(one.memory_id)
                    continue
                hits.append(Hit(memory, one.signals.fused, one.signals))
                if len(hits) == query.limit:
                    return hits
        return hits

    def _chosen(self, connection: Connection, scope: Scope, query: Query, lookup: TenantLookup) -> Query:
        """Return the query among the memories that the record says are wanted: what the index cannot tell is rare."""
        wanted = is_current(query.on) if query.latest else true()
        found = self._stores.matching(connection, scope, query.where, lookup, wanted, on=query.on)
        ids = tuple(memory.id for memory in islice(found, _MOST_CHOSEN))
        return replace(query, where=and_(query.where, Condition(Field.ID, Op.IN, ids)))

    def _lookup(self, scope: Scope, where: Node) -> TenantLookup:
        """Answer from memory when every name is known, so that the steady state needs no query before the search."""
        lookup = self._stores.lookup(None, scope, where)
        if lookup.complete:
            return lookup
        with self._stores.database.transaction(scope) as connection:
            return self._stores.lookup(connection, scope, where)


def _holds_enough(answer: SearchAnswer, asked: AskedTime, limit: int) -> bool:
    """Return whether so many of each named time are among the nearest that those farther away need not be asked for."""
    candidates = answer.candidates
    nearest = candidates.created[candidates.semantic >= answer.semantic_left]
    return all(of_times(nearest, (span,)).sum() >= limit * _OF_TIME for span in asked.spans)
