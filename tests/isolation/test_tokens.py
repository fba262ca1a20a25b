"""Access tokens as credentials: what opens, and that nothing done to a token opens more."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm

from service.auth.keys import Grant
from service.auth.tokens import looks_like_token
from service.errors import InvalidToken, Unauthenticated, Unavailable
from service.scope import SYSTEM_TENANT, Permission, PrincipalKind
from service.wiring import Services
from tests.conftest import Postgres
from tests.isolation.issuer import Issuer, assembled, public
from tests.isolation.tokens import PUBLIC_URL, REST, Open, authenticate, refusal

pytestmark = pytest.mark.integration


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


#: What is a day away is that when the test comes to run, an hour or two after this is read.
NOW, DAY = int(time.time()), 24 * 60 * 60
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
    "expired": {"exp": NOW - DAY},
    "no end": {"exp": None},
    "end that is no number": {"exp": "soon"},
    "endless": {"exp": float("inf")},
    "end that is a list": {"exp": [NOW + 300]},
    "not yet valid": {"nbf": NOW + DAY},
    "issued in the future": {"iat": NOW + DAY},
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
    # Before the services ask for the keys by themselves: an issuer without one that they may use is out of order.
    issuer.add("curve")
    services = open_services(algorithms=["ES256"])
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
