"""Where answers say that their other pages are: below the public URL, else without a scheme and a host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from fastapi.testclient import TestClient

from service.main import create_app
from tests.conftest import MakeServices, principal_of

pytestmark = pytest.mark.integration

#: What each list may be asked with besides. It has two items at least, once `reached` has prepared them.
SENT = {"source": "a b&c"}
LISTS = {
    **dict.fromkeys(["/v3/memories/", "/v1/memories/", "/v1/entities/", "/v1/events/"], SENT),
    "/v1/audit/": {"from": "2020-01-01T00:00:00+01:00"},
}
Reached = Callable[..., TestClient]


@pytest.fixture
def reached(make_services: MakeServices) -> Iterator[Reached]:
    """Make a client of a service that has memories of two users, as a proxy in front passes requests on."""
    with ExitStack() as stack:

        def made(**server: str) -> TestClient:
            services = make_services(server=server)
            tenant = services.installation.tenants.create("acme")
            client = stack.enter_context(TestClient(create_app(services), base_url="http://10.0.0.7:8080"))
            client.headers["Authorization"] = f"Token {principal_of(services, tenant.id)[1]}"
            for user in ("alice", "bob"):
                said = {"messages": [{"role": "user", "content": "tea"}], "user_id": user, "infer": False}
                assert client.post("/v3/memories/add/", json=said).status_code == 200
            return client

        yield made


@pytest.mark.parametrize("public_url", ["https://example.com", "https://example.com/memory/"])
def test_other_pages_are_below_the_public_url(reached: Reached, public_url: str) -> None:
    client = reached(public_url=public_url)
    for path, sent in LISTS.items():
        first = _page(client, f"{path}?{urlencode({'page_size': 1, **sent})}")
        prefix = public_url.rstrip("/")
        assert first["next"].startswith(f"{prefix}{path}?"), path
        assert sent.items() <= dict(parse_qsl(urlsplit(first["next"]).query)).items(), path
        # The proxy takes its prefix away again.
        second = _page(client, first["next"].removeprefix(prefix))
        assert second["results"] != first["results"]
        if "previous" in second:
            assert second["previous"].startswith(f"{prefix}{path}?"), path


def test_without_a_public_url_they_name_no_scheme_and_no_host(reached: Reached) -> None:
    client = reached()
    for path in LISTS:
        first = _page(client, f"{path}?page_size=1")
        assert first["next"].startswith(f"{path}?"), path
        assert _page(client, first["next"])["results"] != first["results"]


def _page(client: TestClient, url: str) -> dict[str, Any]:
    method, body = ("POST", {}) if url.startswith("/v3/") else ("GET", None)
    answer = client.request(method, url, json=body)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page
