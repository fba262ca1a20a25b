"""Promise 4: who is bound to a user stays with that user, and what was revoked stops everywhere within seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from service.auth.keys import Grant
from service.errors import Unauthenticated
from service.main import create_app
from service.policy.table import ROLES
from service.wiring import Services
from tests.conftest import MakeServices, principal_of
from tests.isolation.issuer import Issuer
from tests.promises.faces import Connect

pytestmark = pytest.mark.promises


def add(client: httpx.Client, text: str, user: str) -> httpx.Response:
    """Add a memory verbatim."""
    body = {"messages": [{"role": "user", "content": text}], "user_id": user, "infer": False}
    return client.post("/v3/memories/add/", json=body)


def test_a_bound_principal_reads_and_writes_its_user_only(services: Services, connect: Connect) -> None:
    """A principal bound to a user reads and writes that user only."""
    admin = connect(services)
    ids = {user: add(admin, f"about {user}", user).json()["results"][0]["id"] for user in ("alice", "bob")}
    bound = connect(services, role="agent", users=frozenset({"alice"}))
    agent = connect(services, role="agent")
    system = services.installation.keys.mint_for_installation(
        services.installation.tenants.get("acme").id, Grant(ROLES["agent"], must_name_user=True)
    )
    agent.headers.update({"Authorization": f"Token {system.secret}", "X-Acting-User": "alice"})
    for client in (bound, agent):
        assert [one["id"] for one in client.post("/v3/memories/", json={}).json()["results"]] == [ids["alice"]]
        assert client.get(f"/v1/memories/{ids['alice']}/").status_code == 200
        assert add(client, "more", "alice").status_code == 200
        for method, body in (("GET", None), ("PUT", {"text": "x"}), ("DELETE", None)):
            assert client.request(method, f"/v1/memories/{ids['bob']}/", json=body).status_code == 404
        assert add(client, "more", "bob").status_code == 403
        assert client.post("/v3/memories/", json={"filters": {"user_id": "bob"}}).status_code == 403
        client.delete("/v1/memories/?user_id=alice")
        add(admin, "about alice", "alice")
        ids["alice"] = admin.post("/v3/memories/", json={"filters": {"user_id": "alice"}}).json()["results"][0]["id"]
    assert bound.get("/v1/ping/", headers={"X-Acting-User": "bob"}).status_code == 403
    silent = agent.post("/v3/memories/", json={}, headers={"X-Acting-User": ""})
    assert silent.status_code == 400
    assert admin.get(f"/v1/memories/{ids['bob']}/").json()["memory"] == "about bob"


ENDS: dict[str, Callable[[Services, str], object]] = {
    "a revoked key": lambda services, key: services.installation.keys.revoke_for_installation(
        services.installation.tenants.get("acme").id,
        services.installation.keys.find_principal(key).id,  # type: ignore[union-attr]
    ),
    "a suspended tenant": lambda services, key: services.installation.tenants.suspend("acme"),
}


@pytest.mark.parametrize("end", ENDS)
def test_what_was_revoked_stops_on_every_replica(end: str, make_services: MakeServices, tmp_path: Path) -> None:
    """A revoked key or a suspended tenant stops within 5 s on every replica, however busy it is there."""
    here = make_services()
    folder = tmp_path / "other"
    folder.mkdir(mode=0o711)
    for name in ("model", "keys"):
        (folder / name).symlink_to((here.settings.data_dir / name).resolve())
    replicas = [here, make_services(data_dir=folder)]
    tenant = here.installation.tenants.create("acme").id
    _, secret = principal_of(here, tenant)

    def works(services: Services) -> bool:
        try:
            services.authenticator.authenticate(secret, request_id="r", client="c", face="rest")
        except Unauthenticated:
            return False
        return True

    busy_until = time.monotonic() + 3
    while time.monotonic() < busy_until:
        assert all(works(services) for services in replicas)
        time.sleep(0.05)
    ENDS[end](here, secret)
    since = time.monotonic()
    while any(works(services) for services in replicas):
        assert time.monotonic() - since < 5
        time.sleep(0.05)


def test_a_token_for_another_audience_is_refused(make_services: MakeServices) -> None:
    """A token for another audience is refused."""
    with Issuer() as issuer:
        settings = {"cache_seconds": 0, "oidc": issuer.oidc}
        services = make_services(server={"public_url": "https://memory.example.com"}, auth=settings)
        services.installation.tenants.create("acme")
        with TestClient(create_app(services), base_url="http://127.0.0.1") as client:
            for audience, status in (
                ("https://memory.example.com", 200),
                ("https://memory.example.com/mcp", 401),
                ("https://other.example.com", 401),
                (["https://other.example.com"], 401),
            ):
                token = issuer.token(aud=audience)
                answer = client.get("/v1/ping/", headers={"Authorization": f"Bearer {token}"})
                assert answer.status_code == status, audience
