"""The settings that a tenant makes for itself, through the routes that the platform's clients call."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient

from service.scope import TenantId
from service.tenants.projects import CATEGORIES, INSTRUCTIONS_CHARS
from service.wiring import Services
from tests.conftest import Postgres, principal_of
from tests.integration.api.conftest import MakeClient, assert_error

pytestmark = pytest.mark.integration

CANARY = "wallaby-canary"


def path(tenant: object) -> str:
    """The path of a tenant's project."""
    return f"/api/v1/orgs/organizations/{tenant}/projects/{tenant}/"


def test_what_is_set_is_read_back_and_null_takes_it_away(client: TestClient, tenant: TenantId) -> None:
    empty = client.get(path(tenant)).json()
    assert (empty["id"], empty["name"]) == (str(tenant), "acme")
    assert (empty["custom_instructions"], empty["custom_categories"]) == (None, [])
    categories = [{"health": "allergies, sleep"}, "travel"]
    body = {"custom_instructions": "Only food.", "agent_custom_instructions": "Tools.", "custom_categories": categories}
    assert client.patch(path(tenant), json=body).json() == {"message": "Project updated"}
    assert client.patch(path(tenant), json={"custom_instructions": "Only drinks."}).status_code == 200
    found = client.get(path(tenant)).json()
    assert found["custom_instructions"] == "Only drinks."
    assert (found["agent_custom_instructions"], found["custom_categories"]) == ("Tools.", categories)
    assert client.patch(path(tenant), json={"custom_instructions": None, "custom_categories": None}).status_code == 200
    found = client.get(path(tenant)).json()
    assert (found["custom_instructions"], found["custom_categories"]) == (None, [])
    assert found["agent_custom_instructions"] == "Tools."


def test_fields_narrow_the_answer_in_each_spelling(client: TestClient, tenant: TenantId) -> None:
    wanted = {"custom_instructions", "custom_categories"}
    for query in (
        "fields=custom_instructions&fields=custom_categories",
        "fields=custom_instructions,custom_categories",
    ):
        assert set(client.get(f"{path(tenant)}?{query}&org_id={tenant}&project_id={tenant}").json()) == wanted


def test_another_s_project_is_not_there(
    client: TestClient, services: Services, tenant: TenantId, database: Postgres
) -> None:
    other = services.installation.tenants.create("rival").id
    for wrong in (path(other), path("x"), f"/api/v1/orgs/organizations/{other}/projects/{tenant}/"):
        answers = [client.get(wrong), client.patch(wrong, json={"custom_instructions": "mine"})]
        for answer in answers:
            assert assert_error(answer, 404, "not_found")["detail"] == "there is no such project"
    with psycopg.connect(database.admin) as connection:
        assert connection.execute("SELECT count(*) FROM projects").fetchone() == (0,)
        rows = connection.execute("SELECT event, outcome, tenant_id FROM audit WHERE event LIKE 'project:%'").fetchall()
    assert sorted(rows) == sorted(
        [(event, "not_found", tenant) for event in ("project:read", "project:updated") for _ in range(3)]
    )


def test_who_may_not_is_refused(make_client: MakeClient, tenant: TenantId) -> None:
    reader = make_client(role="reader")
    assert "settings:read" in assert_error(reader.get(path(tenant)), 403)["detail"]
    assert "settings:manage" in assert_error(reader.patch(path(tenant), json={"custom_categories": []}), 403)["detail"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "nothing to change"),
        ({"custom_instructions": " "}, "must not be blank"),
        ({"custom_instructions": "x" * (INSTRUCTIONS_CHARS + 1)}, str(INSTRUCTIONS_CHARS)),
        ({"custom_instructions": "a\x00b"}, "null byte"),
        ({"custom_instructions": 7}, "custom_instructions"),
        ({"custom_categories": ["a"] * (CATEGORIES + 1)}, str(CATEGORIES)),
        ({"custom_categories": ["Travel", {"travel": "trips"}]}, "stands twice"),
        ({"custom_categories": ["a\nb"]}, "one line"),
        ({"custom_categories": [{"a": 1}]}, "custom_categories"),
        ({"custom_categories": "travel"}, "custom_categories"),
    ],
)
def test_bad_values_are_refused_with_the_reason_and_change_nothing(
    body: dict[str, Any], told: str, client: TestClient, tenant: TenantId
) -> None:
    client.patch(path(tenant), json={"custom_instructions": "before"})
    assert told in assert_error(client.patch(path(tenant), json=body), 400, "invalid_input")["detail"]
    assert client.get(path(tenant)).json()["custom_instructions"] == "before"


#: As the clients of the generations send them: `org_id` and `project_id` stand beside.
IGNORED: dict[str, Any] = {
    "retrieval_criteria": [{"name": "joy", "description": "how glad she is", "weight": 2}],
    "enable_graph": True,
    "version": "v1.1",
    "inclusion_prompt": "only food",
    "exclusion_prompt": "no drinks",
}


@pytest.mark.parametrize("name", IGNORED)
def test_a_setting_of_another_generation_is_no_error_alone_and_no_silence_beside_others(
    name: str, client: TestClient, tenant: TenantId
) -> None:
    body = {name: IGNORED[name], "org_id": str(tenant), "project_id": str(tenant)}
    for more in ({}, {"custom_instructions": "Only food."}):
        answer = client.patch(path(tenant), json=body | more)
        assert (answer.status_code, len(answer.json()["warnings"])) == (200, 1), answer.text
        assert answer.json()["warnings"][0].startswith(f"{name}: ignored")
    assert client.get(path(tenant)).json()["custom_instructions"] == "Only food."


def test_settings_that_do_not_exist_here_are_ignored_with_a_warning(client: TestClient, tenant: TenantId) -> None:
    answer = client.patch(path(tenant), json={"custom_instructions": "x", "multilingual": True, "decay": False}).json()
    assert [warning.partition(":")[0] for warning in answer["warnings"]] == ["multilingual", "decay"]
    before = client.get(path(tenant)).json()
    alone = client.patch(path(tenant), json={"multilingual": True})
    assert (alone.status_code, len(alone.json()["warnings"])) == (200, 1)
    assert client.get(path(tenant)).json() == before
    assert_error(client.patch(path("x"), json={"multilingual": True}), 404, "not_found")


def test_an_empty_text_takes_instructions_away(client: TestClient, tenant: TenantId) -> None:
    texts = ("custom_instructions", "agent_custom_instructions")
    client.patch(path(tenant), json=dict.fromkeys(texts, "Only food."))
    for name in texts:
        assert client.patch(path(tenant), json={name: ""}).status_code == 200
        assert client.get(path(tenant)).json()[name] is None


def test_instructions_and_categories_are_readable_in_no_table(
    client: TestClient, tenant: TenantId, database: Postgres
) -> None:
    body = {"custom_instructions": f"mind {CANARY}", "custom_categories": [{f"{CANARY}s": f"about {CANARY}"}]}
    assert client.patch(path(tenant), json=body).status_code == 200
    with psycopg.connect(database.admin) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        dumped = b"".join(
            bytes(row[0]) if isinstance(row[0], bytes) else str(row[0]).encode()
            for (table,) in tables
            for row in connection.execute(f"SELECT t::text FROM {table} t")  # type: ignore[arg-type]
        )
    # As Postgres spells bytes as well.
    assert CANARY.encode() not in dumped
    assert CANARY.encode().hex().encode() not in dumped
    with psycopg.connect(database.admin) as connection:
        found = connection.execute("SELECT detail FROM audit WHERE event = 'project:updated'").fetchall()
    assert found == [({"changed": ["custom_categories", "custom_instructions"]},)]


def test_what_belongs_to_the_installation_says_which_command(client: TestClient, tenant: TenantId) -> None:
    projects, project = path(tenant).rsplit("/", 2)[0] + "/", path(tenant)
    calls = [("GET", projects), ("POST", projects), ("DELETE", project)]
    calls += [(method, f"{project}members/") for method in ("GET", "POST", "PUT", "DELETE")]
    for method, where in calls:
        detail = assert_error(client.request(method, where), 501, "not_offered")["detail"]
        assert "memvault tenant" in detail or "memvault key create" in detail


def test_a_key_s_connector_and_id_stand_in_the_provenance(
    client: TestClient, services: Services, tenant: TenantId
) -> None:
    principal, _ = principal_of(services, tenant)
    body = {"messages": [{"role": "user", "content": "likes tea"}], "user_id": "alice", "infer": False}
    forged = body | {"metadata": {"provenance": {"key_id": "forged"}, "connector": "forged"}, "provenance": {"x": 1}}
    event = client.post("/v3/memories/add/", json=forged).json()
    memory = client.get(f"/v1/memories/{event['results'][0]['id']}/").json()
    found = memory["provenance"]
    assert (found["connector"], found["event_id"], found["extracted"]) == (None, event["event_id"], False)
    keys = {key["id"] for key in client.get("/v1/keys/").json()["results"]}
    assert found["key_id"] in keys - {str(principal.id)}
    listed = client.post("/v3/memories/", json={"fields": ["provenance"]}).json()["results"]
    assert listed == [{"id": memory["id"], "provenance": found}]


def test_the_language_is_one_of_the_closed_list_and_null_is_the_installation_s(
    client: TestClient, tenant: TenantId
) -> None:
    assert client.get(path(tenant)).json()["language"] == "english"
    detail = assert_error(client.patch(path(tenant), json={"language": "klingon"}), 400)["detail"]
    assert "language: must be one of arabic, " in detail
    assert_error(client.patch(path(tenant), json={"language": ["german"]}), 400)
    assert client.patch(path(tenant), json={"language": None}).status_code == 200
    assert client.patch(path(tenant), json={"language": "german"}).status_code == 200
    assert client.get(path(tenant), params={"fields": "language"}).json() == {"language": "german"}
    # Until the words are taken anew, the same again is no change, and another one contradicts it.
    assert client.patch(path(tenant), json={"language": "german", "review_required": True}).status_code == 200
    assert "taken anew" in assert_error(client.patch(path(tenant), json={"language": None}), 409)["detail"]
    assert client.get(path(tenant)).json()["language"] == "german"
