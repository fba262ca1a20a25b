"""The trees are those of RFC 6962: roots and paths against a plain recursive reading of the standard."""

from __future__ import annotations

from hashlib import sha256
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.audit.merkle import (
    EMPTY_ROOT,
    Frontier,
    TenantsTree,
    inclusion_path,
    leaf_hash,
    node_hash,
    root_of_path,
    tenant_leaf,
)

pytestmark = pytest.mark.unit

LEAVES = [leaf_hash(str(number).encode()) for number in range(200)]


def plain_root(leaves: list[bytes]) -> bytes:
    """The Merkle tree hash, as section 2.1 of the standard says it."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node_hash(plain_root(leaves[:split]), plain_root(leaves[split:]))


def grown(count: int) -> Frontier:
    frontier = Frontier()
    for leaf in LEAVES[:count]:
        frontier.append(leaf)
    return frontier


def test_known_answers_of_the_standard() -> None:
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    # The certificate-transparency test vectors: leaves "", 00, 10, 2021, ...
    inputs = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    frontier = Frontier()
    for data in inputs:
        frontier.append(leaf_hash(bytes.fromhex(data)))
    assert frontier.root().hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@given(st.integers(0, 200))
def test_a_growing_tree_has_the_standard_s_root(count: int) -> None:
    assert grown(count).root() == plain_root(LEAVES[:count])


@given(st.integers(0, 200), st.integers(0, 60))
def test_a_tree_taken_up_again_goes_on_the_same(before: int, more: int) -> None:
    kept = grown(before)
    again = Frontier(kept.size, kept.peaks())
    for leaf in LEAVES[before : before + more]:
        again.append(leaf)
    assert again.root() == plain_root(LEAVES[: before + more])


def test_a_frontier_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="frontier"):
        Frontier(6, grown(7).peaks())


@given(st.data())
def test_a_path_leads_from_each_new_leaf_to_the_root_and_from_no_other_place(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 200))
    first = data.draw(st.integers(0, size - 1))
    index = data.draw(st.integers(first, size - 1))
    path = inclusion_path(grown(first), LEAVES[first:size], index)
    root = plain_root(LEAVES[:size])
    assert root_of_path(LEAVES[index], index, size, path) == root
    other = data.draw(st.integers(0, size - 1))
    if other != index:
        assert root_of_path(LEAVES[other], other, size, path) != root
        assert root_of_path(LEAVES[index], other, size, path) != root


def test_a_path_of_the_wrong_length_leads_nowhere() -> None:
    path = inclusion_path(Frontier(), LEAVES[:10], 3)
    assert root_of_path(LEAVES[3], 3, 10, path[:-1]) is None
    assert root_of_path(LEAVES[3], 3, 10, [*path, LEAVES[0]]) is None
    assert root_of_path(LEAVES[3], 10, 10, path) is None


@given(st.lists(st.integers(0, 40), min_size=1, max_size=120))
def test_the_tree_of_tenants_keeps_its_root_while_leaves_are_replaced_and_added(places: list[int]) -> None:
    tree, leaves = TenantsTree(), list[bytes]()
    for size, place in enumerate(places):
        leaf = tenant_leaf(UUID(int=place), size, LEAVES[0])
        ordinal = min(place, len(leaves))
        leaves[ordinal : ordinal + 1] = [leaf]
        tree.put(ordinal, leaf)
        if size % 3 == 0:
            assert tree.root() == plain_root(leaves)
    assert tree.root() == plain_root(leaves)
    for ordinal, leaf in enumerate(leaves):
        assert root_of_path(leaf, ordinal, len(leaves), tree.path(ordinal)) == tree.root()


def test_tenants_are_numbered_without_gaps() -> None:
    with pytest.raises(ValueError, match="gaps"):
        TenantsTree().put(1, LEAVES[0])
