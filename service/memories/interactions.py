"""What connectors ask for: a user's context for a query, and a summary of an interaction stored at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from service import clock
from service.audit.details import Reason
from service.errors import Conflict, Forbidden, InvalidInput
from service.filters.ast import EVERYTHING
from service.filters.build import and_, subjects_filter
from service.filters.connector_fields import INTERACTION_SUMMARY, LABELS
from service.filters.parse import parse_filter
from service.memories.actions import Memories, Query
from service.memories.adds import Adds
from service.memories.context import Context, compose
from service.memories.limits import check_names, check_text
from service.memories.stores import Stores
from service.records import Change, EventStatus, Identity, Message, NewMemories, SubjectNames
from service.scope import Action, Caller, Principal, Scope
from service.tenants.identities import BOTH_NAMED, Identities

#: What a context is asked for when nothing else is said.
USUAL_QUERY: Final = "recent preferences and ongoing tickets"
USUAL_TOKENS: Final = 1000
#: Hits that a context is chosen from: one for so many tokens of its budget, within these bounds.
_TOKENS_PER_HIT: Final = 12
_FEWEST_HITS, _MOST_HITS = 20, 200


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose context is wanted and for what. `connectors` None is all of them."""

    user_id: str | None
    query: str = USUAL_QUERY
    connectors: Sequence[str] | None = None
    max_tokens: int = USUAL_TOKENS
    identity: Identity | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of an interaction, and where it was."""

    text: str
    channel: str
    user_id: str | None
    connector: str | None = None
    labels: Sequence[str] = ()
    identity: Identity | None = None


@dataclass(frozen=True, slots=True)
class StoredSummary:
    """Where a summary is stored. `known`: it was there already."""

    memory_id: UUID
    event_id: UUID
    known: bool


class Interactions:
    """The two calls that a connector needs, for every face alike."""

    def __init__(self, stores: Stores, memories: Memories, adds: Adds, identities: Identities) -> None:
        self._stores = stores
        self._identities = identities
        self._memories = memories
        self._adds = adds

    def context(self, caller: Caller, scope: Scope, asked: Asked, *, labelled: bool = True) -> Context:
        """Return what is known about a user that matters for a query, within a budget of tokens.

        What a newer memory supersedes is left out, unless the query names a time or asks for what was so before.
        Without `labelled` only the texts of the snippets count, for a face that passes on nothing else.

        Raises:
            InvalidInput: for an empty or overlong query, and when no user is named and the credential settles none.
            Forbidden: when a principal that is bound to users names another.
        """
        self._stores.gate.check(caller, Action.SEARCH)
        if asked.identity is None:
            where = subjects_filter(_user(caller, asked.user_id, "say whose context you want"))
        else:
            _check_one(asked.user_id)
            where = self._identities.reading(caller, scope, Action.SEARCH, EVERYTHING, asked.identity)
        if asked.connectors is not None:
            chosen = {"metadata": {"connector": {"in": list(asked.connectors)}}}
            where = and_(where, parse_filter(chosen, where="connectors"))
        limit = min(max(asked.max_tokens // _TOKENS_PER_HIT, _FEWEST_HITS), _MOST_HITS)
        today = clock.today()
        named = self._memories.asked_time(scope, asked.query, today)
        latest = not named.wants_superseded
        query = Query(asked.query, where, limit=limit, threshold=None, reference=today, latest=latest, asked=named)
        hits = self._memories.search(caller, scope, query)
        return compose(hits, max_tokens=asked.max_tokens, labelled=labelled)

    def store(self, caller: Caller, scope: Scope, summary: Summary) -> StoredSummary:
        """Store a summary as it is, at once, with the label that tells what it is.

        Raises:
            InvalidInput: for an empty text, and when the user or the connector is not named and the credential does
                not settle it.
            TooLarge: for a text over the limit.
            Forbidden: when a bound principal names another user or connector.
        """
        self._stores.gate.check(caller, Action.ADD)
        check_text(summary.text, self._stores.settings.limits, "summary")
        if summary.identity is None:
            user = _user(caller, summary.user_id, "say whose interaction it was")
        else:
            _check_one(summary.user_id)
            user = SubjectNames(user_id=self._identities.owner(caller, scope, summary.identity))
        metadata: dict[str, Any] = {
            "connector": self._connector(caller, summary.connector),
            "channel": summary.channel,
            LABELS: list(dict.fromkeys([*summary.labels, INTERACTION_SUMMARY])),
        }
        new = NewMemories([Message("assistant", summary.text)], user, metadata=metadata, infer=False)
        event = self._adds.add(caller, scope, new)
        if event.status is not EventStatus.SUCCEEDED or not event.results:
            raise Conflict(f"the summary was not stored: its event {event.id} ended {event.status.value}")
        stored = event.results[0]
        return StoredSummary(stored.memory_id, event.id, known=stored.change is not Change.ADD)

    def _connector(self, caller: Caller, named: str | None) -> str:
        bound_to = caller.principal.connector
        connector = named or bound_to
        if connector is None:
            raise InvalidInput("connector: say what the interaction came through, for instance 'slack'")
        if bound_to is not None and connector != bound_to:
            self._stores.trail.refuse(caller, Action.ADD, Reason.CONNECTOR)
            raise Forbidden("this key is bound to a connector: give that connector, and no other")
        return connector


def only_user(principal: Principal) -> str | None:
    """Return the user that a principal is bound to when there is just one, so that it need not be named."""
    return next(iter(principal.users)) if principal.users is not None and len(principal.users) == 1 else None


def _check_one(user_id: str | None) -> None:
    if user_id is not None:
        raise InvalidInput(BOTH_NAMED)


def _user(caller: Caller, named: str | None, otherwise: str) -> SubjectNames:
    user_id = named or only_user(caller.principal)
    if user_id is None:
        raise InvalidInput(f"user_id: {otherwise}")
    user = SubjectNames(user_id=user_id)
    check_names(user)
    return user
