"""Facts that changed among stored memories: asks the language model which ones a newer one makes untrue, and proposes.

A question holds memories of one and the same user, agent, app and run, and nothing else. Nothing is linked here.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final
from uuid import UUID

import numpy as np
from sqlalchemy import Connection

from service import clock
from service.audit.details import MemoriesConsolidated
from service.audit.events import AuditEvent
from service.audit.trail import Trail
from service.engine.engine import Engine
from service.engine.errors import EngineError, LlmAnswerMalformed, LlmAnswerUnparsable, LlmUnavailable
from service.engine.shapes import TokenUsage, tokens_of
from service.holds.guard import held_among
from service.memories.events import said_again
from service.scope import Caller, Scope
from service.storage.comparing import Unasked, note, of_the_same, settle, unasked, unchanged
from service.storage.database import Database
from service.storage.record import Record
from service.storage.stored import IndexEntry
from service.storage.superseding import Link, paired, propose
from service.tenants.actions import is_active
from service.tenants.quotas import Quotas
from service.tenants.subjects import Subjects

#: Memories that are taken up at a time.
_AT_ONCE: Final = 2_000
#: Memories of the same subjects, the newest, among which near ones are looked for.
_MOST_AROUND: Final = 2_000
#: Near ones that a memory is compared with, and how near they must be.
_NEAR: Final = 5
_LEAST: Final = 0.3
#: What one question holds: memories that are asked about, all that are shown, and characters. A longer one is no fact.
_MOST_ASKED: Final = 10
_MOST_SHOWN: Final = 30
_MOST_CHARACTERS: Final = 20_000
_LONGEST: Final = 2_000
#: Questions in a row that the model leaves without an answer before it is left alone.
_MOST_FAILURES: Final = 2
#: What another question may mend: the answer was amiss, the model was there.
_AMISS: Final = (LlmAnswerMalformed, LlmAnswerUnparsable)
_log: Final = logging.getLogger("memvault.consolidation")


@dataclass(slots=True)
class Looked:
    """What a look at a tenant came to: what is proposed now, and whether the model was away."""

    links: list[Link] = field(default_factory=list)
    questions: int = 0
    failures: int = 0
    tried: set[UUID] = field(default_factory=set)
    over: bool = False
    away: bool = False


@dataclass(frozen=True, slots=True)
class _Question:
    """One question: what is shown, the oldest first, and which of it is asked about as the newer one."""

    subject_ids: Sequence[UUID]
    shown: Sequence[IndexEntry]
    asked: Mapping[UUID, int]


class ChangedFacts:
    """Asks about each memory once, until it is changed, in as many questions as a look may take."""

    def __init__(
        self,
        database: Database,
        record: Record,
        subjects: Subjects,
        trail: Trail,
        quotas: Quotas,
        engine: Engine,
        *,
        questions: int,
        wait: float,
    ) -> None:
        self._database = database
        self._record = record
        self._subjects = subjects
        self._trail = trail
        self._quotas = quotas
        self._engine = engine
        self._questions = questions
        self._wait = wait

    def look(self, caller: Caller, scope: Scope) -> Looked:
        """Ask about memories that nobody asked about yet, and propose what the model names; return what came of it.

        Each question is read, counted against what the tenant may ask, and audited before it leaves, with no
        transaction open while the model thinks. Whatever interrupts a look costs the question under way, no more.
        """
        looked = Looked()
        after: Unasked | None = None
        while not looked.over and looked.questions < self._questions:
            with self._database.transaction(scope) as connection:
                found = unasked(connection, on=clock.today(), after=after, limit=_AT_ONCE)
            groups: dict[tuple[UUID | None, ...], list[Unasked]] = defaultdict(list)
            for one in found:
                if one.id not in looked.tried:
                    groups[one.subjects].append(one)
            for left in groups.values():
                self._look_at(caller, scope, left, looked)
            if len(found) < _AT_ONCE:
                break
            after = found[-1]
        return looked

    def _look_at(self, caller: Caller, scope: Scope, left: list[Unasked], looked: Looked) -> None:
        """Ask about memories of the same subjects, which leave the list."""
        while left and not looked.over and looked.questions < self._questions:
            begun = clock.today()
            question = self._begin(caller, scope, left, looked)
            if question is None:
                continue
            looked.questions += 1
            looked.tried |= question.asked.keys()
            try:
                pairs, usage = self._engine.find_changes(
                    [(entry.memory.created_at.date(), entry.memory.text) for entry in question.shown],
                    wait=self._wait,
                    tenant_id=scope.tenant_id,
                )
                links = _links(question.shown, pairs, usage)
            except EngineError as error:
                self._failed(scope, question, error, looked, begun)
            else:
                looked.failures = 0
                looked.links += self._answered(caller, scope, question, links, usage)

    def _begin(self, caller: Caller, scope: Scope, left: list[Unasked], looked: Looked) -> _Question | None:
        """Take memories from the front of the list until a question is full; return it, or None for nothing to ask."""
        first = left[0]
        subject_ids = [one for one in first.subjects if one is not None]
        day = clock.today()
        with self._database.transaction(scope) as connection:
            if not is_active(connection, scope.tenant_id) or self._subjects.lock(connection, subject_ids) != set(
                subject_ids
            ):
                # Suspended, or being erased.
                left.clear()
                return None
            around = of_the_same(connection, first.subjects, on=day, to=None, limit=_MOST_AROUND)
            if first.id not in around:
                # Far back: those before it.
                around = of_the_same(connection, first.subjects, on=day, to=first.created_at, limit=_MOST_AROUND)
            # Held ones are left alone: neither shown nor noted.
            ids = around.keys() - held_among(connection, scope, around)
            entries = self._record.index_entries(connection, scope, ids, unreadable={})
            pairs = paired(connection, [one.id for one in left])
            question, lonely = _taken(subject_ids, left, entries, around, pairs)
            note(connection, scope, lonely, settled=True)
            if question is None:
                return None
            postponed = self._quotas.begin_llm_call(connection, scope)
            if postponed is None:
                note(connection, scope, question.asked, settled=False)
                self._tell(
                    connection,
                    caller,
                    question,
                    targets=list(question.asked),
                    results=[entry.memory.id for entry in question.shown],
                    detail=MemoriesConsolidated(asked=len(question.shown)),
                )
        if postponed is None:
            return question
        self._quotas.postponed(caller, postponed)
        looked.over = True
        return None

    def _answered(
        self,
        caller: Caller,
        scope: Scope,
        question: _Question,
        links: Sequence[Link],
        usage: TokenUsage | None,
    ) -> list[Link]:
        """Propose what the model named, as far as it is still as it was shown and said, and let the question rest."""
        versions = {entry.memory.id: entry.memory.version for entry in question.shown}
        with self._database.transaction(scope) as connection:
            self._quotas.spend_tokens(connection, scope, tokens_of(usage))
            alive = self._subjects.lock(connection, question.subject_ids) == set(question.subject_ids)
            there = unchanged(connection, versions) if alive else set()
            there -= held_among(connection, scope, there).keys()
            standing = [one for one in links if one.older_id in there and one.newer_id in there]
            made = propose(connection, scope, _not_said_since(connection, question, standing))
            settle(connection, question.asked)
            if made:
                self._tell(
                    connection,
                    caller,
                    question,
                    targets=list(dict.fromkeys(one.newer_id for one in made)),
                    results=list(dict.fromkeys(one.older_id for one in made)),
                    detail=MemoriesConsolidated(proposed=len(made)),
                )
        return made

    def _failed(self, scope: Scope, question: _Question, error: EngineError, looked: Looked, begun: date) -> None:
        """Propose nothing. An answer that is amiss again and again is given up; a model that is away is left alone."""
        amiss = isinstance(error, _AMISS)
        with self._database.transaction(scope) as connection:
            self._quotas.end_llm_call(connection, scope, begun, error.asked, tokens_of(error.usage))
            if amiss:
                settle(connection, question.asked, tries=error.max_attempts or 1)
        if amiss:
            looked.failures = 0
        else:
            looked.failures += 1
            # What is wrong with the settings, or with how often we ask, the next question meets too.
            looked.away = not isinstance(error, LlmUnavailable) or looked.failures >= _MOST_FAILURES
            looked.over = looked.away
        _log.warning("a question about facts that changed had no answer", extra={"error": error.code})

    def _tell(
        self,
        connection: Connection,
        caller: Caller,
        question: _Question,
        *,
        targets: Sequence[UUID],
        results: Sequence[UUID],
        detail: MemoriesConsolidated,
    ) -> None:
        self._trail.write(
            connection,
            caller,
            AuditEvent.MEMORIES_CONSOLIDATED,
            subjects=question.subject_ids,
            targets=targets,
            results=results,
            detail=detail,
        )


def _taken(
    subject_ids: Sequence[UUID],
    left: list[Unasked],
    entries: Mapping[UUID, IndexEntry],
    around: Mapping[UUID, datetime | None],
    pairs: Mapping[UUID, set[UUID]],
) -> tuple[_Question | None, dict[UUID, int]]:
    """Take memories from the list; return the question about them, and, by their versions, those with none.

    What is linked, proposed or dismissed with each other is in `pairs` and is no question any more.
    """
    near = _Nearness([entry for entry in entries.values() if len(entry.memory.text) <= _LONGEST], around)
    lonely: dict[UUID, int] = {}
    asked: dict[UUID, int] = {}
    shown: dict[UUID, IndexEntry] = {}
    count = len(left)
    while left and len(asked) < _MOST_ASKED:
        if left[0].id not in around and len(left) < count:
            # Too far back for this time, or gone.
            break
        entry = entries.get(left[0].id)
        if entry is not None:
            others = near.of(entry, pairs.get(entry.memory.id, set()))
            more = shown | {one.memory.id: one for one in [entry, *others]}
            if not others:
                lonely[entry.memory.id] = entry.memory.version
            elif asked and not _fits(more.values()):
                break
            else:
                asked[entry.memory.id] = entry.memory.version
                shown = more
        del left[0]
    if not asked:
        return None, lonely
    in_order = sorted(shown.values(), key=lambda one: (one.memory.created_at, one.memory.id))
    return _Question(subject_ids, in_order, asked), lonely


class _Nearness:
    """Tells which memories of the same subjects a memory is to be compared with."""

    def __init__(self, entries: Sequence[IndexEntry], asked_at: Mapping[UUID, datetime | None]) -> None:
        self._asked_at = asked_at
        self._entries: dict[tuple[str, int], list[IndexEntry]] = defaultdict(list)
        for entry in entries:
            self._entries[_model(entry)].append(entry)
        self._vectors = {
            model: np.stack([one.vector for one in its], dtype=np.float32) for model, its in self._entries.items()
        }

    def of(self, entry: IndexEntry, but: set[UUID]) -> list[IndexEntry]:
        """Return the nearest that an older one of the two may be untrue because of, the nearest first.

        Each pair is asked about from the side of the newer one. Only where that one was asked about before the older
        one came in, as an import brings it, the older one asks.
        """
        model = _model(entry)
        if model not in self._entries or len(entry.memory.text) > _LONGEST:
            return []
        scores = self._vectors[model] @ np.asarray(entry.vector, dtype=np.float32)
        found: list[IndexEntry] = []
        for place in np.argsort(-scores):
            if scores[place] < _LEAST or len(found) == _NEAR:
                break
            other = self._entries[model][place]
            if other.memory.id not in but and (_is_newer(entry, other) or self._came_late(entry, other)):
                found.append(other)
        return found

    def _came_late(self, older: IndexEntry, newer: IndexEntry) -> bool:
        asked_at = self._asked_at.get(newer.memory.id)
        came_in = older.memory.ingested_at
        return _is_newer(newer, older) and asked_at is not None and came_in is not None and asked_at < came_in


def _model(entry: IndexEntry) -> tuple[str, int]:
    """Return what the vectors have in common that can be compared: a name alone may give another size one day."""
    return entry.embedder, len(entry.vector)


def _is_newer(one: IndexEntry, other: IndexEntry) -> bool:
    """Tell whether one was said after the other was as it is now; where that is not sure, neither is newer."""
    return one.memory.created_at > max(other.memory.created_at, other.memory.updated_at)


def _links(shown: Sequence[IndexEntry], pairs: Sequence[tuple[int, int]], usage: TokenUsage | None) -> list[Link]:
    """Return the links that the model names.

    Raises:
        LlmAnswerMalformed: when one that is to supersede is not newer.
    """
    for newer, older in pairs:
        if not _is_newer(shown[newer], shown[older]):
            error = LlmAnswerMalformed("the LLM's answer lets a memory be superseded by one that is not newer")
            error.asked, error.usage = True, usage
            raise error
    return [Link(shown[older].memory.id, shown[newer].memory.id, "changed") for newer, older in pairs]


def _not_said_since(connection: Connection, question: _Question, links: Sequence[Link]) -> list[Link]:
    """Return those of the links whose older memory was not said again since the newer one came in, or was changed."""
    again = said_again(connection, question.subject_ids[0], {one.older_id for one in links})
    newest = {entry.memory.id: _came_in(entry) for entry in question.shown}
    return [one for one in links if one.older_id not in again or again[one.older_id] < newest[one.newer_id]]


def _came_in(entry: IndexEntry) -> datetime:
    """Return since when a memory says what it says, by our clock: the time that it was said is its writer's word."""
    memory = entry.memory
    stored = memory.ingested_at or memory.created_at
    # Both times of an add are what its caller says; a change gives the second one our clock.
    return stored if memory.updated_at == memory.created_at else max(stored, memory.updated_at)


def _fits(shown: Collection[IndexEntry]) -> bool:
    return len(shown) <= _MOST_SHOWN and sum(len(one.memory.text) for one in shown) <= _MOST_CHARACTERS
