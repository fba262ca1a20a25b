"""Authentication in the steady state: no query a request, and changes are heard of within seconds all the same."""

from __future__ import annotations

import ast
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import event

import service
from service.auth import authenticator
from service.auth.keys import Grant
from service.auth.rotation import Rotation
from service.errors import Unauthenticated
from service.policy.table import ROLES
from service.scope import Permission, Principal, SubjectKind, TenantId
from service.wiring import Services
from tests.conftest import MakeServices, Postgres, caller_of, principal_of

pytestmark = pytest.mark.integration

#: The bound of the promise, on every replica.
PROMISED = 5.0
Statements = list[str]


@pytest.fixture
def statements(services: Services) -> Iterator[Statements]:
    """The SQL that the services send, as it is sent."""
    sent: Statements = []

    def note(connection: object, cursor: object, statement: str, *more: object) -> None:
        sent.append(statement)

    engine = services.installation.database._engine
    event.listen(engine, "before_cursor_execute", note)
    yield sent
    event.remove(engine, "before_cursor_execute", note)


@pytest.fixture
def replicas(make_services: MakeServices, tmp_path: Path) -> tuple[Services, Services]:
    """Two sets of services on one database and one keyring, each with an index of its own."""
    first = make_services()
    folder = tmp_path / "other"
    folder.mkdir(mode=0o711)
    for name in ("model", "keys"):
        (folder / name).symlink_to((first.settings.data_dir / name).resolve())
    return first, make_services(data_dir=folder)


def authenticate(services: Services, secret: str) -> Principal:
    """Authenticate as a face does."""
    return services.authenticator.authenticate(secret, request_id="r", client="c", face="rest")


def used(services: Services, secrets: list[str], seconds: float) -> int:
    """Use keys again and again for so long; return how often."""
    count, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        for secret in secrets:
            authenticate(services, secret)
            count += 1
        time.sleep(0.01)
    return count


def stops(services: Services, secret: str) -> bool:
    """Tell whether a key is refused within the promised time."""
    until = time.monotonic() + PROMISED
    while time.monotonic() < until:
        try:
            authenticate(services, secret)
        except Unauthenticated:
            return True
        time.sleep(0.02)
    return False


def test_the_steady_state_asks_the_database_nothing_for_a_request(
    services: Services, tenant: TenantId, statements: Statements
) -> None:
    """Over three times as long as a checked key is trusted, several keys cost one small question an interval."""
    trusted = services.settings.auth.cache_seconds
    secrets = [principal_of(services, tenant)[1] for _ in range(5)]
    used(services, secrets, trusted)
    statements.clear()
    requests = used(services, secrets, 3 * trusted)
    assert requests > 100
    assert not [sent for sent in statements if "api_keys" in sent or "key_index" in sent]
    asked = [sent for sent in statements if "tenants" in sent]
    assert 1 <= len(asked) <= 3 * 2 + 2, asked


def test_an_idle_service_asks_nothing(services: Services, tenant: TenantId, statements: Statements) -> None:
    authenticate(services, principal_of(services, tenant)[1])
    time.sleep(services.settings.auth.cache_seconds * 1.5)
    statements.clear()
    time.sleep(services.settings.auth.cache_seconds * 1.5)
    assert not [sent for sent in statements if "tenants" in sent]


def test_when_the_database_does_not_answer_nothing_is_confirmed(
    services: Services, tenant: TenantId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica that is cut off trusts what it knows no longer than the bound."""
    watch = services.authenticator._watch
    assert watch is not None
    principal = authenticate(services, principal_of(services, tenant)[1])
    watch.look()
    assert watch.confirms(principal)
    watch.stop()
    later = time.monotonic() + services.settings.auth.cache_seconds
    monkeypatch.setattr("service.clock.monotonic", lambda: later)
    assert not watch.confirms(principal)


def test_a_key_is_read_anew_after_a_while_however_often_it_is_confirmed(
    services: Services, tenant: TenantId, statements: Statements, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authenticator, "_READ_EVERY", 0.0)
    secret = principal_of(services, tenant)[1]
    authenticate(services, secret)
    time.sleep(services.settings.auth.cache_seconds)
    statements.clear()
    authenticate(services, secret)
    assert [sent for sent in statements if "api_keys" in sent]


CHANGES: dict[str, Callable[[Services, TenantId, Principal], object]] = {
    "revocation": lambda s, t, key: s.installation.keys.revoke_for_installation(t, key.id),
    "suspension": lambda s, t, key: s.installation.tenants.suspend(str(t)),
    "rotation": lambda s, t, key: s.installation.key_changes.rotate_for_installation(t, key.id, Rotation(timedelta())),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_by_one_replica_stops_a_busy_key_on_the_other(
    change: str, replicas: tuple[Services, Services]
) -> None:
    here, there = replicas
    tenant = here.installation.tenants.create("acme").id
    other = here.installation.tenants.create("rival").id
    key, secret = principal_of(here, tenant)
    _, bystander = principal_of(here, other)
    used(there, [secret, bystander], there.settings.auth.cache_seconds * 1.5)
    CHANGES[change](here, tenant, key)
    assert stops(there, secret), f"the key still works {PROMISED} s after its {change}"
    authenticate(there, bystander)


def test_changed_permissions_are_known_to_the_other_replica(replicas: tuple[Services, Services]) -> None:
    here, there = replicas
    tenant = here.installation.tenants.create("acme").id
    key, secret = principal_of(here, tenant)
    used(there, [secret], there.settings.auth.cache_seconds * 1.5)
    here.installation.key_changes.change_for_installation(tenant, key.id, ROLES["reader"])
    since = time.monotonic()
    while authenticate(there, secret).permissions != {Permission.MEMORY_READ}:
        assert time.monotonic() - since < PROMISED
        time.sleep(0.02)


def test_whoever_changes_a_key_by_sql_is_heard_of_too(services: Services, tenant: TenantId, database: Postgres) -> None:
    """The version is the database's own doing, so that no way of changing a credential can forget it."""
    key, secret = principal_of(services, tenant)
    versions = [authenticate(services, secret).version]
    changes = (
        "UPDATE api_keys SET revoked_at = NULL, permissions = '{}' WHERE id = %s",
        "UPDATE api_keys SET connector = 'slack' WHERE id = %s",
        "UPDATE api_keys SET last_used_at = NULL WHERE id = %s",
        "DELETE FROM api_keys WHERE id = %s",
    )
    with psycopg.connect(database.admin, autocommit=True) as connection:
        for change in changes:
            connection.execute(change, [key.id])
            row = connection.execute("SELECT version FROM tenants WHERE id = %s", [tenant]).fetchone()
            assert row is not None
            versions.append(row[0])
    assert [now - before for before, now in pairwise(versions)] == [1, 1, 0, 1]


def test_the_key_of_an_erased_user_does_not_reach_who_has_the_name_next(services: Services, tenant: TenantId) -> None:
    caller = caller_of(services, tenant)
    minted = services.installation.keys.mint_for_installation(tenant, Grant(ROLES["agent"], users=frozenset({"alice"})))
    used(services, [minted.secret], services.settings.auth.cache_seconds * 1.5)
    services.entities.delete(caller, caller.scope, SubjectKind.USER, "alice")
    assert stops(services, minted.secret)


#: Names of what is compared with what an attacker sends.
_SECRET = ("secret", "hash", "mac", "digest", "signature", "token", "password")
#: The rooms in which what a caller sends meets what only we know. The hashes of the trail, say, are no secrets.
_ROOMS = ("auth", "api", "mcp")


def test_secrets_are_compared_in_constant_time() -> None:
    """No `==` on what is named like a secret, but in SQL; keys and tokens are decided on by `compare_digest`."""
    root = Path(service.__file__).parent
    found, constant = [], set()
    for path in sorted(path for room in _ROOMS for path in (root / room).rglob("*.py")):
        name = str(path.relative_to(root.parent))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "hmac.compare_digest":
                constant.add(name)
            if not isinstance(node, ast.Compare) or not isinstance(node.ops[0], ast.Eq | ast.NotEq):
                continue
            sides = [ast.unparse(side) for side in (node.left, *node.comparators)]
            sql = any(".c." in side or side.startswith(("_a.", "_m.", "_c.")) for side in sides)
            named = any(word in side.lower().split("(")[0] for side in sides for word in _SECRET)
            if named and not sql:
                found.append(f"{name}:{node.lineno}: {ast.unparse(node)}")
    assert constant == {"service/auth/keys.py", "service/api/metrics.py"}
    assert found == []
