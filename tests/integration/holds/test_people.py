"""Placing and releasing need two people: what counts as one, and what nobody can pretend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from service.auth.keys import Grant
from service.auth.people import subject_person
from service.auth.rotation import Rotation
from service.errors import Conflict, Forbidden, NotFound
from service.policy.table import ROLES
from service.records import SubjectNames
from service.retention.holds import NewHold
from service.scope import Caller, Permission, Principal, PrincipalKind, TenantId
from service.wiring import Services
from tests.conftest import caller_of
from tests.integration.holds.conftest import Place

pytestmark = pytest.mark.integration

Trail = Callable[[], list[dict[str, Any]]]
OFFICER = ROLES["compliance_officer"] | {Permission.KEY_MANAGE}


def child(services: Services, parent: Caller, permissions: frozenset[Permission] = OFFICER) -> Caller:
    """A caller with a key that the parent's credential made; the owner that it asks for is not heard."""
    minted = services.keys.mint(parent, parent.scope, Grant(permissions, owner="somebody@else.example"))
    principal = services.keys.find_principal(minted.secret)
    assert principal is not None
    return Caller(principal, request_id="child")


def token(tenant: TenantId, subject: str, issuer: str = "") -> Caller:
    """A caller with an access token of a subject."""
    person = subject_person(issuer, subject)
    return Caller(
        Principal(tenant, uuid4(), OFFICER, kind=PrincipalKind.TOKEN, person=person, name="token"), request_id="token"
    )


def officer(services: Services, tenant: TenantId, owner: str | None) -> Caller:
    """A caller with a key of the installation's for this person."""
    minted = services.installation.keys.mint_for_installation(tenant, Grant(OFFICER, owner=owner))
    principal = services.keys.find_principal(minted.secret)
    assert principal is not None
    return Caller(principal, request_id="officer")


def test_another_person_releases_once_and_for_good(services: Services, ben: Caller, place: Place, trail: Trail) -> None:
    hold = place(user="alice")
    released = services.installation.holds.release(ben, ben.scope, hold.stored.id, "settled")
    assert released.stored.released is not None
    assert released.stored.released.principal_id == ben.principal.id
    assert (released.stored.reason, released.stored.release_reason) == ("litigation", "settled")
    assert trail()[-1]["event"] == "hold:released"
    with pytest.raises(Conflict, match="released already"):
        services.installation.holds.release(ben, ben.scope, hold.stored.id, "again")


@pytest.mark.parametrize(
    "who", ["same key", "same owner", "spelled otherwise", "child", "grandchild", "own token", "child of own token"]
)
def test_the_same_person_does_not_release(who: str, services: Services, tenant: TenantId, trail: Trail) -> None:
    ada = officer(services, tenant, "ada@example.org")
    own_token = token(tenant, "ada@example.org")
    releaser = {
        "same key": lambda: ada,
        "same owner": lambda: officer(services, tenant, "ada@example.org"),
        "spelled otherwise": lambda: officer(services, tenant, " Ada@Example.org"),
        "child": lambda: child(services, ada),
        "grandchild": lambda: child(services, child(services, ada)),
        "own token": lambda: own_token,
        "child of own token": lambda: child(services, own_token),
    }[who]()
    new = NewHold("case", "why", SubjectNames("alice"))
    for placer, other in ((ada, releaser), (releaser, ada)):
        hold = services.installation.holds.place(placer, placer.scope, replace(new, name=f"case-{uuid4()}"))
        with pytest.raises(Forbidden, match="another person"):
            services.installation.holds.release(other, other.scope, hold.stored.id, "settled")
        row = trail()[-1]
        assert row["detail"] == {"action": "release_hold", "reason": "same_person"}
        assert row["target_ids"] == [hold.stored.id]


def test_keys_of_one_maker_are_one_person(services: Services, tenant: TenantId) -> None:
    maker = officer(services, tenant, "ada@example.org")
    one, other = child(services, maker), child(services, maker)
    hold = services.installation.holds.place(one, one.scope, NewHold("case", "why", SubjectNames("alice")))
    with pytest.raises(Forbidden):
        services.installation.holds.release(other, other.scope, hold.stored.id, "settled")


def test_two_tokens_are_two_people(services: Services, tenant: TenantId) -> None:
    ada, ben = token(tenant, "ada"), token(tenant, "ben")
    hold = services.installation.holds.place(ada, ada.scope, NewHold("case", "why", SubjectNames("alice")))
    services.installation.holds.release(ben, ben.scope, hold.stored.id, "settled")


def test_who_is_nobody_places_and_releases_nothing(
    services: Services, tenant: TenantId, place: Place, trail: Trail
) -> None:
    nobody = officer(services, tenant, None)
    for caller in (nobody, child(services, nobody)):
        with pytest.raises(Forbidden, match="--owner"):
            services.installation.holds.place(caller, caller.scope, NewHold("x", "why", SubjectNames("alice")))
        assert trail()[-1]["detail"] == {"action": "place_hold", "reason": "person"}
        with pytest.raises(Forbidden, match="--owner"):
            services.installation.holds.release(caller, caller.scope, uuid4(), "why")


def test_a_bound_key_and_another_tenant_s_reach_no_hold(services: Services, tenant: TenantId, place: Place) -> None:
    hold = place(user="alice")
    bound = caller_of(services, tenant, users=frozenset({"alice"}), owner="cleo")
    stranger = caller_of(services, services.installation.tenants.create("rival").id, owner="cleo")
    holds = services.installation.holds
    for caller, refusal in ((bound, Forbidden), (stranger, NotFound)):
        with pytest.raises(refusal):
            holds.get(caller, caller.scope, hold.stored.id)
        with pytest.raises(refusal):
            holds.members(caller, caller.scope, hold.stored.id, page=1, size=5)
        with pytest.raises(refusal):
            holds.release(caller, caller.scope, hold.stored.id, "why")
    assert holds.list(stranger, stranger.scope, None, page=1, size=5).total == 0
    with pytest.raises(Forbidden):
        holds.list(bound, bound.scope, None, page=1, size=5)


def test_the_owner_of_a_key_is_listed_and_is_not_in_the_database(services: Services, tenant: TenantId) -> None:
    officer(services, tenant, "ada@example.org")
    keys = services.installation.keys.list_for_installation(tenant)
    assert [key.owner for key in keys] == ["ada@example.org"]


def test_who_rotates_another_s_key_does_not_become_that_person(services: Services, tenant: TenantId) -> None:
    ada, ben = officer(services, tenant, "ada@example.org"), officer(services, tenant, "ben@example.org")
    rotated = services.key_changes.rotate(ada, ada.scope, ben.principal.id, Rotation())
    principal = services.keys.find_principal(rotated.minted.secret)
    assert principal is not None
    assert principal.person == ada.principal.person
    by_installation = services.key_changes.rotate_for_installation(tenant, rotated.minted.id, Rotation())
    successor = services.keys.find_principal(by_installation.minted.secret)
    assert successor is not None
    assert successor.person == ada.principal.person
