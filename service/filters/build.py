"""Small builders of filter trees, for the code that makes filters itself instead of parsing them."""

from __future__ import annotations

from service.filters.ast import EVERYTHING, All, Condition, Field, Node, Op
from service.records import SubjectNames
from service.scope import SubjectKind

_FIELDS = {
    SubjectKind.USER: Field.USER,
    SubjectKind.AGENT: Field.AGENT,
    SubjectKind.APP: Field.APP,
    SubjectKind.RUN: Field.RUN,
}


def and_(*nodes: Node) -> Node:
    """Return the tree that is true when all the given ones are, as flat as can be; none given is `EVERYTHING`."""
    parts: list[Node] = []
    for node in nodes:
        parts.extend(node.parts if isinstance(node, All) else (node,))
    if not parts:
        return EVERYTHING
    return parts[0] if len(parts) == 1 else All(tuple(parts))


def subjects_filter(subjects: SubjectNames) -> Node:
    """Return the filter for the rows of these subjects. A subject that is not named is not constrained."""
    return and_(*(Condition(_FIELDS[kind], Op.EQ, name) for kind, name in subjects.items()))
