"""The two planes: a key never leaves its tenant, mints nothing wider, and stays revoked."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest

from service import clock
from service.auth.keys import Grant, key_hash
from service.errors import Forbidden, InvalidInput, KeyringUnavailable, NotFound, Unauthenticated
from service.policy.table import NEEDS, ROLES, authorize
from service.scope import Action, Caller, Permission, Principal, Scope, SubjectKind, TenantId
from service.wiring import Services
from tests.conftest import MakeServices, Postgres, caller_of, principal_of

pytestmark = pytest.mark.integration


def authenticate(services: Services, secret: str | None) -> Principal:
    """Authenticate as a face does."""
    return services.authenticator.authenticate(secret, request_id="r", client="c", face="rest")


def test_a_scope_cannot_be_made_without_a_principal() -> None:
    with pytest.raises(TypeError, match="comes from a Principal"):
        Scope()


def test_every_action_is_in_the_table_and_every_permission_in_a_role() -> None:
    assert set(NEEDS) == set(Action)
    assert set().union(*ROLES.values()) == set(Permission)


@pytest.mark.parametrize("action", sorted(Action))
def test_a_principal_without_permissions_may_ping_and_nothing_else(action: Action, tenant: TenantId) -> None:
    nobody = Principal(tenant, clock.new_id(), frozenset())
    assert authorize(nobody, action) is (action is Action.PING)


def test_only_a_hash_of_a_key_is_kept(services: Services, tenant: TenantId, database: Postgres) -> None:
    _, secret = principal_of(services, tenant)
    with psycopg.connect(database.admin) as connection:
        dumped = repr(connection.execute("SELECT * FROM api_keys").fetchall()).encode()
        hashes = [bytes(row[0]) for row in connection.execute("SELECT key_hash FROM key_index")]
    assert secret[8:].encode() not in dumped
    assert key_hash(secret) in hashes


@pytest.mark.parametrize("secret", [None, "", "mv_wrong", "x" * 5000, "mv_é"])
def test_a_wrong_credential_is_nobody(secret: str | None, services: Services) -> None:
    with pytest.raises(Unauthenticated):
        authenticate(services, secret)


def test_a_key_mints_only_within_itself(services: Services, tenant: TenantId, caller: Caller) -> None:
    narrow = Grant(frozenset({Permission.KEY_MANAGE, Permission.MEMORY_READ}), users=frozenset({"alice"}))
    narrow = Grant(
        narrow.permissions, users=narrow.users, expires_at=clock.now() + timedelta(days=1), connector="slack"
    )
    minted = services.keys.mint(caller, caller.scope, narrow)
    principal = services.keys.find_principal(minted.secret)
    assert principal is not None
    assert principal.tenant_id == tenant
    weak = Caller(principal, request_id="r")
    fine = Grant(
        frozenset({Permission.MEMORY_READ}),
        users=frozenset({"alice"}),
        connector="slack",
        expires_at=clock.now() + timedelta(hours=1),
    )
    services.keys.mint(weak, weak.scope, fine)
    wider = [
        Grant(frozenset({Permission.MEMORY_WRITE}), fine.users, fine.connector, fine.expires_at),
        Grant(fine.permissions, None, fine.connector, fine.expires_at),
        Grant(fine.permissions, frozenset({"alice", "bob"}), fine.connector, fine.expires_at),
        Grant(fine.permissions, fine.users, None, fine.expires_at),
        Grant(fine.permissions, fine.users, "jira", fine.expires_at),
        Grant(fine.permissions, fine.users, fine.connector, None),
        Grant(fine.permissions, fine.users, fine.connector, clock.now() + timedelta(days=2)),
    ]
    for grant in wider:
        with pytest.raises(Forbidden):
            services.keys.mint(weak, weak.scope, grant)


def test_a_key_without_the_right_mints_lists_and_revokes_nothing(services: Services, tenant: TenantId) -> None:
    agent = caller_of(services, tenant, role="agent")
    with pytest.raises(Forbidden):
        services.keys.mint(agent, agent.scope, Grant(frozenset({Permission.MEMORY_READ})))
    with pytest.raises(Forbidden):
        services.keys.list(agent, agent.scope)
    with pytest.raises(Forbidden):
        services.keys.revoke(agent, agent.scope, agent.principal.id)


def test_another_tenant_s_key_is_not_found(services: Services, caller: Caller) -> None:
    other = caller_of(services, services.installation.tenants.create("rival").id)
    with pytest.raises(NotFound):
        services.keys.revoke(caller, caller.scope, other.principal.id)
    assert other.principal.id not in {key.id for key in services.keys.list(caller, caller.scope)}


def test_a_key_that_is_bound_to_users_sees_and_revokes_itself_alone(
    services: Services, tenant: TenantId, caller: Caller
) -> None:
    bound = caller_of(services, tenant, users=frozenset({"alice"}))
    assert [key.id for key in services.keys.list(bound, bound.scope)] == [bound.principal.id]
    with pytest.raises(NotFound):
        services.keys.revoke(bound, bound.scope, caller.principal.id)
    services.keys.revoke(bound, bound.scope, bound.principal.id)
    ended = {key.id: key.revoked_at is not None for key in services.keys.list(caller, caller.scope)}
    assert ended == {caller.principal.id: False, bound.principal.id: True}


def test_revoked_expired_and_suspended_stop(make_services: MakeServices) -> None:
    services = make_services(auth={"cache_seconds": 0})
    tenant = services.installation.tenants.create("acme").id
    admin, secret = principal_of(services, tenant)
    caller = Caller(admin, request_id="r")
    short = services.keys.mint(
        caller, caller.scope, Grant(frozenset({Permission.MEMORY_READ}), expires_at=clock.now() - timedelta(seconds=1))
    )
    with pytest.raises(Unauthenticated):
        authenticate(services, short.secret)
    services.installation.tenants.suspend("acme")
    with pytest.raises(Unauthenticated):
        authenticate(services, secret)
    services.installation.tenants.resume("acme")
    assert authenticate(services, secret).id == admin.id
    services.keys.revoke(caller, caller.scope, admin.id)
    with pytest.raises(Unauthenticated):
        authenticate(services, secret)


def test_the_bootstrap_key_works_once_accepted_and_stays_revoked(services: Services, tenant: TenantId) -> None:
    secret = "a-bootstrap-secret-of-enough-length"
    services.keys.ensure_bootstrap(tenant, secret)
    principal = services.keys.find_principal(secret)
    assert principal is not None
    assert principal.permissions == frozenset(Permission)
    caller = Caller(principal, request_id="r")
    services.keys.revoke(caller, caller.scope, principal.id)
    services.keys.ensure_bootstrap(tenant, secret)
    assert services.keys.find_principal(secret) is None


def test_last_use_is_noted(services: Services, tenant: TenantId, caller: Caller) -> None:
    key = next(key for key in services.keys.list(caller, caller.scope) if key.id == caller.principal.id)
    assert key.last_used_at is not None
    assert key.prefix.startswith("mv_")


def test_a_key_that_was_revoked_a_moment_ago_makes_none(make_services: MakeServices, database: Postgres) -> None:
    services = make_services(auth={"cache_seconds": 5})
    watcher = caller_of(services, services.installation.tenants.create("acme").id)
    _, secret = principal_of(services, watcher.principal.tenant_id)
    trusted = Caller(authenticate(services, secret), request_id="r")
    services.keys.revoke(watcher, watcher.scope, trusted.principal.id)
    # The authenticator may trust what it checked before: `trusted` is what it would return.
    before = {key.id for key in services.keys.list(watcher, watcher.scope)}
    with pytest.raises(Unauthenticated):
        services.keys.mint(trusted, trusted.scope, Grant(frozenset(Permission)))
    assert {key.id for key in services.keys.list(watcher, watcher.scope)} == before
    with psycopg.connect(database.admin) as connection:
        refused = connection.execute("SELECT detail->>'reason' FROM audit WHERE outcome = 'refused'").fetchall()
    assert refused == [("revoked",)]


def test_what_the_asking_key_may_is_read_from_its_row(services: Services, caller: Caller, database: Postgres) -> None:
    minted = services.keys.mint(caller, caller.scope, Grant(frozenset(Permission)))
    trusted = Caller(authenticate(services, minted.secret), request_id="r")
    with psycopg.connect(database.admin) as connection:
        connection.execute(
            "UPDATE api_keys SET permissions = %s WHERE id = %s", [["key:manage", "memory:read"], minted.id]
        )
    with pytest.raises(Forbidden):
        services.keys.mint(trusted, trusted.scope, Grant(frozenset({Permission.MEMORY_WRITE})))
    services.keys.mint(trusted, trusted.scope, Grant(frozenset({Permission.MEMORY_READ})))


def test_a_key_makes_none_once_its_tenant_is_suspended(services: Services, caller: Caller) -> None:
    services.installation.tenants.suspend(str(caller.principal.tenant_id))
    with pytest.raises(Unauthenticated):
        services.keys.mint(caller, caller.scope, Grant(frozenset({Permission.MEMORY_READ})))


def test_a_revocation_waits_for_a_key_that_is_being_made(services: Services, caller: Caller) -> None:
    revoked = threading.Event()

    def revoke() -> None:
        services.keys.revoke(caller, caller.scope, caller.principal.id)
        revoked.set()

    grant = Grant(frozenset({Permission.MEMORY_READ}))
    with services.installation.database.transaction(caller.scope) as connection:
        assert services.keys.find_refusal(connection, caller, grant, Action.CREATE_KEY) is None
        thread = threading.Thread(target=revoke)
        thread.start()
        assert not revoked.wait(0.5)
    thread.join(10)
    assert revoked.is_set()


def test_refusals_need_no_second_connection(make_services: MakeServices) -> None:
    services = make_services(database={"pool_size": 2})
    tenant = services.installation.tenants.create("acme").id
    ends = Grant(frozenset(Permission), expires_at=clock.now() + timedelta(days=1))
    secret = services.installation.keys.mint_for_installation(tenant, ends).secret
    caller = Caller(authenticate(services, secret), request_id="r")
    both = threading.Barrier(2)

    def ask(_: int) -> float:
        both.wait()
        began = clock.monotonic()
        with pytest.raises(Forbidden):
            services.keys.mint(caller, caller.scope, Grant(frozenset(Permission)))
        return clock.monotonic() - began

    for _ in range(5):
        with ThreadPoolExecutor(2) as pool:
            assert max(pool.map(ask, range(2))) < 5


def test_a_secret_that_two_processes_accept_at_once_is_one_key(services: Services, tenant: TenantId) -> None:
    both = threading.Barrier(2)

    def accept(_: int) -> bool:
        both.wait()
        return services.keys.ensure_bootstrap(tenant, "a-bootstrap-secret-of-enough-length")

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(accept, range(2))) == [False, True]
    assert len(services.keys.list_for_installation(tenant)) == 1


def test_a_tenant_is_not_named_like_an_id(services: Services, tenant: TenantId) -> None:
    for name in (str(tenant), tenant.hex, str(clock.new_id())):
        with pytest.raises(InvalidInput, match="must not look like an id"):
            services.installation.tenants.create(name)
    assert services.installation.tenants.get(str(tenant)).name == "acme"


def test_a_label_is_shown_to_whoever_lists_the_keys(
    services: Services, tenant: TenantId, caller: Caller, database: Postgres
) -> None:
    """Neither the trail nor the table has it in the clear."""
    bound = Grant(frozenset({Permission.MEMORY_READ}), users=frozenset({"alice", "bob"}), label="labelquoll")
    both = services.keys.mint(caller, caller.scope, bound)
    plain = services.keys.mint_for_installation(tenant, Grant(frozenset({Permission.MEMORY_READ}), label="labelgalah"))
    for listed in (services.keys.list(caller, caller.scope), services.keys.list_for_installation(tenant)):
        labels = {key.id: key.label for key in listed}
        assert labels == {caller.principal.id: None, both.id: "labelquoll", plain.id: "labelgalah"}
    principal = services.keys.find_principal(both.secret)
    assert principal is not None
    with psycopg.connect(database.admin) as connection:
        for table in ("api_keys", "audit"):
            assert "label" not in repr(connection.execute(f"SELECT * FROM {table}").fetchall())  # type: ignore[arg-type]


def test_a_key_whose_label_does_not_open_is_listed_without_it(
    services: Services, tenant: TenantId, caller: Caller, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person's erasure has destroyed the key a moment ago, or the keyring is away: whoever leaked is still found."""
    grant = Grant(frozenset({Permission.MEMORY_READ}), label="plain")
    plain = services.keys.mint(caller, caller.scope, grant).id
    of_alice = services.keys.mint(caller, caller.scope, replace(grant, users=frozenset({"alice", "bob"}))).id
    of_carol = services.keys.mint(caller, caller.scope, replace(grant, users=frozenset({"carol"}))).id

    def labels() -> dict[UUID, str | None]:
        listed = {key.id: key.label for key in services.keys.list(caller, caller.scope)}
        del listed[caller.principal.id]
        return listed

    subjects, keyring = services.installation.subjects, services.installation.keyring
    with services.installation.database.transaction(caller.scope) as connection:
        alice = subjects.find_any(connection, caller.scope, SubjectKind.USER, "alice")
    assert alice is not None
    keyring.destroy_subject(tenant, alice)
    assert labels() == {plain: "plain", of_alice: None, of_carol: "plain"}
    with psycopg.connect(database.admin) as connection:
        # Of other data than the keyring's.
        connection.execute("UPDATE api_keys SET label = %s WHERE id = %s", [b"\x01" + b"x" * 40, of_carol])
    assert labels() == {plain: "plain", of_alice: None, of_carol: None}

    def away(*_: object) -> bytes:
        raise KeyringUnavailable("the keyring does not answer; try again")

    monkeypatch.setattr(keyring, "tenant_secret", away)
    assert labels() == dict.fromkeys((plain, of_alice, of_carol))
