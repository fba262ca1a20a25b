"""Access tokens as credentials: what opens, what does not, and what an issuer that misbehaves cannot do."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm
from sqlalchemy import text as sql

from service import clock
from service.auth.keys import Grant
from service.auth.scopes import ScopeNames
from service.auth.tokens import looks_like_token
from service.errors import ConfigurationError, Forbidden, InsufficientScope, InvalidToken, Unauthenticated, Unavailable
from service.filters.ast import EVERYTHING
from service.main import create_app
from service.memories.actions import Query
from service.records import Change, EventStatus, Message, NewMemories, SubjectNames
from service.scope import SYSTEM_TENANT, Caller, Permission, Principal, PrincipalKind
from service.settings import load_settings
from service.wiring import Services
from tests.conftest import MakeServices, Postgres, caller_of, principal_of
from tests.isolation.issuer import Issuer, assembled, public
from tests.llm.scripted import ScriptedLLM

pytestmark = pytest.mark.integration

PUBLIC_URL = "http://127.0.0.1:8080"
REST = {"aud": PUBLIC_URL}
Open = Callable[..., Services]


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """An issuer."""
    with Issuer() as one:
        yield one


@pytest.fixture
def open_services(make_services: MakeServices, issuer: Issuer) -> Open:
    """Open services that trust the issuer, with the tenant `acme`; keyword arguments change `auth.oidc`."""

    def opened(*, cache_seconds: float = 0, more: dict[str, Any] | None = None, **oidc: Any) -> Services:
        auth = {"cache_seconds": cache_seconds, "oidc": {**issuer.oidc, "refetch_wait": 0, **oidc}}
        services = make_services(server={"public_url": PUBLIC_URL}, auth=auth, **(more or {}))
        services.installation.tenants.create("acme")
        return services

    return opened


@pytest.fixture
def trusting(open_services: Open) -> Services:
    """Services that trust the issuer and remember no credential."""
    return open_services()


def authenticate(services: Services, token: str, face: str = "mcp") -> Principal:
    """Authenticate as a face does."""
    return services.authenticator.authenticate(token, request_id="r", client="c", face=face)


def refusal(services: Services, token: str, face: str = "mcp") -> str:
    """What a token is refused with."""
    with pytest.raises(Unauthenticated) as caught:
        authenticate(services, token, face)
    assert token not in caught.value.detail
    return caught.value.detail


def test_a_token_is_a_principal_of_its_tenant_user_and_scopes(trusting: Services, issuer: Issuer) -> None:
    ends = int(time.time()) + 120
    token = issuer.token(scope="openid memory:read memory:delete offline_access", exp=ends)
    principal = authenticate(trusting, token)
    assert principal.tenant_id == trusting.installation.tenants.get("acme").id
    assert principal.permissions == {Permission.MEMORY_READ, Permission.MEMORY_DELETE}
    assert principal.users == {"alice"}
    assert principal.kind is PrincipalKind.TOKEN
    assert principal.expires_at == datetime.fromtimestamp(ends, UTC)


def test_the_principal_of_a_subject_is_the_same_for_ever(trusting: Services, issuer: Issuer) -> None:
    first, again, other = (authenticate(trusting, issuer.token(sub=sub)).id for sub in ("alice", "alice", "bob"))
    assert first == again != other
    assert first.version == 5


def test_the_usual_algorithms_are_accepted(trusting: Services, issuer: Issuer) -> None:
    issuer.add("curve", ec.generate_private_key(ec.SECP256R1()))
    issuer.add("edwards", ed25519.Ed25519PrivateKey.generate())
    for kid, alg in (("first", "RS256"), ("curve", "ES256"), ("edwards", "EdDSA")):
        assert authenticate(trusting, issuer.token(kid=kid, alg=alg)).users == {"alice"}


def test_the_types_of_access_tokens_are_accepted(trusting: Services, issuer: Issuer) -> None:
    for kind in ("at+jwt", "AT+JWT", "application/at+jwt", "JWT", None):
        assert authenticate(trusting, issuer.token(headers={"typ": kind}))


NOW = int(time.time())
WRONG: dict[str, dict[str, Any]] = {
    "audience of another service": {"aud": "https://other.example.com/mcp"},
    "audience of the other face": {"aud": PUBLIC_URL},
    "audience that begins like ours": {"aud": f"{PUBLIC_URL}/mcp/"},
    "audience in other letters": {"aud": f"{PUBLIC_URL}/MCP"},
    "audiences of others": {"aud": ["a", "b"]},
    "audience of the wrong shape": {"aud": {"a": 1}},
    "empty audience": {"aud": []},
    "no audience": {"aud": None},
    "issuer of somebody else": {"iss": "https://evil.example.com"},
    "issuer with a slash": {"iss": "{issuer}/"},
    "issuers": {"iss": ["{issuer}"]},
    "no issuer": {"iss": None},
    "expired": {"exp": NOW - 3600},
    "no end": {"exp": None},
    "end that is no number": {"exp": "soon"},
    "endless": {"exp": float("inf")},
    "end that is a list": {"exp": [NOW + 300]},
    "not yet valid": {"nbf": NOW + 3600},
    "issued in the future": {"iat": NOW + 3600},
    "issued at no number": {"iat": "now"},
    "no subject": {"sub": None},
    "empty subject": {"sub": ""},
    "subject that is a number": {"sub": 7},
    "long subject": {"sub": "x" * 300},
    "no tenant": {"tenant": None},
    "unknown tenant": {"tenant": "globex"},
    "suspended tenant": {"tenant": "asleep"},
    "tenant of the service by name": {"tenant": "_system"},
    "tenant of the service by id": {"tenant": str(SYSTEM_TENANT)},
    "empty tenant": {"tenant": ""},
    "tenants": {"tenant": ["acme"]},
    "tenant that is a number": {"tenant": 1},
    "tenant with a null byte": {"tenant": "acme\x00"},
    "tenant with a lone surrogate": {"tenant": "\ud800"},
    "bound to a key of the client": {"cnf": {"jkt": "x"}},
}


def test_one_wrong_claim_is_enough(trusting: Services, issuer: Issuer, subtests: pytest.Subtests) -> None:
    trusting.installation.tenants.create("asleep")
    trusting.installation.tenants.suspend("asleep")
    assert authenticate(trusting, assembled_and_signed(issuer, issuer.claims()))
    for case, wrong in WRONG.items():
        with subtests.test(case):
            changed = json.loads(json.dumps(wrong).replace("{issuer}", issuer.url))
            claims = {name: value for name, value in (issuer.claims() | changed).items() if value is not None}
            assert refusal(trusting, assembled_and_signed(issuer, claims)).startswith("the access token")


def test_a_user_that_cannot_be_one_is_refused(trusting: Services, issuer: Issuer) -> None:
    for sub in ("*", " ", "a\x00b", "\ud800"):
        assert "subject" in refusal(trusting, issuer.token(sub=sub))


def test_a_wrong_header_is_enough(trusting: Services, issuer: Issuer) -> None:
    wrong: list[dict[str, Any]] = [
        {"typ": "logout+jwt"},
        {"typ": "dpop+jwt"},
        {"kid": ""},
        {"kid": "x" * 300},
        {"crit": ["exp"], "exp": 1},
        {"b64": False, "crit": ["b64"]},
    ]
    for headers in wrong:
        refusal(trusting, issuer.token(headers=headers))
    refusal(trusting, issuer.token(kid=None))


def test_a_key_that_the_token_brings_along_is_never_used(trusting: Services, issuer: Issuer) -> None:
    own = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    with Issuer() as evil:
        evil.keys = {"first": own}
        evil.publish()
        for headers in ({"jwk": public(own)}, {"jku": f"{evil.url}/keys"}, {"x5u": f"{evil.url}/keys"}):
            refusal(trusting, issuer.token(key=own, headers=headers))
        refusal(trusting, evil.token())
        assert evil.asked == []


def test_no_signature_is_no_token(trusting: Services, issuer: Issuer) -> None:
    claims = issuer.claims()
    for alg in ("none", "None", "NONE", "", None, 7, ["RS256"]):
        refusal(trusting, assembled({"alg": alg, "typ": "at+jwt", "kid": "first"}, claims))
        refusal(trusting, assembled({"alg": alg, "typ": "at+jwt", "kid": "first"}, claims, b"signature"))
    refusal(trusting, assembled({"typ": "at+jwt", "kid": "first"}, claims))
    refusal(trusting, assembled({"alg": "RS256", "kid": "first"}, claims))
    refusal(trusting, issuer.token().rpartition(".")[0] + ".")


def test_the_public_key_is_not_a_shared_secret(trusting: Services, issuer: Issuer) -> None:
    key = issuer.keys["first"].public_key()
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    jwk = json.dumps(public(issuer.keys["first"])).encode()
    for secret in (pem, pem.strip(), der, jwk, b""):
        for alg, digest in (("HS256", hashlib.sha256), ("HS512", hashlib.sha512)):
            unsigned = assembled({"alg": alg, "typ": "at+jwt", "kid": "first"}, issuer.claims()).rpartition(".")[0]
            made = base64.urlsafe_b64encode(hmac.digest(secret, unsigned.encode(), digest)).rstrip(b"=").decode()
            assert "auth.oidc.algorithms" in refusal(trusting, f"{unsigned}.{made}")


def test_an_algorithm_that_is_not_listed_is_refused(open_services: Open, issuer: Issuer) -> None:
    services = open_services(algorithms=["ES256"])
    issuer.add("curve")
    assert authenticate(services, issuer.token(kid="curve"))
    assert "algorithms" in refusal(services, issuer.token())
    assert "algorithms" in refusal(services, issuer.token(alg="RS384"))


def test_a_key_signs_with_its_own_algorithm_only(trusting: Services, issuer: Issuer) -> None:
    issuer.add("curve")
    refusal(trusting, issuer.token(kid="first", key=issuer.keys["curve"]))
    refusal(trusting, issuer.token(kid="curve", key=issuer.keys["first"]))


@pytest.mark.parametrize(
    "more", [{"use": "enc"}, {"key_ops": ["sign"]}, {"d": "AQAB"}, {"alg": "RS512"}, {"kty": "oct", "k": "c2VjcmV0"}]
)
def test_keys_that_are_not_for_checking_signatures_are_not_used(
    more: dict[str, Any], open_services: Open, issuer: Issuer
) -> None:
    issuer.publish(**more)
    services = open_services()
    with pytest.raises(Unavailable):
        authenticate(services, issuer.token())
    assert "no signing key" in (services.authenticator.token_state()[1] or "")


def test_a_private_key_that_the_issuer_published_by_mistake_is_not_used(open_services: Open, issuer: Issuer) -> None:
    key = issuer.keys["first"]
    assert isinstance(key, rsa.RSAPrivateKey)
    issuer.documents["/keys"] = {
        "keys": [RSAAlgorithm.to_jwk(key, as_dict=True) | {"kid": "first", "key_ops": ["verify"]}]
    }
    services = open_services()
    with pytest.raises(Unavailable):
        authenticate(services, issuer.token())


def test_a_short_rsa_key_is_refused(trusting: Services, issuer: Issuer) -> None:
    issuer.add("short", rsa.generate_private_key(public_exponent=65537, key_size=1024))
    with pytest.warns(Warning, match="minimum"):
        token = issuer.token(kid="short")
    refusal(trusting, token)


def test_changed_claims_are_noticed(trusting: Services, issuer: Issuer) -> None:
    header, _, signature = issuer.token().split(".")
    for changed in ({"tenant": "rival"}, {"sub": "bob"}, {"scope": "key:manage"}):
        body = assembled({}, issuer.claims(**changed)).split(".")[1]
        refusal(trusting, f"{header}.{body}.{signature}")


def test_clocks_may_differ_by_the_leeway_and_no_more(open_services: Open, issuer: Issuer) -> None:
    services = open_services(leeway=30, cache_seconds=2)
    now = int(time.time())
    for early in ({"exp": now - 20}, {"nbf": now + 20}, {"iat": now + 20}):
        assert authenticate(services, issuer.token(**early))
    for wrong in ({"exp": now - 40}, {"nbf": now + 45}, {"iat": now + 45}):
        refusal(services, issuer.token(**wrong))


def test_a_token_that_ends_is_not_remembered_beyond_its_end(open_services: Open, issuer: Issuer) -> None:
    services = open_services(leeway=0, cache_seconds=5)
    token = issuer.token(exp=int(time.time()) + 2)
    assert authenticate(services, token)
    time.sleep(2.1)
    assert "expired" in refusal(services, token)


def test_a_token_for_one_face_does_not_open_the_other(open_services: Open, issuer: Issuer) -> None:
    services = open_services(cache_seconds=5)
    for_mcp, for_rest = issuer.token(), issuer.token(**REST)
    for _ in range(2):
        assert authenticate(services, for_mcp, "mcp")
        assert authenticate(services, for_rest, "rest")
        assert "another service" in refusal(services, for_mcp, "rest")
        assert "another service" in refusal(services, for_rest, "mcp")
    assert authenticate(services, issuer.token(aud=[PUBLIC_URL, f"{PUBLIC_URL}/mcp"]), "rest")
    assert "not accepted here" in refusal(services, for_mcp, "cli")


def test_audiences_can_be_set(open_services: Open, issuer: Issuer) -> None:
    services = open_services(audience="api://memory", rest_audience="api://memory")
    token = issuer.token(aud="api://memory")
    assert authenticate(services, token, "mcp") == authenticate(services, token, "rest")
    refusal(services, issuer.token())


def test_a_new_key_is_fetched_once_and_unknown_ones_cannot_make_us_ask(open_services: Open, issuer: Issuer) -> None:
    services = open_services(refetch_wait=1)
    assert authenticate(services, issuer.token())
    asked = issuer.fetches
    stranger = ec.generate_private_key(ec.SECP256R1())
    for number in range(50):
        assert "does not have" in refusal(services, issuer.token(kid=f"made-up-{number}", key=stranger))
    assert issuer.fetches == asked
    issuer.add("second")
    time.sleep(1.05)
    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(lambda _: authenticate(services, issuer.token(kid="second")), range(20)))) == 20
    assert issuer.fetches == asked + 1


def test_a_withdrawn_key_stops_and_renewal_is_in_the_background(open_services: Open, issuer: Issuer) -> None:
    services = open_services(keys_fresh=1)
    token = issuer.token()
    assert authenticate(services, token)
    issuer.add("second")
    issuer.withdraw("first")
    time.sleep(1.05)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            authenticate(services, token)
        except InvalidToken:
            break
        time.sleep(0.05)
    assert "does not have" in refusal(services, token)
    assert authenticate(services, issuer.token(kid="second"))


def test_a_key_that_was_withdrawn_while_nobody_asked_is_not_accepted_once_more(
    open_services: Open, issuer: Issuer
) -> None:
    services = open_services(keys_fresh=1)
    token = issuer.token()
    assert authenticate(services, token)
    issuer.add("second")
    issuer.withdraw("first")
    time.sleep(2.1)
    refusal(services, token)


def test_known_keys_go_on_while_the_issuer_is_down(open_services: Open, issuer: Issuer) -> None:
    services = open_services(keys_fresh=1, keys_stale=6, refetch_wait=0.2)
    assert authenticate(services, issuer.token())
    fetched = time.monotonic()
    issuer.status = 500
    time.sleep(2.2)
    assert authenticate(services, issuer.token())
    stranger = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(Unavailable) as caught:
        authenticate(services, issuer.token(kid="unknown", key=stranger))
    assert int(caught.value.headers["Retry-After"]) >= 1
    assert services.authenticator.token_state() == ("failed", "auth.oidc: the issuer answers 500")
    time.sleep(max(0.0, fetched + 6.1 - time.monotonic()))
    with pytest.raises(Unavailable):
        authenticate(services, issuer.token())
    issuer.status = 200
    time.sleep(0.25)
    assert authenticate(services, issuer.token())
    assert services.authenticator.token_state() == ("ok", None)


def test_an_issuer_that_was_never_reached_is_503_and_keys_still_work(open_services: Open, issuer: Issuer) -> None:
    issuer.status = 500
    services = open_services()
    with pytest.raises(Unavailable):
        authenticate(services, issuer.token())
    tokens = next(part for part in services.readiness() if part.name == "tokens")
    assert (tokens.state, tokens.blocks) == ("failed", False)
    tenant = services.installation.tenants.get("acme").id
    assert authenticate(services, principal_of(services, tenant)[1])


def test_an_issuer_that_hangs_takes_a_few_threads_and_not_all(open_services: Open, issuer: Issuer) -> None:
    services = open_services(timeout=3, refetch_wait=0)
    assert authenticate(services, issuer.token())
    issuer.gate.clear()
    stranger = ec.generate_private_key(ec.SECP256R1())
    made = [issuer.token(kid=f"unknown-{number}", key=stranger) for number in range(24)]
    waited: list[float] = []

    def attempt(token: str) -> None:
        began = time.monotonic()
        with pytest.raises(Unavailable):
            authenticate(services, token)
        waited.append(time.monotonic() - began)

    threads = [threading.Thread(target=attempt, args=(token,)) for token in made]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 2
    while len(waited) < 19 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(waited) >= 19
    # Those who have a known key do not notice.
    began = time.monotonic()
    assert authenticate(services, issuer.token())
    assert time.monotonic() - began < 1
    for thread in threads:
        thread.join(30)


def test_once_the_keys_are_known_nobody_is_asked(open_services: Open, issuer: Issuer) -> None:
    services = open_services()
    assert authenticate(services, issuer.token())
    asked = len(issuer.asked)
    for _ in range(100):
        authenticate(services, issuer.token())
    assert len(issuer.asked) == asked == 2


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"<html>", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"x" * 400_000, "too long"),
        ({"keys": "none"}, "no signing key"),
        ({"keys": [1, None, {"kid": 1}, {"kid": "a", "kty": "RSA", "n": "!", "e": "AQAB"}]}, "no signing key"),
    ],
    ids=["html", "list", "endless", "no list", "rubbish"],
)
def test_rubbish_from_the_issuer_is_no_key(document: Any, reason: str, open_services: Open, issuer: Issuer) -> None:
    issuer.documents["/keys"] = document
    services = open_services()
    with pytest.raises(Unavailable):
        authenticate(services, issuer.token())
    assert reason in (services.authenticator.token_state()[1] or "")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"issuer": "https://evil.example.com"}, "another issuer"),
        ({"jwks_uri": "http://evil.example.com/keys"}, "no https:// URL"),
        ({"jwks_uri": "file:///etc/passwd"}, "no https:// URL"),
        ({"jwks_uri": None}, "no https:// URL"),
    ],
)
def test_metadata_that_leads_astray_is_not_followed(
    changed: dict[str, Any], reason: str, open_services: Open, issuer: Issuer
) -> None:
    issuer.documents["/.well-known/openid-configuration"] |= changed
    services = open_services()
    with pytest.raises(Unavailable):
        authenticate(services, issuer.token())
    assert reason in (services.authenticator.token_state()[1] or "")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(status: int, open_services: Open, issuer: Issuer) -> None:
    with Issuer() as other:
        issuer.status, issuer.headers = status, {"Location": f"{other.url}/keys"}
        services = open_services()
        with pytest.raises(Unavailable):
            authenticate(services, issuer.token())
        assert other.asked == []


def test_proxies_of_the_environment_are_not_used(
    open_services: Open, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Issuer() as other:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, other.url)
        assert authenticate(open_services(), issuer.token())
        assert other.asked == []


def test_the_url_of_the_keys_can_be_set(open_services: Open, issuer: Issuer) -> None:
    issuer.documents.pop("/.well-known/openid-configuration")
    assert authenticate(open_services(jwks_url=f"{issuer.url}/keys"), issuer.token())
    assert set(issuer.asked) == {"/keys"}


def test_metadata_of_plain_oauth_is_found_too(open_services: Open, issuer: Issuer) -> None:
    metadata = issuer.documents.pop("/.well-known/openid-configuration")
    issuer.documents["/.well-known/oauth-authorization-server"] = metadata
    assert authenticate(open_services(), issuer.token())


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"issuer": "http://sso.example.com"}, "auth.oidc.issuer"),
        ({"issuer": "https://user@sso.example.com"}, "auth.oidc.issuer"),
        ({"issuer": "https://sso.example.com/?a=b"}, "auth.oidc.issuer"),
        ({"issuer": "file:///keys"}, "auth.oidc.issuer"),
        ({"issuer": "https://sso.example.com", "jwks_url": "http://10.0.0.1/keys"}, "auth.oidc.jwks_url"),
        ({"issuer": "https://sso.example.com", "algorithms": ["HS256"]}, "auth.oidc.algorithms"),
        ({"issuer": "https://sso.example.com", "algorithms": ["none"]}, "auth.oidc.algorithms"),
        ({"issuer": "https://sso.example.com", "algorithms": []}, "auth.oidc.algorithms"),
        ({"issuer": "https://sso.example.com", "leeway": 4000}, "auth.oidc.leeway"),
    ],
)
def test_unsafe_settings_do_not_start(flags: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        load_settings(environ={}, flags={"server": {"public_url": PUBLIC_URL}, "auth": {"oidc": flags}})


def test_an_issuer_needs_to_know_what_tokens_are_for() -> None:
    with pytest.raises(ConfigurationError, match=r"server\.public_url"):
        load_settings(environ={"MEMVAULT_AUTH__OIDC__ISSUER": "https://sso.example.com"})
    with pytest.raises(ConfigurationError, match=r"server\.public_url"):
        load_settings(environ={"MEMVAULT_SERVER__PUBLIC_URL": "http://memory.example.com"})


def test_settings_come_from_the_environment_too() -> None:
    names = {
        "ISSUER": "https://sso.example.com/",
        "SCOPE_MAP": '{"agents": ["agent"]}',
        "ALGORITHMS": '["ES256"]',
        "TENANT_CLAIM": "org.id",
    }
    environ = {f"MEMVAULT_AUTH__OIDC__{name}": value for name, value in names.items()}
    found = load_settings(environ=environ | {"MEMVAULT_SERVER__PUBLIC_URL": "https://memory.example.com/"})
    assert found.server.public_url == "https://memory.example.com"
    assert found.auth.oidc.issuer == "https://sso.example.com/"
    assert found.auth.oidc.scope_map == {"agents": ["agent"]}


def test_scopes_are_permissions(trusting: Services, issuer: Issuer) -> None:
    cases: list[tuple[Any, set[Permission]]] = [
        ("memory:read", {Permission.MEMORY_READ}),
        ("  memory:read   audit:read ", {Permission.MEMORY_READ, Permission.AUDIT_READ}),
        (["memory:read", "key:manage", 7, None], {Permission.MEMORY_READ, Permission.KEY_MANAGE}),
        ("MEMORY:READ memory:* * admin agent", set()),
        ("memory:read,memory:write", set()),
        ("", set()),
        (None, set()),
        ({"memory:read": True}, set()),
        (True, set()),
    ]
    for scope, granted in cases:
        assert authenticate(trusting, issuer.token(scope=scope)).permissions == granted, scope


def test_scopes_of_another_naming_are_mapped_and_no_others_count(open_services: Open, issuer: Issuer) -> None:
    services = open_services(
        scope_map={"Memory.Use": ["agent"], "Memory.Read": ["memory:read"], "Vault Admins": ["admin"]},
        scope_claim="resource_access.memvault.roles",
    )

    def granted(*roles: str) -> set[Permission]:
        claims = {"resource_access": {"memvault": {"roles": list(roles)}}, "scope": "key:manage"}
        return set(authenticate(services, issuer.token(**claims)).permissions)

    assert granted("Memory.Read") == {Permission.MEMORY_READ}
    assert granted("Memory.Use") == {Permission.MEMORY_READ, Permission.MEMORY_WRITE, Permission.MEMORY_DELETE}
    assert granted("Vault Admins") == set(Permission)
    assert granted("memory:read", "key:manage", "agent", "memory.read") == set()
    names = services.authenticator.scopes
    assert names([Permission.MEMORY_READ]) == ("Memory.Read",)
    assert names([Permission.MEMORY_READ, Permission.MEMORY_WRITE]) == ("Memory.Read", "Memory.Use")
    # A name with a space cannot be asked for as a scope.
    assert names([Permission.KEY_MANAGE]) == ()


def test_a_map_to_what_does_not_exist_does_not_start() -> None:
    with pytest.raises(ConfigurationError, match=r"scope_map: there is no permission or role memory:everything"):
        ScopeNames({"x": ["memory:everything"]})


def test_claims_are_found_by_name_before_path(open_services: Open, issuer: Issuer) -> None:
    services = open_services(tenant_claim="https://memvault.example/tenant", user_claim="act.user")
    claims = {"tenant": "globex", "https://memvault.example/tenant": "acme", "act": {"user": "bob"}}
    assert authenticate(services, issuer.token(**claims)).users == {"bob"}
    assert authenticate(services, issuer.token(**claims | {"act.user": "carol"})).users == {"carol"}
    for act in (
        {},
        {"user": None},
        {"user": 7},
        "bob",
        None,
        {"user": []},
        {"user": ["bob", 7]},
        {"user": ["x"] * 101},
    ):
        refusal(services, issuer.token(**claims | {"act": act}))


def test_a_system_agent_s_token_is_bound_to_no_user(open_services: Open, issuer: Issuer) -> None:
    services = open_services(system_claim="system")
    assert authenticate(services, issuer.token(system=True)).users is None
    for value in ("true", 1, "yes", False, None, [True], {"a": True}):
        assert authenticate(services, issuer.token(system=value)).users == {"alice"}


def test_tokens_for_all_users_are_a_decision_of_the_operator(open_services: Open, issuer: Issuer) -> None:
    services = open_services(bind_users=False)
    assert authenticate(services, issuer.token()).users is None


def add(services: Services, caller: Caller, text: str, user: str, **more: Any) -> Any:
    """Add one memory."""
    new = NewMemories([Message("user", text)], SubjectNames(user_id=user), **{"infer": False, **more})
    return services.adds.add(caller, caller.scope, new)


def caller_with(services: Services, token: str) -> Caller:
    """The caller that a token makes."""
    return Caller(authenticate(services, token), request_id="r", client="c", face="mcp")


def test_a_token_reaches_its_user_in_its_tenant_and_nothing_else(trusting: Services, issuer: Issuer) -> None:
    for name in ("acme", "rival"):
        tenants = trusting.installation.tenants
        tenant = tenants.find(name) or tenants.create(name)
        admin = caller_of(trusting, tenant.id)
        for user in ("alice", "bob"):
            add(trusting, admin, f"{user} of {name} drinks tea", user)
    both = {"scope": "memory:read memory:write memory:delete"}
    mine = caller_with(trusting, issuer.token(**both))
    theirs = caller_with(trusting, issuer.token(tenant="rival", sub="bob", **both))
    by_id = caller_with(trusting, issuer.token(tenant=str(mine.principal.tenant_id), **both))
    for caller, text in ((mine, "alice of acme"), (by_id, "alice of acme"), (theirs, "bob of rival")):
        hits = trusting.memories.search(caller, caller.scope, Query("who drinks tea?", threshold=0.0))
        listed = trusting.memories.list(caller, caller.scope, EVERYTHING, page=1, size=50, on=None).items
        assert [one.memory.text for one in hits] == [one.text for one in listed] == [f"{text} drinks tea"]
    with pytest.raises(Forbidden, match="bound to a user"):
        add(trusting, mine, "as somebody else", "bob")
    assert add(trusting, mine, "as herself", "alice").results[0].change is Change.ADD


def test_a_user_that_is_not_known_yet_sees_nothing_and_can_begin(trusting: Services, issuer: Issuer) -> None:
    admin = caller_of(trusting, trusting.installation.tenants.get("acme").id)
    add(trusting, admin, "alice drinks tea", "alice")
    newcomer = caller_with(trusting, issuer.token(sub="newcomer"))
    listed = trusting.memories.list(newcomer, newcomer.scope, EVERYTHING, page=1, size=5, on=None)
    assert listed.items == []
    assert trusting.memories.search(newcomer, newcomer.scope, Query("tea", threshold=0.0)) == []
    add(trusting, newcomer, "I am new", "newcomer")
    assert trusting.memories.list(newcomer, newcomer.scope, EVERYTHING, page=1, size=5, on=None).total == 1


def test_what_looks_like_an_id_is_never_a_name(trusting: Services, issuer: Issuer) -> None:
    """Else a tenant that is named like another's id would receive the other's tokens."""
    name = str(clock.new_random_id())
    named = trusting.installation.tenants.create("named")
    with trusting.installation.database.tenant_blind() as connection:
        # No tenant can be given such a name; one that had it all the same would still not be found by it.
        connection.execute(sql("UPDATE tenants SET name = :name WHERE id = :id"), {"name": name, "id": named.id})
    refusal(trusting, issuer.token(tenant=name))
    assert authenticate(trusting, issuer.token(tenant=str(named.id))).tenant_id == named.id


def test_suspending_the_tenant_stops_its_tokens_within_the_promised_seconds(
    open_services: Open, issuer: Issuer
) -> None:
    services = open_services(cache_seconds=2)
    token = issuer.token()
    assert authenticate(services, token)
    services.installation.tenants.suspend("acme")
    began = time.monotonic()
    while time.monotonic() - began < 5:
        try:
            authenticate(services, token)
        except InvalidToken:
            break
        time.sleep(0.05)
    assert time.monotonic() - began < 5
    services.installation.tenants.resume("acme")
    assert authenticate(services, token)


def test_a_token_lacks_what_its_scopes_do_not_say(trusting: Services, issuer: Issuer, database: Postgres) -> None:
    reader = caller_with(trusting, issuer.token(scope="memory:read"))
    with pytest.raises(InsufficientScope) as caught:
        add(trusting, reader, "tea", "alice")
    assert caught.value.missing == {Permission.MEMORY_WRITE}
    with psycopg.connect(database.admin) as connection:
        rows = connection.execute("SELECT event, outcome, principal_id FROM audit ORDER BY seq").fetchall()
    assert rows[-1] == ("access:denied", "refused", reader.principal.id)


def test_a_token_mints_no_key_that_is_wider_or_lives_longer(trusting: Services, issuer: Issuer) -> None:
    ends = clock.now() + timedelta(minutes=5)
    caller = caller_with(trusting, issuer.token(scope="key:manage memory:read", exp=int(ends.timestamp())))
    fine = Grant(frozenset({Permission.MEMORY_READ}), frozenset({"alice"}), None, ends - timedelta(minutes=1))
    minted = trusting.keys.mint(caller, caller.scope, fine)
    found = trusting.keys.find_principal(minted.secret)
    assert found is not None
    assert (found.kind, found.users) == (PrincipalKind.KEY, {"alice"})
    for grant in (
        Grant(frozenset({Permission.MEMORY_WRITE}), fine.users, None, fine.expires_at),
        Grant(fine.permissions, None, None, fine.expires_at),
        Grant(fine.permissions, frozenset({"bob"}), None, fine.expires_at),
        Grant(fine.permissions, fine.users, None, None),
        Grant(fine.permissions, fine.users, None, ends + timedelta(minutes=1)),
    ):
        with pytest.raises(Forbidden):
            trusting.keys.mint(caller, caller.scope, grant)


@pytest.mark.xdist_group("extraction")
@pytest.mark.parametrize("meanwhile", ["expired", "suspended", "erased"])
def test_what_a_token_asked_for_is_done_later(meanwhile: str, open_services: Open, issuer: Issuer) -> None:
    with ScriptedLLM() as llm:
        model = {"provider": "openai", "config": llm.config, "timeout": 5.0, "retry_wait": 0.05}
        services = open_services(more={"llm": model, "worker": False})
        admin = caller_of(services, services.installation.tenants.get("acme").id)
        caller = caller_with(services, issuer.token(exp=int(time.time()) + 1))
        event = add(services, caller, "I love tea", "alice", infer=True)
        assert event.status is EventStatus.PENDING
        time.sleep(1.1)
        if meanwhile == "suspended":
            services.installation.tenants.suspend("acme")
        elif meanwhile == "erased":
            services.memories.delete_all(admin, admin.scope, SubjectNames(user_id="alice"))
        services.jobs.handlers()["extract"](tenant_id=str(admin.principal.tenant_id), event_id=str(event.id))
        done = services.events.get(admin, admin.scope, event.id)
        wanted = EventStatus.SUCCEEDED if meanwhile == "expired" else EventStatus.CANCELLED
        assert done.status is wanted, done
        assert [one.text for one in done.results] == (["I love tea"] if meanwhile == "expired" else [])


@pytest.fixture
def rest(trusting: Services) -> Iterator[TestClient]:
    """The whole app over HTTP, in the process, without a credential."""
    with TestClient(create_app(trusting), raise_server_exceptions=False) as client:
        yield client


def bearer(token: str, scheme: str = "Bearer") -> dict[str, str]:
    """The header of a token."""
    return {"Authorization": f"{scheme} {token}"}


def test_rest_takes_tokens_and_tells_what_is_wrong_with_them(rest: TestClient, issuer: Issuer) -> None:
    for scheme in ("Bearer", "bearer", "Token"):
        assert rest.get("/v1/ping/", headers=bearer(issuer.token(**REST), scheme)).status_code == 200
    answer = rest.get("/v1/ping/", headers=bearer(issuer.token()))
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")
    assert answer.headers["www-authenticate"] == (
        'Token realm="memvault", Bearer realm="memvault", error="invalid_token"'
    )
    answer = rest.get("/v1/ping/")
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert "error=" not in answer.headers["www-authenticate"]


def test_rest_names_the_scope_that_is_missing(rest: TestClient, issuer: Issuer) -> None:
    body = {"messages": [{"role": "user", "content": "tea"}], "user_id": "alice", "infer": False}
    answer = rest.post("/v3/memories/add/", json=body, headers=bearer(issuer.token(scope="memory:read", **REST)))
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
    assert answer.headers["www-authenticate"] == (
        'Bearer realm="memvault", error="insufficient_scope", scope="memory:write"'
    )
    assert rest.post("/v3/memories/add/", json=body, headers=bearer(issuer.token(**REST))).status_code == 200


def test_a_token_in_a_url_is_refused_even_beside_a_good_header(rest: TestClient, issuer: Issuer) -> None:
    token = issuer.token(**REST)
    for headers in ({}, bearer(token)):
        answer = rest.get(f"/v1/ping/?access_token={token}", headers=headers)
        assert answer.status_code == 400
        assert token not in answer.text


def test_a_parameter_given_twice_is_refused(rest: TestClient, issuer: Issuer) -> None:
    headers = bearer(issuer.token(scope="memory:read memory:write memory:delete", **REST))
    for query in ("user_id=alice&user_id=bob", "user_id=alice&user_id=alice"):
        assert rest.delete(f"/v1/memories/?{query}", headers=headers).status_code == 400
    assert rest.delete("/v1/memories/?user_id=alice", headers=headers).status_code == 200


def test_when_the_issuer_is_away_rest_says_503(rest: TestClient, issuer: Issuer) -> None:
    issuer.status = 500
    stranger = ec.generate_private_key(ec.SECP256R1())
    answer = rest.get("/v1/ping/", headers=bearer(issuer.token(kid="new", key=stranger, **REST)))
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1


def test_tokens_are_in_no_log_error_or_row(
    rest: TestClient, issuer: Issuer, database: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    canary = "canary-4711"
    good = issuer.token(email=canary, **REST)
    sent = [
        good,
        issuer.token(email=canary),
        issuer.token(sub=canary, tenant=canary, **REST),
        issuer.token(iss=canary, **REST),
        issuer.token(exp=1, jti=canary, **REST),
        issuer.token(headers={"kid": canary}, **REST),
        issuer.token(headers={"typ": canary}, **REST),
        issuer.token(tenant="acme", scope=canary, **REST),
        assembled({"alg": canary, "kid": canary}, issuer.claims(sub=canary)),
        f"{good}{canary}",
    ]
    told = [rest.get("/v1/ping/", headers=bearer(token)) for token in sent]
    assert {answer.status_code for answer in told} == {200, 401}
    with psycopg.connect(database.admin) as connection:
        rows = repr(
            [connection.execute(f"SELECT * FROM {name}").fetchall() for name in ("audit", "events", "api_keys")]
        )
    everything = "".join([caplog.text, rows, *(answer.text + repr(answer.headers) for answer in told)])
    assert len(everything) > 2000
    assert canary not in everything
    for token in sent:
        for part in token.split("."):
            assert len(part) < 12 or part not in everything


def test_without_an_issuer_a_token_is_a_wrong_key(services: Services, issuer: Issuer) -> None:
    with pytest.raises(Unauthenticated) as caught:
        authenticate(services, issuer.token())
    assert caught.value.code == "unauthenticated"
    assert services.authenticator.token_state() == ("off", "auth.oidc.issuer is not set")
    assert issuer.asked == []


def test_a_refused_token_is_in_the_trail_of_the_service(trusting: Services, issuer: Issuer, database: Postgres) -> None:
    for _ in range(3):
        refusal(trusting, issuer.token(exp=1))
    with psycopg.connect(database.admin) as connection:
        found = connection.execute("SELECT event FROM audit WHERE tenant_id = %s", [SYSTEM_TENANT]).fetchall()
    assert found == [("credential:refused",)]


def test_api_keys_are_never_taken_for_tokens(services: Services) -> None:
    tenant = services.installation.tenants.create("acme").id
    for _ in range(20):
        assert not looks_like_token(services.keys.mint_for_installation(tenant, Grant(frozenset())).secret)


@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_done_to_a_token_it_opens_nothing(data: st.DataObject, trusting: Services, issuer: Issuer) -> None:
    header = data.draw(
        st.fixed_dictionaries(
            {},
            optional={
                "alg": st.sampled_from(["RS256", "ES256", "EdDSA", "none", "HS256", None, 1, []]),
                "kid": st.sampled_from(["first", "other", None, 1, {}]) | st.text(max_size=5),
                "typ": st.sampled_from(["at+jwt", "JWT", None, 1]),
                "crit": st.sampled_from([[], ["exp"], "x", None]),
                "b64": st.sampled_from([False, True, "x"]),
                "zip": st.just("DEF"),
            },
        )
    )
    values = (
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.lists(st.text(max_size=3))
    )
    claims = issuer.claims() | data.draw(st.dictionaries(st.sampled_from(sorted(issuer.claims())), values))
    made = assembled(header, claims, data.draw(st.binary(max_size=300)))
    cut = data.draw(st.integers(0, len(made)))
    for token in (made, made[:cut], made[:cut] + data.draw(st.characters(max_codepoint=255)) + made[cut:]):
        with pytest.raises(Unauthenticated):
            authenticate(trusting, token)


@given(data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_odd_claims_with_a_good_signature_are_refused_or_harmless(
    data: st.DataObject, trusting: Services, issuer: Issuer
) -> None:
    values = (
        st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.lists(st.text(max_size=3), max_size=3)
    )
    names = sorted({*issuer.claims(), "jti", "cnf", "azp"})
    changed = data.draw(st.dictionaries(st.sampled_from(names), values | st.dictionaries(st.text(max_size=3), values)))
    token = assembled_and_signed(issuer, issuer.claims() | changed)
    try:
        principal = authenticate(trusting, token)
    except InvalidToken:
        return
    assert principal.tenant_id == trusting.installation.tenants.get("acme").id
    assert principal.users
    assert "*" not in principal.users


def assembled_and_signed(issuer: Issuer, claims: dict[str, Any]) -> str:
    """Return a token of the issuer with claims that a library would refuse to write."""
    unsigned = assembled({"alg": "RS256", "typ": "at+jwt", "kid": "first"}, claims).rpartition(".")[0]
    key = issuer.keys["first"]
    assert isinstance(key, rsa.RSAPrivateKey)
    signature = key.sign(unsigned.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{unsigned}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
