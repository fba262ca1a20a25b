"""The chain of checkpoints as a verifier reads it: which are genuine, what they sealed, what they declare.

A signature vouches for its checkpoint and, through the hashes, for all before it, so only the last checkpoint of each
unbroken run needs its signature checked. Each is read once and a mark of it kept; what is wrong is read once more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from service.audit.checkpoints import NO_HASH, Checkpoint, Statement, seals_digest
from service.audit.marks import CHANGED, Flag, Listed, Mark, Marks, Numbered, Source, TenantSeals, read_again
from service.audit.merkle import EMPTY_ROOT, TenantsTree, tenant_leaf
from service.audit.signing import TrustedKeys
from service.errors import Unavailable

#: The trail is kept for this long whatever a statement says.
FLOOR: Final = timedelta(days=183)


class Kind(StrEnum):
    """What is wrong."""

    EDITED = "edited"
    REMOVED = "removed"
    INSERTED = "inserted"
    REORDERED = "reordered"
    DROPPED_UNDECLARED = "dropped_undeclared"
    ROOT_DIFFERS = "root_differs"
    CHECKPOINT_FORGED = "checkpoint_forged"
    CHECKPOINT_MISSING = "checkpoint_missing"
    CHECKPOINT_FORKED = "checkpoint_forked"
    CHECKPOINT_UNREADABLE = "checkpoint_unreadable"
    SEALS_MISSING = "seals_missing"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and where."""

    kind: Kind
    detail: str
    checkpoint: int | None = None
    tenant_id: UUID | None = None
    position: int | None = None
    row_id: UUID | None = None

    def document(self) -> dict[str, Any]:
        """Return the problem for a report."""
        return {
            "kind": self.kind.value,
            "detail": self.detail,
            "checkpoint": self.checkpoint,
            "tenant_id": None if self.tenant_id is None else str(self.tenant_id),
            "position": self.position,
            "row_id": None if self.row_id is None else str(self.row_id),
        }


@dataclass(frozen=True, slots=True)
class Restored:
    """A declared restore: the database went back to checkpoint `resumes`, those in `void` count no more."""

    number: int
    at: datetime
    resumes: int
    void: int
    lost_rows: int


@dataclass(frozen=True, slots=True)
class Declared:
    """A declaration that the first `size` rows of a tenant were dropped."""

    size: int
    keep_days: int
    number: int
    at: datetime


@dataclass(slots=True)
class Chain:
    """What the genuine checkpoints say together; `outside` and `inside` are where they were read from."""

    outside: Source
    inside: Source
    known: Marks = field(default_factory=Marks)
    first: int = 0
    last: int = 0
    count: int = 0
    exported: int = 0
    last_at: datetime | None = None
    seals: dict[UUID, TenantSeals] = field(default_factory=dict)
    dropped: dict[UUID, Declared] = field(default_factory=dict)
    restored: list[Restored] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def rows_of(self, tenant_id: UUID, numbered: Numbered) -> bytes:
        """Return what a seal tells of each of its rows, read again from its checkpoint.

        Raises:
            Unavailable: when the checkpoint is not there any more.
        """
        mark = self.known.get(numbered.number)
        inside = mark.flags & (Flag.STORED | Flag.LENT)
        found = read_again(self.inside if inside else self.outside, mark.place, mark.hash)
        if seals_digest(found.seals) == found.body.seals:
            for seal in found.seals:
                if (seal.tenant_id, seal.first, seal.size) == (tenant_id, numbered.first, numbered.size):
                    return seal.rows
        raise Unavailable(CHANGED)


def read_chain(
    exported: Source | Iterable[Checkpoint], stored: Source | Iterable[Checkpoint], keys: TrustedKeys
) -> Chain:
    """Verify the checkpoints that were exported, together with those of the database, and return what they say.

    An exported one counts where both have it; one that the database alone has counts if it is genuine, but nothing
    stands behind it outside the database.

    Raises:
        Unavailable: when one that is needed again is not there any more.
    """
    chain = Chain(_source(exported), _source(stored))
    known = chain.known
    for place, checkpoint in chain.outside.places():
        if checkpoint is not None:
            _gather(known, chain.outside, place, checkpoint, keys, chain, "exported")
    _keep_genuine(known, chain.outside, Marks(), keys, chain, "exported")
    chain.exported = known.highest() or 0
    _with_stored(chain, keys)
    tree: TenantsTree | None = TenantsTree()
    previous: tuple[int, Mark] | None = None
    for number in known.numbers():
        mark = known.get(number)
        if mark.flags & Flag.VOID:
            continue
        if not _follows(number, mark, previous, chain):
            tree = None
        tree = _take(number, mark, chain, tree)
        if previous is None:
            chain.first = number
        chain.last, chain.last_at = number, mark.time
        chain.count += 1
        previous = number, mark
    return chain


def _source(given: Source | Iterable[Checkpoint]) -> Source:
    return given if isinstance(given, Source) else Listed(given)


def _gather(
    marks: Marks, source: Source, place: int, checkpoint: Checkpoint, keys: TrustedKeys, chain: Chain, where: str
) -> None:
    """Keep a checkpoint, or of two with one number the one that is signed."""
    number, digest = checkpoint.body.number, bytes.fromhex(checkpoint.hash)
    other = marks.find(number)
    if other is None or (other.hash == digest and not other.flags & Flag.SEALED):
        marks.take(place, checkpoint)
    elif other.hash != digest:
        first = read_again(source, other.place, other.hash)
        signed = [one for one in (first, checkpoint) if keys.accept(one.encoded, one.signatures)]
        kind = Kind.CHECKPOINT_FORKED if len(signed) == 2 else Kind.CHECKPOINT_FORGED
        chain.problems.append(Problem(kind, f"two {where} checkpoints have this number", checkpoint=number))
        if signed and signed[0] is checkpoint:
            marks.take(place, checkpoint)


def _keep_genuine(marks: Marks, source: Source, later: Marks, keys: TrustedKeys, chain: Chain, where: str) -> None:
    """Forget the checkpoints that no signature stands behind, directly or through the one after it, of `later` too."""
    for number in marks.numbers(reverse=True):
        mark = marks.get(number)
        after = marks.find(number + 1) or later.find(number + 1)
        if after is not None and after.previous == mark.hash:
            continue
        checkpoint = read_again(source, mark.place, mark.hash)
        if not keys.accept(checkpoint.encoded, checkpoint.signatures):
            marks.remove(number)
            detail = f"the {where} checkpoint is not signed by a trusted key"
            chain.problems.append(Problem(Kind.CHECKPOINT_FORGED, detail, checkpoint=number))


def _with_stored(chain: Chain, keys: TrustedKeys) -> None:
    """Add what the database has to what was exported, and say where it differs."""
    known, others, seen = chain.known, Marks(chain.known.seals), False
    for place, checkpoint in chain.inside.places():
        seen = True
        number = place if checkpoint is None else checkpoint.body.number
        outside = known.find(number)
        if checkpoint is None:
            detail = "the stored checkpoint cannot be read as one of its number"
            chain.problems.append(Problem(Kind.CHECKPOINT_UNREADABLE, detail, checkpoint=number))
        elif outside is None or outside.hash != bytes.fromhex(checkpoint.hash):
            _gather(others, chain.inside, place, checkpoint, keys, chain, "stored")
        elif not outside.flags & Flag.SEALED and checkpoint.seals:
            known.lend(place, checkpoint)
        if outside is not None:
            known.flag(number, Flag.SEEN)
    _keep_genuine(others, chain.inside, known, keys, chain, "stored")
    for number in others.numbers():
        if known.find(number) is None:
            known.adopt(number, others)
        else:
            detail = "the database holds another checkpoint than was exported, and both are signed"
            chain.problems.append(Problem(Kind.CHECKPOINT_FORKED, detail, checkpoint=number))
    _void(chain)
    if seen:
        _tell_missing(chain)


def _tell_missing(chain: Chain) -> None:
    """Say which exported checkpoints the database lacks, without those that are void."""
    first, count = 0, 0
    for number in chain.known.numbers():
        if not chain.known.get(number).flags & (Flag.SEEN | Flag.STORED | Flag.VOID):
            first, count = first if count else number, count + 1
    if count:
        detail = f"{count} exported checkpoints are not in the database"
        chain.problems.append(Problem(Kind.CHECKPOINT_MISSING, detail, checkpoint=first))


def _void(chain: Chain) -> None:
    """Mark the checkpoints that a declared restore made void, and note the restores.

    From the newest on: a later one may have gone back to before an earlier one, to a state that this had made void.
    """
    known = chain.known
    for number in sorted(known.statements, reverse=True):
        undone = bool(known.get(number).flags & Flag.VOID)
        for statement in known.statements[number]:
            if statement.what == Statement.RESTORED and 0 <= statement.resumes < number:
                void, before = 0, 0
                for one in () if undone else known.numbers(statement.resumes + 1, number):
                    mark = known.get(one)
                    if not mark.flags & Flag.VOID:
                        known.flag(one, Flag.VOID)
                        void, before = void + 1, max(before, mark.rows)
                kept = known.find(statement.resumes)
                lost = max(0, before - (kept.rows if kept else 0)) if void else 0
                at = known.get(number).time
                chain.restored.append(Restored(number, at, statement.resumes, void, lost))
    chain.restored.reverse()


def _follows(number: int, mark: Mark, previous: tuple[int, Mark] | None, chain: Chain) -> bool:
    """Check the hash of the one before; tell whether nothing is missing in between."""
    if previous is None:
        # Checkpoints before the first one at hand are not asked for: a sink may have been added later.
        return number == 1 and mark.previous == bytes.fromhex(NO_HASH)
    before, other = previous
    statements = chain.known.statements.get(number, ())
    resumed = [one.resumes for one in statements if one.what == Statement.RESTORED]
    wanted = resumed[-1] if resumed else number - 1
    if before < wanted:
        detail = f"checkpoints {before + 1} to {wanted} are missing"
        chain.problems.append(Problem(Kind.CHECKPOINT_MISSING, detail, checkpoint=before + 1))
    # What a restore made void is followed by its declaration too.
    last = chain.known.find(number - 1) if resumed else other if before == wanted else None
    if last is not None and last.hash != mark.previous:
        chain.problems.append(Problem(Kind.CHECKPOINT_FORKED, "does not follow the one before it", checkpoint=number))
        return bool(resumed) and before == wanted
    return before == wanted


def _take(number: int, mark: Mark, chain: Chain, tree: TenantsTree | None) -> TenantsTree | None:
    """Take the seals and statements of a genuine checkpoint; return the tree over all tenants while it is known."""
    for statement in chain.known.statements.get(number, ()):
        if statement.what == Statement.DROPPED and statement.tenant_id is not None:
            chain.dropped[statement.tenant_id] = Declared(statement.size, statement.keep_days, number, mark.time)
    if not mark.flags & Flag.FITS:
        detail = "its seals are missing or changed, so the rows under it cannot be named"
        chain.problems.append(Problem(Kind.SEALS_MISSING, detail, checkpoint=number))
        return None
    try:
        for place in range(mark.seals, mark.seals + mark.seal_count):
            _, tenant_id, ordinal, _, size, root = chain.known.seals.of(place)
            if tenant_id not in chain.seals:
                chain.seals[tenant_id] = TenantSeals(chain.known)
            chain.seals[tenant_id].append(place)
            if tree is not None:
                tree.put(ordinal, tenant_leaf(tenant_id, size, root))
    except ValueError:
        tree, root = None, b""
    else:
        root = mark.tenants_root if tree is None else tree.root() if len(tree) else EMPTY_ROOT
    if root != mark.tenants_root:
        detail = "its tree over all tenants is not that of its seals"
        chain.problems.append(Problem(Kind.ROOT_DIFFERS, detail, checkpoint=number))
        return None
    return tree


def problems_in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Return the problems of rows first, since they name what happened, then those of checkpoints; the oldest first."""

    def place(one: Problem) -> tuple[bool, int, str, int]:
        return one.position is None, one.checkpoint or 0, str(one.tenant_id), one.position or 0

    return sorted(problems, key=place)
