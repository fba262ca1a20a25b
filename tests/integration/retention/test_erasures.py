"""Erasures through the actions: in which order, what goes, what is refused, what a crash leaves, and the receipt."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from prometheus_client import generate_latest

from service import clock
from service.audit.assembly import trusted_keys
from service.audit.tenant_details import ProjectField
from service.auth.keys import Grant
from service.errors import Conflict, Forbidden, InvalidInput, NotFound, RecordBusy
from service.filters.ast import EVERYTHING
from service.holds.rules import RuleBody
from service.holds.spans import Span
from service.memories.edits import Edit
from service.observability.metrics import WORK
from service.policy.table import ROLES
from service.portability.exports import Wanted
from service.records import Message, NewMemories, SubjectNames
from service.retention.ledger import ErasureKind, ErasureStatus, Target
from service.retention.receipts import verify
from service.scope import Caller, Scope, SubjectKind, TenantId, service_principal
from service.storage.encryption import Cipher
from service.storage.erasers import erasers
from service.storage.keyring import FileKeyring, KeyDestroyed
from service.wiring import Services
from service.wiring.settling import settle
from tests.conftest import MakeServices, Postgres, caller_of
from tests.process.memvault import eventually

pytestmark = pytest.mark.integration

ALICE = Target(ErasureKind.USER, "alice")


def add(services: Services, caller: Caller, text: str, connector: str | None = None, **names: str) -> UUID:
    """Add a memory, verbatim."""
    metadata = {} if connector is None else {"connector": connector}
    subjects = SubjectNames(**(names or {"user_id": "alice"}))
    new = NewMemories([Message("user", text)], subjects, metadata=metadata, infer=False)
    return services.adds.add(caller, caller.scope, new).results[0].memory_id


def texts(services: Services, caller: Caller) -> set[str]:
    """All texts of the tenant."""
    page = services.memories.list(caller, caller.scope, EVERYTHING, page=1, size=100, on=None)
    return {memory.text for memory in page.items}


def count(admin: psycopg.Connection[Any], what: str) -> int:
    """How many rows there are."""
    row = admin.execute(f"SELECT count(*) FROM {what}").fetchone()  # type: ignore[arg-type]
    return int(row[0]) if row else 0


def finish(services: Services, caller: Caller, erasure_id: UUID) -> Any:
    """Carry an erasure out, as the worker does."""
    services.erasing.finish(caller.principal.tenant_id, erasure_id)
    return services.erasures.get(caller, caller.scope, erasure_id)


def keep_for(services: Services, caller: Caller, minimum: str) -> None:
    """Set a retention rule that keeps every memory for a time from when it was stored."""
    body = RuleBody(f"kept-{minimum.lower()}", age=Span("P10Y"), minimum=Span(minimum))
    services.installation.retention_rules.create(caller, caller.scope, body)


def ingested(admin: psycopg.Connection[Any], memory_id: UUID) -> datetime:
    """When a memory was stored, from which a minimum counts."""
    row = admin.execute("SELECT ingested_at FROM memories WHERE id = %s", [memory_id]).fetchone()
    assert row is not None
    moment: datetime = row[0]
    return moment


def events(admin: psycopg.Connection[Any], like: str) -> list[tuple[str, str]]:
    """The trail's events of a kind with their outcomes, in order."""
    rows = admin.execute("SELECT event, outcome FROM audit WHERE event LIKE %s ORDER BY xid, seq", [like])
    return [(str(row[0]), str(row[1])) for row in rows]


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(SubjectNames(user_id="alice", agent_id="helper")),
        Wanted(filters={"OR": [{"user_id": "alice"}, {"NOT": {"run_id": "r1"}}]}),
    ],
)
def test_a_request_for_an_export_leaves_with_whom_it_named_before_anything_else_did(
    services: Services, caller: Caller, admin: psycopg.Connection[Any], wanted: Wanted
) -> None:
    services.exports.request(caller, caller.scope, wanted)
    bound = caller_of(services, caller.principal.tenant_id, users=frozenset({"alice"}))
    services.exports.request(bound, bound.scope, Wanted())
    services.exports.request(caller, caller.scope, Wanted(SubjectNames(user_id="bob")))
    add(services, caller, "I like figs")
    done = finish(services, caller, services.erasures.request(caller, caller.scope, ALICE).id)
    assert done.status is ErasureStatus.COMPLETED
    assert done.removed["exports"] == 2
    assert set(done.receipt["receipt"]["checked"]["rows_left"].values()) == {0}
    assert count(admin, "exports") == 1


def test_a_person_is_erased_with_everything_and_a_receipt_says_so(
    services: Services, caller: Caller, admin: psycopg.Connection[Any]
) -> None:
    add(services, caller, "I like figs")
    add(services, caller, "a shared run", user_id="alice", run_id="r1")
    add(services, caller, "stays", user_id="bob", run_id="r1")
    add(services, caller, "by the helper", agent_id="helper")
    erasure = services.erasures.request(caller, caller.scope, ALICE)
    assert erasure.status is ErasureStatus.RUNNING
    assert erasure.subject_id is not None
    # Before a row is gone nothing of it can be read any more.
    assert count(admin, "memories") == 4
    with pytest.raises(KeyDestroyed):
        services.installation.keyring.subject(caller.principal.tenant_id, erasure.subject_id)
    assert texts(services, caller) == {"stays", "by the helper"}

    done = finish(services, caller, erasure.id)
    assert done.status is ErasureStatus.COMPLETED
    assert texts(services, caller) == {"stays", "by the helper"}
    assert [count(admin, table) for table in ("memories", "history", "events")] == [2, 2, 2]
    assert done.removed == {"memories": 2, "history": 2, "events": 2}
    assert services.index.count() == 2
    receipt = done.receipt["receipt"]
    assert receipt["checked"]["key"] == "destroyed"
    assert set(receipt["checked"]["rows_left"].values()) == {0}
    # Each table that could refer to a person was looked at.
    assert {one.name for one in erasers() if one.subjects} <= set(receipt["checked"]["rows_left"])
    assert receipt["physical"]["index"] == {"state": "done"}
    assert receipt["physical"]["state"] == "not done"
    assert "database.maintenance_url" in receipt["physical"]["reason"]
    trusted = trusted_keys(services.settings)
    assert verify(done.receipt, trusted).ok
    changed = {**done.receipt, "receipt": {**receipt, "removed": {"memories": 3}}}
    assert not verify(changed, trusted).ok
    assert "alice" not in str(done.receipt)
    assert events(admin, "erasure:%") == [
        ("erasure:requested", "done"),
        ("erasure:continued", "done"),
        ("erasure:completed", "done"),
        ("erasure:read", "done"),
    ]


def test_asking_twice_is_asking_once(services: Services, caller: Caller) -> None:
    add(services, caller, "I like figs")
    first = services.erasures.request(caller, caller.scope, ALICE)
    assert services.erasures.request(caller, caller.scope, ALICE).id == first.id
    finish(services, caller, first.id)
    with pytest.raises(NotFound, match="no such user"):
        services.erasures.request(caller, caller.scope, ALICE)
    # The same name again is another person.
    add(services, caller, "I like plums")
    again = services.erasures.request(caller, caller.scope, ALICE)
    assert (again.id, again.subject_id) != (first.id, first.subject_id)
    page = services.erasures.list(caller, caller.scope, page=1, size=10)
    assert [one.id for one in page.items] == [again.id, first.id]


def test_who_may_not_ask(services: Services, caller: Caller, admin: psycopg.Connection[Any]) -> None:
    add(services, caller, "I like figs")
    tenant_id = caller.principal.tenant_id
    bound = caller_of(services, tenant_id, role="compliance_officer", users=frozenset({"alice"}))
    of_crm = replace(bound, principal=replace(bound.principal, users=None, connector="crm"))
    for who in (bound, of_crm):
        for target in (ALICE, Target(ErasureKind.USER, "bob"), Target(ErasureKind.CONNECTOR, "crm")):
            with pytest.raises(Forbidden, match="bound to users or to a connector"):
                services.erasures.request(who, who.scope, target)
    agent = caller_of(services, tenant_id, role="agent")
    with pytest.raises(Forbidden, match="erasure:request"):
        services.erasures.request(agent, agent.scope, ALICE)
    with pytest.raises(InvalidInput):
        services.erasures.request(caller, caller.scope, Target(ErasureKind.TENANT))
    other = caller_of(services, services.installation.tenants.create("other").id)
    with pytest.raises(NotFound):
        services.erasures.request(other, other.scope, ALICE)
    mine = services.erasures.request(caller, caller.scope, ALICE)
    for stranger in (other, bound, of_crm):
        with pytest.raises(NotFound):
            services.erasures.get(stranger, stranger.scope, mine.id)
        assert services.erasures.list(stranger, stranger.scope, page=1, size=5).total == 0
    denied = admin.execute("SELECT detail ->> 'reason' FROM audit WHERE event = 'access:denied'").fetchall()
    assert sorted(row[0] for row in denied) == [*["bound"] * 6, "permission"]


@pytest.mark.parametrize("kind", [SubjectKind.AGENT, SubjectKind.APP, SubjectKind.RUN])
def test_what_others_keys_seal_is_told_in_the_receipt(kind: SubjectKind, services: Services, caller: Caller) -> None:
    both = {"user_id": "alice", f"{kind.value}_id": "the other"}
    add(services, caller, "under alice's key", **both)
    add(services, caller, "under its own", **{f"{kind.value}_id": "the other"})
    add(services, caller, "stays")
    target = Target(ErasureKind(kind.value), "the other")
    done = finish(services, caller, services.erasures.request(caller, caller.scope, target).id)
    assert (done.removed["memories"], done.sealed_elsewhere) == (2, 1)
    assert any("a person that stays" in one["what"] for one in done.receipt["receipt"]["remains"])
    assert texts(services, caller) == {"stays"}


def test_a_connector_is_removed_with_what_came_through_it(
    make_services: MakeServices, admin: psycopg.Connection[Any]
) -> None:
    services = make_services(history={"keep_deleted": True})
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    add(services, caller, "from the crm", connector="crm")
    gone = add(services, caller, "from the crm, deleted before", connector="crm")
    kept = add(services, caller, "from slack, deleted before", connector="slack")
    add(services, caller, "from slack", connector="slack")
    for memory_id in (gone, kept):
        services.memories.delete(caller, caller.scope, memory_id)
    erasure = services.erasures.remove_connector(caller, caller.scope, "crm")
    assert services.erasures.remove_connector(caller, caller.scope, "crm").id == erasure.id
    done = finish(services, caller, erasure.id)
    assert texts(services, caller) == {"from slack"}
    assert count(admin, f"history WHERE memory_id = '{gone}'") == 0
    assert count(admin, "history WHERE content IS NOT NULL") == 3
    assert services.index.count() == 1
    assert (done.connector, done.receipt["receipt"]["checked"]["key"]) == ("crm", "has none of its own")
    assert "crm" not in str(done.receipt)
    assert events(admin, "connector:%") == [("connector:removed", "done")] * 2


def test_keys_of_a_removed_connector_are_revoked(services: Services, caller: Caller) -> None:
    keys = services.installation.keys
    minted = keys.mint_for_installation(caller.principal.tenant_id, Grant(ROLES["agent"], connector="crm"))
    principal = keys.find_principal(minted.secret)
    assert principal is not None
    through = Caller(principal, request_id="test")
    changed = add(services, through, "through the key")
    # What its metadata say can be changed by others; through which key it came cannot.
    services.memories.update(caller, caller.scope, changed, Edit(metadata={}))
    add(services, caller, "stays")
    other = keys.mint_for_installation(caller.principal.tenant_id, Grant(ROLES["agent"], connector="slack"))
    finish(services, caller, services.erasures.remove_connector(caller, caller.scope, "crm").id)
    assert texts(services, caller) == {"stays"}
    assert keys.find_principal(minted.secret) is None
    assert keys.find_principal(other.secret) is not None


def test_a_tenant_is_deleted_and_its_trail_stays(
    services: Services, caller: Caller, admin: psycopg.Connection[Any], data_dir: Path
) -> None:
    tenants, tenant_id = services.installation.tenants, caller.principal.tenant_id
    other = caller_of(services, tenants.create("other").id)
    add(services, other, "of another tenant")
    add(services, caller, "I like figs")
    add(services, caller, "a note", agent_id="helper")
    own = str(tenant_id)
    services.projects.update(caller, caller.scope, own, own, {ProjectField.REVIEW_REQUIRED: True})
    waits = NewMemories([Message("user", "I like plums")], SubjectNames(user_id="alice"))
    services.adds.add(caller, caller.scope, waits)
    before = count(admin, "audit")
    erasure = services.installation.erasures.request_for_installation(tenant_id, Target(ErasureKind.TENANT))
    assert tenants.get("acme").status == "deleting"
    again = services.installation.erasures.request_for_installation(tenant_id, Target(ErasureKind.TENANT))
    assert again.id == erasure.id
    services.erasing.finish(tenant_id, erasure.id)
    done = services.erasures.look(tenant_id, erasure.id)
    assert done.status is ErasureStatus.COMPLETED
    assert verify(done.receipt, trusted_keys(services.settings)).ok
    assert done.receipt["receipt"]["checked"]["key"] == "destroyed"
    for table in ("memories", "quarantine", "usage", "quarantine_usage", "history", "events", "subjects", "key_index"):
        left = admin.execute(f"SELECT count(*) FROM {table} WHERE tenant_id = %s", [tenant_id]).fetchone()  # type: ignore[arg-type]
        assert left == (0,), table
    keys = [path.read_bytes() for path in (data_dir / "keys").rglob("*.key") if str(tenant_id) in str(path)]
    assert set(keys) == {b"destroyed\n"}
    assert texts(services, other) == {"of another tenant"}
    assert services.index.count() == 1
    # The name is free, the id and its trail stay, and nothing brings the tenant back.
    assert (tenants.find("acme"), tenants.get(str(tenant_id)).status) == (None, "deleted")
    with pytest.raises(Conflict):
        tenants.resume(str(tenant_id))
    assert tenants.create("acme").id != tenant_id
    assert count(admin, "audit") > before
    assert ("tenant:deleted", "done") in events(admin, "tenant:%")
    services.jobs.sweep(0)


def test_a_key_that_another_process_destroyed_is_not_told_to_be_there(services: Services, tenant: TenantId) -> None:
    """What this process remembers of a tenant that another one deletes is not what its receipt says."""
    keyring = services.installation.keyring
    erasure = services.erasures.request_for_installation(tenant, Target(ErasureKind.TENANT))
    assert keyring.tenant_secret(tenant, "tenant-content")
    scope = Scope.of(service_principal(tenant))
    assert services.erasing._leftovers.look(scope, erasure).key == "there"
    FileKeyring(services.settings.data_dir / "keys").destroy_tenant(tenant)
    assert keyring.tenant_secret(tenant, "tenant-content")
    assert services.erasing._leftovers.look(scope, erasure).key == "destroyed"


def test_what_a_minimum_retention_keeps_is_erased_when_it_is_due(
    make_services: MakeServices, admin: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    services = make_services(worker=True)
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    ingested_at = ingested(admin, add(services, caller, "I like figs"))
    keep_for(services, caller, "P30D")
    due = ingested_at + timedelta(days=30)
    erasure = services.erasures.request(caller, caller.scope, ALICE)
    assert (erasure.status, erasure.due_at) == (ErasureStatus.SCHEDULED, due)
    assert services.erasures.request(caller, caller.scope, ALICE).id == erasure.id

    def sweep_at(moment: datetime) -> Any:
        """Let the sweep find its work at a moment, beside the worker's own, and the worker do it."""
        monkeypatch.setattr(clock, "now", lambda: moment)
        services.jobs.sweep(0)
        # All but the physical pass, which waits for its own moment.
        now = "procrastinate_jobs WHERE task_name = 'erase' AND status <> 'succeeded' AND scheduled_at IS NULL"
        eventually(lambda: count(admin, now) == 0)
        return services.erasures.look(caller.principal.tenant_id, erasure.id)

    early = sweep_at(due - timedelta(seconds=1))
    assert (early.status, early.due_at, early.begun_at) == (ErasureStatus.SCHEDULED, due, None)
    # Nor does a job do it that runs too early.
    assert finish(services, caller, erasure.id).status is ErasureStatus.SCHEDULED
    assert texts(services, caller) == {"I like figs"}
    # Its day comes, and meanwhile another rule keeps more.
    keep_for(services, caller, "P40D")
    longer = due + timedelta(days=10)
    put_off = sweep_at(due)
    assert (put_off.status, put_off.due_at, put_off.blocked_by) == ("scheduled", longer, "minimum_retention")
    assert texts(services, caller) == {"I like figs"}
    assert count(admin, "memories") == 1

    begun = sweep_at(longer)
    assert (begun.begun_at, begun.removed_at, begun.blocked_by) == (longer, longer, None)
    assert (texts(services, caller), count(admin, "memories")) == (set(), 0)
    assert finish(services, caller, erasure.id).status is ErasureStatus.COMPLETED
    assert [event for event, _ in events(admin, "erasure:%")].count("erasure:begun") == 1


def test_several_erasures_share_one_physical_pass(
    services: Services, caller: Caller, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant_id = caller.principal.tenant_id
    other = caller_of(services, services.installation.tenants.create("other").id)
    asked = []
    for who, user in ((caller, "alice"), (caller, "bob"), (other, "zoe")):
        add(services, who, "a note", user_id=user)
        asked.append((who, services.erasures.request(who, who.scope, Target(ErasureKind.USER, user)).id))
    for who, erasure_id in asked:
        services.erasing.run(str(who.principal.tenant_id), str(erasure_id))
    passes: list[str] = []
    compact = services.index.compact
    monkeypatch.setattr(services.index, "compact", lambda: passes.append("index") or compact())
    # As the maintenance role of an embedded installation may.
    monkeypatch.setattr(services.erasing._physical, "_dsn", database.admin)
    services.erasing.run(str(tenant_id), str(asked[0][1]))
    assert passes == ["index"]
    for who, erasure_id in asked:
        done = services.erasures.get(who, who.scope, erasure_id)
        assert done.status is ErasureStatus.COMPLETED
        assert done.receipt is not None
        physical = done.receipt["receipt"]["physical"]
        assert (physical["state"], physical["database"]["wal_switched"]) == ("done", True)
        assert {"memories", "history", "events"} <= set(physical["database"]["tables_rewritten"])
    # The others' jobs find nothing to do.
    for who, erasure_id in asked:
        services.erasing.run(str(who.principal.tenant_id), str(erasure_id))
    assert passes == ["index"]


def test_the_index_is_not_written_anew_while_the_tables_cannot_be(
    services: Services, caller: Caller, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(services, caller, "a note", user_id="alice")
    erasure = services.erasures.request(caller, caller.scope, Target(ErasureKind.USER, "alice"))
    tenant_id, erasure_id = str(caller.principal.tenant_id), str(erasure.id)
    services.erasing.run(tenant_id, erasure_id)
    passes: list[str] = []
    compact = services.index.compact
    monkeypatch.setattr(services.index, "compact", lambda: passes.append("index") or compact())
    monkeypatch.setattr(services.erasing._physical, "_dsn", database.admin)
    monkeypatch.setattr(services.erasing._physical, "_lock_timeout", 0.2)
    monkeypatch.setattr("service.storage.files._SNAPSHOTS_END_IN", 0.2)
    # A dump, which reads every table and lets go of none before it ends.
    with psycopg.connect(database.admin) as dump:
        dump.execute("SELECT count(*) FROM webhooks")
        with pytest.raises(RecordBusy, match="in use"):
            services.erasing.run(tenant_id, erasure_id)
    with psycopg.connect(database.admin) as report:
        report.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        report.execute("SELECT 1")
        # What it sees is not what is there any more.
        add(services, caller, "a note of somebody else", user_id="bob")
        with pytest.raises(RecordBusy, match="can still see"):
            services.erasing.run(tenant_id, erasure_id)
    assert passes == []
    services.erasing.run(tenant_id, erasure_id)
    assert passes == ["index"]
    assert services.erasures.get(caller, caller.scope, erasure.id).status is ErasureStatus.COMPLETED


def test_a_restored_database_forgets_a_connector_and_a_tenant_again(
    make_services: MakeServices, postgres: Postgres, database: Postgres, admin: psycopg.Connection[Any], data_dir: Path
) -> None:
    services = make_services()
    tenants = services.installation.tenants
    acme, rival = (caller_of(services, tenants.create(name).id) for name in ("acme", "rival"))
    add(services, acme, "from the crm", connector="crm")
    add(services, acme, "from slack", connector="slack")
    add(services, rival, "of the rival")
    kept = {
        table: admin.execute(f"SELECT * FROM {table}").fetchall()  # type: ignore[arg-type]
        for table in ("memories", "subjects")
    }
    columns = {
        table: [column.name for column in admin.execute(f"SELECT * FROM {table} LIMIT 0").description or ()]  # type: ignore[arg-type]
        for table in kept
    }
    finish(services, acme, services.erasures.remove_connector(acme, acme.scope, "crm").id)
    gone = services.installation.erasures.request_for_installation(
        rival.principal.tenant_id, Target(ErasureKind.TENANT)
    )
    services.erasing.finish(rival.principal.tenant_id, gone.id)
    assert count(admin, "memories") == 1
    # The database goes back: the rows are there again, and nothing in it knows of the erasures.
    admin.execute("DELETE FROM memories")
    admin.execute("DELETE FROM subjects")
    for table in ("subjects", "memories"):
        marks = ", ".join(["%s"] * len(columns[table]))
        for row in kept[table]:
            admin.execute(f"INSERT INTO {table} ({', '.join(columns[table])}) VALUES ({marks})", row)  # type: ignore[arg-type]
    admin.execute("DELETE FROM tombstones")
    admin.execute("UPDATE tenants SET name = 'rival', status = 'active' WHERE name LIKE 'deleted-%'")
    settled = settle(services.installation, services.erasing, services.index)
    assert settled.applied == 2
    assert count(admin, "memories") == 1
    assert texts(services, acme) == {"from slack"}
    assert tenants.get(str(rival.principal.tenant_id)).status == "deleted"


def test_the_work_is_counted_without_names(services: Services, caller: Caller) -> None:
    add(services, caller, "a note")
    finish(services, caller, services.erasures.request(caller, caller.scope, ALICE).id)
    told = generate_latest(WORK).decode()
    assert 'memvault_erasures_total{kind="user",step="completed"}' in told
    assert 'memvault_erased_rows_total{table="memories"}' in told
    assert "alice" not in told


def test_another_process_believes_a_destroyed_key_for_seconds_only(
    services: Services, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(services, caller, "I like figs")
    tenant_id, folder = caller.principal.tenant_id, services.settings.data_dir / "keys"
    subjects = services.installation.subjects
    with services.installation.database.transaction(caller.scope) as connection:
        named = subjects.find(connection, caller.scope, [(SubjectKind.USER, "alice")])
        alice = named[(SubjectKind.USER, "alice")]
        names = subjects.names(connection, caller.scope, [alice])
    here, elsewhere = FileKeyring(folder), FileKeyring(folder)
    assert isinstance(elsewhere.subject(tenant_id, alice), Cipher)
    here.destroy_subject(tenant_id, alice)
    assert isinstance(elsewhere.subject(tenant_id, alice), Cipher)
    assert names == {alice: (SubjectKind.USER, "alice")}
    now = clock.monotonic()
    monkeypatch.setattr(clock, "monotonic", lambda: now + 6)
    with pytest.raises(KeyDestroyed):
        elsewhere.subject(tenant_id, alice)
    assert subjects.known(caller.scope, named) is None
    with services.installation.database.transaction(caller.scope) as connection:
        assert subjects.names(connection, caller.scope, [alice]) == {}
