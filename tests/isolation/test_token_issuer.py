"""The issuer of access tokens: its keys, its clock, its outages, and what one that misbehaves cannot do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from service import clock
from service.errors import ConfigurationError, InvalidToken, Unavailable
from service.settings import load_settings
from service.wiring import Services
from tests.conftest import principal_of
from tests.isolation.issuer import Issuer
from tests.isolation.tokens import PUBLIC_URL, Open, authenticate, refusal

pytestmark = pytest.mark.integration


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


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[Services, float], None]:
    """Moves the clock on, with a look whether anything has changed about the tenants: nothing has."""
    monotonic, passed = clock.monotonic, 0.0

    def moved(services: Services, seconds: float) -> None:
        nonlocal passed
        passed += seconds
        monkeypatch.setattr(clock, "monotonic", lambda: monotonic() + passed)
        watch = services.authenticator._watch
        assert watch is not None
        watch.look()

    return moved


def test_a_remembered_token_stops_with_the_key_that_signed_it(
    open_services: Open, issuer: Issuer, later: Callable[[Services, float], None]
) -> None:
    services = open_services(cache_seconds=1, keys_fresh=40)
    tokens = services.authenticator._tokens
    assert tokens is not None
    token = issuer.token()
    assert authenticate(services, token)
    later(services, 10)
    asked = issuer.fetches
    assert authenticate(services, token)
    assert issuer.fetches == asked, "nothing is asked as long as the keys are fresh"
    issuer.add("second")
    issuer.withdraw("first")
    before = tokens.keys_since()
    later(services, 20)
    # That the keys are half their time old is enough, also where all tokens are remembered.
    services.authenticator.known(token, face="mcp")
    deadline = time.monotonic() + 10
    while tokens.keys_since() == before and time.monotonic() < deadline:
        time.sleep(0.02)
    later(services, 2)
    assert services.authenticator.known(token, face="mcp") is None
    assert "does not have" in refusal(services, token)
    assert authenticate(services, issuer.token(kid="second"))


def test_a_token_that_comes_after_a_long_silence_is_checked_by_the_present_keys(
    open_services: Open, issuer: Issuer, later: Callable[[Services, float], None]
) -> None:
    services = open_services(cache_seconds=1, keys_fresh=40)
    known, stolen = issuer.token(), issuer.token(sub="somebody-else")
    assert authenticate(services, known)
    issuer.add("second")
    issuer.withdraw("first")
    later(services, 41)
    assert services.authenticator.known(known, face="mcp") is None
    assert "does not have" in refusal(services, stolen)
    assert "does not have" in refusal(services, known)


def test_remembered_tokens_go_on_while_the_issuer_is_down(
    open_services: Open, issuer: Issuer, later: Callable[[Services, float], None]
) -> None:
    services = open_services(cache_seconds=1, keys_fresh=10)
    token = issuer.token()
    assert authenticate(services, token)
    issuer.status = 500
    for _ in range(2):
        later(services, 11)
        assert authenticate(services, token)
    later(services, 2)
    assert services.authenticator.known(token, face="mcp") is not None


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
