"""Merkle trees as in RFC 6962: append-only ones for the rows of a tenant, one of replaceable leaves over all tenants.

A leaf is SHA-256(0x00 ‖ data), a node SHA-256(0x01 ‖ left ‖ right); a tree of n leaves splits at the largest power of
two below n. Pure: no store, no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final
from uuid import UUID

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node."""
    return sha256(b"\x01" + left + right).digest()


def tenant_leaf(tenant_id: UUID, size: int, root: bytes) -> bytes:
    """Return the leaf of a tenant in the tree over all tenants: its id, how many rows its tree has, and their root."""
    return leaf_hash(tenant_id.bytes + size.to_bytes(8, "big") + root)


class Frontier:
    """What an append-only tree is continued from: the roots of its complete subtrees, the largest first."""

    __slots__ = ("_peaks", "size")

    def __init__(self, size: int = 0, peaks: bytes = b"") -> None:
        """Take up a tree of `size` leaves again.

        Raises:
            ValueError: when the number of peaks does not belong to that size.
        """
        if size < 0 or len(peaks) != HASH_BYTES * size.bit_count():
            raise ValueError("the frontier does not belong to a tree of that size")
        self.size = size
        self._peaks = [peaks[start : start + HASH_BYTES] for start in range(0, len(peaks), HASH_BYTES)]

    def append(self, leaf: bytes) -> None:
        """Add a leaf, given by its hash."""
        peaks, size = self._peaks, self.size
        while size & 1:
            leaf = sha256(b"\x01" + peaks.pop() + leaf).digest()
            size >>= 1
        peaks.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """Return the root of the tree so far."""
        if not self._peaks:
            return EMPTY_ROOT
        node = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            node = node_hash(peak, node)
        return node

    def peaks(self) -> bytes:
        """Return the peaks, to be kept with the size."""
        return b"".join(self._peaks)

    def complete_subtrees(self) -> dict[tuple[int, int], bytes]:
        """Return the peaks by the half-open range of leaves that each covers."""
        covered, start = {}, 0
        heights = [height for height in reversed(range(self.size.bit_length())) if self.size >> height & 1]
        for height, peak in zip(heights, self._peaks, strict=True):
            covered[start, start + (1 << height)] = peak
            start += 1 << height
        return covered


def inclusion_path(before: Frontier, leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return the audit path of the leaf `index` in the tree of `before` continued by `leaves`; nearest sibling first.

    The leaf must be one of `leaves`: what came before is only known by its peaks.
    """
    known, first = before.complete_subtrees(), before.size
    size = first + len(leaves)
    if not first <= index < size:
        raise ValueError("the leaf is not among those given")

    def subtree(start: int, end: int) -> bytes:
        if (start, end) in known:
            return known[start, end]
        if end - start == 1:
            return leaves[start - first]
        middle = start + _split(end - start)
        return node_hash(subtree(start, middle), subtree(middle, end))

    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(subtree(middle, end))
            end = middle
        else:
            path.append(subtree(start, middle))
            start = middle
    return path[::-1]


def root_of_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root that a path leads to (RFC 9162, 2.1.3.2), or None for a path that fits no such tree."""
    node, last = leaf, size - 1
    if not 0 <= index <= last:
        return None
    for sibling in path:
        if last == 0:
            return None
        if index & 1 or index == last:
            node = node_hash(sibling, node)
            while not index & 1 and index:
                index >>= 1
                last >>= 1
        else:
            node = node_hash(node, sibling)
        index >>= 1
        last >>= 1
    return node if last == 0 else None


class TenantsTree:
    """The tree over all tenants: leaf n is the tenant that was sealed n-th for the first time, replaced as it grows."""

    def __init__(self) -> None:
        self._levels: list[list[bytes]] = [[]]
        self._changed: set[int] = set()

    def __len__(self) -> int:
        return len(self._levels[0])

    def put(self, ordinal: int, leaf: bytes) -> None:
        """Replace a leaf, or add the next one.

        Raises:
            ValueError: when that would leave a gap.
        """
        leaves = self._levels[0]
        if not 0 <= ordinal <= len(leaves):
            raise ValueError("tenants are numbered without gaps")
        if ordinal == len(leaves):
            leaves.append(leaf)
        else:
            leaves[ordinal] = leaf
        self._changed.add(ordinal)

    def root(self) -> bytes:
        """Return the root; the work is that of the leaves changed since the last call."""
        changed, height = self._changed, 0
        while len(below := self._levels[height]) > 1:
            if height + 1 == len(self._levels):
                self._levels.append([])
            above = self._levels[height + 1]
            # A node without a sibling goes up as it is.
            above.extend([b""] * ((len(below) + 1) // 2 - len(above)))
            changed = {index >> 1 for index in changed}
            for index in changed:
                left, right = 2 * index, 2 * index + 1
                above[index] = node_hash(below[left], below[right]) if right < len(below) else below[left]
            height += 1
        self._changed = set()
        return self._levels[height][0] if self._levels[0] else EMPTY_ROOT

    def path(self, ordinal: int) -> list[bytes]:
        """Return the audit path of a tenant's leaf, nearest sibling first."""
        self.root()
        path = []
        for level in self._levels[:-1]:
            sibling = ordinal ^ 1
            if sibling < len(level):
                path.append(level[sibling])
            ordinal >>= 1
        return path


def _split(count: int) -> int:
    """Return the largest power of two below a count of two or more."""
    return 1 << ((count - 1).bit_length() - 1)
