"""A URL that is not UTF-8, percent-encoded, is refused: read as something else it would be about somebody else."""

import pytest
from fastapi.testclient import TestClient

from tests.integration.api.conftest import assert_error

pytestmark = pytest.mark.integration

ADD = "/v3/memories/add/"


@pytest.mark.parametrize("name", ["M%FCller", "%ED%A0%80", "%C0%AE", "a%80"])
def test_bytes_that_are_no_utf_8_do_not_stand_for_a_name_with_replacement_characters(
    client: TestClient, name: str
) -> None:
    for user in ("M\ufffdller", "\ufffd\ufffd\ufffd", "\ufffd\ufffd", "a\ufffd"):
        body = {"messages": [{"role": "user", "content": "tea"}], "user_id": user, "infer": False}
        assert client.post(ADD, json=body).status_code == 200
    told = "query: must be UTF-8, percent-encoded"
    for path in ("/v1/memories/", "/memories", "/v1/audit/", "/v1/reviews/"):
        assert assert_error(client.get(f"{path}?user_id={name}"), 400, "invalid_input")["detail"] == told
    assert_error(client.delete(f"/v1/memories/?user_id={name}"), 400, "invalid_input")
    assert_error(client.get(f"/v1/ping/?{name}=1"), 400, "invalid_input")
    for path in ("/v2/entities/user/{}/", "/v1/entities/user/{}/", "/entities/user/{}", "/v1/connectors/{}/"):
        assert_error(client.delete(path.format(name)), 404, "not_found")
    assert client.post("/v3/memories/", json={}).json()["count"] == 4


def test_names_that_only_look_the_same_are_different_ones(client: TestClient) -> None:
    """NFC and NFD, and what turns the direction of writing: code point by code point, as they were written."""
    names = ["Mu\u0308ller", "M\u00fcller", "\u202erelluM", "\u05e9\u05dc\u05d5\u05dd", "M\ufffdller", "🍵", "a b+c%2B"]
    for name in names:
        body = {"messages": [{"role": "user", "content": f"of {names.index(name)}"}], "user_id": name, "infer": False}
        assert client.post(ADD, json=body).status_code == 200
    for number, name in enumerate(names):
        [found] = client.get("/v1/memories/", params={"user_id": name}).json()
        assert (found["memory"], found["user_id"]) == (f"of {number}", name)
    assert client.delete("/v1/memories/", params={"user_id": names[0]}).json()["count"] == 1
    assert client.post("/v3/memories/", json={}).json()["count"] == len(names) - 1
