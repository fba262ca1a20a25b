"""A report counts every row once: as sealed, as not sealed yet, or as one of which nothing can be said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import pytest

from service import clock
from service.audit import verify
from service.audit.chain import Kind, read_chain
from service.audit.checkpoints import Checkpoint
from service.audit.encoding import RowName
from service.audit.verify import Base, Report, Verifier
from tests.unit.audit_integrity.test_marks import TENANT, TRUSTED, Made, row

pytestmark = pytest.mark.unit

#: Five checkpoints over 25 rows, the last of them not exported yet, and five rows more.
CHECKPOINTS = [one for _, one in Made(5, 5, all_signed=True).places()]
EXPORTED = CHECKPOINTS[:4]
ROWS = [row(position) for position in range(30)]
SEALED_TO = 25


def edited(position: int) -> list[bytes]:
    """The rows with one that is changed."""
    return [*ROWS[:position], ROWS[position].replace(b'"at" : 0', b'"at" : 1'), *ROWS[position + 1 :]]


def verified(
    lines: Sequence[bytes] | None, exported: Sequence[Checkpoint] = EXPORTED, stored: Sequence[Checkpoint] = CHECKPOINTS
) -> Report:
    """The report on these rows; on none at all where the tenant is gone."""
    verifier = Verifier(read_chain(exported, stored, TRUSTED))
    if lines is not None:
        verifier.tenant(TENANT, Base(), lines)
    return verifier.report()


def counted(report: Report) -> tuple[int, int, int, int | None]:
    """How many rows are sealed, in the database's own checkpoint, and in none, and where nothing is said any more."""
    document = report.document(now=clock.now())
    sealed, unsealed, unverified = (document[name] for name in ("sealed", "unsealed", "unverified"))
    assert sealed["rows"] + unsealed["rows"] + unverified["rows"] == report.rows
    assert unverified["rows"] == sum(one["rows"] for one in unverified["tenants"])
    held = unsealed["in_database_only"]
    begin: int | None = None
    if unverified["tenants"]:
        (one,) = unverified["tenants"]
        begin = one["from_position"]
        assert (one["tenant_id"], one["sealed_to"]) == (str(TENANT), SEALED_TO)
    return sealed["rows"], held, unsealed["rows"] - held, begin


CASES: dict[str, tuple[Sequence[bytes] | None, tuple[int, int, int, int | None], Kind | None]] = {
    "as sealed": (ROWS, (20, 5, 5, None), None),
    "edited under an exported checkpoint": (edited(12), (12, 0, 0, 12), Kind.EDITED),
    "the first of a checkpoint edited": (edited(10), (10, 0, 0, 10), Kind.EDITED),
    "edited under a checkpoint of the database": (edited(22), (20, 2, 0, 22), Kind.EDITED),
    "edited before it was sealed": (edited(27), (20, 5, 5, None), None),
    "removed": ([*ROWS[:12], *ROWS[13:]], (12, 0, 0, 12), Kind.REMOVED),
    "inserted": ([*ROWS[:12], row(99), *ROWS[12:]], (12, 0, 0, 12), Kind.INSERTED),
    "moved": ([*ROWS[:12], ROWS[13], ROWS[12], *ROWS[14:]], (12, 0, 0, 12), Kind.REORDERED),
    "cut off": (ROWS[:12], (12, 0, 0, 12), Kind.REMOVED),
    "cut off where a checkpoint ended": (ROWS[:15], (15, 0, 0, 15), Kind.REMOVED),
    "all gone": ([], (0, 0, 0, 0), Kind.REMOVED),
    "the tenant gone": (None, (0, 0, 0, 0), Kind.REMOVED),
}


@pytest.mark.parametrize(("lines", "counts", "kind"), CASES.values(), ids=CASES)
def test_a_report_says_how_far_it_vouches(
    lines: Sequence[bytes] | None, counts: tuple[int, int, int, int | None], kind: Kind | None
) -> None:
    report = verified(lines)
    assert counted(report) == counts
    assert report.rows == len(lines or ())
    assert (report.problems[0].kind if report.problems else None) is kind
    if kind is not None:
        assert report.problems[0].position == counts[3]


def test_rows_that_only_a_root_speaks_for_are_not_vouched_for_when_it_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "matches", lambda leaf, head: True)
    report = verified(edited(12))
    assert [(one.kind, one.position) for one in report.problems] == [(Kind.ROOT_DIFFERS, 14)]
    assert counted(report) == (10, 0, 0, 10)
    assert report.rows == len(ROWS), "what stands behind it is counted too"


@pytest.mark.parametrize("position", [11, 17])
def test_rows_of_a_checkpoint_that_is_missing_are_not_vouched_for_when_the_next_differs(position: int) -> None:
    without = [*CHECKPOINTS[:2], *CHECKPOINTS[3:]]
    as_it_is = verified(ROWS, without[:3], without)
    assert counted(as_it_is) == (20, 5, 5, None)
    assert [one.kind for one in as_it_is.problems] == [Kind.CHECKPOINT_MISSING]
    assert counted(verified(edited(position), without[:3], without)) == (10, 0, 0, 10)


def test_without_exported_checkpoints_nothing_is_sealed() -> None:
    assert counted(verified(ROWS, exported=())) == (0, 25, 5, None)


def at(seconds: int) -> bytes:
    """A row of that time."""
    return row(seconds).replace(b'"at" : 0', b'"at" : %d' % (seconds * 1_000_000))


def test_the_oldest_row_that_is_not_sealed_is_that_of_all_tenants() -> None:
    verifier = Verifier(read_chain((), (), TRUSTED))
    for number, seconds in enumerate((50, 30, 40)):
        verifier.tenant(UUID(int=number), Base(), [at(seconds), at(seconds + 100)])
    report = verifier.report()
    assert (report.unsealed, report.oldest_unsealed) == (6, datetime.fromtimestamp(30, UTC))


def test_the_oldest_row_of_a_checkpoint_that_is_not_exported_is_its_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def name_of(line: bytes) -> RowName:
        row_id = UUID(json.loads(line)["id"])
        return RowName(row_id, datetime.fromtimestamp(row_id.int, UTC))

    monkeypatch.setattr(verify, "name_of", name_of)
    assert verified(ROWS).oldest_unsealed == datetime.fromtimestamp(20, UTC)
