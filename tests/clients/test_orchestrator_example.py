"""The orchestrator of docs/examples against a served instance: what Slack stored, tickets get the next day."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy import text

from service.auth.keys import Grant
from service.policy.table import ROLES
from service.scope import Scope, TenantId, service_principal
from service.wiring import Services

pytestmark = [pytest.mark.clients, pytest.mark.anyio]

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "orchestrator.py"


@pytest.fixture
def anyio_backend() -> str:
    """The service runs on asyncio, and so does the example."""
    return "asyncio"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("orchestrator", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "orchestrator", module)
    spec.loader.exec_module(module)
    return module


def key_of(services: Services, tenant: TenantId, connector: str | None) -> str:
    """A key of an agent, bound to a connector."""
    grant = Grant(ROLES["agent"], connector=connector)
    return services.installation.keys.mint_for_installation(tenant, grant).secret


def test_the_example_runs_as_it_stands(services: Services, tenant: TenantId, url: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(key_of(services, tenant, None), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--url", url, "--key-file", str(key)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    monday, tuesday = done.stdout.split("[tickets TICKET-4711]")
    assert "memory: nothing yet" in monday
    assert "Noted: your delivery moves to Thursday." in monday
    assert "slack/#orders" in tuesday
    assert "As agreed on Slack, the delivery comes on Thursday." in tuesday


async def test_each_connector_has_its_key_and_the_memory_is_one(
    services: Services, tenant: TenantId, url: str, example: ModuleType
) -> None:
    slack, tickets = (key_of(services, tenant, connector) for connector in ("slack", "tickets"))
    prompts: list[str] = []

    def model(prompt: str) -> str:
        prompts.append(prompt)
        return str(example.scripted_model(prompt))

    async with example.memory(url, slack, "slack-bot") as memory:
        told = example.Incoming("slack", "#orders", "alice", "Please move my delivery to Thursday.")
        assert (await example.Orchestrator(memory, model).answer(told)).context == ""
    async with example.memory(url, tickets, "ticket-bot") as memory:
        asked = example.Incoming("tickets", "TICKET-1", "alice", "When does my delivery come?")
        reply = await example.Orchestrator(memory, model).answer(asked)
        assert "Please move my delivery to Thursday." in reply.context
        assert "slack/#orders" in reply.context
        assert reply.context in prompts[-1]
        assert reply.text == "As agreed on Slack, the delivery comes on Thursday."
        # Somebody else's question finds nothing of it, and one connector cannot speak for another.
        stranger = example.Incoming("tickets", "TICKET-2", "bob", "When does my delivery come?")
        assert (await example.Orchestrator(memory, model).answer(stranger)).context == ""
        with pytest.raises(RuntimeError, match="store_interaction_summary: forbidden: "):
            await example.Orchestrator(memory, model).answer(told)

    with services.installation.database.transaction(Scope.of(service_principal(tenant))) as connection:
        rows = connection.execute(text("SELECT * FROM audit WHERE face = 'mcp' ORDER BY seq")).all()
    seen = [(row.client, row.connector, row.event) for row in rows]
    assert seen[:4] == [
        ("slack-bot/1", "slack", "memory:searched"),
        ("slack-bot/1", "slack", "memory:added"),
        ("ticket-bot/1", "tickets", "memory:searched"),
        ("ticket-bot/1", "tickets", "memory:added"),
    ]
    assert seen[-1] == ("ticket-bot/1", "tickets", "access:denied")
