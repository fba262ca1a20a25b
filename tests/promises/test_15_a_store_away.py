"""What goes on while the index is away, and that it heals."""

from __future__ import annotations

import pytest

from tests.conftest import MakeServices
from tests.process.memvault import add, eventually, search
from tests.promises.faces import Connect

pytestmark = pytest.mark.promises


def test_the_index_away(make_services: MakeServices, connect: Connect) -> None:
    """Qdrant away: writes and reads by id go on, search answers 503 with `Retry-After`, and everything written
    meanwhile is found once it is back.
    """
    services = make_services()
    client = connect(services)
    kept, changed, removed = add(client, "I play the cello", "I live in Rome", "My locker is XK-4711")
    eventually(lambda: client.get("/readyz").status_code == 200)
    assert len(search(client, "cello")) == 3

    services.index.close()
    (added,) = add(client, "I moved to Porto")
    assert client.get(f"/v1/memories/{kept}/").json()["memory"] == "I play the cello"
    assert client.put(f"/v1/memories/{changed}/", json={"text": "I live in Oslo"}).status_code == 200
    assert client.delete(f"/v1/memories/{removed}/").status_code == 200
    assert client.post("/v3/memories/", json={"filters": {"user_id": "alice"}}).json()["count"] == 3
    refused = client.post("/v3/memories/search/", json={"query": "cello", "filters": {"user_id": "alice"}})
    assert (refused.status_code, refused.json()["code"]) == (503, "index_unavailable")
    assert int(refused.headers["Retry-After"]) > 0
    assert client.get("/healthz").status_code == 200
    # Who asks it before sending a request here goes on to send.
    assert eventually(lambda: client.get("/readyz").json()["parts"]["index"]["status"] == "failed")
    assert client.get("/readyz").status_code == 200

    again = connect(make_services())
    eventually(lambda: again.get("/readyz").status_code == 200)
    assert eventually(lambda: {hit["id"] for hit in search(again, "Porto")} == {kept, changed, added})
    assert search(again, "Oslo", top_k=1)[0]["id"] == changed
    assert search(again, "Porto", top_k=1)[0]["id"] == added
