"""How notifications are spread: over tries with growing pauses, and over several where one would hold too many ids."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from fastapi.testclient import TestClient

from service.webhooks import announcing
from tests.conftest import MakeServices
from tests.webhooks.receiver import Receiver
from tests.webhooks.test_webhooks import add, deliveries, hook, pending, project, settled, waiting_long

pytestmark = pytest.mark.integration


def test_the_pauses_double_up_to_six_hours(make_services: MakeServices, receiver: Receiver) -> None:
    services, client = waiting_long(make_services, receiver, attempts=10)
    receiver.statuses = [500]
    made = hook(client, receiver)
    add(client, "tea")
    pending(client, made["webhook_id"], 1)
    deliver, pauses = services.jobs.handlers()["deliver_webhook"], []
    for _ in range(5):
        (one,) = deliveries(client, made["webhook_id"])
        tried, next_try = (datetime.fromisoformat(one[name]) for name in ("updated_at", "next_attempt_at"))
        pauses.append((next_try - tried) / timedelta(hours=1))
        deliver(tenant_id=project(client), delivery_id=one["id"], in_turn="yes")
    assert pauses == [1, 2, 4, 6, 6]


def test_a_long_list_of_ids_goes_into_several(
    client: TestClient, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcing, "_MOST_IDS", 2)
    made = hook(client, receiver)
    ids = add(client, "tea", "rain", "hail", "snow", "sun")
    told = [one["memory_ids"] for one in settled(client, made["webhook_id"], 3)]
    assert sorted(map(len, told)) == [1, 2, 2]
    assert sorted(one for part in told for one in part) == sorted(ids)
