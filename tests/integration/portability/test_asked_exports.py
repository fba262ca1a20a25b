"""An export that was asked for is found again by whom it was for, and by nobody else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Engine, event

from service.errors import Conflict, NotFound
from service.portability.exports import Wanted
from service.records import Message, NewMemories, SubjectNames
from service.scope import Caller, SubjectKind
from service.storage.encryption import CannotOpen, Place
from service.storage.keyring import KeyDestroyed
from service.storage.together import open_together
from service.wiring import Services
from tests.conftest import Postgres
from tests.integration.portability.test_round_trip import exported

pytestmark = pytest.mark.integration


def test_what_is_asked_for_one_user_is_not_found_for_another(
    services: Services, caller: Caller, lived: list[UUID]
) -> None:
    """A system agent acts for each of its users as if it were bound to that one."""
    alice, bob = (replace(caller, principal=caller.principal.acting_as(name, None)) for name in ("alice", "bob"))
    export_id = services.exports.request(alice, alice.scope, Wanted())
    for asked_for in (None, export_id):
        assert services.exports.find(alice, alice.scope, asked_for) == Wanted()
        with pytest.raises(NotFound):
            services.exports.find(bob, bob.scope, asked_for)
    made = {}
    for one, name in ((alice, "alice"), (bob, "bob"), (alice, "alice")):
        new = NewMemories([Message("user", f"{name} drinks tea")], SubjectNames(user_id=name), infer=False)
        event = services.adds.add(one, one.scope, new, idempotency_key="same")
        assert made.setdefault(name, event.id) == event.id
    assert len(made) == 2


def test_an_export_that_was_asked_for_is_another_tenant_s_not_found(
    services: Services, caller: Caller, rival: Caller, lived: list[UUID]
) -> None:
    export_id = services.exports.request(caller, caller.scope, Wanted(SubjectNames(user_id="alice")))
    assert services.exports.find(caller, caller.scope, export_id).subjects.user_id == "alice"
    with pytest.raises(NotFound):
        services.exports.find(rival, rival.scope, export_id)
    with pytest.raises(NotFound):
        services.exports.find(rival, rival.scope, None, Wanted(SubjectNames(user_id="alice")))


def test_an_erased_person_s_request_is_gone_and_the_export_is_empty(
    services: Services, caller: Caller, lived: list[UUID], database: Postgres
) -> None:
    services.exports.request(caller, caller.scope, Wanted(SubjectNames(user_id="alice")))
    services.entities.delete(caller, caller.scope, SubjectKind.USER, "alice")
    assert "lesund" not in repr(exported(services, caller))
    with psycopg.connect(database.admin) as connection:
        assert connection.execute("SELECT count(*) FROM exports").fetchone() == (0,)


def test_a_request_and_an_erasure_follow_each_other(
    services: Services, caller: Caller, lived: list[UUID], database: Postgres
) -> None:
    with psycopg.connect(database.admin) as connection:
        connection.execute("UPDATE subjects SET erasing_at = now()")
    services.installation.subjects.forget_names()
    with pytest.raises(Conflict, match="being erased"):
        services.exports.request(caller, caller.scope, Wanted(SubjectNames(user_id="alice")))


def test_a_request_for_whom_an_erasure_has_just_left_is_not_refused(
    services: Services, caller: Caller, database: Postgres
) -> None:
    """The name is free when the erasure ends between two looks at it."""
    wanted = Wanted(SubjectNames(user_id="carol"))
    services.exports.request(caller, caller.scope, wanted)
    ended = []

    def end(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO subjects") and not ended:
            with psycopg.connect(database.admin) as connection:
                ended.append(connection.execute("DELETE FROM subjects WHERE erasing_at IS NOT NULL").rowcount)

    with psycopg.connect(database.admin) as connection:
        connection.execute("UPDATE subjects SET erasing_at = now()")
    services.installation.subjects.forget_names()
    event.listen(Engine, "after_cursor_execute", end)
    try:
        export_id = services.exports.request(caller, caller.scope, wanted)
    finally:
        event.remove(Engine, "after_cursor_execute", end)
    assert ended == [1]
    assert services.exports.find(caller, caller.scope, export_id) == wanted
    with psycopg.connect(database.admin) as connection:
        assert connection.execute("SELECT count(*) FROM subjects WHERE erasing_at IS NULL").fetchone() == (1,)


@pytest.mark.parametrize("who", ["named", "in a filter", "beside another"])
def test_a_request_opens_with_the_keys_of_all_whom_it_names_and_not_without_one(
    who: str, services: Services, caller: Caller, lived: list[UUID], database: Postgres
) -> None:
    """A backup of the data from before an erasure has it: the present keyring, with the tenant's key, reads no name."""
    wanted = {
        "named": Wanted(SubjectNames(user_id="alice")),
        "in a filter": Wanted(filters={"user_id": "alice"}, instructions="of alice"),
        "beside another": Wanted(filters={"OR": [{"user_id": "bob"}, {"user_id": "alice"}]}, schema={"alice": 1}),
    }[who]
    export_id = services.exports.request(caller, caller.scope, wanted)
    assert services.exports.find(caller, caller.scope, export_id) == wanted
    subjects, keyring = services.installation.subjects, services.installation.keyring
    with services.installation.database.transaction(caller.scope) as connection:
        alice = subjects.find_any(connection, caller.scope, SubjectKind.USER, "alice")
    assert alice is not None
    with psycopg.connect(database.admin) as connection:
        row = connection.execute("SELECT request, subject_ids FROM exports").fetchone()
    assert row is not None
    services.entities.delete(caller, caller.scope, SubjectKind.USER, "alice")
    place = Place(caller.principal.tenant_id, "exports", export_id, "request")
    with pytest.raises(CannotOpen):
        subjects.tenant_cipher(caller.scope).open(row[0], place)
    with pytest.raises(KeyDestroyed):
        open_together(keyring, subjects.tenant_cipher(caller.scope), row[1], row[0], place)


def test_a_request_whose_person_s_key_is_gone_is_not_found(
    services: Services, caller: Caller, lived: list[UUID]
) -> None:
    export_id = services.exports.request(caller, caller.scope, Wanted(SubjectNames(user_id="alice")))
    with services.installation.database.transaction(caller.scope) as connection:
        alice = services.installation.subjects.find_any(connection, caller.scope, SubjectKind.USER, "alice")
    assert alice is not None
    services.installation.keyring.destroy_subject(caller.principal.tenant_id, alice)
    with pytest.raises(NotFound):
        services.exports.find(caller, caller.scope, export_id)


def test_a_request_of_an_earlier_release_is_read(
    services: Services, caller: Caller, lived: list[UUID], database: Postgres
) -> None:
    wanted = Wanted(SubjectNames(user_id="alice"), {"metadata": {"n": 1}})
    export_id = services.exports.request(caller, caller.scope, wanted)
    document = {
        "subjects": {"user_id": "alice"},
        "filters": {"metadata": {"n": 1}},
        "schema": None,
        "instructions": None,
    }
    cipher = services.installation.subjects.tenant_cipher(caller.scope)
    place = Place(caller.principal.tenant_id, "exports", export_id, "request")
    with psycopg.connect(database.admin) as connection:
        connection.execute("UPDATE exports SET request = %s", [cipher.seal_json(document, place)])
    assert services.exports.find(caller, caller.scope, export_id) == wanted
