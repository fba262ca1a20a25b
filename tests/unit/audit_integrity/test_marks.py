"""A chain of checkpoints is read in a few hundred bytes for each, and read again where it is needed."""

from __future__ import annotations

import itertools
import tracemalloc
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from service import clock
from service.audit.chain import Kind, read_chain
from service.audit.checkpoints import (
    NO_HASH,
    ROW_BYTES,
    Body,
    Checkpoint,
    Seal,
    parse_body,
    parse_line,
    row_entry,
    seals_digest,
)
from service.audit.merkle import Frontier, TenantsTree, leaf_hash, tenant_leaf
from service.audit.signing import Signer, TrustedKeys
from service.audit.sinks.folder import CheckpointFiles
from service.audit.verify import Base, Verifier
from service.errors import Unavailable

pytestmark = pytest.mark.unit

SIGNER = Signer(Ed25519PrivateKey.generate())
TRUSTED = TrustedKeys(SIGNER.public_keys())
TENANT = UUID(int=7)
BEGUN = clock.now()
#: What a process may keep of a checkpoint, one tenant's rows sealed in it, however many.
MOST_BYTES = 300


def row(position: int) -> bytes:
    """A row as far as a verifier reads it."""
    return f'{{"id" : "{UUID(int=position)}", "at" : 0}}'.encode()


class Made:
    """Checkpoints as lines, `rows` of a tenant in each, the last one signed or all of them."""

    def __init__(self, count: int, rows: int, *, all_signed: bool = False) -> None:
        self.lines = list(self._made(count, rows, all_signed))

    def places(self) -> Iterator[tuple[int, Checkpoint]]:
        return ((place, parse_line(line)) for place, line in enumerate(self.lines))

    def at(self, place: int) -> Checkpoint:
        return parse_line(self.lines[place])

    @staticmethod
    def _made(count: int, rows: int, all_signed: bool) -> Iterator[bytes]:
        tree, frontier, previous = TenantsTree(), Frontier(), NO_HASH
        for number in range(1, count + 1):
            first, entries = frontier.size, list[bytes]()
            for position in range(first, first + rows):
                leaf = leaf_hash(row(position))
                frontier.append(leaf)
                entries.append(row_entry(UUID(int=position), leaf))
            root = frontier.root()
            seal = Seal(TENANT, 0, first, frontier.size, root, b"".join(entries))
            tree.put(0, tenant_leaf(TENANT, frontier.size, root))
            at, digest = BEGUN + timedelta(seconds=number), seals_digest([seal])
            encoded = Body(TENANT, number, at, previous, 1, tree.root(), frontier.size, digest).encoded()
            signed = SIGNER.sign(encoded) if all_signed or number == count else {}
            made = parse_body(encoded, signed, (seal,))
            previous = made.hash
            yield made.line()


def test_what_is_kept_of_a_checkpoint_does_not_grow_with_its_rows() -> None:
    for rows in (1, 50):
        made = Made(1000, rows)
        tracemalloc.start()
        try:
            chain = read_chain(made, (), TRUSTED)
            kept, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert (chain.problems, chain.count, len(chain.seals[TENANT])) == ([], 1000, 1000)
        # The peak has a page of them and what is at hand in between.
        assert kept / 1000 < MOST_BYTES
        assert peak / 1000 < MOST_BYTES + 50
        assert ROW_BYTES * 50 > MOST_BYTES


def test_a_bucket_that_was_copied_costs_little_more_for_each_of_its_files(tmp_path: Path) -> None:
    made = Made(1000, 1)
    folder = tmp_path / "copied" / "from" / "a" / "bucket"
    folder.mkdir(parents=True)
    for number, line in enumerate(made.lines):
        (folder / f"{number:012}.json").write_bytes(line + b"\n")
    tracemalloc.start()
    try:
        files = CheckpointFiles(tmp_path)
        kept = tracemalloc.get_traced_memory()[0]
        chain = read_chain(files, (), TRUSTED)
    finally:
        tracemalloc.stop()
    assert (chain.problems, chain.count) == ([], 1000)
    assert kept / 1000 < 80
    # With traffic in every second there are 16 million a year.
    last, _ = deque(files.places(), maxlen=1)[0]
    assert last // 999 * 50_000_000 < 1 << 63


def test_a_bad_row_is_named_from_the_checkpoint_that_is_read_again() -> None:
    made = Made(20, 5)
    rows = [row(position) for position in range(100)]
    rows[42] = rows[42].replace(b'"at" : 0', b'"at" : 1')
    verifier = Verifier(read_chain(made, (), TRUSTED))
    verifier.tenant(TENANT, Base(), rows)
    (problem,) = verifier.report().problems
    assert (problem.kind, problem.position, problem.checkpoint) == (Kind.EDITED, 42, 9)
    assert problem.row_id == UUID(int=42)


def test_a_checkpoint_that_is_another_one_when_it_is_read_again_is_no_verdict() -> None:
    made = Made(20, 5)
    chain = read_chain(made, (), TRUSTED)
    made.lines = Made(20, 4).lines
    with pytest.raises(Unavailable, match="changed while they were read"):
        Verifier(chain).tenant(TENANT, Base(), [row(position) for position in range(42)])


def test_numbers_that_nobody_counts_to_are_told_as_forged() -> None:
    (_, good), *_ = Made(1, 1).places()
    huge = 1 << 70
    seal = replace(good.seals[0], first=huge, size=huge + 1)
    for body in (
        replace(good.body, number=huge),
        replace(good.body, number=2, rows=huge),
        replace(good.body, number=2, at=good.body.at.replace(tzinfo=None), previous="nonsense", tenants_root=b""),
    ):
        encoded = b"forged"
        forged = Checkpoint(body, encoded, {}, (seal,))
        chain = read_chain([good, forged], (), TRUSTED)
        assert [(one.kind, one.checkpoint) for one in chain.problems] == [(Kind.CHECKPOINT_FORGED, body.number)]
        assert (chain.count, chain.exported) == (1, 1)


def test_a_bad_row_at_the_beginning_makes_a_verifier_keep_little_of_those_behind_it() -> None:
    made = Made(200, 100)
    chain = read_chain(made, (), TRUSTED)
    edited = row(0).replace(b'"at" : 0', b'"at" : 1')
    # An edited row, one that was put before it, one that is gone: what is kept of each row behind it.
    for begin, most, kind in (
        ([edited], 5, Kind.EDITED),
        ([row(1 << 100), row(0)], 60, Kind.INSERTED),
        ([], 60, Kind.REMOVED),
    ):
        verifier = Verifier(chain)
        tracemalloc.start()
        try:
            verifier.tenant(TENANT, Base(), itertools.chain(begin, map(row, range(1, 20_000))))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        (problem,) = verifier.report().problems
        assert (problem.kind, problem.position) == (kind, 0)
        assert peak / 20_000 < most
