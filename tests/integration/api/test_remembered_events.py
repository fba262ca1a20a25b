"""Questions that count time from an event: the memory of it says when that was, if the search may see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from service import clock
from service.memories import searching
from service.memories.asked_times import AskedTime
from service.scope import Scope, TenantId, service_principal
from service.storage.superseding import supersede
from service.wiring import Services
from tests.conftest import principal_of
from tests.integration.api.conftest import MakeClient

pytestmark = pytest.mark.integration

NURSE, BAKER, MOVED = "Works as a nurse in a hospital", "Works as a baker in a bakery", "Moved to Lisbon"
LIFE = ((NURSE, "2025-01-10"), (MOVED, "2025-03-05"), (BAKER, "2025-06-20"))
BEFORE, AFTER = "Where did she work before she moved to Lisbon?", "Where did she work after she moved to Lisbon?"
#: What the newest gets in every search at most; what an event gives is ten times as much.
LITTLE = 0.02


def add(client: TestClient, *dated: tuple[str, str], user: str = "alice", **more: Any) -> list[UUID]:
    """Add texts as of days and return their ids."""
    ids = []
    for text, day in dated:
        body = {"messages": [{"role": "user", "content": text}], "user_id": user, "infer": False}
        answer = client.post("/v3/memories/add/", json=body | {"timestamp": f"{day}T12:00:00Z"} | more)
        assert answer.status_code == 200, answer.text
        ids.append(UUID(answer.json()["results"][0]["id"]))
    return ids


def times(client: TestClient, query: str, **more: Any) -> Mapping[str, float]:
    """Search and return what each text was given for its time, in the order of the results."""
    body = {"query": query, "filters": {"user_id": "alice"}, "threshold": 0, "explain": True} | more
    answer = client.post("/v3/memories/search/", json=body)
    assert answer.status_code == 200, answer.text
    return {one["memory"]: one["score_details"]["time"] for one in answer.json()["results"]}


def jobs(found: Mapping[str, float]) -> list[str]:
    """Return the two jobs in their order."""
    return [text for text in found if text in (NURSE, BAKER)]


def test_an_event_prefers_the_memories_of_its_side(client: TestClient) -> None:
    add(client, *LIFE)
    before, after = times(client, BEFORE), times(client, AFTER)
    assert (jobs(before), jobs(after)) == ([NURSE, BAKER], [BAKER, NURSE])
    assert before[NURSE] == pytest.approx(0.2, abs=LITTLE)
    assert max(before[MOVED], before[BAKER]) <= LITTLE
    assert min(after[MOVED], after[BAKER]) == pytest.approx(0.2, abs=LITTLE)
    assert after[NURSE] <= LITTLE
    assert times(client, "Who helped when she moved to Lisbon?")[MOVED] == pytest.approx(0.2, abs=LITTLE)
    # One word alone tells of an event too, when just one memory has it.
    assert jobs(times(client, "Where did she work before she moved?")) == [NURSE, BAKER]
    assert jobs(times(client, "Where did she work since she moved?")) == [BAKER, NURSE]


@pytest.mark.parametrize("day", ["0001-01-01", "9999-12-31"])
def test_an_event_may_be_at_an_edge_of_the_calendar(client: TestClient, day: str) -> None:
    add(client, LIFE[0], (MOVED, day))
    for query in (BEFORE, AFTER, "What did she do when she moved to Lisbon?"):
        for more in ({}, {"reference_date": day}, {"reference_date": "9999-12-31"}):
            assert times(client, query, show_expired=True, **more).keys() == {NURSE, MOVED}
    assert times(client, "What did she do when she moved to Lisbon?")[MOVED] >= 0.2 - LITTLE
    listed = client.post("/v3/memories/", json={"filters": {"user_id": "alice", "created_at": {"lte": day}}})
    assert listed.status_code == 200, listed.text
    context = client.post("/tools/get_user_context", json={"user_id": "alice", "query": AFTER})
    assert context.status_code == 200, context.text


def test_a_context_is_composed_by_the_event_too(client: TestClient) -> None:
    add(client, *LIFE)
    for query, first in ((BEFORE, NURSE), (AFTER, BAKER)):
        answer = client.post("/tools/get_user_context", json={"user_id": "alice", "query": query})
        assert next(text for text in answer.json()["context_snippets"] if text in (NURSE, BAKER)) == first


@pytest.mark.parametrize(
    "other",
    [
        [],
        [("Moved to Porto", "2025-03-05")],
        [("Wants to move to Lisbon", "2025-03-05")],
        [("Has not moved to Lisbon", "2025-03-05")],
        [("Her sister moved to Lisbon", "2025-03-05")],
        [("Moved to Lisbon", "2025-03-05"), ("Moved to Lisbon again", "2025-05-05")],
    ],
)
def test_without_a_memory_that_surely_tells_of_it_time_adds_nothing(
    client: TestClient, other: list[tuple[str, str]]
) -> None:
    add(client, LIFE[0], *other, LIFE[2])
    for question in (BEFORE, AFTER):
        found = times(client, question)
        assert len(found) == 2 + len(other)
        assert max(found.values()) <= LITTLE


def test_what_the_search_does_not_see_is_no_anchor(
    client: TestClient, make_client: MakeClient, services: Services
) -> None:
    _, rival = principal_of(services, services.installation.tenants.create("rival").id)
    add(make_client(key=rival), LIFE[1])
    add(client, LIFE[1], user="bob")
    add(client, LIFE[0], LIFE[2])
    (mine,) = add(client, LIFE[1], metadata={"kind": "trip"})
    everybody = {"filters": {"user_id": "*"}}
    bound = make_client(role="agent", users=frozenset({"alice"}))
    # Alice's own memory of it anchors her search, whoever asks; a filter that leaves it out leaves it out.
    assert times(bound, AFTER, **everybody)[BAKER] > LITTLE
    trips = {"filters": {"AND": [{"user_id": "alice"}, {"NOT": [{"metadata": {"kind": "trip"}}]}]}}
    narrowed = times(client, AFTER, **trips)
    assert set(narrowed) == {NURSE, BAKER}
    assert max(narrowed.values()) <= LITTLE
    assert client.delete(f"/v1/memories/{mine}/").status_code == 200
    # What is left of it is Bob's, and the rival's: neither Alice's search nor one that is bound to her sees that.
    assert max(times(client, AFTER).values()) <= LITTLE
    assert max(times(bound, AFTER, **everybody).values()) <= LITTLE
    assert times(client, AFTER, **everybody)[BAKER] > LITTLE


def test_what_is_expired_changed_or_superseded_is_no_anchor(
    client: TestClient, services: Services, tenant: TenantId
) -> None:
    add(client, LIFE[0], LIFE[2])
    (moved,) = add(client, LIFE[1], expiration_date=clock.today().isoformat())
    assert times(client, AFTER)[BAKER] > LITTLE
    later = "2999-01-01"
    assert max(times(client, AFTER, reference_date=later).values()) <= LITTLE
    assert times(client, AFTER, reference_date=later, show_expired=True)[BAKER] > LITTLE
    (newer,) = add(client, ("Lives in Faro", "2025-07-01"))
    scope = Scope.of(service_principal(tenant))
    with services.installation.database.transaction(scope) as connection:
        supersede(connection, scope, {newer: [moved]})
    assert times(client, AFTER)[BAKER] > LITTLE
    assert max(times(client, AFTER, latest_only=True).values()) <= LITTLE
    client.put(f"/v1/memories/{moved}/", json={"text": "Likes Lisbon"}).raise_for_status()
    assert max(times(client, AFTER).values()) <= LITTLE


def test_a_question_without_an_event_looks_for_none(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    add(client, *LIFE)
    looked_for: list[str] = []

    def noted(*arguments: Any) -> AskedTime:
        asked = next(one for one in arguments if isinstance(one, AskedTime))
        looked_for.extend([asked.event.words] if asked.event else [])
        return asked

    monkeypatch.setattr(searching, "anchored", noted)
    for question in ("Where does she work?", "Where did she work before March 2025?", AFTER, "What before lunch?"):
        assert len(times(client, question)) == len(LIFE)
    assert looked_for == ["she moved to Lisbon"]
