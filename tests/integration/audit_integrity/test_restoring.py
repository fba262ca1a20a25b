"""A database that went back to an earlier state: refused until it is declared, and told by every verification after."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import pytest

from service import clock
from service.audit.chain import Kind
from service.audit.entries import Entry
from service.audit.ledger import TrailChanged
from service.audit.restoring import Restoring
from service.audit.sinks.folder import CheckpointFiles
from service.audit.stream import AuditStream
from service.errors import ConfigurationError, Conflict
from service.portability.settling import Settling
from service.scope import TenantId
from service.storage.database import Database
from service.storage.tombstones import Tombstone, TombstoneKind
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


class Sent:
    """A receiver of the stream."""

    name = "file"

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def send(self, entries: Sequence[Entry]) -> None:
        """Take a batch."""
        self.entries += entries

    def of(self, tenant_id: TenantId) -> int:
        """How many of a tenant's rows have arrived."""
        return sum(entry.tenant_id == tenant_id for entry in self.entries)


@pytest.fixture
def dumped(make_house: MakeHouse) -> House:
    """A house whose database counts its transactions anew, with rows that were streamed before they were sealed."""
    house = make_house(tenants=1)
    house.superuser(ORDER.format(offset=1_000_000))
    house.write(house.tenants[0], 5)
    house.seal()
    house.write(house.tenants[0], 30)
    return house


def test_the_order_is_taken_up_behind_what_was_sent_and_what_waits_for_its_seal(dumped: House) -> None:
    house, sent = dumped, Sent()
    tenant_id = house.tenants[0]
    stream = AuditStream(house.installation.database, sent)
    stream.send_news()
    before = sent.of(tenant_id)
    assert before == len(house.lines(tenant_id))
    house.superuser(ORDER.format(offset=0))
    last = house.sealing.ledger.after(0, 100)[-1]
    with closing(Database(house.postgres.owner)) as owner:
        restoring(house).declare(last, owner)
    house.write(tenant_id, 3)
    stream.send_news()
    assert sent.of(tenant_id) == before + 3
    house.seal()
    report = house.verify()
    assert report.problems == []
    assert report.unsealed == 0


def test_what_is_done_again_in_a_database_that_counts_anew_is_sealed(dumped: House) -> None:
    """Before its order is taken up nothing is written: that would stand among rows that were sealed long ago."""
    house, one = dumped, dumped.installation
    tenant_id = house.tenants[0]
    house.superuser(ORDER.format(offset=0))
    last = house.sealing.ledger.after(0, 100)[-1]
    one.tombstones.append(TombstoneKind.KEY_REVOKED, tenant_id, [clock.new_id()])
    done: list[Tombstone] = []
    replays = {TombstoneKind.KEY_REVOKED: done.append}
    settling = Settling(one.database, one.keyring, one.trail, one.tombstones, replays)
    lines = house.lines(tenant_id)
    with pytest.raises(ConfigurationError, match="this process cannot sign that"):
        settling.settle(None, None, None)
    with pytest.raises(Conflict, match="owner_url is needed"):
        settling.settle(lambda: last, restoring(house), None)
    assert (done, house.lines(tenant_id)) == ([], lines)
    with closing(Database(house.postgres.owner)) as owner:
        settled = settling.settle(lambda: last, restoring(house), owner)
    assert (settled.applied, len(done)) == (1, 1)
    assert settled.epoch is not None
    house.seal()
    report = house.verify()
    assert report.problems == []
    assert report.unsealed == 0
    after = house.lines(tenant_id)
    assert after[: len(lines)] == lines
    assert b"tombstone:applied" in after[-1]
