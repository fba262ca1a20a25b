"""Requests a second: one bucket for all replicas, spent in parts, with answers that clients understand."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest
from sqlalchemy import event

from service.auth.keys import Grant
from service.errors import TooManyRequests
from service.main import create_app
from service.policy.table import ROLES
from service.scope import Caller, Limit, Scope, TenantId, service_principal
from service.tenants import rates
from service.tenants.usage import take_requests
from service.wiring import Services
from tests.clients.serving import serving
from tests.conftest import MakeServices, Postgres, caller_of, principal_of
from tests.integration.mcp.served import Wire

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a replica keep what it took, however slow this machine is: how long that is, is not what is counted here."""
    monkeypatch.setattr(rates, "_KEPT_SECONDS", 600.0)


@pytest.fixture
def url(services: Services) -> Iterator[str]:
    """A served instance."""
    with serving(create_app(services)) as url:
        yield url


def limited(services: Services, tenant: TenantId, **limits: int | None) -> str:
    """Set limits of a tenant and return the secret of a new admin key of it."""
    services.installation.tenants.set_limits(str(tenant), {Limit(name): most for name, most in limits.items()})
    return principal_of(services, tenant)[1]


def spend(services: Services, caller: Caller, times: int) -> int:
    """Make so many requests; return how many of them passed."""
    passed = 0
    for _ in range(times):
        try:
            services.rates.admit(caller)
            passed += 1
        except TooManyRequests:
            pass
    return passed


def stopped(database: Postgres, tenant: TenantId) -> None:
    """Let a tenant's bucket fill no more: it is as if it had been filled in the far future."""
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("UPDATE rate_buckets SET at = now() + interval '1 hour' WHERE tenant_id = %s", [tenant])


@pytest.mark.parametrize("rate", [1, 7, 10, 64])
def test_a_bucket_holds_a_second_s_requests(
    rate: int, services: Services, tenant: TenantId, database: Postgres
) -> None:
    limited(services, tenant, requests_per_second=rate)
    caller = caller_of(services, tenant)
    passed = spend(services, caller, 1)
    stopped(database, tenant)
    assert passed + spend(services, caller, 3 * rate) == rate


def test_replicas_share_one_bucket(make_services: MakeServices, tmp_path: Path, database: Postgres) -> None:
    here = make_services()
    folder = tmp_path / "other"
    folder.mkdir(mode=0o711)
    for name in ("model", "keys"):
        (folder / name).symlink_to((here.settings.data_dir / name).resolve())
    there = make_services(data_dir=folder)
    tenant = here.installation.tenants.create("acme").id
    limited(here, tenant, requests_per_second=40)
    caller = caller_of(here, tenant)
    passed = spend(here, caller, 1)
    stopped(database, tenant)
    start = threading.Barrier(6)

    def work(replica: Services) -> int:
        start.wait()
        return spend(replica, caller, 40)

    with ThreadPoolExecutor(6) as pool:
        passed += sum(pool.map(work, [here, there] * 3))
    assert passed == 40


def test_the_bucket_fills_by_the_rate_and_no_further(services: Services, tenant: TenantId, database: Postgres) -> None:
    scope = Scope.of(service_principal(tenant))

    def take(wanted: int, seconds: int = 0) -> tuple[int, float]:
        with psycopg.connect(database.admin, autocommit=True) as connection:
            connection.execute("UPDATE rate_buckets SET at = now() - make_interval(secs => %s)", [seconds])
        with services.installation.database.transaction(scope) as connection:
            taken, left = take_requests(connection, scope, rate=10, wanted=wanted)
        return taken, round(left)

    assert take(10) == (10, 0)
    assert take(10, 600) == (10, 0), "an hour of silence is worth no more than a second"
    assert take(3, 600) == (3, 7)


def test_a_part_is_spent_without_asking_and_a_flood_asks_little(services: Services, tenant: TenantId) -> None:
    limited(services, tenant, requests_per_second=1000)
    caller = caller_of(services, tenant)
    sent: list[str] = []
    engine = services.installation.database._engine

    def note(connection: object, cursor: object, statement: str, *more: object) -> None:
        sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        assert spend(services, caller, 100) == 100
        assert len([one for one in sent if "rate_buckets" in one]) == 1
        services.installation.tenants.set_limits(str(tenant), {Limit.REQUESTS_PER_SECOND: 1})
        slow = caller_of(services, tenant)
        spend(services, slow, 1)
        sent.clear()
        assert spend(services, slow, 500) < 3
        assert len([one for one in sent if "rate_buckets" in one]) < 5
    finally:
        event.remove(engine, "before_cursor_execute", note)


def test_what_a_replica_took_is_not_saved_up(
    services: Services, tenant: TenantId, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(services, tenant, requests_per_second=100)
    caller = caller_of(services, tenant)
    assert spend(services, caller, 1) == 1
    stopped(database, tenant)
    now = rates.clock.monotonic
    monkeypatch.setattr(rates.clock, "monotonic", lambda: now() + 601)
    assert spend(services, caller, 100) == 90, "the nine that it held are gone"


def test_without_a_limit_nothing_is_asked(services: Services, tenant: TenantId, database: Postgres) -> None:
    assert spend(services, caller_of(services, tenant), 50) == 50
    with psycopg.connect(database.admin) as connection:
        assert connection.execute("SELECT count(*) FROM rate_buckets").fetchone() == (0,)


def test_over_rest_it_is_429_with_all_that_a_client_needs(
    services: Services, tenant: TenantId, url: str, database: Postgres
) -> None:
    secret = limited(services, tenant, requests_per_second=2)
    with httpx.Client(base_url=url, headers={"Authorization": f"Token {secret}"}) as client:
        assert client.get("/v1/ping/").status_code == 200
        stopped(database, tenant)
        answers = [client.get("/v1/ping/") for _ in range(4)]
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(refused) == 3
    for answer in refused:
        assert answer.status_code == 429
        assert answer.json()["code"] == "rate_limited"
        assert "2 requests a second" in answer.json()["detail"]
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.headers["X-RateLimit-Limit"] == "2"
        assert answer.headers["X-RateLimit-Remaining"] == "0"
        assert abs(int(answer.headers["X-RateLimit-Reset"]) - time.time()) < 120
    with psycopg.connect(database.admin) as connection:
        query = "SELECT detail FROM audit WHERE tenant_id = %s AND event = 'limit:reached'"
        rows = connection.execute(query, [tenant]).fetchall()
    assert [row[0]["limit"] for row in rows] == ["requests_per_second"]


def test_over_mcp_it_is_an_error_of_the_tool(
    services: Services, tenant: TenantId, url: str, database: Postgres
) -> None:
    wire = Wire(url, limited(services, tenant, requests_per_second=1))
    wire.done("list_events")
    stopped(database, tenant)
    told = wire.refused("list_events")
    assert told.startswith("rate_limited: this tenant may make 1 requests a second")
    assert "try again in" in told
    read = wire.modern("resources/read", {"uri": "memory://users/alice"}).json()
    assert read["error"]["data"]["code"] == "rate_limited"
    # What touches no store is not counted.
    assert wire.modern("tools/list").status_code == 200


@pytest.mark.parametrize("by_header", [True, False])
def test_over_mcp_nobody_is_asked_who_a_user_is_before_the_request_is_counted(
    by_header: bool, services: Services, tenant: TenantId, url: str, database: Postgres
) -> None:
    limited(services, tenant, requests_per_second=1)
    grant = Grant(ROLES["agent"], must_name_user=True)
    wire = Wire(url, services.installation.keys.mint_for_installation(tenant, grant).secret)
    wire.done("list_events", user_id="alice")
    stopped(database, tenant)
    sent: list[str] = []
    engine = services.installation.database._engine

    def note(connection: object, cursor: object, statement: str, *more: object) -> None:
        sent.append(statement)

    def refusal(number: int) -> str:
        if by_header:
            answer = wire.modern("tools/list", x_acting_user=f"user-{number}")
            assert answer.status_code == 429
            assert int(answer.headers["Retry-After"]) >= 1
        else:
            answer = wire.modern("resources/read", {"uri": f"memory://users/user-{number}"})
        code: str = answer.json()["error"]["data"]["code"]
        return code

    event.listen(engine, "before_cursor_execute", note)
    try:
        assert {refusal(number) for number in range(10)} == {"rate_limited"}
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert [one for one in sent if "FROM subjects" in one] == []


def test_over_mcp_a_request_that_names_its_user_counts_once(
    services: Services, tenant: TenantId, url: str, database: Postgres
) -> None:
    wire = Wire(url, limited(services, tenant, requests_per_second=2))
    wire.done("list_events")
    stopped(database, tenant)
    call = {"name": "list_events", "arguments": {}}
    answers = [wire.modern("tools/call", call, x_acting_user="nobody-yet") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]


@pytest.mark.parametrize(
    "header",
    [{"X-Purpose": "x" * 201}, {"X-Acting-User": "%FF"}, {"X-Acting-User": "%00"}],
    ids=["purpose", "bytes", "name"],
)
@pytest.mark.parametrize("face", ["rest", "mcp"])
def test_a_request_that_is_refused_for_a_header_counts(
    face: str, header: dict[str, str], services: Services, tenant: TenantId, url: str, database: Postgres
) -> None:
    """Whoever has a key could have sent any number of them, whatever the tenant's limit is."""
    secret = limited(services, tenant, requests_per_second=2)
    wire, call = Wire(url, secret), {"name": "list_events", "arguments": {}}

    def sent(**more: str) -> int:
        if face == "mcp":
            return wire.modern(
                "tools/call", call, **{name.replace("-", "_"): value for name, value in more.items()}
            ).status_code
        return httpx.get(f"{url}/v1/ping/", headers={"Authorization": f"Token {secret}", **more}).status_code

    assert sent() == 200
    stopped(database, tenant)
    assert [sent(**header) for _ in range(3)] == [400, 429, 429]


def test_one_tenant_s_flood_leaves_another_tenant_s_requests_alone(
    services: Services, tenant: TenantId, url: str, database: Postgres
) -> None:
    """What is refused is refused by what a replica knows: it takes no connection of the database from others."""
    hasty = limited(services, tenant, requests_per_second=1)
    other = services.installation.tenants.create("rival").id
    calm = principal_of(services, other)[1]
    with httpx.Client(base_url=url, timeout=30) as client:
        client.get("/v1/ping/", headers={"Authorization": f"Token {hasty}"})
    stopped(database, tenant)

    def flood(_: int) -> int:
        with httpx.Client(base_url=url, headers={"Authorization": f"Token {hasty}"}, timeout=30) as client:
            return sum(client.get("/v1/ping/").status_code == 429 for _ in range(25))

    def work(_: int) -> int:
        with httpx.Client(base_url=url, headers={"Authorization": f"Token {calm}"}, timeout=30) as client:
            return sum(client.get("/v1/ping/").status_code == 200 for _ in range(10))

    with ThreadPoolExecutor(6) as pool:
        floods, works = pool.map(flood, range(4)), pool.map(work, range(2))
        assert sum(works) == 20
        assert sum(floods) == 100
