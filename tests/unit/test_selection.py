"""What a selection says of subjects by name is told apart from what else it asks."""

from __future__ import annotations

import pytest

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
