"""Puts surrogates in the place of the people whom a filter names, before the filter is kept by a hold or a rule."""

from __future__ import annotations

from sqlalchemy import Connection

from service.filters.ast import Node, subject_names
from service.memories.limits import check_names
from service.records import SubjectNames
from service.scope import Scope
from service.storage.kept_filters import pinned
from service.tenants.subjects import Subjects


def pin(connection: Connection, scope: Scope, subjects: Subjects, where: Node) -> Node:
    """Return the filter with surrogates in it. Who is not known yet becomes known.

    Raises:
        InvalidInput: for a name that no subject can have.
        Conflict: while one of them is being erased.
    """
    ids = {}
    # In one order, so that two requests with the same new names never wait for each other.
    for kind, name in sorted(subject_names(where)):
        names = SubjectNames.of([(kind, name)])
        check_names(names)
        ids[(kind, name)] = subjects.ensure(connection, scope, names).owner
    return pinned(where, ids)
