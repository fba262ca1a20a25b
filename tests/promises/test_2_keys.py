"""Keys stay within their tenant and within what they were given, and each half of the isolation holds alone."""

from __future__ import annotations

import psycopg
import pytest

from service.errors import Forbidden
from service.filters.ast import EVERYTHING
from service.memories.stores import TenantLookup
from service.records import Message, NewMemories, SubjectNames
from service.scope import Caller
from service.wiring import Services
from tests.conftest import Postgres, caller_of
from tests.promises.faces import Connect

pytestmark = pytest.mark.promises


@pytest.fixture
def rival(services: Services, caller: Caller) -> Caller:
    """A caller of a second tenant; both have the same user with the same text."""
    other = caller_of(services, services.installation.tenants.create("rival").id)
    for one in (caller, other):
        new = NewMemories([Message("user", "I love Italian food")], SubjectNames(user_id="alice"), infer=False)
        services.adds.add(one, one.scope, new)
    return other


def test_no_key_touches_another_tenant_grows_or_outlives_its_revocation(services: Services, connect: Connect) -> None:
    """No key of one tenant can touch another tenant, mint a wider key or outlive its revocation."""
    admin, other = connect(services), connect(services, tenant="rival")
    agent = connect(services, role="agent")
    assert agent.post("/v1/keys/", json={"role": "reader"}).status_code == 403
    narrow = {"permissions": ["key:manage", "memory:read"], "users": ["alice"], "connector": "crm", "expires_in": 2}
    made = admin.post("/v1/keys/", json=narrow)
    assert made.status_code == 201, made.text
    first = {"Authorization": f"Token {made.json()['api_key']}"}
    allowed = {"permissions": ["memory:read"], "users": ["alice"], "connector": "crm", "expires_in": 1}
    assert admin.post("/v1/keys/", json=allowed, headers=first).status_code == 201
    too_much: list[dict[str, object]] = [
        {"permissions": ["memory:write"]},
        {"users": ["bob"]},
        {"users": ["alice", "bob"]},
        {"users": None},
        {"connector": "mail"},
        {"connector": None},
        {"expires_in": 3},
        {"expires_in": None},
    ]
    for wider in too_much:
        asked = {name: value for name, value in (allowed | wider).items() if value is not None}
        assert admin.post("/v1/keys/", json=asked, headers=first).status_code == 403, wider
    assert other.delete(f"/v1/keys/{made.json()['id']}/").status_code == 404
    assert admin.get("/v1/ping/", headers=first).status_code == 200
    assert made.json()["id"] not in other.get("/v1/keys/").text
    assert admin.delete(f"/v1/keys/{made.json()['id']}/").status_code == 200
    assert services.installation.keys.find_principal(made.json()["api_key"]) is None
    # A restart accepts no revoked secret anew.
    tenant = services.installation.tenants.find("acme")
    assert tenant is not None
    services.installation.keys.ensure_bootstrap(tenant.id, made.json()["api_key"])
    assert services.installation.keys.find_principal(made.json()["api_key"]) is None


def test_a_bound_key_makes_no_free_one(services: Services, caller: Caller) -> None:
    """A principal that is bound to users cannot mint a key that is not."""
    from service.auth.keys import Grant

    bound = caller_of(services, caller.principal.tenant_id, users=frozenset({"alice"}))
    with pytest.raises(Forbidden):
        services.keys.mint(bound, bound.scope, Grant(bound.principal.permissions))


def test_row_level_security_alone_returns_nothing(database: Postgres, caller: Caller, rival: Caller) -> None:
    """With our own tenant clause removed from a query, row-level security alone still returns nothing."""
    theirs = rival.principal.tenant_id
    with psycopg.connect(database.app) as connection:
        assert connection.execute("SELECT count(*) FROM memories").fetchone() == (0,)
        connection.execute("SELECT set_config('app.tenant', %s, true)", [str(caller.principal.tenant_id)])
        assert connection.execute("SELECT count(*) FROM memories").fetchone() == (1,)
        for table in ("memories", "history", "audit", "subjects", "api_keys", "events"):
            query = psycopg.sql.SQL("SELECT count(*) FROM {} WHERE tenant_id = %s").format(
                psycopg.sql.Identifier(table)
            )
            assert connection.execute(query, [theirs]).fetchone() == (0,)
    with psycopg.connect(database.admin) as connection:
        # The same query where nothing is secured: the rows are there, so the zero above was the policy's doing.
        count = connection.execute("SELECT count(*) FROM memories WHERE tenant_id = %s", [theirs]).fetchone()
        assert count == (1,)


def test_the_index_filter_alone_returns_nothing(services: Services, caller: Caller, rival: Caller) -> None:
    """With row-level security out of the way, the index filter alone still returns nothing."""
    mine, theirs = services.index.of(caller.scope), services.index.of(rival.scope)
    own = set(mine.versions()[0])
    foreign = set(theirs.versions()[0])
    assert len(own) == len(foreign) == 1
    assert not own & foreign
    assert mine.existing(foreign) == {}
    embedding = services.memories._stores.embedder.embed_query("Italian food")
    lookup = TenantLookup({}, services.memories._stores.tokenizer(caller.scope), None)
    terms = services.indexing.terms(rival.scope).query("Italian food")
    answer = mine.search(embedding, terms, EVERYTHING, lookup, limit=100, users=None, on=None)
    assert {one.memory_id for one in answer.candidates} == own
