"""Finds the candidates of a search: the nearest by meaning, the best by words, and what stands around the best."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from heapq import nlargest
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import UUID

from service.index.neighbours import SEEDS, surroundings
from service.index.questions import ByMeaning, ByWords, Finding, Search
from service.index.selection import PLACE, Every, Has, Key, Points, Selection, Some
from service.index.strength import strength


class Found(NamedTuple):
    """A point that was found: its id, its score, and what says which memory it is and where that stands."""

    id: UUID
    score: float
    payload: Mapping[str, Any] | None = None


#: Memories that one place is expected to have at most: adds that run at once get the same one.
_AT_A_PLACE: Final = 16
#: Answers several questions in one go, each by the number of the point's id; None finds nothing.
Ask: TypeAlias = Callable[[Sequence[ByMeaning | ByWords | None]], list[dict[int, Found]]]


def find(ask: Ask, search: Search) -> Finding:
    """Return the `limit` nearest by meaning and the `limit` best by words, both scores exact for all of them."""
    vector, allowed, limit = search.vector, search.allowed, search.limit
    near, worded = ask([ByMeaning(vector, allowed, limit), _words(search, allowed, limit)])
    exhausted = len(near) < limit
    # What one side found alone gets its exact score from the other, so that the two can be weighed.
    only_worded = [point.id for number, point in worded.items() if number not in near]
    only_near = [point.id for number, point in near.items() if number not in worded]
    around: frozenset[int] = frozenset()
    # With all of them found there is nothing more around.
    if search.neighbours and not exhausted:
        around = surroundings(_strongest(near, worded))
    # Fewer than the limit were found by words: these are all, the others have no word in common.
    words = len(worded) == limit
    near_more, worded_more = _also(ask, search, only_worded, only_near if words else (), around, words=words)
    rows = near | near_more
    scores = worded | worded_more
    return Finding(
        [_row(point, scores[number].score if number in scores else 0.0) for number, point in rows.items()],
        exhausted,
        min((point.score for point in near.values()), default=0.0),
        min(point.score for point in worded.values()) if words else 0.0,
    )


def _also(
    ask: Ask,
    search: Search,
    by_words: Collection[UUID],
    by_meaning: Collection[UUID],
    around: Collection[int],
    *,
    words: bool,
) -> list[dict[int, Found]]:
    """Return what is asked for besides: cosines of those that words alone found, BM25 of those that meaning alone
    found, and both of what stands around. Each that has a BM25 is among those with a cosine.
    """

    def asked(around: Collection[int]) -> list[dict[int, Found]]:
        where, most = _more(search, by_words, around)
        return ask(
            [
                ByMeaning(search.vector, where, most) if most else None,
                _words(search, *_more(search, by_meaning, around), scores_only=True) if words else None,
            ]
        )

    found = asked(around)
    if around and max(map(len, found)) >= _AT_A_PLACE * len(around):
        # Then the limit may have left out what was found, which goes before what is around.
        found = [{**more, **some} for more, some in zip(found, asked(()), strict=True)]
    return found


def found(points: Iterable[Any]) -> dict[int, Found]:
    """Return what a client library found, by the number of each id, which is hashed and compared faster than the id."""
    by_number = {}
    for point in points:
        # Edge makes a new object each time that it is asked for one.
        id_ = point.id
        if not isinstance(id_, UUID):
            id_ = UUID(str(id_))
        by_number[id_.int] = Found(id_, point.score, point.payload)
    return by_number


def _row(point: Found, bm25: float) -> tuple[str, int, float, float, int | None, str | None]:
    payload = point.payload or {}
    place = payload.get(PLACE)
    return (
        str(payload[Key.MEMORY]),
        int(payload[Key.VERSION]),
        point.score,
        bm25,
        None if place is None else int(place),
        payload.get(Key.CREATED),
    )


def _words(search: Search, where: Selection, limit: int, *, scores_only: bool = False) -> ByWords | None:
    if not search.terms or limit == 0:
        return None
    return ByWords(search.terms, where, limit, corpus=search.corpus, scores_only=scores_only)


def _more(search: Search, ids: Collection[UUID], around: Collection[int]) -> tuple[Selection, int]:
    """Return what means these points and those at these places that are allowed, and how many that may be."""
    among = Points(frozenset(ids))
    if not around:
        return Every((search.corpus, among)), len(ids)
    at = Has(Key.TOKENS, tuple(sorted(around)))
    return Every((search.allowed, Some((among, at)))), len(ids) + _AT_A_PLACE * len(around)


def _strongest(near: Mapping[int, Found], worded: Mapping[int, Found]) -> list[int]:
    """Return the places of what will be among the best; what words alone have found is near by guess."""
    best = max((point.score for point in worded.values()), default=0.0)
    farthest = min((point.score for point in near.values()), default=0.0)
    guessed: dict[int, float] = {}
    for number, point in {**worded, **near}.items():
        place = (point.payload or {}).get(PLACE)
        if place is not None:
            meaning = point.score if number in near else farthest
            bm25 = worded[number].score if number in worded else 0.0
            guessed[int(place)] = strength(meaning, bm25, best)
    return nlargest(SEEDS, guessed, key=lambda place: (guessed[place], -place))
