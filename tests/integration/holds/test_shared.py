"""Holds on one of those who share memories: they keep the others too, before anything of these is destroyed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from service.errors import Conflict, LegalHold
from service.records import Message, NewMemories, SubjectNames
from service.retention.holds import NewHold
from service.retention.ledger import ErasureKind, ErasureStatus, Target
from service.scope import Caller, SubjectKind
from service.storage.keyring import KeyDestroyed
from service.wiring import Services
from tests.conftest import MakeServices, caller_of
from tests.integration.holds.conftest import Add, Place
from tests.integration.portability.test_round_trip import imported
from tests.integration.rules.conftest import Run, SetRule, run, set_rule

__all__ = ["run", "set_rule"]

pytestmark = pytest.mark.integration

HELPER = Target(ErasureKind.AGENT, "helper")
REMOVALS: dict[str, Callable[[Services, Caller, Target], object]] = {
    "at once": lambda services, caller, target: services.entities.delete(
        caller, caller.scope, SubjectKind(target.kind.value), target.name
    ),
    "with a receipt": lambda services, caller, target: services.erasures.request(caller, caller.scope, target),
}


def subject(services: Services, caller: Caller, target: Target) -> UUID:
    """The surrogate of a subject, one that is being erased included."""
    kind = SubjectKind(target.kind.value)
    with services.installation.database.transaction(caller.scope) as connection:
        found = services.installation.subjects.find_any(connection, caller.scope, kind, target.name)
    assert found is not None
    return found


def arrive(services: Services, caller: Caller, memory_id: UUID, user: str) -> None:
    """Import a memory under an id that somebody had before."""
    moment = "2024-01-01T00:00:00+00:00"
    line = {"type": "memory", "id": str(memory_id), "text": "tea", "user_id": user, "created_at": moment}
    imported(services, caller, [line | {"updated_at": moment}])


@pytest.mark.parametrize("remove", REMOVALS.values(), ids=REMOVALS)
@pytest.mark.parametrize(
    ("hold", "target"),
    [({"user": "alice"}, HELPER), ({"agent": "helper"}, Target(ErasureKind.USER, "alice"))],
    ids=["on the user", "on the agent"],
)
@pytest.mark.parametrize("deleted", [True, False], ids=["deleted before", "there"])
def test_who_shares_what_is_held_is_not_removed_and_nothing_of_it_is_destroyed(
    remove: Callable[[Services, Caller, Target], object],
    hold: dict[str, str],
    target: Target,
    deleted: bool,
    services: Services,
    caller: Caller,
    ben: Caller,
    add: Add,
    place: Place,
    trail: Callable[[], list[dict[str, Any]]],
) -> None:
    shared = add("evidence", agent="helper")
    own = {target.kind.value + "_id": target.name}
    event = services.adds.add(
        caller, caller.scope, NewMemories([Message("user", "of its own")], SubjectNames(**own), {}, infer=False)
    )
    if deleted:
        services.memories.delete(caller, caller.scope, shared)
    placed = place("smith-v-acme", **hold)
    with pytest.raises(LegalHold, match="smith-v-acme"):
        remove(services, caller, target)
    (refused,) = (row for row in trail() if row["event"] == "access:denied")
    assert (refused["detail"]["reason"], refused["detail"]["holds"]) == ("hold", [str(placed.stored.id)])
    known = subject(services, caller, target)
    services.installation.keyring.check(caller.scope.tenant_id, known)
    assert not [one for one in services.installation.tombstones.all() if one.ids == (known,)]
    assert services.memories.get(caller, caller.scope, event.results[0].memory_id).text == "of its own"
    add("more evidence", agent="helper")

    services.installation.holds.release(ben, ben.scope, placed.stored.id, "settled")
    remove(services, caller, target)
    with pytest.raises(KeyDestroyed):
        services.installation.keyring.check(caller.scope.tenant_id, known)


def test_a_hold_on_others_keeps_nobody_from_leaving(services: Services, caller: Caller, add: Add, place: Place) -> None:
    """Neither on somebody who shares nothing, nor on two together who share nothing with it."""
    add("tea", agent="helper")
    add("coffee", user="bob", agent="clerk")
    place("bob", user="bob")
    place("both", user="alice", agent="clerk")
    assert services.entities.delete(caller, caller.scope, SubjectKind.AGENT, "helper") == 1


@pytest.mark.parametrize("hold", ["the memory", "who had it before"])
def test_history_under_an_id_that_was_used_again_is_kept(
    hold: str, services: Services, caller: Caller, add: Add, place: Place, set_rule: SetRule, run: Run
) -> None:
    """Its steps are of one, the memory is another's: with either of them steps would leave that are held."""
    memory_id = add("tea", user="bob")
    services.memories.delete(caller, caller.scope, memory_id)
    arrive(services, caller, memory_id, "alice")
    if hold == "the memory":
        place("case", memory_ids=[memory_id])
    else:
        place("case", user="bob")
    for name in ("alice", "bob"):
        with pytest.raises(LegalHold, match="case"):
            services.erasures.request(caller, caller.scope, Target(ErasureKind.USER, name))
        services.installation.keyring.check(
            caller.scope.tenant_id, subject(services, caller, Target(ErasureKind.USER, name))
        )
    free = uuid4()
    arrive(services, caller, free, "carol")
    set_rule("old", age="P30D")
    # The run goes on past it.
    assert [one.memory_id for one in run(dry=False)] == [free]


def test_a_connector_whose_deleted_texts_are_held_is_not_removed(make_services: MakeServices) -> None:
    services = make_services(history={"keep_deleted": True})
    tenant_id, holds = services.installation.tenants.create("acme").id, services.installation.holds
    ada, ben = (caller_of(services, tenant_id, owner=f"{name}@example.org") for name in ("ada", "ben"))
    for user in ("alice", "bob"):
        names = SubjectNames(user_id=user)
        new = NewMemories([Message("user", "from the crm")], names, {"connector": "crm"}, infer=False)
        memory_id = services.adds.add(ada, ada.scope, new).results[0].memory_id
        services.memories.delete(ada, ada.scope, memory_id)
    new_hold = NewHold("smith-v-acme", "litigation", subjects=SubjectNames(user_id="alice"))
    placed = holds.place(ada, ada.scope, new_hold)
    with pytest.raises(LegalHold, match="smith-v-acme"):
        services.erasures.remove_connector(ada, ada.scope, "crm")
    assert services.erasures.list(ada, ada.scope, page=1, size=5).total == 0
    # Of another connector nothing is held.
    services.erasures.remove_connector(ada, ada.scope, "mail")
    holds.release(ben, ben.scope, placed.stored.id, "settled")
    erasure = services.erasures.remove_connector(ada, ada.scope, "crm")
    services.erasing.finish(tenant_id, erasure.id)
    assert services.erasures.look(tenant_id, erasure.id).status is ErasureStatus.COMPLETED


@pytest.mark.parametrize("deleted", [True, False], ids=["deleted before", "there"])
def test_no_hold_is_placed_on_what_somebody_shares_who_is_being_erased(
    deleted: bool,
    services: Services,
    caller: Caller,
    add: Add,
    place: Place,
    trail: Callable[[], list[dict[str, Any]]],
) -> None:
    memory_id = add("evidence", agent="helper")
    add("of another", user="bob")
    if deleted:
        services.memories.delete(caller, caller.scope, memory_id)
    erasure = services.erasures.request(caller, caller.scope, HELPER)
    with pytest.raises(Conflict, match="is being erased"):
        place("on-her", user="alice")
    assert [row["detail"]["reason"] for row in trail() if row["event"] == "access:denied"] == ["conflict"]
    assert place("on-him", user="bob").stored.members == 1
    tenant_id = caller.principal.tenant_id
    services.erasing.finish(tenant_id, erasure.id)
    assert services.erasures.look(tenant_id, erasure.id).status is ErasureStatus.COMPLETED
    assert place("on-her", user="alice").stored.members == 0


def test_an_erasure_that_meets_a_hold_when_it_runs_is_put_off(
    services: Services, caller: Caller, ben: Caller, add: Add, place: Place
) -> None:
    """As where a release before this one let a hold be placed while it waited."""
    add("evidence", agent="helper")
    erasure = services.erasures.request(caller, caller.scope, HELPER)
    tenant_id = caller.principal.tenant_id
    placed = unguarded(services, place)
    for _ in range(2):
        with pytest.raises(LegalHold, match="smith-v-acme"):
            services.erasing.finish(tenant_id, erasure.id)
        with pytest.raises(LegalHold, match="smith-v-acme"):
            services.erasures.request(caller, caller.scope, HELPER)
    put_off = services.erasures.look(tenant_id, erasure.id)
    assert (put_off.status, put_off.blocked_by) == (ErasureStatus.RUNNING, "legal_hold")
    assert services.erasing.resume() == 0
    services.installation.holds.release(ben, ben.scope, placed.stored.id, "settled")
    services.erasing.finish(tenant_id, erasure.id)
    done = services.erasures.look(tenant_id, erasure.id)
    assert (done.status, done.blocked_by) == (ErasureStatus.COMPLETED, None)


def unguarded(services: Services, place: Place) -> Any:
    """Place a hold on Alice as if nobody who shares anything with her were being erased."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(services.installation.subjects, "erasing", lambda connection: [])
        return place("smith-v-acme", user="alice")
