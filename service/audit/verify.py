"""Verifies rows of the trail against a chain of checkpoints. Pure: rows come as canonical lines, from wherever.

Every row under a checkpoint is hashed into its tenant's tree again and the root compared with each seal. Where that
differs, what the seals tell of each row (its id and the head of its hash) is read from the checkpoints once more: it
names the row and says what was done to it.
"""

from __future__ import annotations

import itertools
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

from service.audit.chain import FLOOR, Chain, Kind, Problem, problems_in_order
from service.audit.checkpoints import ID_BYTES, ROW_BYTES, matches, split_entry
from service.audit.encoding import name_of
from service.audit.marks import Numbered, TenantSeals
from service.audit.merkle import Frontier

#: Problems told at most; a report of millions helps nobody.
MOST_PROBLEMS: Final = 1000
_PROGRESS_ROWS: Final = 4096


@dataclass(frozen=True, slots=True)
class Base:
    """Where the rows of a tenant begin, after retention dropped the first `size`: what remains of the tree."""

    size: int = 0
    peaks: bytes = b""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A declared drop that the rows begin after."""

    tenant_id: UUID
    rows: int
    keep_days: int
    declared_in: int

    def document(self) -> dict[str, Any]:
        """Return the drop for a report."""
        return {
            "tenant_id": str(self.tenant_id),
            "rows": self.rows,
            "keep_days": self.keep_days,
            "declared_in": self.declared_in,
        }


@dataclass(frozen=True, slots=True)
class Unverified:
    """The rows of a tenant from where they stop being as they were sealed: of these nothing is claimed.

    `position` is the first of them, `rows` how many stand there. The checkpoints sealed the tenant's rows up to below
    `sealed_to`; what stands behind that was not sealed.
    """

    tenant_id: UUID
    position: int
    rows: int
    sealed_to: int

    def document(self) -> dict[str, Any]:
        """Return them for a report."""
        return {
            "tenant_id": str(self.tenant_id),
            "from_position": self.position,
            "rows": self.rows,
            "sealed_to": self.sealed_to,
        }


@dataclass(slots=True)
class Report:
    """What was found. Each row that was read is counted once: as `sealed`, as `unsealed`, or as `unverified`.

    `sealed` ones are as an exported checkpoint sealed them. `unsealed` ones are covered by none yet; `held` of them are
    as a checkpoint has them that is in the database alone.
    """

    chain: Chain
    rows: int = 0
    tenants: int = 0
    sealed: int = 0
    unsealed: int = 0
    held: int = 0
    oldest_unsealed: datetime | None = None
    unverified: int = 0
    unverified_tenants: list[Unverified] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def document(self, *, now: datetime) -> dict[str, Any]:
        """Return the report as it is printed."""
        chain, oldest = self.chain, self.oldest_unsealed
        return {
            "ok": self.ok,
            "rows": self.rows,
            "tenants": self.tenants,
            "checkpoints": {
                "count": chain.count,
                "first": chain.first,
                "last": chain.last,
                "exported": chain.exported,
                "last_at": None if chain.last_at is None else chain.last_at.isoformat(),
            },
            "first_bad": self.problems[0].document() if self.problems else None,
            "problems": [problem.document() for problem in self.problems],
            "sealed": {"rows": self.sealed},
            "unsealed": {
                "rows": self.unsealed,
                "in_database_only": self.held,
                "oldest_at": None if oldest is None else oldest.isoformat(),
                "age_seconds": None if oldest is None else max(0.0, (now - oldest).total_seconds()),
            },
            "unverified": {
                "rows": self.unverified,
                "tenants": [one.document() for one in self.unverified_tenants],
            },
            "dropped": [drop.document() for drop in self.dropped],
            "restored": [
                {
                    "checkpoint": one.number,
                    "at": one.at.isoformat(),
                    "resumes": one.resumes,
                    "void_checkpoints": one.void,
                    "lost_rows": one.lost_rows,
                }
                for one in chain.restored
            ],
        }


class Verifier:
    """Takes the tenants one after the other, then reports."""

    def __init__(self, chain: Chain, *, progress: Callable[[int], None] = lambda rows: None) -> None:
        """`progress` is told how many rows were read since it was last told."""
        self._chain = chain
        self._progress = progress
        self._report = Report(chain)
        self._found: list[Problem] = []
        self._seen: set[UUID] = set()

    def tenant(self, tenant_id: UUID, base: Base, lines: Iterable[bytes]) -> None:
        """Verify the rows of a tenant, given in order."""
        self._seen.add(tenant_id)
        report, before = self._report, self._report.rows
        report.tenants += 1
        seals = self._chain.seals.get(tenant_id) or TenantSeals(self._chain.known)
        frontier = self._begin(tenant_id, base, seals)
        begun, rest = frontier.size, self._counted(lines)
        bad = self._sealed(tenant_id, frontier, seals, rest)
        if bad is None:
            return
        if bad.named:
            expected = self._expected(tenant_id, seals, bad)
            _Diff(tenant_id, self._note).run(expected, itertools.chain(bad.lines, rest))
        for _ in rest:
            # They are counted, and nothing is said of them.
            pass
        behind = report.rows - before - (bad.verified - begun)
        report.unverified += behind
        if len(report.unverified_tenants) < MOST_PROBLEMS:
            sealed_to = seals[len(seals) - 1].size
            report.unverified_tenants.append(Unverified(tenant_id, bad.verified, behind, sealed_to))

    def report(self, *, only: UUID | None = None) -> Report:
        """Return what was found; tenants with seals and no rows given are missing, unless only one was asked for."""
        for tenant_id in sorted(self._chain.seals):
            if tenant_id not in self._seen and only in (None, tenant_id):
                self.tenant(tenant_id, Base(), ())
        self._report.problems = problems_in_order([*self._found, *self._chain.problems])
        return self._report

    def _begin(self, tenant_id: UUID, base: Base, seals: TenantSeals) -> Frontier:
        """Return the tree that the rows continue, once the dropped part is found to be declared and old."""
        if base.size == 0:
            return Frontier()
        declared = self._chain.dropped.get(tenant_id)
        last = next((one for one in seals if one.size == base.size), None)
        try:
            frontier = Frontier(base.size, base.peaks)
        except ValueError:
            return self._undeclared(tenant_id, base, "what remains of them does not fit")
        if declared is None or declared.size < base.size:
            return self._undeclared(tenant_id, base, "no signed checkpoint declares it")
        if last is None or frontier.root() != last.root:
            return self._undeclared(tenant_id, base, "what remains of them is not what was sealed")
        if declared.at - last.at < FLOOR:
            return self._undeclared(tenant_id, base, "they were younger than the floor")
        self._report.dropped.append(Dropped(tenant_id, base.size, declared.keep_days, declared.number))
        return frontier

    def _undeclared(self, tenant_id: UUID, base: Base, why: str) -> Frontier:
        detail = f"the first {base.size} rows are gone and {why}"
        self._note(Problem(Kind.DROPPED_UNDECLARED, detail, tenant_id=tenant_id, position=0))
        try:
            return Frontier(base.size, base.peaks)
        except ValueError:
            return Frontier()

    def _sealed(self, tenant_id: UUID, frontier: Frontier, seals: TenantSeals, lines: Iterator[bytes]) -> _Bad | None:
        """Hash the rows of each seal in turn; return where the first bad one is, or None when all are as sealed."""
        begun = frontier.size
        for place, numbered in enumerate(seals):
            if numbered.size <= begun:
                continue
            verified = frontier.size
            oldest: bytes | None = None
            # The seals before it may not be at hand; the root speaks for their rows too.
            while frontier.size < numbered.first and (line := next(lines, None)) is not None:
                oldest = oldest or line
                frontier.append(sha256(b"\x00" + line).digest())
            first, held = frontier.size, list[bytes]()
            while frontier.size < numbered.size and (line := next(lines, None)) is not None:
                frontier.append(sha256(b"\x00" + line).digest())
                held.append(line)
            if frontier.size < numbered.size or frontier.root() != numbered.root:
                return self._bad(tenant_id, place, numbered, first, held, verified)
            if rows := frontier.size - verified:
                self._count(numbered, rows, oldest or held[0])
        for line in itertools.islice(lines, 1):
            self._note_oldest(line)
            self._report.unsealed += 1 + sum(1 for _ in lines)
        return None

    def _bad(
        self, tenant_id: UUID, place: int, numbered: Numbered, first: int, held: list[bytes], verified: int
    ) -> _Bad:
        """Return the first row of a seal that is not as sealed; note it where only the root tells that one is not.

        The rows up to `verified` are as they were sealed. So are those of the seal before the bad one, unless others
        are between, of which only the root could tell.
        """
        entries = self._chain.rows_of(tenant_id, numbered)
        position = first + len(held)
        for index, line in enumerate(held):
            _, head = split_entry(entries, first + index - numbered.first)
            if not matches(sha256(b"\x00" + line).digest(), head):
                position = first + index
                break
        if position >= numbered.size:
            detail, row_id = "the rows do not add up to the sealed root", split_entry(entries, 0)[0]
            self._note(Problem(Kind.ROOT_DIFFERS, detail, numbered.number, tenant_id, numbered.size - 1, row_id))
            return _Bad(place, position, [], verified, named=False)
        if verified == first and position > first:
            self._count(numbered, position - first, held[0])
            verified = position
        return _Bad(place, position, held[position - first :], verified)

    def _expected(self, tenant_id: UUID, seals: TenantSeals, bad: _Bad) -> Iterator[_Expected]:
        """Yield what the seals tell of each row from the first bad one on."""
        for place in range(bad.place, len(seals)):
            numbered = seals[place]
            begin = max(numbered.first, bad.position)
            entries = self._chain.rows_of(tenant_id, numbered) if begin < numbered.size else b""
            for position in range(begin, numbered.size):
                yield position, *split_entry(entries, position - numbered.first), numbered.number

    def _count(self, numbered: Numbered, rows: int, oldest: bytes) -> None:
        """Count rows that are as a seal has them."""
        if numbered.number <= self._chain.exported:
            self._report.sealed += rows
            return
        self._report.unsealed += rows
        self._report.held += rows
        self._note_oldest(oldest)

    def _note_oldest(self, line: bytes) -> None:
        at, report = name_of(line).at, self._report
        if at is not None and (report.oldest_unsealed is None or at < report.oldest_unsealed):
            report.oldest_unsealed = at

    def _counted(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        told = 0
        for line in lines:
            self._report.rows += 1
            told += 1
            if told == _PROGRESS_ROWS:
                self._progress(told)
                told = 0
            yield line
        self._progress(told)

    def _note(self, problem: Problem) -> None:
        if len(self._found) < MOST_PROBLEMS:
            self._found.append(problem)


@dataclass(frozen=True, slots=True)
class _Bad:
    """The first row that is not as sealed: in which seal, at which position, and the lines read from there on.

    The rows up to `verified` are as sealed. Without `named` no row is known to be bad, and yet they do not add up.
    """

    place: int
    position: int
    lines: list[bytes]
    verified: int
    named: bool = True


#: What a seal tells of a row: its position, its id, the head of its hash, and the number of the checkpoint.
_Expected = tuple[int, UUID, bytes, int]


class _Diff:
    """Says of the rows from the first bad one on what was done to each, by the ids that the seals tell."""

    def __init__(self, tenant_id: UUID, note: Callable[[Problem], None]) -> None:
        self._tenant_id = tenant_id
        self._note = note

    def run(self, expected: Iterator[_Expected], lines: Iterator[bytes]) -> None:
        """Note what is wrong with the rows from the bad one on."""
        # As long as rows stand where they were sealed, nothing has to be known of those that come.
        for one in expected:
            line = next(lines, None)
            if line is None:
                for gone in itertools.chain([one], expected):
                    self._tell(Kind.REMOVED, gone, "the sealed row is gone")
                return
            if matches(sha256(b"\x00" + line).digest(), one[2]):
                continue
            row_id = name_of(line).id
            if row_id not in (None, one[1]):
                self._compare(_Rows(itertools.chain([one], expected)), itertools.chain([line], lines))
                return
            self._tell(Kind.EDITED, one, "the row is not what was sealed")

    def _compare(self, expected: _Rows, lines: Iterator[bytes]) -> None:
        skipped = bytearray(len(expected))
        at = 0
        for line in lines:
            leaf = sha256(b"\x00" + line).digest()
            if at < len(expected) and matches(leaf, expected[at][2]):
                at += 1
                continue
            row_id = name_of(line).id
            found = None if row_id is None else expected.find(row_id)
            if at >= len(expected) and found is None:
                # Behind the last seal: not sealed yet, so nothing can be said of it.
                break
            if found is None and row_id is None and at < len(expected):
                self._tell(Kind.EDITED, expected[at], "the row is not what was sealed")
                at += 1
            elif found is None:
                position = expected[at][0]
                detail = "a row that was never sealed stands before the one that was sealed here"
                self._note(Problem(Kind.INSERTED, detail, expected[at][3], self._tenant_id, position, row_id))
            elif found == at:
                self._tell(Kind.EDITED, expected[at], "the row is not what was sealed")
                at += 1
            elif found > at:
                skipped[at:found] = b"\x01" * (found - at)
                at = found + 1
                if not matches(leaf, expected[found][2]):
                    self._tell(Kind.EDITED, expected[found], "the row is not what was sealed")
            else:
                kind = Kind.REORDERED if skipped[found] else Kind.INSERTED
                skipped[found] = 0
                self._tell(kind, expected[found], "the row stands behind rows that were sealed after it")
        for place in range(len(expected)):
            if skipped[place] or place >= at:
                self._tell(Kind.REMOVED, expected[place], "the sealed row is gone")

    def _tell(self, kind: Kind, expected: _Expected, detail: str) -> None:
        position, row_id, _, number = expected
        self._note(Problem(kind, detail, number, self._tenant_id, position, row_id))


class _Rows:
    """What the seals tell of rows one after the other, in some forty bytes each, to be found by their ids.

    There may be millions behind the first bad one.
    """

    def __init__(self, expected: Iterable[_Expected]) -> None:
        self._entries = bytearray()
        # Where each seal begins: at which place, with which position, in which checkpoint.
        self._begins, self._positions, self._numbers = array("q"), array("q"), array("q")
        for place, (position, row_id, head, number) in enumerate(expected):
            if not self._numbers or self._numbers[-1] != number:
                self._begins.append(place)
                self._positions.append(position)
                self._numbers.append(number)
            self._entries += row_id.bytes + head
        self._slots: array[int] | None = None

    def __len__(self) -> int:
        return len(self._entries) // ROW_BYTES

    def __getitem__(self, place: int) -> _Expected:
        seal = bisect_right(self._begins, place) - 1
        position = self._positions[seal] + place - self._begins[seal]
        return position, *split_entry(self._entries, place), self._numbers[seal]

    def find(self, row_id: UUID) -> int | None:
        """Return the place of the row of an id, or None."""
        if self._slots is None:
            self._slots = self._filled()
        place = self._slots[self._slot(self._slots, row_id.bytes)]
        return None if place < 0 else place

    def _filled(self) -> array[int]:
        slots = array("i", [-1]) * (1 << (2 * len(self)).bit_length())
        for place in range(len(self)):
            slots[self._slot(slots, self._id(place))] = place
        return slots

    def _slot(self, slots: array[int], row_id: bytes) -> int:
        """Return where the place of an id stands, or the free slot where it would."""
        slot = hash(row_id) % len(slots)
        while slots[slot] >= 0 and self._id(slots[slot]) != row_id:
            slot = (slot + 1) % len(slots)
        return slot

    def _id(self, place: int) -> bytes:
        begin = place * ROW_BYTES
        return bytes(self._entries[begin : begin + ID_BYTES])
