"""Every action leaves one audit row, whatever its outcome, in its tenant's trail and in no other, without content."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import select

from service.audit.details import ExportFormat
from service.audit.events import EVENT_OF, AuditEvent
from service.audit.matching import Where
from service.audit.moves import ImportSource
from service.audit.selection import Selection
from service.audit.tenant_details import ProjectField
from service.auth.keys import Grant
from service.auth.rotation import Rotation
from service.errors import MemvaultError, NotFound, RecordUnavailable, Unauthenticated
from service.filters.ast import EVERYTHING
from service.holds.register import Register, Signature
from service.holds.rules import RuleBody, Rules
from service.holds.spans import Span
from service.memories.actions import Edit, Query
from service.memories.batch import BatchEdit
from service.memories.feedback import Verdict
from service.memories.summaries import Summaries
from service.portability.exports import Wanted
from service.portability.records import IncomingMemory, Placed
from service.records import Identity, Message, NewMemories, SubjectNames
from service.retention import run_ledger
from service.retention.holds import NewHold
from service.retention.ledger import ErasureKind, Ledger, Target
from service.scope import SYSTEM_TENANT, Action, Caller, Permission, PrincipalKind, SubjectKind
from service.storage.tables import QuarantineRow
from service.webhooks.actions import WebhookEdit
from service.webhooks.announcing import EventType
from service.wiring import Services
from tests.conftest import MakeServices, Postgres, caller_of

pytestmark = pytest.mark.integration

CANARY = "zanzibar-canary"
URL = f"https://hook.example/{CANARY}"
#: What leaves nothing for others to be done with.
ENDING = {
    *(Action.DELETE_ENTITY, Action.REQUEST_ERASURE, Action.DELETE, Action.DELETE_ALL, Action.REVOKE_KEY),
    *(Action.DELETE_WEBHOOK, Action.DELETE_BATCH),
}
CHANGED = (
    *("memories", "history", "events", "subjects", "api_keys", "messages", "idempotency", "exports"),
    *("identities", "webhooks", "projects", "hold_members", "hold_releases", "quarantine", "feedback"),
)


def new(text: str = CANARY) -> NewMemories:
    """A verbatim add."""
    return NewMemories([Message("user", text)], SubjectNames(user_id=CANARY), {CANARY: CANARY}, infer=False)


def an_erasure(services: Services, caller: Caller) -> UUID:
    """Make an erasure past the trail, and return its id."""
    with services.installation.database.transaction(caller.scope) as connection:
        target = Target(ErasureKind.CONNECTOR, "none")
        more: dict[str, Any] = {"subject_id": None, "principal_id": None, "due_at": None}
        return Ledger(services.installation.keyring).add(connection, caller.scope, target, **more).id


def incoming() -> IncomingMemory:
    """A memory to import."""
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    subjects = SubjectNames(user_id=CANARY)
    return IncomingMemory(uuid4(), f"{CANARY} imported", subjects, moment, moment, {CANARY: CANARY})


def own(caller: Caller) -> str:
    """The id of the caller's tenant."""
    return str(caller.principal.tenant_id)


def ruled(services: Services, caller: Caller) -> UUID:
    """A rule; it leaves no audit row."""
    rules, rule_id = Rules(services.installation.keyring), uuid4()
    body = RuleBody(f"rule-{rule_id.hex[:8]}", age=Span("P30D"))
    with services.installation.database.transaction(caller.scope) as connection:
        rules.write(
            connection,
            caller.scope,
            rule_id,
            1,
            body,
            removed=False,
            changed_by=None,
            changed_kind=PrincipalKind.KEY,
        )
    return rule_id


def a_run(services: Services, caller: Caller) -> UUID:
    """A dry run; it leaves no audit row."""
    with services.installation.database.transaction(caller.scope) as connection:
        return run_ledger.begin(connection, caller.scope, dry=True, asked_by=None)[0].id


def held(services: Services, caller: Caller) -> UUID:
    """A hold that somebody else has placed, on a memory that is not there; it leaves no audit row."""
    register, hold_id = Register(services.installation.keyring), uuid4()
    stranger = Signature(uuid4(), PrincipalKind.TOKEN, uuid4())
    with services.installation.database.transaction(caller.scope) as connection:
        register.place(
            connection,
            caller.scope,
            hold_id,
            f"case-{hold_id}",
            subject_ids=[uuid4()],
            where=None,
            reason=CANARY,
            placed=stranger,
        )
    return hold_id


def stored(services: Services, caller: Caller, table: str) -> UUID:
    """The id of a row that is in a table already, or of none."""
    with services.installation.database.transaction(caller.scope) as connection:
        row = connection.exec_driver_sql(f"SELECT id FROM {table}").scalar()
    return uuid4() if row is None else UUID(str(row))


@pytest.fixture
def services(make_services: MakeServices) -> Services:
    """Services that would notify a host which there is not."""
    return make_services(webhooks={"allowed_hosts": ["hook.example"]})


def waiting(services: Services, caller: Caller) -> UUID:
    """The id of a memory in quarantine, if there is one."""
    with services.installation.database.transaction(caller.scope) as connection:
        found = connection.execute(select(QuarantineRow.__table__.c.id)).scalar()  # type: ignore[attr-defined]
    return found or uuid4()


def put_one_into_quarantine(services: Services, caller: Caller) -> None:
    """Have the tenant review, and add what then waits."""
    tenant = own(caller)
    services.projects.update(caller, caller.scope, tenant, tenant, {ProjectField.REVIEW_REQUIRED: True})
    services.adds.add(caller, caller.scope, replace(new(f"{CANARY} {uuid4()}"), infer=True))


class SilentEngine:
    """An engine that has nothing to say; what it is shown is in the trail by then."""

    def summarise(self, memories: object, *, wait: float, tenant_id: object) -> tuple[str, None]:
        """Return an empty summary, and no usage."""
        return "", None


def summaries(services: Services) -> Summaries:
    """Summaries without a language model behind them."""
    return Summaries(services.memories._stores, SilentEngine(), offered=True)  # type: ignore[arg-type]


#: What to do for each action; it is given the services, the caller and the id of a memory.
DO: dict[Action, Callable[[Services, Caller, UUID, UUID], object]] = {
    Action.GET_PROJECT: lambda s, c, m, e: s.projects.get(c, c.scope, own(c), own(c)),
    Action.UPDATE_PROJECT: lambda s, c, m, e: s.projects.update(
        c, c.scope, own(c), own(c), {ProjectField.CUSTOM_INSTRUCTIONS: CANARY}
    ),
    Action.ADD: lambda s, c, m, e: s.adds.add(c, c.scope, new(f"{CANARY} again")),
    Action.SEARCH: lambda s, c, m, e: s.memories.search(c, c.scope, Query(CANARY)),
    Action.LIST: lambda s, c, m, e: s.memories.list(c, c.scope, EVERYTHING, page=1, size=5, on=None),
    Action.GET: lambda s, c, m, e: s.memories.get(c, c.scope, m),
    Action.UPDATE: lambda s, c, m, e: s.memories.update(c, c.scope, m, Edit(text=f"{CANARY} changed")),
    Action.UPDATE_BATCH: lambda s, c, m, e: s.batches.update(
        c, c.scope, [BatchEdit(m, Edit(text=f"{CANARY} changed with others"))]
    ),
    Action.DELETE_BATCH: lambda s, c, m, e: s.batches.delete(c, c.scope, [m]),
    Action.DELETE: lambda s, c, m, e: s.memories.delete(c, c.scope, m),
    Action.DELETE_ALL: lambda s, c, m, e: s.memories.delete_all(c, c.scope, SubjectNames(user_id=CANARY)),
    Action.HISTORY: lambda s, c, m, e: s.memories.history(c, c.scope, m),
    Action.LIST_ENTITIES: lambda s, c, m, e: s.entities.list(c, c.scope, page=1, size=5),
    Action.DELETE_ENTITY: lambda s, c, m, e: s.entities.delete(c, c.scope, SubjectKind.USER, CANARY),
    Action.LIST_EVENTS: lambda s, c, m, e: s.events.list(c, c.scope, page=1, size=5),
    Action.GET_EVENT: lambda s, c, m, e: s.events.get(c, c.scope, e),
    Action.CREATE_KEY: lambda s, c, m, e: s.keys.mint(c, c.scope, Grant(frozenset({Permission.MEMORY_READ}))),
    Action.LIST_KEYS: lambda s, c, m, e: s.keys.list(c, c.scope),
    Action.LINK_IDENTITY: lambda s, c, m, e: s.identities.link(c, c.scope, Identity(CANARY, f"{CANARY}-1"), CANARY),
    Action.LIST_IDENTITIES: lambda s, c, m, e: s.identities.list(c, c.scope, page=1, size=5),
    Action.UNLINK_IDENTITY: lambda s, c, m, e: s.identities.unlink(c, c.scope, stored(s, c, "identities")),
    Action.CREATE_WEBHOOK: lambda s, c, m, e: s.webhooks.create(c, c.scope, CANARY, URL, [EventType.ADDED]),
    Action.LIST_WEBHOOKS: lambda s, c, m, e: s.webhooks.list(c, c.scope),
    Action.UPDATE_WEBHOOK: lambda s, c, m, e: s.webhooks.update(
        c, c.scope, stored(s, c, "webhooks"), WebhookEdit(name=CANARY)
    ),
    Action.DELETE_WEBHOOK: lambda s, c, m, e: s.webhooks.delete(c, c.scope, stored(s, c, "webhooks")),
    Action.LIST_DELIVERIES: lambda s, c, m, e: s.webhooks.deliveries(
        c, c.scope, stored(s, c, "webhooks"), page=1, size=5
    ),
    Action.READ_AUDIT: lambda s, c, m, e: s.installation.reading.page(c, c.scope, Selection(), size=5),
    Action.EXPORT_AUDIT: lambda s, c, m, e: list(
        s.installation.reading.export(c, c.scope, Selection(), ExportFormat.JSONL)
    ),
    Action.MATCH_AUDIT: lambda s, c, m, e: s.installation.matching.match(c, c.scope, CANARY, Where(memory_id=m)),
    Action.ROTATE_KEY: lambda s, c, m, e: s.key_changes.rotate(c, c.scope, c.principal.id, Rotation()),
    Action.CHANGE_KEY: lambda s, c, m, e: s.key_changes.change(c, c.scope, c.principal.id, frozenset(Permission)),
    Action.REQUEST_ERASURE: lambda s, c, m, e: s.erasures.request(c, c.scope, Target(ErasureKind.USER, CANARY)),
    Action.REMOVE_CONNECTOR: lambda s, c, m, e: s.erasures.remove_connector(c, c.scope, CANARY),
    Action.LIST_ERASURES: lambda s, c, m, e: s.erasures.list(c, c.scope, page=1, size=5),
    Action.GET_ERASURE: lambda s, c, m, e: s.erasures.get(c, c.scope, an_erasure(s, c)),
    Action.REQUEST_EXPORT: lambda s, c, m, e: s.exports.request(c, c.scope, Wanted(SubjectNames(user_id=CANARY))),
    Action.READ_EXPORT: lambda s, c, m, e: list(s.exports.read(c, c.scope, Wanted())),
    Action.IMPORT_MEMORIES: lambda s, c, m, e: s.imports.run(
        c, c.scope, lambda: [Placed("line 1", incoming())], origin=ImportSource.EXPORT
    ),
    Action.PLACE_HOLD: lambda s, c, m, e: s.installation.holds.place(
        c, c.scope, NewHold("placed", CANARY, subjects=SubjectNames(user_id=f"{CANARY} beside"))
    ),
    Action.LIST_HOLDS: lambda s, c, m, e: s.installation.holds.list(c, c.scope, None, page=1, size=5),
    Action.GET_HOLD: lambda s, c, m, e: s.installation.holds.get(c, c.scope, held(s, c)),
    Action.SET_RETENTION_RULE: lambda s, c, m, e: s.installation.retention_rules.create(
        c, c.scope, RuleBody("old", age=Span("P30D"))
    ),
    Action.REMOVE_RETENTION_RULE: lambda s, c, m, e: s.installation.retention_rules.remove(c, c.scope, ruled(s, c)),
    Action.LIST_RETENTION_RULES: lambda s, c, m, e: s.installation.retention_rules.list(c, c.scope),
    Action.RUN_RETENTION: lambda s, c, m, e: s.installation.retention_runs.start(c, c.scope, dry=True),
    Action.LIST_RETENTION_RUNS: lambda s, c, m, e: s.installation.retention_runs.list(c, c.scope, page=1, size=5),
    Action.GET_RETENTION_RUN: lambda s, c, m, e: s.installation.retention_runs.get(c, c.scope, a_run(s, c)),
    Action.RELEASE_HOLD: lambda s, c, m, e: s.installation.holds.release(c, c.scope, held(s, c), CANARY),
    Action.LIST_REVIEWS: lambda s, c, m, e: s.reviews.list(c, c.scope, EVERYTHING, page=1, size=5),
    Action.SEARCH_REVIEWS: lambda s, c, m, e: s.reviews.search(c, c.scope, CANARY, EVERYTHING, limit=5),
    Action.GET_REVIEW: lambda s, c, m, e: s.reviews.get(c, c.scope, waiting(s, c)),
    Action.APPROVE_REVIEWS: lambda s, c, m, e: s.reviews.approve(c, c.scope, [waiting(s, c)]),
    Action.REJECT_REVIEWS: lambda s, c, m, e: s.reviews.reject(c, c.scope, [waiting(s, c)]),
    Action.GIVE_FEEDBACK: lambda s, c, m, e: s.feedback.give(c, c.scope, m, Verdict.NEGATIVE, CANARY),
    Action.SUMMARIZE: lambda s, c, m, e: summaries(s).summarise(c, c.scope, EVERYTHING),
    Action.REVOKE_KEY: lambda s, c, m, e: s.keys.revoke(c, c.scope, c.principal.id),
}


def rows(database: Postgres, caller: Caller) -> list[tuple[str, str]]:
    """Event and outcome of the tenant's audit rows, the oldest first."""
    with psycopg.connect(database.admin) as connection:
        found = connection.execute(
            "SELECT event, outcome FROM audit WHERE tenant_id = %s ORDER BY seq", [caller.principal.tenant_id]
        )
        return [(str(event), str(outcome)) for event, outcome in found]


def test_there_is_a_way_to_do_every_action() -> None:
    assert set(DO) | {Action.PING} == set(Action) == set(EVENT_OF)


@pytest.mark.parametrize("action", sorted(DO))
def test_an_action_leaves_one_row(action: Action, services: Services, caller: Caller, database: Postgres) -> None:
    event = services.adds.add(caller, caller.scope, new())
    services.identities.link(caller, caller.scope, Identity(CANARY, f"{CANARY}-0"), CANARY)
    services.webhooks.create(caller, caller.scope, CANARY, URL, [EventType.ADDED])
    put_one_into_quarantine(services, caller)
    before = rows(database, caller)
    DO[action](services, caller, event.results[0].memory_id, event.id)
    assert rows(database, caller)[len(before) :] == [(EVENT_OF[action].value, "done")]


@pytest.mark.parametrize("action", sorted(set(DO) - {Action.PING}))
def test_a_refusal_leaves_one_row(action: Action, services: Services, caller: Caller, database: Postgres) -> None:
    nobody = Caller(
        services.keys.find_principal(services.keys.mint(caller, caller.scope, Grant(frozenset())).secret),  # type: ignore[arg-type]
        request_id="r",
    )
    before = rows(database, caller)
    with pytest.raises(MemvaultError, match="lacks the permission"):
        DO[action](services, nobody, uuid4(), uuid4())
    assert rows(database, caller)[len(before) :] == [(AuditEvent.ACCESS_DENIED.value, "refused")]


@pytest.mark.parametrize("action", [Action.GET, Action.UPDATE, Action.DELETE, Action.HISTORY, Action.GET_EVENT])
def test_what_is_not_found_leaves_one_row_in_the_trail_of_who_asked(
    action: Action, services: Services, caller: Caller, database: Postgres
) -> None:
    other = caller_of(services, services.installation.tenants.create("rival").id)
    event = services.adds.add(caller, caller.scope, new())
    mine, theirs = rows(database, caller), rows(database, other)
    with suppress(MemvaultError):
        DO[action](services, other, event.results[0].memory_id, event.id)
    assert rows(database, caller) == mine
    assert rows(database, other)[len(theirs) :] == [(EVENT_OF[action].value, "not_found")]


def test_revoking_what_is_not_there_leaves_one_row_too(services: Services, caller: Caller, database: Postgres) -> None:
    other = caller_of(services, services.installation.tenants.create("rival").id)
    bound = caller_of(services, caller.principal.tenant_id, users=frozenset({CANARY}))
    cases = [(caller, uuid4()), (caller, other.principal.id), (bound, caller.principal.id)]
    mine, theirs = len(rows(database, caller)), rows(database, other)
    for who, key_id in cases:
        with pytest.raises(NotFound):
            services.keys.revoke(who, who.scope, key_id)
    with pytest.raises(NotFound):
        services.keys.revoke_for_installation(caller.principal.tenant_id, other.principal.id)
    assert rows(database, caller)[mine:] == [(AuditEvent.KEY_REVOKED.value, "not_found")] * 4
    assert rows(database, other) == theirs


def test_a_wrong_credential_is_in_the_trail_of_the_service(services: Services, database: Postgres) -> None:
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            services.authenticator.authenticate("mv_wrong", request_id="r", client="c", face="rest")
    with psycopg.connect(database.admin) as connection:
        found = connection.execute("SELECT event FROM audit WHERE tenant_id = %s", [SYSTEM_TENANT]).fetchall()
    assert found == [(AuditEvent.CREDENTIAL_REFUSED.value,)]


def test_no_row_holds_content(services: Services, caller: Caller, database: Postgres) -> None:
    event = services.adds.add(caller, caller.scope, new())
    for action in sorted(set(DO) - ENDING):
        put_one_into_quarantine(services, caller)
        DO[action](services, caller, event.results[0].memory_id, event.id)
    with psycopg.connect(database.admin) as connection:
        dumped = repr(connection.execute("SELECT * FROM audit").fetchall())
    assert len(dumped) > 1000
    assert CANARY not in dumped


@pytest.mark.parametrize("action", sorted(DO))
def test_no_audit_row_no_effect(action: Action, services: Services, caller: Caller, database: Postgres) -> None:
    event = services.adds.add(caller, caller.scope, new())

    def state() -> list[object]:
        with psycopg.connect(database.admin) as connection:
            return [
                connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()  # type: ignore[arg-type]
                for table in CHANGED
            ]

    put_one_into_quarantine(services, caller)
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("REVOKE INSERT ON audit FROM memvault_app")
    before = state()
    with pytest.raises(RecordUnavailable):
        DO[action](services, caller, event.results[0].memory_id, event.id)
    assert state() == before
