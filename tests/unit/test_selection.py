"""What a selection says of subjects by name is told apart from what else it asks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.index.selection import Between, Every, Except, Has, IsSet, Key, Selection, Some, naming_subjects

pytestmark = pytest.mark.unit

ALICE, BOB = Has(Key.USER, ("alice",)), Has(Key.USER, ("bob", "carol"))
AGENT, RUN = Has(Key.AGENT, ("a",)), Has(Key.RUN, ("r",))
FOOD, NEW = Has(Key.TOKENS, (7,)), Between(Key.CREATED, gte=3)


@pytest.mark.parametrize(
    ("selection", "named"),
    [
        (ALICE, ALICE),
        (Every((FOOD, ALICE, NEW)), Every((ALICE,))),
        (Every((FOOD, Every((Every((RUN,)), BOB)))), Every((Every((Every((RUN,)), BOB)),))),
        (Some((ALICE, AGENT)), Some((ALICE, AGENT))),
        (Some((Every((ALICE, FOOD)), RUN)), Some((Every((ALICE,)), RUN))),
        (Every((Some((ALICE, FOOD)), RUN)), Every((RUN,))),
        # A subject that the tenant does not have: nobody's memories.
        (Every((Has(Key.USER, ()), FOOD)), Every((Has(Key.USER, ()),))),
        # These let in points of any subject.
        (Every(), Every()),
        (Every((FOOD, NEW)), Every()),
        (Some((ALICE, FOOD)), Every()),
        (Some(()), Every()),
        (Except(ALICE), Every()),
        (Every((Except(ALICE), IsSet(Key.USER))), Every()),
        (Except(Except(ALICE)), Every()),
    ],
)
def test_what_names_subjects(selection: Selection, named: Selection) -> None:
    assert naming_subjects(selection) == named


PARTS = st.recursive(
    st.sampled_from([ALICE, BOB, AGENT, RUN, FOOD, Has(Key.USER, ()), IsSet(Key.AGENT)]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple).map(Every),
        st.lists(inner, max_size=3).map(tuple).map(Some),
        inner.map(Except),
    ),
)
FIELDS = st.fixed_dictionaries(
    {
        Key.USER: st.sampled_from(["alice", "bob", None]),
        Key.AGENT: st.sampled_from(["a", None]),
        Key.RUN: st.sampled_from(["r", None]),
        Key.TOKENS: st.sampled_from([7, None]),
    }
)


def means(selection: Selection, fields: dict[Key, object]) -> bool:
    """Whether a point with these fields is meant."""
    match selection:
        case Has(key, values):
            return fields[key] in values
        case IsSet(key):
            return fields[key] is not None
        case Every(parts):
            return all(means(part, fields) for part in parts)
        case Some(parts):
            return any(means(part, fields) for part in parts)
        case Except(part):
            return not means(part, fields)
    raise NotImplementedError(selection)


@given(PARTS, FIELDS)
def test_no_point_that_is_meant_is_left_out(selection: Selection, fields: dict[Key, object]) -> None:
    """Else words would be counted without memories that the search may find."""
    assert means(naming_subjects(selection), fields) or not means(selection, fields)
