"""Rows are sealed in an order that late commits cannot disturb, by one sealer, within seconds, whatever the date."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from service import clock
from service.audit import lines
from service.audit.events import AuditEvent
from service.audit.sinks.folder import CheckpointFiles
from service.errors import RecordUnavailable
from service.scope import TenantId, installation_caller
from service.wiring.sealing import trail_jobs
from tests.conftest import MakeServices
from tests.integration.audit_integrity.conftest import House, MakeHouse

pytestmark = pytest.mark.integration

INSERT = (
    "INSERT INTO audit (tenant_id, id, at, event, outcome, subject_ids, client, face, request_id, target_ids,"
    " result_ids, detail, xid)"
    " VALUES (%s, %s, now(), 'service:pinged', 'done', '{}', '', 'cli', %s, '{}', '{}', '{}', 7)"
)


@contextmanager
def app(house: House, tenant_id: TenantId) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A connection as the application role in an open transaction of the tenant."""
    with psycopg.connect(house.postgres.app) as connection:
        connection.execute("SELECT set_config('app.tenant', %s, true)", [str(tenant_id)])
        yield connection


def insert(connection: psycopg.Connection[tuple[object, ...]], tenant_id: TenantId, request_id: str) -> None:
    connection.execute(INSERT.encode(), [tenant_id, clock.new_id(), request_id])


def until(condition: Callable[[], bool]) -> None:
    """Wait until something that threads bring about holds."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


def order(house: House, tenant_id: TenantId) -> list[str]:
    return [json.loads(line)["request_id"] for line in house.lines(tenant_id)]


def test_an_untouched_trail_verifies(house: House) -> None:
    report = house.verify()
    assert report.problems == []
    assert report.unsealed == 0
    assert report.rows > 20
    assert report.chain.exported == report.chain.last >= 4
    assert house.verify(only=house.tenants[1]).problems == []


def test_a_row_that_commits_late_is_neither_lost_nor_put_in_between(house: House) -> None:
    tenant_id = house.tenants[0]
    sealed = len(order(house, tenant_id))
    with app(house, tenant_id) as old, app(house, tenant_id) as young:
        insert(old, tenant_id, "old")
        insert(young, tenant_id, "young")
        young.commit()
        house.seal()
        waiting = house.verify()
        # The young row waits with the old one: nothing is sealed that something could still come before.
        assert waiting.problems == []
        assert waiting.unsealed == 1
        old.commit()
    house.seal()
    report = house.verify()
    assert report.problems == []
    assert report.unsealed == 0
    assert order(house, tenant_id)[sealed:] == ["old", "young"]


def test_a_transaction_that_rolls_back_leaves_nothing(house: House) -> None:
    tenant_id = house.tenants[0]
    before = order(house, tenant_id)
    with app(house, tenant_id) as connection:
        insert(connection, tenant_id, "never")
        connection.rollback()
    house.seal()
    assert order(house, tenant_id) == before
    assert house.verify().problems == []


def test_the_database_stamps_the_order_whatever_the_writer_claims(house: House) -> None:
    tenant_id = house.tenants[0]
    with app(house, tenant_id) as connection:
        insert(connection, tenant_id, "claims to be of transaction 7")
    house.seal()
    assert order(house, tenant_id)[-1] == "claims to be of transaction 7"
    assert house.verify().problems == []


def test_under_load_rows_are_sealed_within_seconds_and_none_is_lost(make_house: MakeHouse) -> None:
    house = make_house(tenants=3, audit={"seal_interval": 0.2})
    house.sealing.keeper.start()
    until = time.monotonic() + 4
    written = [0] * 6

    def work(number: int) -> None:
        rng = random.Random(number)
        while time.monotonic() < until:
            caller = installation_caller(rng.choice(house.tenants))
            with house.installation.database.transaction(caller.scope) as connection:
                house.installation.trail.write(connection, caller, AuditEvent.SERVICE_PINGED)
                if rng.random() < 0.1:
                    time.sleep(rng.random() / 20)
            written[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    house.sealing.keeper.stop()
    report = house.verify()
    assert report.problems == []
    assert report.unsealed == 0
    # Each tenant has the row of its making too.
    assert report.rows == sum(written) + len(house.tenants)
    assert report.chain.count > 5
    lags = []
    for tenant_id, seals in report.chain.seals.items():
        rows = [json.loads(line) for line in house.lines(TenantId(tenant_id))]
        for sealed in seals:
            for row in rows[sealed.first : sealed.size]:
                written_at = datetime.fromtimestamp(row["at"] / 1e6, tz=sealed.at.tzinfo)
                lags.append((sealed.at - written_at).total_seconds())
    assert max(lags) < 5


def test_two_sealers_take_turns(house: House, make_house: MakeHouse) -> None:
    other = make_house()
    keepers = [house.sealing.keeper, other.sealing.keeper]
    for turn in range(6):
        house.write(house.tenants[turn % 3], 2)
        keepers[turn % 2].round()
    house.seal()
    report = house.verify()
    assert report.problems == []
    assert report.unsealed == 0


def test_only_tenants_with_new_rows_are_touched(house: House) -> None:
    house.write(house.tenants[1], 2)
    sealed = house.sealing.keeper.round()
    assert sealed.checkpoint is not None
    assert [seal.tenant_id for seal in sealed.checkpoint.seals] == [house.tenants[1]]
    assert house.sealing.keeper.round().checkpoint is None
    assert house.sealing.ledger.count_due() == 0


def test_rows_without_a_note_are_found_by_a_full_round(house: House) -> None:
    house.write(house.tenants[1], 2)
    house.superuser("DELETE FROM audit_due")
    assert house.sealing.keeper.round().checkpoint is None
    assert house.verify().unsealed == 2
    assert house.sealing.keeper.round(full=True).rows == 2


def test_the_periodic_checkpoint_covers_every_tenant(house: House) -> None:
    for tenant_id in house.tenants:
        house.write(tenant_id, 2)
    house.superuser("DELETE FROM audit_due")
    _, checkpoint = trail_jobs(house.installation, house.sealing)["checkpoint"]
    checkpoint(0)
    assert house.verify().unsealed == 0


def test_a_term_that_nobody_may_keep_is_told(house: House, caplog: pytest.LogCaptureFixture) -> None:
    settings = house.installation.settings
    kept = settings.model_copy(update={"audit": settings.audit.model_copy(update={"retention_days": 400})})
    connections = replace(house.installation.connections, maintenance_dsn=house.postgres.admin)
    installation = replace(house.installation, settings=kept, connections=connections)
    assert "drop_old_audit" in trail_jobs(installation, house.sealing)
    assert not caplog.records
    alone = replace(installation, connections=replace(installation.connections, maintenance_dsn=None))
    assert "drop_old_audit" not in trail_jobs(alone, house.sealing)
    (told,) = caplog.records
    assert "database.maintenance_url" in told.getMessage()


def test_no_date_stops_the_trail(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fourteen months on, a leap day and a year's end between: there is no partition that could be missing."""
    now = clock.now
    for days in (30, 99, 366, 427, 3650):
        monkeypatch.setattr(clock, "now", lambda days=days: now() + timedelta(days=days))
        house.write(house.tenants[0], 2)
        house.seal()
        report = house.verify()
        assert report.problems == []
        assert report.unsealed == 0
    assert len(list(house.folder.glob("*.jsonl"))) >= 6


def test_the_unsealed_window_is_stated(house: House) -> None:
    house.write(house.tenants[0], 3)
    document = house.verify().document(now=clock.now())
    assert document["ok"] is True
    assert document["unsealed"]["rows"] == 3
    assert 0 <= document["unsealed"]["age_seconds"] < 60
    # Sealed, and not yet exported: still in the window, since nothing outside stands behind it.
    house.sealing.keeper.round()
    unsealed = house.verify().document(now=clock.now())["unsealed"]
    assert (unsealed["rows"], unsealed["in_database_only"]) == (3, 3)
    house.sealing.keeper.deliver()
    nothing = {"rows": 0, "in_database_only": 0, "oldest_at": None, "age_seconds": None}
    assert house.verify().document(now=clock.now())["unsealed"] == nothing


def test_an_error_that_nobody_foresaw_ends_neither_sealing_nor_delivery(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a server that is still a standby, where what tells the place in the log of the database is refused."""
    before = house.seal()
    house.write(house.tenants[0], 3)
    keeper = house.sealing.keeper
    house.superuser("ALTER TABLE audit_checkpoints RENAME TO elsewhere")
    keeper.start()
    try:
        messages = {"the audit trail cannot be sealed", "checkpoints cannot be read"}
        until(lambda: messages <= {record.getMessage() for record in caplog.records})
        assert keeper.state() == ("failed", "the trail cannot be sealed: ProgrammingError")
        house.superuser("ALTER TABLE elsewhere RENAME TO audit_checkpoints")
        until(lambda: max(one.body.number for _, one in CheckpointFiles(house.folder).places()) > before)
        until(lambda: keeper.state()[0] == "ok")
    finally:
        keeper.stop()
    assert house.verify().unsealed == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ended_is_told(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(**_: object) -> None:
        raise SystemExit

    keeper = house.sealing.keeper
    monkeypatch.setattr(keeper, "round", end)
    keeper.start()
    until(lambda: keeper.state() == ("failed", "memvault-seal has ended: restart this process"))
    keeper.stop()


def test_a_row_that_could_not_be_sealed_is_not_written(house: House) -> None:
    """The note for the sealer is a part of the row's transaction: no note, no row, no effect."""
    house.superuser("REVOKE INSERT ON audit_due FROM memvault_app")
    before = house.verify().rows
    with pytest.raises(RecordUnavailable):
        house.write(house.tenants[0])
    with pytest.raises(RecordUnavailable):
        house.installation.tenants.create("one-more")
    assert house.verify().rows == before
    assert house.installation.tenants.find("one-more") is None


def test_the_line_of_a_row_is_these_bytes(house: House) -> None:
    """What was sealed must hash the same for ever: with every release of the service and of Postgres."""
    tenant_id = house.tenants[0]
    house.superuser(
        "INSERT INTO audit OVERRIDING SYSTEM VALUE SELECT %(tenant)s, '00000000-0000-4000-8000-000000000001', 5,"
        " '2026-02-28T23:59:59.000001Z', 'memory:read', 'done', NULL,"
        " '{00000000-0000-4000-8000-000000000002,00000000-0000-4000-8000-000000000003}', NULL,"
        " E'a\"b\\\\c\\t\\x01\\u00e9\\U0001F600', 'rest', 'r', '{}', '{}', '\\x00ff',"
        " '{\"b\": 1.10, \"a\": [null, true]}', NULL, '{x,NULL}', NULL, NULL, 0",
        parameters={"tenant": tenant_id},
    )
    assert (
        house.lines(tenant_id)[0]
        == (
            '{"acting_subject_id" : null, "at" : 1772323199000001, "client" : "a\\"b\\\\c\\t\\u0001é😀",'
            ' "connector" : null, "detail" : "{\\"a\\": [null, true], \\"b\\": 1.10}", "event" : "memory:read",'
            ' "face" : "rest", "id" : "00000000-0000-4000-8000-000000000001", "outcome" : "done",'
            ' "permissions" : ["x",null], "principal_id" : null, "purpose" : null, "query_mac" : "00ff",'
            ' "request_id" : "r", "result_ids" : [], "seq" : 5,'
            ' "subject_ids" : ["00000000-0000-4000-8000-000000000002",'
            '"00000000-0000-4000-8000-000000000003"], "target_ids" : [],'
            f' "tenant_id" : "{tenant_id}", "value_mac" : null, "xid" : 0}}'
        ).encode()
    )


def test_rows_are_read_some_at_a_time(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant_id = house.tenants[0]
    house.write(tenant_id, 10)
    whole, read = house.lines(tenant_id), list[int]()
    monkeypatch.setattr(lines, "_FETCH", 4)

    def counted(name: str) -> Callable[..., list[Any]]:
        fetch = getattr(psycopg.ServerCursor, name)

        def one(cursor: Any, *size: int) -> list[Any]:
            rows: list[Any] = fetch(cursor, *size)
            read.append(len(rows))
            return rows

        return one

    for name in ("fetchmany", "fetchall"):
        monkeypatch.setattr(psycopg.ServerCursor, name, counted(name))
    assert house.lines(tenant_id) == whole
    assert sum(read) == len(whole) >= 10
    assert max(read) == 4


def test_the_worker_seals_while_the_service_runs(make_services: MakeServices) -> None:
    services = make_services(worker=True, audit={"seal_interval": 0.2})
    folder = services.settings.data_dir / "checkpoints"
    services.installation.tenants.create("acme")
    until = time.monotonic() + 10
    while not list(folder.glob("*.jsonl")) and time.monotonic() < until:
        time.sleep(0.05)
    assert list(CheckpointFiles(folder).places())
    (part,) = [part for part in services.readiness() if part.name == "audit sealing"]
    assert (part.state, part.reason, part.needed) == ("ok", None, False)


@pytest.mark.parametrize("table", ["audit", "audit_seals", "audit_checkpoints", "audit_drops"])
def test_the_application_role_can_change_none_of_it(table: str, house: House) -> None:
    column = {"audit": "event", "audit_seals": "size", "audit_checkpoints": "body", "audit_drops": "size"}[table]
    value = "'x'" if column in ("event", "body") else "0"
    for statement in (f"UPDATE {table} SET {column} = {value}", f"DELETE FROM {table}", f"TRUNCATE {table}"):
        with app(house, house.tenants[0]) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.encode())
    drop = "SELECT audit_drop(%s, 1, 1, 1, '', 400)"
    with app(house, house.tenants[0]) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(drop.encode(), [house.tenants[0]])
    for statement in ("ALTER TABLE audit DISABLE TRIGGER audit_stamp", "SET session_replication_role = replica"):
        with app(house, house.tenants[0]) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.encode())
