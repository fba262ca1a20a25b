"""A database that went back to an earlier state: refused until it is declared, and told by every verification after."""

from __future__ import annotations

import pytest

from service.audit.chain import Kind
from service.audit.ledger import TrailChanged
from service.audit.restoring import Restoring
from service.audit.sinks.folder import CheckpointFiles
from service.errors import Conflict
from service.storage.database import Database
from tests.integration.audit_integrity.conftest import House, MakeHouse

pytestmark = pytest.mark.integration

ORDER = (
    "CREATE OR REPLACE FUNCTION audit_order(xid8) RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE"
    " AS $$ SELECT $1::text::bigint + {offset} $$"
)
TABLES = ("audit", "audit_seals", "audit_checkpoints", "audit_due", "audit_deliveries")


def went_back(house: House) -> int:
    """Write and seal more, then put the database back to what it was; return the checkpoint it went back to."""
    head = house.sealing.ledger.after(0, 100)[-1].body.number
    house.superuser(*(f"CREATE TABLE kept_{table} AS TABLE {table}" for table in TABLES))
    for _ in range(2):
        house.write(house.tenants[0], 4)
        house.seal()
    house.superuser(
        *(f"DELETE FROM {table}" for table in TABLES),
        *(f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM kept_{table}" for table in TABLES),
    )
    return head


def restoring(house: House) -> Restoring:
    sealing = house.sealing
    installation = house.installation
    return Restoring(installation.database, sealing.ledger, installation.trail, sealing.keeper, sealing.trusted)


def test_an_undeclared_restore_is_refused_and_found(house: House, make_house: MakeHouse) -> None:
    went_back(house)
    with pytest.raises(TrailChanged, match="memvault audit restored"):
        make_house().sealing.keeper.compare_heads()
    report = house.verify()
    assert report.problems[0].kind is Kind.REMOVED


def test_a_declared_restore_goes_on_and_is_stated(house: House, make_house: MakeHouse) -> None:
    resumes = went_back(house)
    again = make_house()
    last = max((one for _, one in CheckpointFiles(house.folder).places()), key=lambda one: one.body.number)
    epoch = restoring(again).declare(last, None)
    assert (epoch.resumes, epoch.last) == (resumes, resumes + 2)
    again.sealing.keeper.compare_heads()
    again.write(again.tenants[0], 3)
    again.seal()
    report = again.verify()
    assert report.problems == []
    assert [(one.resumes, one.void, one.lost_rows) for one in report.chain.restored] == [(resumes, 2, 8)]
    assert report.unsealed == 0
    # What is tampered with after a restore is found as before.
    again.superuser("UPDATE audit SET outcome = 'x' WHERE seq = (SELECT max(seq) FROM audit)")
    assert again.verify().problems[0].kind is Kind.EDITED
    with pytest.raises(Conflict, match="not behind"):
        restoring(again).declare(last, None)


def test_a_database_that_counts_its_transactions_anew_goes_on_in_order(make_house: MakeHouse) -> None:
    """As after a restore from a dump into a new cluster: the order is taken up behind what is there."""
    house = make_house(tenants=1)
    tenant_id = house.tenants[0]
    house.superuser(ORDER.format(offset=1_000_000))
    house.write(tenant_id, 5)
    house.seal()
    house.superuser(ORDER.format(offset=0))
    house.write(tenant_id, 1)
    with pytest.raises(TrailChanged, match="counts its transactions anew"):
        house.sealing.keeper.round()
    house.superuser(f"DELETE FROM audit WHERE xid < {1_000_000} AND event <> 'tenant:created'")

    last = house.sealing.ledger.after(0, 100)[-1]
    with pytest.raises(Conflict, match="owner_url is needed"):
        restoring(house).declare(last, None)
    owner = Database(house.postgres.owner)
    try:
        restoring(house).declare(last, owner)
    finally:
        owner.close()
    sealed = house.lines(tenant_id)
    house.write(tenant_id, 4)
    house.seal()
    assert house.lines(tenant_id)[: len(sealed)] == sealed
    report = house.verify()
    assert report.problems == []
    assert report.unsealed == 0
    assert [one.void for one in report.chain.restored] == [0]


def test_only_a_genuine_checkpoint_can_be_gone_on_from(house: House) -> None:
    last = house.sealing.ledger.after(0, 100)[-1]
    forged = type(last)(last.body, last.encoded + b" ", last.signatures)
    with pytest.raises(Conflict, match="not signed"):
        restoring(house).declare(forged, None)
