"""Finds the memory of the event that a question counts time from, among those that its search may see.

Only a memory that surely tells of the event is an anchor: near by meaning, with the words of the event, no wish and no
plan, of the same one as the question, and without another memory that tells of it as well on another day.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import date
from functools import partial
from typing import Final, Protocol

from service.embeddings.embedder import Vector
from service.filters.ast import Node
from service.filters.evaluate import matches
from service.index.candidates import Candidate
from service.index.interface import Index, SearchAnswer
from service.index.questions import SparseTerms
from service.index.terms import AVERAGE_LENGTH
from service.index.words import words_of
from service.memories.asked_events import Event
from service.memories.asked_times import AskedTime, span_at
from service.memories.indexing import Indexing
from service.memories.stores import Stores, TenantLookup
from service.records import Memory
from service.scope import Scope
from service.settings.languages import Language
from service.storage.superseding import current

#: The least cosine of an anchor, and of one for an event of a single word ("she moved"), whose form it must have.
_NEAR: Final = 0.5
_NEAR_ONE: Final = 0.3
#: The share of the event's words that its memory has: all of up to three, three of four.
_SHARED: Final = 0.75
#: By how much an anchor is nearer than any other memory of another day that tells of such an event.
_AHEAD: Final = 0.1
#: Memories that are looked at, and that are read for their words.
_LOOKED_AT: Final = 20
_READ: Final = 10
#: What did not happen, or not yet.
_UNSURE: Final = re.compile(
    r"\b(?:cannot|going to|hop(?:es?|ed|ing)|if|(?-i:may)|might|never|no|not|plan(?:s|ned|ning)?|should|wants?"
    r"|(?-i:will)|wish(?:es)?|would)\b|n['’]t\b|\?",
    re.IGNORECASE,
)
#: Of somebody else than the one of "she moved": "her sister moved".
_SOMEBODY_ELSES: Final = re.compile(r"\s*(?:her|his|its|my|our|their|your|[\w-]+'s)\s", re.IGNORECASE)
_ONESELF: Final = re.compile(r"(?:he|i|it|she|they|we|you|\w+ing)\s", re.IGNORECASE)
_WORD: Final = re.compile(r"\w+")


class Sight(Protocol):
    """What a search may see: its filter, the day that expiry is judged by, and whether what is superseded counts."""

    @property
    def where(self) -> Node: ...
    @property
    def on(self) -> date | None: ...
    @property
    def latest(self) -> bool: ...


def anchored(
    stores: Stores,
    indexing: Indexing,
    scope: Scope,
    asked: AskedTime,
    event: Event,
    sight: Sight,
    lookup: TenantLookup,
) -> AskedTime:
    """Return what is asked with the span that the memory of its event makes, or as it is when none surely tells of it.

    Raises:
        IndexUnavailable, EmbeddingUnavailable: when the index or the model does not answer.
    """
    terms = indexing.terms(scope).query(event.words)
    answer = stores.generations.question(event.words).ask(partial(_looked_up, scope, terms, sight, lookup))
    least = _NEAR if len(_words(event.words)) > 1 else _NEAR_ONE
    near = sorted((one for one in answer.candidates if one.bm25 > 0 and one.semantic >= least), key=_by_nearness)
    found = _best(_read(stores, scope, near[:_READ], sight, lookup), event) if near else None
    return asked if found is None else replace(asked, anchored=span_at(found.created_at, event.side))


def _looked_up(
    scope: Scope, terms: SparseTerms, sight: Sight, lookup: TenantLookup, index: Index, vector: Vector
) -> SearchAnswer:
    return index.of(scope).search(vector, terms, sight.where, lookup, limit=_LOOKED_AT, users=lookup.users, on=sight.on)


def _by_nearness(candidate: Candidate) -> tuple[float, str]:
    return -candidate.semantic, str(candidate.memory_id)


def _read(
    stores: Stores, scope: Scope, near: list[Candidate], sight: Sight, lookup: TenantLookup
) -> list[tuple[float, Memory]]:
    """Return what the record gives of the candidates, the nearest first, as long as the index knew the same text."""
    ids = [one.memory_id for one in near]
    with stores.database.transaction(scope) as connection:
        if sight.latest:
            ids = list(current(connection, ids, sight.on))
        rows = stores.record.find(connection, scope, ids, users=lookup.users, on=sight.on)
        memories = {one.id: one for one in stores.presented(connection, scope, [*rows.values()])}
    return [
        (one.semantic, memory)
        for one in near
        if (memory := memories.get(one.memory_id)) is not None
        and memory.version == one.version
        and matches(sight.where, memory)
    ]


def _best(near: Iterable[tuple[float, Memory]], event: Event) -> Memory | None:
    telling = [(nearness, memory) for nearness, memory in near if _tells(memory, event)]
    if not telling:
        return None
    best, anchor = telling[0]
    day = anchor.created_at.date()
    if any(best - nearness < _AHEAD and memory.created_at.date() != day for nearness, memory in telling[1:]):
        return None
    return anchor


def _tells(memory: Memory, event: Event) -> bool:
    oneself = _ONESELF.match(event.words) is not None
    if _UNSURE.search(memory.text) or (oneself and _SOMEBODY_ELSES.match(memory.text)):
        return False
    wanted, told = _words(event.words), _words(memory.text)
    if not oneself:
        # "Anna moved": who said it and whose it is are named in the question and rarely in the text.
        told |= _words(" ".join(filter(None, (memory.actor, memory.subjects.user_id))))
    if not wanted or len(wanted & told) < _SHARED * len(wanted):
        return False
    return len(wanted) > 1 or bool(_forms(event.words, wanted) & _forms(memory.text, wanted))


def _forms(text: str, wanted: frozenset[int]) -> frozenset[str]:
    """Return the words of a text, as they are written, that are forms of the wanted ones."""
    return frozenset(word for word in _WORD.findall(text.lower()) if _words(word) & wanted)


def _words(text: str) -> frozenset[int]:
    return frozenset(words_of(Language.ENGLISH, AVERAGE_LENGTH).query(text))
