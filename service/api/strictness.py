"""Refuses what of a request would be read as something else or as nothing: unknown names, URLs that are no UTF-8."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import Any, Final, get_args, get_origin
from urllib.parse import unquote_to_bytes

from fastapi.dependencies.models import Dependant
from pydantic import BaseModel
from starlette.datastructures import QueryParams
from starlette.types import Scope

from service.api.reading import NARROWING, SUBJECTS
from service.errors import InvalidInput, MalformedId, ScopeRequired, shown

#: What Mem0's clients put into the query of calls that have no use for it.
_SENT: Final = frozenset(
    (
        *("org_id", "project_id", "org_name", "project_name", "source"),
        *("output_format", "version", "api_version", "async_mode", "enable_graph"),
    )
)
#: Without these a call is about everybody.
_WHOSE: Final = frozenset({*SUBJECTS, "filters"})
#: How alike two names are, of 1, for one to be taken for a slip of the other: no client means something else by it.
_SLIP: Final = 0.8
#: The same where a name is refused anyway, and the other one is offered.
_OFFERED: Final = 0.6
#: Comparing takes its time, and no client sends so many names that nobody knows.
_MOST_COMPARED: Final = 100
_MOST_TOLD: Final = 3
_COMPARED_CHARS: Final = 64
_ELSEWHERE: Final = (
    "filters stand in the bodies of POST /v3/memories/ (lists), POST /v3/memories/search/ and POST /search (searches)"
)


@dataclass(frozen=True, slots=True)
class Known:
    """The names that a route knows; `lists` are those parameters that may stand many times.

    A route of our own refuses all others. One of Mem0's contract is called by clients that send more: it passes over
    what they send by themselves, and else what cannot be meant to narrow whose memories it is about.
    """

    parameters: frozenset[str]
    lists: frozenset[str]
    fields: frozenset[str]
    of_mem0: bool
    deletes: bool

    @classmethod
    def of(cls, dependant: Dependant, *, of_mem0: bool, deletes: bool) -> Known:
        """Return what a route knows, by what its endpoint and the dependencies of that declare."""
        parameters, lists, fields = set[str](), set[str](), set[str]()
        for one in _all(dependant):
            for param in one.query_params:
                parameters.add(param.alias)
                annotation = param.field_info.annotation
                if any(get_origin(part) is list for part in (annotation, *get_args(annotation))):
                    lists.add(param.alias)
            for param in one.body_params:
                fields |= _fields(param.field_info.annotation)
        return cls(frozenset(parameters), frozenset(lists), frozenset(fields), of_mem0, deletes)

    def check_query(self, query: QueryParams) -> None:
        """Return if nothing in a query is mistyped, and nothing stands twice of which one is meant.

        Raises:
            InvalidInput: naming what is not known, and what is.
            ScopeRequired: for what may be meant to narrow a deletion of all of a scope.
        """
        given = Counter(name for name, _ in query.multi_items())
        if unknown := self._refused([name for name in given if name not in self.parameters]):
            if self.deletes and self.parameters.issuperset(SUBJECTS):
                raise ScopeRequired(
                    f"{_list(sorted(unknown))}: cannot narrow a deletion; name a scope by {', '.join(SUBJECTS)} and "
                    "nothing else, or list the memories that match and delete them by their ids; nothing was deleted"
                )
            told = _told("query", unknown, self.parameters, "parameter")
            elsewhere = self.of_mem0 and not self.deletes and "filters" not in self.parameters
            raise InvalidInput(f"{told}; {_ELSEWHERE}" if elsewhere else told)
        for name, times in given.items():
            if times > 1 and name not in self.lists:
                # Of two users that a deletion names, neither may win by its place.
                raise InvalidInput(f"query.{shown(name)}: is given more than once, and is no list")

    def check_body(self, body: Mapping[str, Any]) -> None:
        """Return if no field of a body is mistyped; what its fields hold is for their shapes to tell.

        Raises:
            InvalidInput: naming what is not known, and what is.
        """
        unknown = [name for name in body if name not in self.fields]
        if self.of_mem0:
            # An id or filters where they do not belong are told by the shape, or of no use to the call. Beside the name
            # itself what is like it is no slip of it.
            some = [name for name in unknown if name not in _WHOSE][:_MOST_COMPARED]
            unknown = [name for name in some if _alike(name, _WHOSE.difference(body), _SLIP)]
        if unknown:
            raise InvalidInput(_told("body", unknown, self.fields, "field"))

    def _refused(self, unknown: list[str]) -> list[str]:
        """Return those names in a query that are not passed over."""
        if not self.of_mem0:
            return unknown
        more = [name for name in unknown if name not in _SENT]
        if not self.parameters.isdisjoint(NARROWING) or len(more) > _MOST_COMPARED:
            return more
        return [name for name in more if name in NARROWING or _alike(name, self.parameters | _WHOSE, _SLIP)]


def check_encoding(scope: Scope, *, path: bool) -> None:
    """Return if a URL is UTF-8, percent-encoded: what is not would be read as a name of replacement characters.

    Without `path` that is nobody's name, and may be anything.

    Raises:
        InvalidInput: for the query.
        MalformedId: for the path, which names nothing.
    """
    if not _is_encoded(scope["query_string"]):
        raise InvalidInput("query: must be UTF-8, percent-encoded")
    if path and not _is_encoded(scope.get("raw_path") or b""):
        raise MalformedId("there is no such thing: a path must be UTF-8, percent-encoded")


def _is_encoded(part: bytes) -> bool:
    try:
        unquote_to_bytes(part).decode()
    except UnicodeDecodeError:
        return False
    return True


def _all(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for one in dependant.dependencies:
        yield from _all(one)


def _fields(model: Any) -> set[str]:
    """Return the names that the fields of a body have on the wire."""
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise TypeError("a body is one model: else nobody can tell which of its fields are known")
    return {field.alias or name for name, field in model.model_fields.items()}


def _alike(name: str, known: Iterable[str], least: float) -> str | None:
    """Return the known name that is most likely meant, or None where none is likely."""
    folded, names = name[:_COMPARED_CHARS].lower(), sorted(known)
    if f"{folded}_id" in names:
        return f"{folded}_id"
    return next(iter(get_close_matches(folded, names, n=1, cutoff=least)), None)


def _told(place: str, unknown: Iterable[str], known: frozenset[str], thing: str) -> str:
    told = []
    for name in islice(unknown, _MOST_TOLD):
        meant = _alike(name, known, _OFFERED)
        told.append(f"{place}.{shown(name)}: there is no such {thing} here{f', is {meant} meant?' if meant else ''}")
    return "; ".join([*told, f"known are {', '.join(sorted(known))}" if known else "none is known"])


def _list(names: list[str]) -> str:
    return ", ".join(shown(name) for name in names[:_MOST_TOLD])
