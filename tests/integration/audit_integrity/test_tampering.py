"""Thousands of tampers of each kind on an exported trail: all found, none reported on an untouched one."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

import pytest

from service import clock
from service.audit.chain import Chain, Kind, read_chain
from service.audit.checkpoints import Checkpoint
from service.audit.encoding import FIELDS, name_of
from service.audit.sinks.folder import CheckpointFiles
from service.audit.verify import Base, Problem, Report, Verifier
from tests.integration.audit_integrity.conftest import House
from tests.integration.audit_integrity.forging import reforged

pytestmark = pytest.mark.integration

TIMES = 2000
Rows = dict[UUID, list[bytes]]


def verified(chain: Chain, rows: Mapping[UUID, Sequence[bytes]]) -> Report:
    verifier = Verifier(chain)
    for tenant_id, lines in rows.items():
        verifier.tenant(tenant_id, Base(), lines)
    return verifier.report()


def edited(line: bytes, rng: random.Random) -> bytes:
    """The line with one field changed, written as Postgres would."""
    row = json.loads(line)
    name = rng.choice(sorted(set(FIELDS)))
    before = row[name]
    if isinstance(before, int):
        row[name] = before + rng.choice((-1, 1))
    elif isinstance(before, list):
        row[name] = [*before, str(clock.new_id())]
    elif name in ("id", "tenant_id"):
        row[name] = str(clock.new_id())
    else:
        row[name] = "x" if before is None else before + "x"
    pairs = (f"{json.dumps(key)} : {json.dumps(value, separators=(',', ':'))}" for key, value in row.items())
    return f"{{{', '.join(pairs)}}}".encode()


def a_row(line: bytes) -> bytes:
    """A row that was never written, like another one."""
    row = json.loads(line)
    row["id"] = str(clock.new_id())
    return json.dumps(row).encode()


def edit(lines: list[bytes], rng: random.Random) -> tuple[int, UUID | None]:
    place = rng.randrange(len(lines))
    lines[place] = edited(lines[place], rng)
    return place, None


def delete(lines: list[bytes], rng: random.Random) -> tuple[int, UUID | None]:
    place = rng.randrange(len(lines))
    return place, name_of(lines.pop(place)).id


def insert(lines: list[bytes], rng: random.Random) -> tuple[int, UUID | None]:
    place = rng.randrange(len(lines))
    lines.insert(place, a_row(rng.choice(lines)))
    return place, name_of(lines[place]).id


def repeat(lines: list[bytes], rng: random.Random) -> tuple[int, UUID | None]:
    place, other = sorted(rng.sample(range(len(lines)), 2))
    lines.insert(other, lines[place])
    return other, None


def swap(lines: list[bytes], rng: random.Random) -> tuple[int, UUID | None]:
    one, other = sorted(rng.sample(range(len(lines)), 2))
    row_id = name_of(lines[one]).id
    lines[one], lines[other] = lines[other], lines[one]
    return one, row_id


def cut(lines: list[bytes], rng: random.Random) -> tuple[int, UUID | None]:
    place = rng.randrange(len(lines))
    row_id = name_of(lines[place]).id
    del lines[place:]
    return place, row_id


Tamper = Callable[[list[bytes], random.Random], tuple[int, UUID | None]]
KINDS: dict[Tamper, set[Kind]] = {
    # A changed id looks like one row gone and another put in its place.
    edit: {Kind.EDITED, Kind.REMOVED, Kind.INSERTED},
    delete: {Kind.REMOVED},
    insert: {Kind.INSERTED},
    repeat: {Kind.INSERTED, Kind.REORDERED},
    swap: {Kind.REORDERED},
    cut: {Kind.REMOVED},
}


@pytest.fixture
def rows(house: House) -> Rows:
    return {tenant_id: house.lines(tenant_id) for tenant_id in [UUID(int=0), *house.tenants]}


@pytest.fixture
def checkpoints(house: House) -> list[Checkpoint]:
    return [one for _, one in CheckpointFiles(house.folder).places()]


@pytest.mark.parametrize("tamper", KINDS, ids=lambda tamper: tamper.__name__)
def test_every_tamper_is_found_and_names_its_first_row(
    tamper: Tamper, house: House, rows: Rows, checkpoints: list[Checkpoint]
) -> None:
    chain = read_chain(checkpoints, (), house.sealing.trusted)
    assert verified(chain, rows).problems == []
    rng = random.Random(7)
    for _ in range(TIMES):
        tenant_id = rng.choice(house.tenants)
        lines = list(rows[tenant_id])
        position, row_id = tamper(lines, rng)
        report = verified(chain, {**rows, tenant_id: lines})
        assert report.problems, f"{tamper.__name__} at {position} was not found"
        first = report.problems[0]
        assert (first.tenant_id, first.position) == (tenant_id, position)
        assert first.kind in KINDS[tamper]
        if row_id is not None:
            assert first.row_id == row_id
    assert verified(chain, rows).problems == []


@pytest.mark.parametrize("sign", [False, True], ids=["old signatures", "a key of their own"])
def test_rewriting_every_hash_too_hides_nothing(
    sign: bool, house: House, rows: Rows, checkpoints: list[Checkpoint]
) -> None:
    trusted = house.sealing.trusted
    rng = random.Random(11)
    for tamper in KINDS:
        for _ in range(50):
            tenant_id = rng.choice(house.tenants)
            lines = list(rows[tenant_id])
            position, _ = tamper(lines, rng)
            changed = {**rows, tenant_id: lines}
            forged = reforged(checkpoints, changed, sign=sign)
            # With the exported checkpoints the row is named; without them the forged ones are told as forged.
            first = verified(read_chain(checkpoints, forged, trusted), changed).problems[0]
            assert (first.tenant_id, first.position) == (tenant_id, position)
            alone = read_chain((), forged, trusted)
            assert Kind.CHECKPOINT_FORGED in {problem.kind for problem in verified(alone, changed).problems}


def test_one_exported_checkpoint_is_enough_to_find_what_was_done_before_it(
    house: House, rows: Rows, checkpoints: list[Checkpoint]
) -> None:
    rng = random.Random(3)
    for tamper in KINDS:
        for _ in range(20):
            lines = list(rows[house.tenants[0]])
            tamper(lines, rng)
            changed = {**rows, house.tenants[0]: lines}
            forged = reforged(checkpoints, changed, sign=False)
            found = verified(read_chain(checkpoints[-1:], forged, house.sealing.trusted), changed).problems
            assert found


def test_exported_checkpoints_that_were_tampered_with_are_told(
    house: House, rows: Rows, checkpoints: list[Checkpoint]
) -> None:
    def problems(given: Sequence[Checkpoint]) -> list[Problem]:
        return verified(read_chain(given, (), house.sealing.trusted), rows).problems

    without_one = [*checkpoints[:2], *checkpoints[3:]]
    assert Kind.CHECKPOINT_MISSING in {problem.kind for problem in problems(without_one)}
    forged = reforged(checkpoints, rows, sign=True)
    assert problems([*checkpoints[:-1], forged[-1]])[0].kind is Kind.CHECKPOINT_FORGED
    unsealed = [Checkpoint(one.body, one.encoded, one.signatures) for one in checkpoints]
    assert {problem.kind for problem in problems(unsealed)} == {Kind.SEALS_MISSING}


def test_a_tenant_whose_rows_are_all_gone_is_told(house: House, rows: Rows, checkpoints: list[Checkpoint]) -> None:
    chain = read_chain(checkpoints, (), house.sealing.trusted)
    del rows[house.tenants[1]]
    first = verified(chain, rows).problems[0]
    assert (first.kind, first.tenant_id, first.position) == (Kind.REMOVED, house.tenants[1], 0)
