"""Keys that are rotated and changed: the overlap, retries, what nobody may gain by it, and what the trail says."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from service import clock
from service.auth.keys import Grant
from service.auth.rotation import Rotation
from service.errors import Conflict, Forbidden, InvalidInput, NotFound, Unauthenticated
from service.policy.table import ROLES
from service.scope import Caller, Permission, Principal, TenantId
from service.wiring import Services
from tests.conftest import MakeServices, Postgres, caller_of

pytestmark = pytest.mark.integration


@pytest.fixture
def services(make_services: MakeServices) -> Services:
    """Services that remember no credential."""
    return make_services(auth={"cache_seconds": 0})


def authenticate(services: Services, secret: str) -> Principal:
    """Authenticate as a face does."""
    return services.authenticator.authenticate(secret, request_id="r", client="c", face="rest")


def minted(services: Services, tenant: TenantId, **more: Any) -> Any:
    """A key of an agent."""
    grant = Grant(more.pop("permissions", ROLES["agent"]), **more)
    return services.installation.keys.mint_for_installation(tenant, grant)


def details(database: Postgres, caller: Caller, event: str) -> list[Any]:
    """The targets, results and details of the tenant's rows of an event."""
    with psycopg.connect(database.admin) as connection:
        query = "SELECT target_ids, result_ids, detail FROM audit WHERE tenant_id = %s AND event = %s ORDER BY seq"
        return connection.execute(query, [caller.principal.tenant_id, event]).fetchall()


def test_both_keys_work_until_the_overlap_is_over(
    services: Services, tenant: TenantId, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = clock.now() + timedelta(days=30)
    old = minted(services, tenant, users=frozenset({"alice"}), connector="slack", expires_at=end, label="bot")
    rotated = services.key_changes.rotate(caller, caller.scope, old.id, Rotation(timedelta(hours=1)))
    before, after = authenticate(services, old.secret), authenticate(services, rotated.minted.secret)
    assert (after.permissions, after.users, after.connector) == (before.permissions, before.users, before.connector)
    assert after.expires_at == end
    assert before.expires_at == rotated.old_ends_at < clock.now() + timedelta(hours=1, minutes=1)
    listed = {key.id: key for key in services.keys.list(caller, caller.scope)}
    assert listed[old.id].replaced_by == rotated.minted.id
    assert listed[old.id].label == listed[rotated.minted.id].label == "bot"
    later = clock.now() + timedelta(hours=2)
    monkeypatch.setattr(clock, "now", lambda: later)
    assert authenticate(services, rotated.minted.secret).id == after.id
    with pytest.raises(Unauthenticated):
        authenticate(services, old.secret)


def test_without_an_overlap_the_old_key_ends_at_once(services: Services, tenant: TenantId, caller: Caller) -> None:
    old = minted(services, tenant)
    rotated = services.key_changes.rotate(caller, caller.scope, old.id, Rotation(timedelta()))
    with pytest.raises(Unauthenticated):
        authenticate(services, old.secret)
    authenticate(services, rotated.minted.secret)


def test_a_retry_leaves_one_successor_and_the_end_where_it_was(
    services: Services, tenant: TenantId, caller: Caller, database: Postgres
) -> None:
    old = minted(services, tenant)
    lost = services.key_changes.rotate(caller, caller.scope, old.id, Rotation(timedelta(hours=1)))
    again = services.key_changes.rotate(caller, caller.scope, old.id, Rotation(timedelta(days=30)))
    assert again.old_ends_at == lost.old_ends_at
    assert again.grant.expires_at is None
    with pytest.raises(Unauthenticated):
        authenticate(services, lost.minted.secret)
    authenticate(services, again.minted.secret)
    with pytest.raises(Conflict, match="in use"):
        services.key_changes.rotate(caller, caller.scope, old.id, Rotation())
    assert details(database, caller, "key:rotated")[-1] == (
        [old.id],
        [again.minted.id],
        {"ends_at": again.old_ends_at.isoformat().replace("+00:00", "Z"), "replaced": str(lost.minted.id)},
    )


def test_rotations_at_once_leave_one_successor(services: Services, tenant: TenantId, caller: Caller) -> None:
    old = minted(services, tenant)

    def rotate(_: int) -> str:
        return services.key_changes.rotate(caller, caller.scope, old.id, Rotation()).minted.secret

    with ThreadPoolExecutor(4) as pool:
        secrets = list(pool.map(rotate, range(4)))
    alive = [secret for secret in secrets if services.keys.find_principal(secret) is not None]
    assert len(alive) == 1


def test_what_has_ended_is_not_rotated(
    services: Services, tenant: TenantId, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, short = minted(services, tenant), minted(services, tenant, expires_at=clock.now() + timedelta(hours=1))
    services.keys.revoke(caller, caller.scope, old.id)
    with pytest.raises(Conflict, match="has ended"):
        services.key_changes.rotate(caller, caller.scope, old.id, Rotation())
    with pytest.raises(NotFound):
        services.key_changes.rotate(caller, caller.scope, uuid4(), Rotation())
    for span in (timedelta(seconds=-1), timedelta(days=91)):
        with pytest.raises(InvalidInput, match="overlap"):
            services.key_changes.rotate(caller, caller.scope, old.id, Rotation(span))
    later = clock.now() + timedelta(hours=2)
    monkeypatch.setattr(clock, "now", lambda: later)
    with pytest.raises(Conflict, match="has ended"):
        services.key_changes.rotate(caller, caller.scope, short.id, Rotation(expires_at=later + timedelta(days=1)))


def test_an_overlap_lets_no_key_live_longer_and_its_successor_works_at_once(
    services: Services, tenant: TenantId, caller: Caller
) -> None:
    moment = clock.now()
    short = minted(services, tenant, expires_at=moment + timedelta(minutes=10))
    rotated = services.key_changes.rotate(caller, caller.scope, short.id, Rotation(timedelta(hours=1)))
    assert rotated.old_ends_at == authenticate(services, short.secret).expires_at == moment + timedelta(minutes=10)
    to_come = minted(services, tenant, not_before=moment + timedelta(hours=1))
    rotated = services.key_changes.rotate(caller, caller.scope, to_come.id, Rotation())
    authenticate(services, rotated.minted.secret)
    with pytest.raises(Unauthenticated):
        authenticate(services, to_come.secret)


def test_nobody_gains_by_a_rotation(services: Services, tenant: TenantId, caller: Caller) -> None:
    """The secret of a successor is worth its grant: whoever gets it must have all of that already."""
    operator = caller_of(services, tenant, role="operator")
    for grant in (Grant(ROLES["reader"]), Grant(ROLES["admin"])):
        target = services.installation.keys.mint_for_installation(tenant, grant)
        with pytest.raises(Forbidden, match="lacks"):
            services.key_changes.rotate(operator, operator.scope, target.id, Rotation())
        assert authenticate(services, target.secret).expires_at is None
    # A key that was rotated because it leaked ends when the overlap is over, whatever it asks for itself.
    leaked = minted(services, tenant, permissions=ROLES["admin"])
    thief = Caller(authenticate(services, leaked.secret), request_id="r")
    first = services.key_changes.rotate(caller, caller.scope, leaked.id, Rotation(timedelta(hours=1)))
    with pytest.raises(Forbidden, match="lives longer"):
        services.key_changes.rotate(thief, thief.scope, leaked.id, Rotation())
    authenticate(services, first.minted.secret)


def test_another_tenant_s_key_is_neither_rotated_nor_changed(
    services: Services, tenant: TenantId, caller: Caller
) -> None:
    stranger = caller_of(services, services.installation.tenants.create("rival").id)
    bound = caller_of(services, tenant, users=frozenset({"alice"}))
    for who in (stranger, bound):
        with pytest.raises(NotFound):
            services.key_changes.rotate(who, who.scope, caller.principal.id, Rotation())
        with pytest.raises(NotFound):
            services.key_changes.change(who, who.scope, caller.principal.id, frozenset())
    assert services.installation.keys.list_for_installation(tenant)[0].permissions == frozenset(Permission)


def test_permissions_are_taken_from_any_key_and_given_only_by_who_has_them(
    services: Services, tenant: TenantId, caller: Caller, database: Postgres
) -> None:
    operator = caller_of(services, tenant, role="operator")
    key = minted(services, tenant, expires_at=clock.now() + timedelta(days=1))
    reading = frozenset({Permission.MEMORY_READ})
    services.key_changes.change(operator, operator.scope, key.id, reading)
    assert authenticate(services, key.secret).permissions == reading
    with pytest.raises(Forbidden):
        services.key_changes.change(operator, operator.scope, key.id, ROLES["agent"])
    assert authenticate(services, key.secret).permissions == reading
    services.key_changes.change(caller, caller.scope, key.id, ROLES["agent"])
    assert authenticate(services, key.secret).permissions == ROLES["agent"]
    rows = details(database, caller, "key:changed")
    assert [row[2]["permissions"] for row in rows] == [["memory:read"], sorted(ROLES["agent"])]


def test_a_revoked_caller_changes_nothing_any_more(services: Services, tenant: TenantId, caller: Caller) -> None:
    """A face trusts a checked key for some seconds; what it does to other keys is asked anew."""
    other = caller_of(services, tenant)
    key = minted(services, tenant)
    services.keys.revoke(other, other.scope, caller.principal.id)
    doings: list[Callable[[], object]] = [
        lambda: services.key_changes.change(caller, caller.scope, key.id, frozenset({Permission.MEMORY_READ})),
        lambda: services.key_changes.rotate(caller, caller.scope, key.id, Rotation()),
    ]
    for do in doings:
        with pytest.raises(Unauthenticated):
            do()
    assert authenticate(services, key.secret).permissions == ROLES["agent"]


def test_a_key_works_within_its_span_of_time(
    services: Services, tenant: TenantId, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = clock.now()
    span = Grant(
        frozenset({Permission.MEMORY_READ}),
        not_before=start + timedelta(hours=1),
        expires_at=start + timedelta(hours=2),
    )
    key = services.keys.mint(caller, caller.scope, span)

    def works_after(minutes: int) -> bool:
        moment: datetime = start + timedelta(minutes=minutes)
        monkeypatch.setattr(clock, "now", lambda: moment)
        return services.keys.find_principal(key.secret) is not None

    assert [works_after(minutes) for minutes in (0, 59, 61, 119, 121)] == [False, False, True, True, False]
    with pytest.raises(InvalidInput, match="not_before"):
        services.keys.mint(caller, caller.scope, Grant(span.permissions, None, None, start, None, start))
