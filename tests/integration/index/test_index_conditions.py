"""A search asks the embedded engine for no more conditions than say who may be found: each is asked of every point."""

from __future__ import annotations

from uuid import UUID

import pytest
from qdrant_edge import FieldCondition

from service.index.edge_engine import edge_filter
from service.index.selection import Every, Except, Has, IsSet, Key, Selection, Some, own_subject, within
from service.scope import TenantId

pytestmark = pytest.mark.integration

TENANT = TenantId(UUID(int=1))
SURROGATE = UUID(int=2)
ALICE = Has(Key.USER, (str(own_subject(TENANT, SURROGATE)),))
FOOD = Has(Key.TOKENS, (7,))


def conditions(selection: Selection) -> list[str]:
    """The fields that must have a value, and the kinds of what is no field, as the engine is asked."""
    must = edge_filter(within(TENANT, selection)).must or []
    return [one.key if isinstance(one, FieldCondition) else type(one).__name__ for one in must]


@pytest.mark.parametrize(
    ("selection", "asked"),
    [
        (ALICE, [Key.USER]),
        (Every((ALICE,)), [Key.USER]),
        (Every((Every((FOOD, Every((ALICE,)))), FOOD)), [Key.TOKENS, Key.USER, Key.TOKENS]),
        (Every((ALICE, Some((FOOD, ALICE)))), [Key.USER, "Filter"]),
    ],
)
def test_a_subject_that_must_be_there_stands_for_its_tenant(selection: Selection, asked: list[str]) -> None:
    assert conditions(selection) == asked


@pytest.mark.parametrize(
    "selection", [Every(), FOOD, Except(ALICE), Some((ALICE, FOOD)), Every((FOOD, Some((ALICE,)))), IsSet(Key.USER)]
)
def test_the_tenant_is_asked_for_where_no_subject_must_be_there(selection: Selection) -> None:
    assert Key.TENANT in conditions(selection)


def test_a_subject_is_called_differently_in_each_tenant() -> None:
    assert own_subject(TENANT, SURROGATE) not in {SURROGATE, own_subject(TenantId(UUID(int=3)), SURROGATE)}
