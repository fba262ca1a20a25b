"""A trail that was restored more than once verifies from the checkpoints of all its states."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from service.audit.chain import Kind, read_chain
from service.audit.checkpoints import NO_HASH, Body, Checkpoint, Seal, Statement, parse_body, row_entry, seals_digest
from service.audit.merkle import Frontier, TenantsTree, leaf_hash, tenant_leaf
from service.audit.verify import Base, Report, Verifier
from tests.unit.audit_integrity.test_marks import BEGUN, SIGNER, TENANT, TRUSTED, row

pytestmark = pytest.mark.unit


class Written:
    """A trail with one tenant, and each state of its database that was sealed."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self._written = 0
        #: All that was ever signed, as a place outside the database has it.
        self.signed: list[Checkpoint] = []
        # What the database had at each checkpoint: the rows, and the checkpoints with their number.
        self._states: dict[int, tuple[list[int], list[Checkpoint]]] = {0: ([], [])}
        self.stored: list[Checkpoint] = []

    def seal(self, rows: int, *statements: Statement) -> None:
        """Write some rows and seal them."""
        first = len(self.rows)
        self.rows += range(self._written, self._written + rows)
        self._written += rows
        frontier, entries = Frontier(), list[bytes]()
        for position, one in enumerate(self.rows):
            frontier.append(leaf_hash(row(one)))
            if position >= first:
                entries.append(row_entry(_id(one), leaf_hash(row(one))))
        seal = Seal(TENANT, 0, first, frontier.size, frontier.root(), b"".join(entries))
        tree = TenantsTree()
        tree.put(0, tenant_leaf(TENANT, frontier.size, frontier.root()))
        number = len(self.signed) + 1
        body = Body(
            installation=TENANT,
            number=number,
            at=BEGUN + timedelta(seconds=number),
            previous=self.signed[-1].hash if self.signed else NO_HASH,
            tenants=1,
            tenants_root=tree.root(),
            rows=frontier.size,
            seals=seals_digest([seal]),
            statements=statements,
        )
        made = parse_body(body.encoded(), SIGNER.sign(body.encoded()), (seal,))
        self.signed.append(made)
        self.stored.append(made)
        self._states[number] = list(self.rows), list(self.stored)

    def restore(self, number: int) -> None:
        """Put the database back to what it was at a checkpoint, and declare it."""
        rows, stored = self._states[number]
        self.rows, self.stored = list(rows), list(stored)
        self.seal(1, Statement(Statement.RESTORED, resumes=number))

    def verified(self, *, stored: bool) -> Report:
        """Verify what the database has by what was exported, with the database's own checkpoints or offline."""
        verifier = Verifier(read_chain(self.signed, self.stored if stored else (), TRUSTED))
        verifier.tenant(TENANT, Base(), [row(one) for one in self.rows])
        return verifier.report()


def _id(number: int) -> UUID:
    return UUID(int=number)


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize(
    ("second", "void"),
    [(8, [0, 3]), (5, [0, 6]), (3, [0, 8])],
    ids=["to a state that the first one had made void", "to the same", "to an earlier one"],
)
def test_a_second_restore_counts_whatever_the_first_one_went_back_to(
    second: int, void: list[int], stored: bool
) -> None:
    trail = Written()
    for _ in range(9):
        trail.seal(2)
    trail.restore(5)
    trail.seal(2)
    trail.restore(second)
    trail.seal(2)
    report = trail.verified(stored=stored)
    assert report.problems == []
    assert (report.sealed, report.unverified) == (len(trail.rows), 0)
    assert [(one.number, one.resumes, one.void) for one in report.chain.restored] == [
        (10, 5, void[0]),
        (12, second, void[1]),
    ]


def test_what_a_restore_lost_is_not_vouched_for_when_it_is_put_back() -> None:
    trail = Written()
    for _ in range(9):
        trail.seal(2)
    lost = list(trail.rows)
    trail.restore(5)
    trail.rows = [*lost, *trail.rows[10:]]
    report = trail.verified(stored=True)
    assert (report.problems[0].kind, report.problems[0].position) == (Kind.INSERTED, 10)
