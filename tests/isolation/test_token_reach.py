"""What an access token reaches: its scopes, its user and its tenant, over the actions and over HTTP."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi.testclient import TestClient
from sqlalchemy import text as sql

from service import clock
from service.auth.keys import Grant
from service.auth.scopes import ScopeNames
from service.errors import ConfigurationError, Forbidden, InsufficientScope, InvalidToken
from service.filters.ast import EVERYTHING
from service.main import create_app
from service.memories.actions import Query
from service.records import Change, EventStatus, Message, NewMemories, SubjectNames
from service.scope import Caller, Permission, PrincipalKind
from service.wiring import Services
from tests.conftest import Postgres, caller_of
from tests.isolation.issuer import Issuer, assembled
from tests.isolation.tokens import REST, Open, authenticate, refusal
from tests.llm.scripted import ScriptedLLM

pytestmark = pytest.mark.integration


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


def test_scores_do_not_tell_what_others_of_the_tenant_keep(rest: TestClient, issuer: Issuer) -> None:
    """Else a user finds out which words are in other people's memories: a rare word weighs more than a common one."""

    def add_to(user: str, *texts: str) -> None:
        messages = [{"role": "user", "content": text} for text in texts]
        body = {"messages": messages, "user_id": user, "infer": False}
        rest.post("/v3/memories/add/", json=body, headers=bearer(issuer.token(sub=user, **REST))).raise_for_status()

    def details() -> list[Any]:
        answer = rest.post("/v3/memories/search/", json=asked, headers=bearer(issuer.token(sub="alice", **REST)))
        return [hit["score_details"] for hit in answer.raise_for_status().json()["results"]]

    asked = {"query": "the oncologist's letter", "filters": {"user_id": "alice"}, "threshold": 0, "explain": True}
    add_to("alice", "I wonder what an oncologist does", "A letter came by post")
    before = details()
    assert [one["bm25"] > 0 for one in before] == [True, True]
    # Fewer than 200 memories: whatever is remembered of their words is counted anew.
    add_to("bob", *(f"My oncologist wrote letter {number}" for number in range(30)))
    without_time = [{key: value for key, value in one.items() if key not in ("time", "rank")} for one in details()]
    assert without_time == [{key: value for key, value in one.items() if key in without_time[0]} for one in before]


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
