"""What contradicts the present state (409) leaves one row too, though its transaction takes its own rows back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import psycopg
import pytest

from service.audit.tenant_details import ProjectField
from service.auth.rotation import Rotation
from service.errors import Conflict
from service.holds.rules import RuleBody
from service.holds.spans import Span
from service.records import Message, NewMemories, SubjectNames
from service.retention.holds import NewHold
from service.scope import Caller, TenantId
from service.settings.languages import Language
from service.wiring import Services
from tests.conftest import Postgres, caller_of

pytestmark = pytest.mark.integration

RULE = RuleBody("old", age=Span("P30D"))
HOLD = NewHold("case", "litigation", SubjectNames("alice"))


def an_idempotency_key(services: Services, caller: Caller) -> Callable[[], Any]:
    first = NewMemories([Message("user", "I live in Rome")], SubjectNames("alice"), {}, infer=False)
    services.adds.add(caller, caller.scope, first, idempotency_key="k")
    other = replace(first, messages=[Message("user", "I live in Oslo")])
    return lambda: services.adds.add(caller, caller.scope, other, idempotency_key="k")


def a_new_rule_s_name(services: Services, caller: Caller) -> Callable[[], Any]:
    rules = services.installation.retention_rules
    rules.create(caller, caller.scope, RULE)
    return lambda: rules.create(caller, caller.scope, RULE)


def a_changed_rule_s_name(services: Services, caller: Caller) -> Callable[[], Any]:
    rules = services.installation.retention_rules
    rules.create(caller, caller.scope, RULE)
    other = rules.create(caller, caller.scope, replace(RULE, name="older"))
    return lambda: rules.change(caller, caller.scope, other.id, RULE)


def a_hold_s_name(services: Services, caller: Caller) -> Callable[[], Any]:
    holds = services.installation.holds
    holds.place(caller, caller.scope, HOLD)
    return lambda: holds.place(caller, caller.scope, HOLD)


def a_released_hold(services: Services, caller: Caller) -> Callable[[], Any]:
    holds = services.installation.holds
    hold = holds.place(caller, caller.scope, HOLD)
    ben = caller_of(services, caller.principal.tenant_id, role="compliance_officer", owner="ben@example.org")
    holds.release(ben, ben.scope, hold.stored.id, "settled")
    return lambda: holds.release(caller, caller.scope, hold.stored.id, "settled")


def an_ended_key(services: Services, caller: Caller) -> Callable[[], Any]:
    key = caller_of(services, caller.principal.tenant_id).principal.id
    services.keys.revoke(caller, caller.scope, key)
    return lambda: services.key_changes.rotate(caller, caller.scope, key, Rotation())


def a_language_s_change(services: Services, caller: Caller) -> Callable[[], Any]:
    own = str(caller.principal.tenant_id)
    change = partial(services.projects.update, caller, caller.scope, own, own)
    change({ProjectField.LANGUAGE: Language.GERMAN})
    return lambda: change({ProjectField.LANGUAGE: Language.FRENCH})


@pytest.fixture
def ada(services: Services, tenant: TenantId) -> Caller:
    """An administrator of whom it is known who she is."""
    return caller_of(services, tenant, owner="ada@example.org")


@pytest.mark.parametrize(
    ("made", "action", "reason"),
    [
        (an_idempotency_key, "add", "taken"),
        (a_new_rule_s_name, "set_retention_rule", "taken"),
        (a_changed_rule_s_name, "set_retention_rule", "taken"),
        (a_hold_s_name, "place_hold", "taken"),
        (a_released_hold, "release_hold", "conflict"),
        (an_ended_key, "rotate_key", "conflict"),
        (a_language_s_change, "update_project", "conflict"),
    ],
)
def test_a_conflict_leaves_one_row(
    made: Callable[[Services, Caller], Callable[[], Any]],
    action: str,
    reason: str,
    services: Services,
    ada: Caller,
    database: Postgres,
) -> None:
    again = made(services, ada)
    query = "SELECT event, outcome, detail FROM audit WHERE tenant_id = %s ORDER BY seq"
    with psycopg.connect(database.admin, autocommit=True) as connection:
        before = connection.execute(query, [ada.principal.tenant_id]).fetchall()
        with pytest.raises(Conflict):
            again()
        after = connection.execute(query, [ada.principal.tenant_id]).fetchall()
    assert after[len(before) :] == [("access:denied", "refused", {"action": action, "reason": reason})]
