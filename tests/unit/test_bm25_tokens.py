"""BM25 vectors: what they weigh, and that only the tenant's key makes their term ids."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_edge import Bm25, Bm25Config

from service.index.questions import SparseTerms
from service.index.terms import AVERAGE_LENGTH, Bm25Terms, TenantTerms
from service.scope import TenantId

pytestmark = pytest.mark.unit

KEY = bytes(range(32))
TERMS = Bm25Terms(KEY)


def test_the_weights_are_those_of_bm25() -> None:
    text = "Green tea, green garden: the tea of the river"
    plain = Bm25(Bm25Config(language="english", avg_len=AVERAGE_LENGTH)).embed_document(text)
    keyed = TERMS.document(text)
    assert sorted(keyed.weights) == sorted(plain.values)
    assert not set(keyed.ids) & set(plain.indices)


def test_inflections_meet_and_stop_words_do_not_count() -> None:
    assert TERMS.query("Running").ids == TERMS.document("runs, RUN").ids
    assert set(TERMS.query("where is the garden?").ids) == set(TERMS.document("garden").ids)
    assert not TERMS.query("the of and")
    assert not TERMS.document("")
    assert SparseTerms((1,), (1.0,))


def test_a_repeated_word_weighs_more_but_not_twice_as_much() -> None:
    once, twice = TERMS.document("tea"), TERMS.document("tea tea")
    assert once.weights[0] < twice.weights[0] < 2 * once.weights[0]
    assert TERMS.query("tea tea").weights == (1.0,)


def test_a_long_text_weighs_each_word_less() -> None:
    word = TERMS.query("tea").ids[0]
    short, long = TERMS.document("tea"), TERMS.document("tea " + " ".join(f"word{n}" for n in range(100)))
    assert dict(zip(long.ids, long.weights, strict=True))[word] < short.weights[0]


def test_ids_depend_on_the_key_alone() -> None:
    assert Bm25Terms(KEY).document("green tea") == TERMS.document("green tea")
    assert not set(Bm25Terms(bytes(32)).document("green tea").ids) & set(TERMS.document("green tea").ids)


def test_the_ids_stay_as_they_are() -> None:
    """Another way to make them would silently empty the keyword side of every index that exists."""
    assert TERMS.query("tea").ids == (3813987377,)


@given(st.text(max_size=200))
def test_any_text_makes_a_vector_in_order(text: str) -> None:
    for terms in (TERMS.document(text), TERMS.query(text)):
        assert list(terms.ids) == sorted(set(terms.ids))
        assert len(terms.ids) == len(terms.weights)
        assert all(0 <= term < 2**32 for term in terms.ids)
        assert all(weight > 0 for weight in terms.weights)


def test_colliding_terms_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    terms = Bm25Terms(KEY)
    monkeypatch.setattr(terms, "_keyed", lambda term: term % 2)
    assert sum(terms.query("green tea in a garden by the river").weights) == 4.0
    assert set(terms.query("green tea in a garden by the river").ids) <= {0, 1}


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Bm25Terms(bytes(31))


def test_each_tenant_has_its_own_terms_made_once() -> None:
    asked: list[TenantId] = []

    def key_of(tenant_id: TenantId) -> bytes:
        asked.append(tenant_id)
        return tenant_id.bytes * 2

    one, other = TenantId(UUID(int=1)), TenantId(UUID(int=2))
    terms = TenantTerms(key_of)
    assert terms.of(one) is terms.of(one)
    assert terms.of(one).query("tea") != terms.of(other).query("tea")
    assert asked == [one, other]
    terms.forget()
    assert terms.of(one).query("tea").ids
    assert asked == [one, other, one]
