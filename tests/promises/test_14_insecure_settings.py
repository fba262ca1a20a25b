"""Promise 14: insecure settings do not start. Each refusal names the setting and says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient

from service import wiring
from service.errors import ConfigurationError
from service.main import create_app
from service.settings import load_settings, setting_names
from service.wiring import Services
from tests.conftest import MakeServices, Postgres

pytestmark = pytest.mark.promises

KEY = "0123456789abcdef0123456789abcdef"
REMOTE = "postgresql://memvault_app:{}@db.example.com/memvault"


@dataclass(frozen=True)
class Case:
    """Settings by their environment, the setting that is refused, and words of what to do instead."""

    what: str
    refused: str
    fix: str
    environ: dict[str, str] = field(default_factory=dict)


CASES = (
    Case("a short bootstrap key", "bootstrap_key", "openssl rand", {"BOOTSTRAP_KEY": "short"}),
    Case("a default bootstrap key", "bootstrap_key", "openssl rand", {"BOOTSTRAP_KEY": "changeme" * 4}),
    Case("a key of one letter", "bootstrap_key", "openssl rand", {"BOOTSTRAP_KEY": "a" * 40}),
    Case("a short password", "database.url", "ALTER ROLE", {"DATABASE__URL": REMOTE.format("short")}),
    Case("a default password", "database.url", "ALTER ROLE", {"DATABASE__URL": REMOTE.format("postgres1234")}),
    Case("the role's name as password", "database.url", "ALTER ROLE", {"DATABASE__URL": REMOTE.format("Memvault_App")}),
    Case(
        "a password behind a host in the query",
        "database.url",
        "ALTER ROLE",
        {"DATABASE__URL": "postgresql:///memvault?host=db.example.com&user=app&password=password"},
    ),
    Case(
        "a default password of the owner",
        "database.owner_url",
        "ALTER ROLE",
        {"DATABASE__OWNER_URL": REMOTE.format("x")},
    ),
    Case("a Qdrant server without a key", "index", "api_key", {"INDEX__URL": "https://qdrant.example.com:6333"}),
    Case(
        "a Qdrant server with a short key",
        "index",
        "32 characters",
        {"INDEX__URL": "https://qdrant.example.com:6333", "INDEX__API_KEY": "short"},
    ),
    Case(
        "a Qdrant server without TLS",
        "index",
        "trusted_network",
        {"INDEX__URL": "http://qdrant.example.com:6333", "INDEX__API_KEY": KEY},
    ),
    Case(
        "an issuer without TLS",
        "auth.oidc.issuer",
        "https://",
        {"AUTH__OIDC__ISSUER": "http://sso.example.com", "SERVER__PUBLIC_URL": "https://memory.example.com"},
    ),
    Case(
        "signing keys without TLS",
        "auth.oidc.jwks_url",
        "https://",
        {
            "AUTH__OIDC__ISSUER": "https://sso.example.com",
            "AUTH__OIDC__JWKS_URL": "http://sso.example.com/keys",
            "SERVER__PUBLIC_URL": "https://memory.example.com",
        },
    ),
    Case(
        "tokens without an audience",
        "auth",
        "server.public_url",
        {"AUTH__OIDC__ISSUER": "https://sso.example.com"},
    ),
    Case(
        "tokens signed with a shared secret", "auth.oidc.algorithms", "RS256", {"AUTH__OIDC__ALGORITHMS": '["HS256"]'}
    ),
    Case("unsigned tokens", "auth.oidc.algorithms", "RS256", {"AUTH__OIDC__ALGORITHMS": '["none"]'}),
    Case("a revoked key that goes on for a minute", "auth.cache_seconds", "5", {"AUTH__CACHE_SECONDS": "60"}),
    Case("a trail that forgets in a month", "audit.retention_days", "183", {"AUDIT__RETENTION_DAYS": "30"}),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_insecure_settings_are_refused(case: Case) -> None:
    """A default secret, an open Qdrant, an issuer that anybody could speak for: refused, with the fix."""
    environ = {f"MEMVAULT_{name}": value for name, value in case.environ.items()}
    with pytest.raises(ConfigurationError) as refused:
        load_settings(environ=environ)
    told = refused.value.detail
    assert "\n" not in told
    assert told.startswith(case.refused)
    assert case.fix in told
    for secret in ("changeme", "postgres1234", "Memvault_App", "=password", "a" * 40):
        assert secret not in told


def test_the_same_on_this_machine_starts() -> None:
    for environ in (
        {"DATABASE__URL": "postgresql://app:x@127.0.0.1/memvault"},
        {"DATABASE__URL": "postgresql://app:x@/memvault?host=/run/postgresql"},
        {"DATABASE__URL": REMOTE.format("nine-words-or-so")},
        {"DATABASE__URL": "postgresql://app@db.example.com/memvault"},
        {"INDEX__URL": "http://127.0.0.1:6333"},
        {"BOOTSTRAP_KEY": KEY},
    ):
        load_settings(environ={f"MEMVAULT_{name}": value for name, value in environ.items()})


ROLES: dict[str, str] = {
    "a superuser": "ALTER ROLE memvault_app SUPERUSER",
    "a role with BYPASSRLS": "ALTER ROLE memvault_app BYPASSRLS",
    "the owner of the tables": "GRANT memvault_owner TO memvault_app",
}


@pytest.fixture
def risen(request: pytest.FixtureRequest, database: Postgres) -> Iterator[Postgres]:
    """The database with an application role that row-level security does not bind."""
    undo = "ALTER ROLE memvault_app NOSUPERUSER NOBYPASSRLS", "REVOKE memvault_owner FROM memvault_app"
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute(ROLES[request.param])
        try:
            yield database
        finally:
            for statement in undo:
                connection.execute(statement)  # type: ignore[arg-type]


@pytest.mark.parametrize("risen", ROLES, indirect=True)
def test_a_role_that_row_level_security_does_not_bind_is_refused(risen: Postgres, data_dir: Path) -> None:
    """A superuser database role, one with BYPASSRLS, the owner of the tables."""
    settings = load_settings(environ={}, flags={"data_dir": data_dir})
    with ExitStack() as stack, pytest.raises(ConfigurationError) as refused:
        wiring.open_installation(settings, wiring.Connections(risen.app, risen.owner), stack)
    assert refused.value.detail.startswith("database.url: the role ")
    assert "set database.url to the application role" in refused.value.detail


#: Settings about who is believed. None of them lets anybody in without a credential; whoever adds one, says so here.
WITHOUT_A_WAY_ROUND = {
    "auth.cache_seconds",
    "auth.oidc.issuer",
    "auth.oidc.audience",
    "auth.oidc.rest_audience",
    "auth.oidc.jwks_url",
    "auth.oidc.ca_file",
    "auth.oidc.timeout",
    "auth.oidc.algorithms",
    "auth.oidc.leeway",
    "auth.oidc.tenant_claim",
    "auth.oidc.user_claim",
    "auth.oidc.bind_users",
    "auth.oidc.system_claim",
    "auth.oidc.scope_claim",
    "auth.oidc.scope_map",
    "auth.oidc.keys_fresh",
    "auth.oidc.keys_stale",
    "auth.oidc.refetch_wait",
}


def test_authentication_cannot_be_switched_off(make_services: MakeServices) -> None:
    """Authentication is never off, on a public address or elsewhere: there is no setting for it."""
    assert {name for name in setting_names() if name.startswith("auth.")} == WITHOUT_A_WAY_ROUND
    words = ("anonymous", "insecure", "no_auth", "disable", "skip", "cors")
    assert [name for name in setting_names() if any(word in name for word in words)] == []
    services = make_services(server={"host": "0.0.0.0", "public_url": "https://memory.example.com"})
    services.installation.tenants.create("default")
    with TestClient(create_app(services), base_url="http://127.0.0.1") as client:
        for path in ("/v1/ping/", "/v1/entities/", "/v1/keys/", "/v1/audit/"):
            assert client.get(path).status_code == 401
        assert client.post("/mcp", json={}).status_code == 401


def test_no_web_page_may_read_an_answer(services: Services) -> None:
    """There is no CORS, so no `*` with credentials either: a browser keeps answers from pages of other origins."""
    with TestClient(create_app(services), base_url="http://127.0.0.1") as client:
        origin: dict[str, Any] = {"Origin": "https://evil.example.com"}
        asked = {**origin, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
        for answer in (
            client.options("/v1/ping/", headers=asked),
            client.get("/v1/ping/", headers=origin),
            client.get("/healthz", headers=origin),
        ):
            assert not [name for name in answer.headers if name.lower().startswith("access-control-")]
