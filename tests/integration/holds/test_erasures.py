"""Holds and erasures: what is held is not erased, whoever asks, and its key stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from service import clock
from service.errors import LegalHold
from service.filters.ast import EVERYTHING
from service.retention.ledger import ErasureKind, ErasureStatus, Target
from service.scope import Caller, SubjectKind
from service.storage.tombstones import TombstoneKind, tombstone_id
from service.wiring import Services
from service.wiring.settling import settle
from tests.integration.holds.conftest import Add, Place
from tests.integration.retention.test_erasures import keep_for

pytestmark = pytest.mark.integration

ALICE = Target(ErasureKind.USER, "alice")
#: Each of them would erase Alice's held memory.
TARGETS = (ALICE, Target(ErasureKind.AGENT, "helper"), Target(ErasureKind.CONNECTOR, "crm"))


def texts(services: Services, caller: Caller) -> set[str]:
    """All texts of the tenant."""
    page = services.memories.list(caller, caller.scope, EVERYTHING, page=1, size=100, on=None)
    return {memory.text for memory in page.items}


@pytest.mark.parametrize("what", ["user", "id", "filter"])
def test_what_is_held_is_not_erased_and_the_refusal_names_the_hold(
    what: str,
    services: Services,
    caller: Caller,
    ada: Caller,
    ben: Caller,
    add: Add,
    place: Place,
    trail: Callable[[], list[dict[str, Any]]],
) -> None:
    memory_id = add("evidence", agent="helper", connector="crm")
    add("of another", user="bob")
    scopes = {"user": {"user": "alice"}, "id": {"memory_ids": [memory_id]}, "filter": {"filters": {"user_id": "alice"}}}
    hold = place("smith-v-acme", **scopes[what])
    for target in TARGETS:
        if what == "user" and target.kind is ErasureKind.AGENT:
            continue
        with pytest.raises(LegalHold, match="smith-v-acme"):
            services.erasures.request(ada, ada.scope, target)
    tenant_id = caller.principal.tenant_id
    with pytest.raises(LegalHold, match="smith-v-acme"):
        services.installation.erasures.request_for_installation(tenant_id, Target(ErasureKind.TENANT))
    assert services.installation.tenants.get("acme").status == "active"
    assert texts(services, caller) == {"evidence", "of another"}
    assert services.erasures.list(ada, ada.scope, page=1, size=5).total == 0
    refused = [row for row in trail() if row["event"] == "access:denied"]
    assert {row["detail"]["reason"] for row in refused} == {"hold"}
    assert all(row["detail"]["holds"] == [str(hold.stored.id)] for row in refused)

    services.installation.holds.release(ben, ben.scope, hold.stored.id, "the case is closed")
    erasure = services.erasures.request(ada, ada.scope, ALICE)
    services.erasing.finish(tenant_id, erasure.id)
    assert services.erasures.look(tenant_id, erasure.id).status is ErasureStatus.COMPLETED
    assert texts(services, caller) == {"of another"}


def test_a_hold_that_was_placed_meanwhile_puts_a_scheduled_erasure_off(
    services: Services,
    caller: Caller,
    ada: Caller,
    add: Add,
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add("evidence")
    keep_for(services, caller, "P30D")
    erasure = services.erasures.request(ada, ada.scope, ALICE)
    assert erasure.status is ErasureStatus.SCHEDULED
    assert erasure.due_at is not None
    place("smith-v-acme", user="alice")
    with pytest.raises(LegalHold):
        services.erasures.request(ada, ada.scope, ALICE)
    due_at = erasure.due_at
    monkeypatch.setattr(clock, "now", lambda: due_at)
    services.erasing.finish(caller.principal.tenant_id, erasure.id)
    put_off = services.erasures.look(caller.principal.tenant_id, erasure.id)
    assert (put_off.status, put_off.blocked_by) == (ErasureStatus.SCHEDULED, "legal_hold")
    assert put_off.due_at is not None
    assert put_off.due_at > clock.now()
    assert texts(services, caller) == {"evidence"}


def test_what_was_erased_before_a_restore_and_is_held_since_stops_no_start(
    services: Services, caller: Caller, add: Add, place: Place
) -> None:
    add("evidence")
    place("smith-v-acme", user="alice")
    scope, installation = caller.scope, services.installation
    with installation.database.transaction(scope) as connection:
        (alice,) = installation.subjects.find(connection, scope, [(SubjectKind.USER, "alice")]).values()
    for kind, ids in ((TombstoneKind.SUBJECT_ERASED, [alice]), (TombstoneKind.TENANT_REMOVED, [])):
        installation.tombstones.append(kind, scope.tenant_id, ids, tombstone=tombstone_id(kind, scope.tenant_id, alice))
        assert settle(installation, services.erasing, services.index).applied == 0
        assert texts(services, caller) == {"evidence"}
