"""Old parts are dropped by the maintenance role, never younger than the floor; what stays still verifies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from service import clock
from service.audit.chain import Kind
from service.audit.checkpoints import Statement
from service.audit.continuity import Continuity
from service.audit.ledger import Tip
from service.audit.lines import Section, stored_sections
from service.cli import audit
from service.cli.app import commands
from service.errors import ConfigurationError, Conflict, Unavailable
from service.settings import load_settings
from service.storage.database import Database
from tests.conftest import Postgres
from tests.integration.audit_integrity.conftest import House, MakeHouse
from tests.integration.audit_integrity.test_commands import configured, key, run

pytestmark = pytest.mark.integration

__all__ = ["key"]

ROLE = "memvault_maintenance"
PASSWORD = "only-for-this-test"


@pytest.fixture
def maintenance(database: Postgres) -> Iterator[Database]:
    """A connection as the maintenance role, with what an administrator grants it."""
    with psycopg.connect(database.admin, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [ROLE]).fetchone() is None:
            connection.execute(f"CREATE ROLE {ROLE}")  # type: ignore[arg-type]
        connection.execute(f"ALTER ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")  # type: ignore[arg-type]
        connection.execute(f"GRANT CONNECT ON DATABASE {connection.info.dbname} TO {ROLE}")  # type: ignore[arg-type]
        connection.execute(
            f"GRANT EXECUTE ON FUNCTION audit_drop(uuid, bigint, bigint, bigint, bytea, integer) TO {ROLE}"  # type: ignore[arg-type]
        )
    made = Database(psycopg.conninfo.make_conninfo(database.app, user=ROLE, password=PASSWORD), pool_size=2)
    yield made
    made.close()


@pytest.fixture
def aged(make_house: MakeHouse, monkeypatch: pytest.MonkeyPatch) -> House:
    """A house with rows of 500, 300 and 100 days ago, in a checkpoint each."""
    now, made = clock.now, None
    for days in (500, 300, 100):
        with monkeypatch.context() as patch:
            patch.setattr(clock, "now", lambda days=days: now() - timedelta(days=days))
            made = made or make_house(tenants=2)
            made.write(made.tenants[0], 5)
            made.seal()
    assert made is not None
    return made


def test_what_is_older_than_the_setting_goes_and_the_rest_verifies(aged: House, maintenance: Database) -> None:
    tenant_id, other = aged.tenants
    before = aged.lines(tenant_id)
    found = aged.sealing.old_parts.find(aged.tenants, 200)
    assert {(part.tenant_id, part.rows) for part in found} == {(tenant_id, 11), (other, 1)}
    assert aged.lines(tenant_id) == before

    continuity = Continuity(aged.installation.database)
    continuity.look()
    dropped = aged.sealing.old_parts.drop(aged.tenants, 200, maintenance)
    assert dropped == found
    aged.seal()
    continuity.look()
    assert continuity.problem is None
    after = aged.lines(tenant_id)
    assert after[:5] == before[11:]
    assert b"trail:dropped" in after[5]
    report = aged.verify()
    assert report.problems == []
    assert {(one.tenant_id, one.rows, one.keep_days) for one in report.dropped} == {
        (tenant_id, 11, 200),
        (other, 1, 200),
    }
    assert report.chain.first == 1

    # Once more, later: from the first drop on.
    aged.write(tenant_id, 2)
    assert aged.sealing.old_parts.drop(aged.tenants, 200, maintenance) == []
    aged.superuser(
        f"DELETE FROM audit WHERE request_id = (SELECT min(request_id) FROM audit WHERE xid = {_xid(after[2])})"
    )
    first = aged.verify().problems[0]
    assert (first.kind, first.tenant_id, first.position) == (Kind.REMOVED, tenant_id, 13)


def test_while_a_place_takes_nothing_nothing_is_declared(aged: House, maintenance: Database) -> None:
    tenant_id, before = aged.tenants[0], aged.lines(aged.tenants[0])
    aged.seal()
    away = aged.folder.with_name("away")
    aged.folder.rename(away)
    aged.folder.write_bytes(b"")
    aged.write(tenant_id)
    aged.sealing.keeper.round(full=True)
    for _ in range(2):
        with pytest.raises(Conflict, match="nothing was declared"):
            aged.sealing.old_parts.drop(aged.tenants, 200, maintenance)
    assert not any(b"trail:dropped" in line for line in aged.lines(tenant_id))
    assert aged.lines(tenant_id)[: len(before)] == before
    aged.folder.unlink()
    away.rename(aged.folder)
    assert aged.sealing.old_parts.drop(aged.tenants, 200, maintenance) != []
    aged.seal()
    assert aged.verify().problems == []


def test_a_clock_that_was_set_back_for_a_while_stops_no_drop(
    aged: House, maintenance: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a machine that starts with a clock of years ago: its checkpoint is old, and what is under it is not."""
    tenant_id, now = aged.tenants[0], clock.now
    with monkeypatch.context() as patch:
        patch.setattr(clock, "now", lambda: now() - timedelta(days=1000))
        aged.write(tenant_id, 2)
        aged.seal()
    aged.write(tenant_id, 2)
    aged.seal()
    lines = aged.lines(tenant_id)
    (part, _) = aged.sealing.old_parts.drop(aged.tenants, 200, maintenance)
    assert (part.tenant_id, part.rows) == (tenant_id, 11)
    assert aged.lines(tenant_id)[: len(lines) - 11] == lines[11:]
    aged.seal()
    assert aged.verify().problems == []


def test_nothing_is_declared_that_the_database_does_not_drop_yet_by_its_clock(
    aged: House, maintenance: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tenant_id, other), now = aged.tenants, clock.now
    lines = aged.lines(tenant_id)
    monkeypatch.setattr(clock, "now", lambda: now() + timedelta(days=50))
    dropped = aged.sealing.old_parts.drop(aged.tenants, 340, maintenance)
    assert {(part.tenant_id, part.rows) for part in dropped} == {(tenant_id, 6), (other, 1)}
    assert aged.lines(tenant_id)[:-1] == lines[6:]


def test_what_is_dropped_while_the_trail_is_read_is_no_finding(
    aged: House, maintenance: Database, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1 says that the trail was changed; a half read before a drop and half after it tells nothing."""
    config, days = configured(aged, key, tmp_path), iter((400, 200))

    def late(*given: Any) -> Iterator[Section]:
        """Let a part be dropped after the checkpoints were read and before the rows are."""
        assert aged.sealing.old_parts.drop(aged.tenants, next(days), maintenance) != []
        return stored_sections(*given)

    export, own = tmp_path / "trail.jsonl", tmp_path / "own.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(audit, "stored_sections", late)
        result = CliRunner().invoke(commands(), ["audit", "verify", "--config", config])
        assert (result.exit_code, "could not be told" in result.stderr) == (2, True)
        with pytest.raises(Unavailable, match="dropped while it was read"):
            run("audit", "export-trail", str(export), "--checkpoints", str(own), "--config", config)
    assert not export.exists()
    assert not own.exists()
    assert run("audit", "verify", "--config", config)["ok"]


def test_below_the_floor_nothing_is_dropped(aged: House, maintenance: Database) -> None:
    with pytest.raises(ConfigurationError, match="183 or more"):
        aged.sealing.old_parts.drop(aged.tenants, 182, maintenance)
    tenant_id = aged.tenants[0]
    tip = aged.sealing.ledger.newest_seal_before(tenant_id, clock.now())
    assert tip is not None
    place = [tenant_id, tip.size, tip.last_xid, tip.last_seq, tip.peaks]
    with psycopg.connect(maintenance.dsn) as connection:
        for days, message in ((100, "183 days at least"), (183, "younger than 183 days")):
            with pytest.raises(psycopg.errors.CheckViolation, match=message):
                connection.execute("SELECT audit_drop(%s, %s, %s, %s, %s, %s)", [*place, days])
            connection.rollback()
        for statement in ("DELETE FROM audit", "TRUNCATE audit", "SELECT count(*) FROM audit"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())
            connection.rollback()
    assert aged.verify().problems == []


def test_a_drop_that_nobody_signed_is_told(aged: House) -> None:
    """A superuser drops a part and writes the database's own note of it; the signed declaration is missing."""
    tenant_id = aged.tenants[0]
    tip = aged.sealing.ledger.newest_seal_before(tenant_id, clock.now() - timedelta(days=200))
    assert tip is not None
    _delete(aged, tip)
    assert aged.verify().problems[0].kind is Kind.REMOVED
    _note(aged, tip, tip.peaks)
    first = aged.verify().problems[0]
    assert (first.kind, first.tenant_id, first.position) == (Kind.DROPPED_UNDECLARED, tenant_id, 0)


@pytest.mark.parametrize(
    ("declared", "dropped", "peaks", "told"),
    [
        (400, 200, None, "no signed checkpoint declares it"),
        (200, 200, bytes(32), "what remains of them is not what was sealed"),
        (50, 50, None, "they were younger than the floor"),
    ],
    ids=["more", "another tree", "too young"],
)
def test_a_drop_is_told_that_is_not_the_one_that_was_signed_or_may_not_be(
    declared: int, dropped: int, peaks: bytes | None, told: str, aged: House
) -> None:
    """Whoever has the signing key drops nothing below the floor, and what was signed vouches for nothing else."""
    tenant_id, ledger = aged.tenants[0], aged.sealing.ledger
    signed, gone = (
        ledger.newest_seal_before(tenant_id, clock.now() - timedelta(days=days)) for days in (declared, dropped)
    )
    assert signed is not None
    assert gone is not None
    statement = Statement(Statement.DROPPED, tenant_id=tenant_id, size=signed.size, keep_days=183)
    aged.sealing.keeper.declare([statement])
    _delete(aged, gone)
    _note(aged, gone, gone.peaks if peaks is None else gone.peaks[:-32] + peaks)
    first = aged.verify().problems[0]
    assert (first.kind, first.tenant_id, first.position) == (Kind.DROPPED_UNDECLARED, tenant_id, 0)
    assert told in first.detail


def _delete(house: House, tip: Tip) -> None:
    """Delete the rows of a tenant up to a seal, as a superuser can."""
    place = f"({tip.last_xid}, {tip.last_seq})"
    house.superuser(f"DELETE FROM audit WHERE tenant_id = '{tip.tenant_id}' AND (xid, seq) <= {place}")


def _note(house: House, tip: Tip, peaks: bytes) -> None:
    """Write the database's own note of a drop."""
    values = {"tenant": tip.tenant_id, "size": tip.size, "xid": tip.last_xid, "seq": tip.last_seq, "peaks": peaks}
    house.superuser(
        "INSERT INTO audit_drops VALUES (%(tenant)s, %(size)s, %(xid)s, %(seq)s, %(peaks)s, now())", parameters=values
    )


def _xid(line: bytes) -> int:
    return int(json.loads(line)["xid"])


def test_floor_in_the_settings() -> None:
    with pytest.raises(ConfigurationError, match=r"retention_days.*183 or more"):
        load_settings(environ={}, flags={"audit": {"retention_days": 182}})
    assert load_settings(environ={}, flags={"audit": {"retention_days": 183}}).audit.retention_days == 183
