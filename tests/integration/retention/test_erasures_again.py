"""Erasures that are cut short, met by another process, or found to have left something: they go on, once."""

from __future__ import annotations

import threading
from copy import copy
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from service.errors import IndexUnavailable
from service.holds.spans import Span
from service.memories import entities as entities_module
from service.retention import work as work_module
from service.retention.ledger import ErasureKind, ErasureStatus, Target
from service.scope import Caller, SubjectKind
from service.wiring import Services
from tests.conftest import MakeServices, caller_of
from tests.integration.retention.test_erasures import ALICE, add, count, events, finish, ingested, keep_for, texts

pytestmark = pytest.mark.integration


def test_an_erasure_that_is_cut_short_goes_on_with_the_sweep(
    make_services: MakeServices, admin: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    services = make_services(erasure={"physical_delay": 0})
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    for number in range(25):
        add(services, caller, f"note {number}")
    erasure = services.erasures.request(caller, caller.scope, ALICE)
    real, calls = entities_module.purge_memories, []

    def purge(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise ZeroDivisionError
        return real(*given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(entities_module, "purge_memories", purge)
        patched.setattr(entities_module, "_ERASED_AT_ONCE", 10)
        with pytest.raises(ZeroDivisionError):
            services.erasing.run(str(caller.principal.tenant_id), str(erasure.id))
    assert count(admin, "memories") == 15
    admin.execute("DELETE FROM procrastinate_jobs")
    assert services.erasing.resume() == 1
    assert services.erasing.resume() == 0, "it has a job by now"
    services.erasing.run(str(caller.principal.tenant_id), str(erasure.id))
    admin.execute("DELETE FROM procrastinate_jobs")
    assert services.erasing.resume() == 1
    done = finish(services, caller, erasure.id)
    assert done.removed["memories"] == 25
    assert done.status is ErasureStatus.COMPLETED
    assert services.erasing.resume() == 0


def test_what_is_found_afterwards_lets_the_erasure_run_again(
    services: Services, caller: Caller, admin: psycopg.Connection[Any]
) -> None:
    add(services, caller, "I like figs")
    erasure = services.erasures.request(caller, caller.scope, ALICE)
    tenant_id = caller.principal.tenant_id
    services.erasing.run(str(tenant_id), str(erasure.id))
    # As a defect would leave it.
    admin.execute(
        "INSERT INTO history (tenant_id, id, memory_id, owner_id, change, created_at, updated_at)"
        " VALUES (%s, gen_random_uuid(), gen_random_uuid(), %s, 'ADD', now(), now())",
        [tenant_id, erasure.subject_id],
    )
    assert services.erasing.purge() == 0
    assert services.erasures.look(tenant_id, erasure.id).status is ErasureStatus.RUNNING
    assert finish(services, caller, erasure.id).status is ErasureStatus.COMPLETED
    assert count(admin, "history") == 0


@pytest.mark.parametrize("harm", ["there", "missing"])
def test_a_key_that_is_not_destroyed_lets_the_erasure_run_again(
    harm: str, services: Services, caller: Caller, admin: psycopg.Connection[Any]
) -> None:
    """As when a copy of the keyring was put back: no receipt says that a key is there."""
    add(services, caller, "I like figs")
    with services.installation.database.transaction(caller.scope) as connection:
        named = services.installation.subjects.find(connection, caller.scope, [(SubjectKind.USER, "alice")])
    [path] = (services.settings.data_dir / "keys").rglob(f"{named[(SubjectKind.USER, 'alice')]}.key")
    key = path.read_bytes()
    erasure = services.erasures.request(caller, caller.scope, ALICE)
    tenant_id = caller.principal.tenant_id
    services.erasing.run(str(tenant_id), str(erasure.id))
    if harm == "there":
        path.write_bytes(key)
    else:
        path.unlink()
    assert services.erasing.purge() == 0
    assert services.erasures.look(tenant_id, erasure.id).status is ErasureStatus.RUNNING
    done = finish(services, caller, erasure.id)
    assert done.receipt["receipt"]["checked"]["key"] == "destroyed"
    assert path.read_bytes() != key


def another_process(services: Services) -> Any:
    """What works on erasures in another process: on the same database, with locks of its own."""
    other = copy(services.erasing)
    other._one_pass = threading.Lock()
    return other


def test_two_processes_complete_an_erasure_once(
    services: Services, caller: Caller, admin: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(services, caller, "from the crm", connector="crm")
    tenant_id = caller.principal.tenant_id
    erasure = services.erasures.remove_connector(caller, caller.scope, "crm")
    services.erasing.run(str(tenant_id), str(erasure.id))
    other, real = another_process(services), services.erasing._physical
    stored: list[Any] = []

    class Overtaken:
        """A physical pass during which the other process carries the erasure out."""

        def make(self, *, names: bool) -> Any:
            physical = real.make(names=names)
            assert other.purge() == 1
            stored.append(services.erasures.look(tenant_id, erasure.id))
            add(services, caller, "from a new crm", connector="crm")
            return physical

    monkeypatch.setattr(services.erasing, "_physical", Overtaken())
    assert services.erasing.purge() == 0
    assert stored[0].status is ErasureStatus.COMPLETED
    assert services.erasures.look(tenant_id, erasure.id) == stored[0]
    services.erasing.run(str(tenant_id), str(erasure.id))
    assert texts(services, caller) == {"from a new crm"}
    assert [event for event, _ in events(admin, "erasure:completed")] == ["erasure:completed"]
    assert services.erasing.resume() == 0


def test_a_process_that_comes_late_removes_nothing_that_came_since(
    services: Services, caller: Caller, admin: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_module, "_AT_ONCE", 2)
    for number in range(2):
        add(services, caller, f"note {number} from the crm", connector="crm")
    tenant_id = caller.principal.tenant_id
    erasure = services.erasures.remove_connector(caller, caller.scope, "crm")
    other, real = another_process(services), services.indexing.apply
    stored: list[Any] = []

    def apply(*given: Any, **named: Any) -> None:
        """Between two batches of this process the other one carries the erasure out."""
        real(*given, **named)
        if not stored:
            stored.append(None)
            other.finish(tenant_id, erasure.id)
            stored.append(services.erasures.look(tenant_id, erasure.id))
            add(services, caller, "from a new crm", connector="crm")

    monkeypatch.setattr(services.indexing, "apply", apply)
    services.erasing.finish(tenant_id, erasure.id)
    assert stored[1].status is ErasureStatus.COMPLETED
    assert services.erasures.look(tenant_id, erasure.id) == stored[1]
    assert texts(services, caller) == {"from a new crm"}
    assert [event for event, _ in events(admin, "erasure:completed")] == ["erasure:completed"]


def test_a_pass_that_cannot_be_made_now_is_made_later(
    services: Services, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(services, caller, "a note")
    tenant_id = str(caller.principal.tenant_id)
    erasure = services.erasures.request(caller, caller.scope, ALICE)
    services.erasing.run(tenant_id, str(erasure.id))
    with monkeypatch.context() as patched:
        patched.setattr(services.index, "compact", lambda: False)
        with pytest.raises(IndexUnavailable):
            services.erasing.run(tenant_id, str(erasure.id))
    assert services.erasures.look(caller.principal.tenant_id, erasure.id).status is ErasureStatus.PURGING
    services.erasing.run(tenant_id, str(erasure.id))
    assert services.erasures.look(caller.principal.tenant_id, erasure.id).status is ErasureStatus.COMPLETED


@pytest.mark.parametrize("target", [ALICE, Target(ErasureKind.CONNECTOR, "crm")])
def test_asked_again_after_the_rule_is_gone_an_erasure_begins(
    services: Services, caller: Caller, admin: psycopg.Connection[Any], target: Target
) -> None:
    add(services, caller, "I like figs", connector="crm")
    rules = services.installation.retention_rules
    keep_for(services, caller, "P6Y")
    put_off = services.erasures.request(caller, caller.scope, target)
    assert put_off.status is ErasureStatus.SCHEDULED
    (rule,) = rules.list(caller, caller.scope)
    rules.remove(caller, caller.scope, rule.id)

    again = services.erasures.request(caller, caller.scope, target)
    assert (again.id, again.status) == (put_off.id, ErasureStatus.RUNNING)
    assert again.due_at == again.begun_at
    # A lost job is found as that of any other.
    admin.execute("DELETE FROM procrastinate_jobs")
    assert services.erasing.resume() == 1
    assert texts(services, caller) == (set() if target is ALICE else {"I like figs"})
    assert finish(services, caller, again.id).status is ErasureStatus.COMPLETED
    assert (texts(services, caller), count(admin, "memories")) == (set(), 0)
    assert [event for event, _ in events(admin, "erasure:%")].count("erasure:begun") == 1


def test_a_rule_that_is_shortened_or_removed_lets_the_sweep_look_at_what_it_put_off(
    services: Services, caller: Caller, admin: psycopg.Connection[Any]
) -> None:
    stored_at = ingested(admin, add(services, caller, "I like figs"))
    rules, tenant_id = services.installation.retention_rules, caller.principal.tenant_id
    keep_for(services, caller, "P6Y")
    erasure = services.erasures.request(caller, caller.scope, ALICE)
    assert services.erasing.resume() == 0
    (rule,) = rules.list(caller, caller.scope)
    rules.change(caller, caller.scope, rule.id, replace(rule.body, minimum=Span("P30D")))
    assert services.erasing.resume() == 1
    services.erasing.run(str(tenant_id), str(erasure.id))
    sooner = services.erasures.look(tenant_id, erasure.id)
    assert (sooner.status, sooner.due_at) == (ErasureStatus.SCHEDULED, stored_at + timedelta(days=30))
    admin.execute("DELETE FROM procrastinate_jobs")
    assert services.erasing.resume() == 0
    assert texts(services, caller) == {"I like figs"}

    rules.remove(caller, caller.scope, rule.id)
    assert services.erasing.resume() == 1
    assert finish(services, caller, erasure.id).status is ErasureStatus.COMPLETED
    assert (texts(services, caller), count(admin, "memories")) == (set(), 0)
