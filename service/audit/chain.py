"""The chain of checkpoints as a verifier reads it: which are genuine, what they sealed, what they declare. Pure.

A signature vouches for its checkpoint and, through the hashes, for all before it, so only the last checkpoint of each
unbroken run needs its signature checked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from service.audit.checkpoints import NO_HASH, Checkpoint, Seal, Statement, seals_digest
from service.audit.merkle import EMPTY_ROOT, TenantsTree, tenant_leaf
from service.audit.signing import TrustedKeys

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
class Numbered:
    """A seal with the checkpoint that it belongs to."""

    seal: Seal
    number: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Declared:
    """A declaration that the first `size` rows of a tenant were dropped."""

    size: int
    keep_days: int
    number: int
    at: datetime


@dataclass(slots=True)
class Chain:
    """What the genuine checkpoints say together."""

    first: int = 0
    last: int = 0
    count: int = 0
    exported: int = 0
    last_at: datetime | None = None
    seals: dict[UUID, list[Numbered]] = field(default_factory=dict)
    dropped: dict[UUID, Declared] = field(default_factory=dict)
    restored: list[Restored] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def read_chain(exported: Iterable[Checkpoint], stored: Iterable[Checkpoint], keys: TrustedKeys) -> Chain:
    """Verify the checkpoints that were exported, together with those of the database, and return what they say.

    An exported one counts where both have it; one that the database alone has counts if it is genuine, but nothing
    stands behind it outside the database.
    """
    chain = Chain()
    known = _genuine(exported, {}, keys, chain, "exported")
    chain.exported = max(known, default=0)
    known = _with_stored(known, stored, keys, chain)
    void = _void(known, chain)
    numbers = [number for number in sorted(known) if number not in void]
    tree: TenantsTree | None = TenantsTree()
    previous: Checkpoint | None = None
    for number in numbers:
        checkpoint = known[number]
        if not _follows(checkpoint, previous, known, chain, first=number == numbers[0]):
            tree = None
        tree = _take(checkpoint, chain, tree)
        previous = checkpoint
    if previous is not None:
        chain.first, chain.last, chain.count = numbers[0], previous.body.number, len(numbers)
        chain.last_at = previous.body.at
    return chain


def _genuine(
    given: Iterable[Checkpoint], later: dict[int, Checkpoint], keys: TrustedKeys, chain: Chain, where: str
) -> dict[int, Checkpoint]:
    """Return the checkpoints that a signature stands behind, directly or through the one after it, of `later` too."""
    by_number: dict[int, Checkpoint] = {}
    for checkpoint in given:
        number = checkpoint.body.number
        other = by_number.get(number)
        if other is None or (other.hash == checkpoint.hash and not other.seals):
            by_number[number] = checkpoint
        elif other.hash != checkpoint.hash:
            signed = [one for one in (other, checkpoint) if keys.accept(one.encoded, one.signatures)]
            kind = Kind.CHECKPOINT_FORKED if len(signed) == 2 else Kind.CHECKPOINT_FORGED
            chain.problems.append(Problem(kind, f"two {where} checkpoints have this number", checkpoint=number))
            by_number[number] = signed[0] if signed else other
    genuine: dict[int, Checkpoint] = {}
    for number in sorted(by_number, reverse=True):
        checkpoint = by_number[number]
        after = genuine.get(number + 1) or later.get(number + 1)
        vouched = after is not None and after.body.previous == checkpoint.hash
        if vouched or keys.accept(checkpoint.encoded, checkpoint.signatures):
            genuine[number] = checkpoint
        else:
            detail = f"the {where} checkpoint is not signed by a trusted key"
            chain.problems.append(Problem(Kind.CHECKPOINT_FORGED, detail, checkpoint=number))
    return genuine


def _with_stored(
    exported: dict[int, Checkpoint], stored: Iterable[Checkpoint], keys: TrustedKeys, chain: Chain
) -> dict[int, Checkpoint]:
    """Add what the database has to what was exported, and say where it differs."""
    known, seen, others = dict(exported), set[int](), list[Checkpoint]()
    for checkpoint in stored:
        number = checkpoint.body.number
        seen.add(number)
        outside = exported.get(number)
        if outside is None or outside.hash != checkpoint.hash:
            others.append(checkpoint)
        elif not outside.seals and checkpoint.seals:
            known[number] = replace(outside, seals=checkpoint.seals)
    for number, checkpoint in _genuine(others, exported, keys, chain, "stored").items():
        if number not in exported:
            known[number] = checkpoint
        else:
            detail = "the database holds another checkpoint than was exported, and both are signed"
            chain.problems.append(Problem(Kind.CHECKPOINT_FORKED, detail, checkpoint=number))
    if seen:
        void = _void(known, Chain())
        gone = sorted(number for number in exported if number not in seen and number not in void)
        if gone:
            detail = f"{len(gone)} exported checkpoints are not in the database"
            chain.problems.append(Problem(Kind.CHECKPOINT_MISSING, detail, checkpoint=gone[0]))
    return known


def _void(known: dict[int, Checkpoint], chain: Chain) -> set[int]:
    """Return the numbers that a declared restore made void, and note the restores."""
    void: set[int] = set()
    for number in sorted(known):
        for statement in known[number].body.statements:
            if statement.what == Statement.RESTORED and 0 <= statement.resumes < number:
                gone = [one for one in known if statement.resumes < one < number and one not in void]
                void.update(range(statement.resumes + 1, number))
                kept = known.get(statement.resumes)
                before = max((known[one].body.rows for one in gone), default=0)
                lost = max(0, before - (kept.body.rows if kept else 0)) if gone else 0
                at = known[number].body.at
                chain.restored.append(Restored(number, at, statement.resumes, len(gone), lost))
    return void


def _follows(
    checkpoint: Checkpoint, previous: Checkpoint | None, known: dict[int, Checkpoint], chain: Chain, *, first: bool
) -> bool:
    """Check the hash of the one before; tell whether nothing is missing in between."""
    body = checkpoint.body
    resumed = [one for one in body.statements if one.what == Statement.RESTORED]
    if first:
        # Checkpoints before the first one at hand are not asked for: a sink may have been added later.
        return body.number == 1 and body.previous == NO_HASH
    assert previous is not None
    if resumed:
        voided = known.get(body.number - 1)
        if voided is not None and voided.hash != body.previous:
            chain.problems.append(
                Problem(Kind.CHECKPOINT_FORKED, "does not follow the one before it", checkpoint=body.number)
            )
        if previous.body.number < resumed[-1].resumes:
            detail = f"checkpoints {previous.body.number + 1} to {resumed[-1].resumes} are missing"
            chain.problems.append(Problem(Kind.CHECKPOINT_MISSING, detail, checkpoint=previous.body.number + 1))
        return previous.body.number == resumed[-1].resumes
    if previous.body.number != body.number - 1:
        detail = f"checkpoints {previous.body.number + 1} to {body.number - 1} are missing"
        chain.problems.append(Problem(Kind.CHECKPOINT_MISSING, detail, checkpoint=previous.body.number + 1))
        return False
    if previous.hash != body.previous:
        chain.problems.append(
            Problem(Kind.CHECKPOINT_FORKED, "does not follow the one before it", checkpoint=body.number)
        )
        return False
    return True


def _take(checkpoint: Checkpoint, chain: Chain, tree: TenantsTree | None) -> TenantsTree | None:
    """Take the seals and statements of a genuine checkpoint; return the tree over all tenants while it is known."""
    body = checkpoint.body
    for statement in body.statements:
        if statement.what == Statement.DROPPED and statement.tenant_id is not None:
            chain.dropped[statement.tenant_id] = Declared(statement.size, statement.keep_days, body.number, body.at)
    if seals_digest(checkpoint.seals) != body.seals:
        detail = "its seals are missing or changed, so the rows under it cannot be named"
        chain.problems.append(Problem(Kind.SEALS_MISSING, detail, checkpoint=body.number))
        return None
    try:
        for seal in checkpoint.seals:
            chain.seals.setdefault(seal.tenant_id, []).append(Numbered(seal, body.number, body.at))
            if tree is not None:
                tree.put(seal.ordinal, tenant_leaf(seal.tenant_id, seal.size, seal.root))
    except ValueError:
        tree = None
        root = b""
    else:
        root = body.tenants_root if tree is None else tree.root() if len(tree) else EMPTY_ROOT
    if root != body.tenants_root:
        detail = "its tree over all tenants is not that of its seals"
        chain.problems.append(Problem(Kind.ROOT_DIFFERS, detail, checkpoint=body.number))
        return None
    return tree


def problems_in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Return the problems of rows first, since they name what happened, then those of checkpoints; the oldest first."""

    def place(one: Problem) -> tuple[bool, int, str, int]:
        return one.position is None, one.checkpoint or 0, str(one.tenant_id), one.position or 0

    return sorted(problems, key=place)
