"""Memories that Mem0 itself made, of the platform's export and of OpenMemory come in as they were."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import numpy as np
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from service.audit.moves import ImportSource
from service.engine.mem0_import import import_mem0
from service.errors import ConfigurationError, InvalidInput
from service.index import foreign
from service.portability.imports import Imported
from service.portability.sources import Options, open_source
from service.records import Change
from service.scope import Caller
from service.wiring import Services
from tests.conftest import Postgres
from tests.integration.memories.adding import found
from tests.integration.portability.test_round_trip import exported
from tests.llm.scripted import ScriptedLLM
from tests.qdrant.serving import Qdrant, qdrant

pytestmark = pytest.mark.integration

DIMENSIONS = 32
QDRANT_KEY = "key-of-the-qdrant-server-0123456789abcdef"


class Embeddings(BaseHTTPRequestHandler):
    """An OpenAI-compatible endpoint whose vectors depend on the text."""

    def do_POST(self) -> None:
        """Embed."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        data = [
            {"object": "embedding", "index": number, "embedding": _vector(text)} for number, text in enumerate(texts)
        ]
        answer = json.dumps(
            {"object": "list", "model": "x", "data": data, "usage": {"prompt_tokens": 1, "total_tokens": 1}}
        )
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def _vector(text: str) -> list[float]:
    return [float(one) for one in np.random.default_rng(sum(text.encode())).normal(size=DIMENSIONS)]


@pytest.fixture
def embeddings() -> Iterator[str]:
    """The URL of a served embedder."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Embeddings)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()
    thread.join(10)


def live_with_mem0(folder: Path, embeddings: str, llm: ScriptedLLM, store: dict[str, Any]) -> dict[str, str]:
    """Let Mem0's own library add, extract, change and delete; return the ids by what they are."""
    import_mem0(folder / "mem0")
    from mem0 import Memory

    memory = Memory.from_config(
        {
            "vector_store": store,
            "history_db_path": str(folder / "history.db"),
            "embedder": {
                "provider": "openai",
                "config": {"api_key": "x", "openai_base_url": embeddings, "embedding_dims": DIMENSIONS},
            },
            "llm": {"provider": "openai", "config": {"api_key": "x", "model": "x", "openai_base_url": llm.url}},
        }
    )
    try:
        told = {"source": "slack", "labels": ["preference"]}
        plain = memory.add("I like tea", user_id="alice", agent_id="helper", infer=False, metadata=told)
        changed = memory.add("draft", user_id="alice", infer=False)
        gone = memory.add("doomed", user_id="alice", infer=False)
        llm.facts("The user plays the cello")
        extracted = memory.add("I play the cello", user_id="bob", run_id="r-1")
        ids = {
            name: added["results"][0]["id"]
            for name, added in (("plain", plain), ("changed", changed), ("gone", gone), ("extracted", extracted))
        }
        memory.update(ids["changed"], "final")
        memory.delete(ids["gone"])
        return ids
    finally:
        memory.close()
        memory.vector_store.client.close() if store[
            "provider"
        ] == "qdrant" else memory.vector_store.connection_pool.close()


def run(services: Services, caller: Caller, place: str, kind: str | None = None, **more: Any) -> Imported:
    """Import a source as the command does."""
    options = Options(**{name: more.pop(name) for name in ("collection", "history", "qdrant_api_key") if name in more})
    origin, opens = open_source(place, kind, options)
    return services.imports.run(caller, caller.scope, opens, origin=origin, **more)


def check_what_mem0_had(services: Services, caller: Caller, ids: dict[str, str]) -> None:
    """Compare the record with what Mem0 was told."""
    lines = {line["id"]: line for line in exported(services, caller) if line["type"] == "memory"}
    assert set(lines) == {ids["plain"], ids["changed"], ids["extracted"]}
    plain = lines[ids["plain"]]
    assert (plain["text"], plain["user_id"], plain["agent_id"]) == ("I like tea", "alice", "helper")
    assert plain["metadata"] == {"source": "slack", "labels": ["preference"]}
    assert plain["role"] == "user"
    created = datetime.fromisoformat(plain["created_at"])
    assert timedelta() < datetime.fromisoformat(plain["ingested_at"]) - created < timedelta(minutes=5)
    extracted = lines[ids["extracted"]]
    assert (extracted["text"], extracted["run_id"]) == ("The user plays the cello", "r-1")
    history = services.memories.history(caller, caller.scope, UUID(ids["changed"]))
    assert [(step.change, step.old_text, step.new_text) for step in history] == [
        (Change.ADD, None, "draft"),
        (Change.UPDATE, "draft", "final"),
    ]
    assert found(services, caller, "tea", {"user_id": "alice"})[0] == "I like tea"
    assert "doomed" not in repr(exported(services, caller))


def test_a_qdrant_collection_with_its_history(
    services: Services, caller: Caller, embeddings: str, llm: ScriptedLLM, tmp_path: Path
) -> None:
    store = {
        "provider": "qdrant",
        "config": {"path": str(tmp_path / "qdrant"), "embedding_model_dims": DIMENSIONS, "on_disk": True},
    }
    ids = live_with_mem0(tmp_path, embeddings, llm, store)
    place, history = str(tmp_path / "qdrant"), tmp_path / "history.db"
    assert run(services, caller, place, history=history, dry_run=True).memories == 3
    report = run(services, caller, place, history=history)
    assert (report.memories, report.refused) == (3, 0)
    check_what_mem0_had(services, caller, ids)
    assert run(services, caller, place, history=history).known == 3
    with pytest.raises(ConfigurationError, match="has no collection other"):
        run(services, caller, place, collection="other")
    with pytest.raises(ConfigurationError, match="history database"):
        run(services, caller, place, history=Path(__file__))


@pytest.fixture
def served() -> Iterator[Qdrant]:
    """A Qdrant server that asks for a key."""
    with qdrant(api_key=QDRANT_KEY) as server:
        yield server


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
def test_a_collection_of_a_qdrant_server(
    services: Services,
    caller: Caller,
    embeddings: str,
    llm: ScriptedLLM,
    tmp_path: Path,
    served: Qdrant,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = {
        "provider": "qdrant",
        "config": {"url": served.url, "api_key": QDRANT_KEY, "embedding_model_dims": DIMENSIONS},
    }
    ids = live_with_mem0(tmp_path, embeddings, llm, store)
    history = tmp_path / "history.db"
    # More than one page.
    monkeypatch.setattr(foreign, "_AT_ONCE", 2)
    before = points_of(served)
    assert run(services, caller, served.url, history=history, qdrant_api_key=QDRANT_KEY, dry_run=True).memories == 3
    report = run(services, caller, served.url, history=history, qdrant_api_key=QDRANT_KEY)
    assert (report.memories, report.refused) == (3, 0)
    check_what_mem0_had(services, caller, ids)
    assert run(services, caller, served.url, history=history, qdrant_api_key=QDRANT_KEY).known == 3
    assert points_of(served) == before
    with pytest.raises(ConfigurationError, match=r"has no collection other; there are: .*mem0"):
        run(services, caller, served.url, collection="other", qdrant_api_key=QDRANT_KEY)


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
@pytest.mark.filterwarnings("ignore:Failed to obtain server version")
def test_a_qdrant_server_that_refuses_or_is_away_is_named(services: Services, caller: Caller, served: Qdrant) -> None:
    for key in (None, "another-key-than-the-one-of-the-server"):
        with pytest.raises(ConfigurationError, match="cannot be read") as refused:
            run(services, caller, served.url, qdrant_api_key=key)
        assert "another-key" not in str(refused.value)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ConfigurationError, match="cannot be read"):
        run(services, caller, f"http://127.0.0.1:{port}")
    assert [line["type"] for line in exported(services, caller)] == ["export", "end"]


def points_of(served: Qdrant) -> list[Any]:
    """All points of the collection as the server has them."""
    body = {"limit": 100, "with_payload": True}
    headers = {"api-key": QDRANT_KEY}
    answer = httpx.post(f"{served.url}/collections/mem0/points/scroll", json=body, headers=headers, trust_env=False)
    assert answer.status_code == 200, answer.text
    points: list[Any] = answer.json()["result"]["points"]
    assert len(points) == 3
    return points


def test_a_pgvector_table_with_its_history(
    services: Services, caller: Caller, embeddings: str, llm: ScriptedLLM, tmp_path: Path, database: Postgres
) -> None:
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA elsewhere")
        connection.execute("CREATE EXTENSION vector")
    dsn = f"{database.admin} options='-csearch_path=elsewhere,public'"
    assert conninfo_to_dict(dsn)["options"]
    store = {
        "provider": "pgvector",
        "config": {"connection_string": dsn, "embedding_model_dims": DIMENSIONS, "collection_name": "mem0"},
    }
    ids = live_with_mem0(tmp_path, embeddings, llm, store)
    history = tmp_path / "history.db"
    report = run(services, caller, dsn, "pgvector", collection="elsewhere.mem0", history=history)
    assert (report.memories, report.refused) == (3, 0)
    check_what_mem0_had(services, caller, ids)
    with pytest.raises(ConfigurationError, match="no such table"):
        run(services, caller, dsn, "pgvector", collection="nothing")


def item(**more: Any) -> dict[str, Any]:
    """A memory as the platform shows it."""
    return {
        "id": str(uuid4()),
        "memory": "I like tea",
        "user_id": "alice",
        "agent_id": None,
        "app_id": "web",
        "run_id": None,
        "hash": "0" * 32,
        "metadata": {"mood": "calm"},
        "categories": ["drinks"],
        "created_at": "2024-02-03T04:05:06.789-08:00",
        "updated_at": "2024-03-03T04:05:06Z",
        "expiration_date": "2099-01-02",
        **more,
    }


@pytest.mark.parametrize("form", ["list", "results", "memories"])
def test_an_export_of_the_platform(services: Services, caller: Caller, tmp_path: Path, form: str) -> None:
    one = item()
    items = [one, item(memory="coffee", id=None, metadata=None, categories=None, expiration_date=None)]
    path = tmp_path / "export.json"
    path.write_text(json.dumps(items if form == "list" else {form: items}))
    report = run(services, caller, str(path))
    assert (report.memories, report.refused) == (2, 0)
    lines = {line["text"]: line for line in exported(services, caller) if line["type"] == "memory"}
    tea = lines["I like tea"]
    assert (tea["id"], tea["user_id"], tea["app_id"]) == (one["id"], "alice", "web")
    assert (tea["metadata"], tea["categories"], tea["expires_on"]) == ({"mood": "calm"}, ["drinks"], "2099-01-02")
    assert tea["created_at"] == datetime(2024, 2, 3, 12, 5, 6, 789000, UTC).isoformat(timespec="microseconds")
    assert tea["updated_at"] == datetime(2024, 3, 3, 4, 5, 6, tzinfo=UTC).isoformat(timespec="microseconds")
    assert tea["imported_from"] == ImportSource.PLATFORM.value
    # What has no id gets the same one again.
    assert run(services, caller, str(path)).known == 2


def test_one_page_of_several_is_no_export(services: Services, caller: Caller, tmp_path: Path) -> None:
    page = {"count": 3, "next": "https://api.example.com/v3/memories/?page=2", "previous": None, "results": [item()]}
    path = tmp_path / "export.json"
    path.write_text(json.dumps(page))
    with pytest.raises(ConfigurationError, match="one page of several"):
        run(services, caller, str(path))
    path.write_text(json.dumps(page | {"count": 1, "next": None}))
    assert run(services, caller, str(path)).memories == 1


def test_the_future_is_refused_and_nothing_is_imported(services: Services, caller: Caller, tmp_path: Path) -> None:
    path = tmp_path / "export.json"
    path.write_text(json.dumps([item(), item(created_at="2999-01-01T00:00:00Z")]))
    with pytest.raises(InvalidInput, match=r"export\.json\[1\]: has a time in the future"):
        run(services, caller, str(path))
    assert [line["type"] for line in exported(services, caller)] == ["export", "end"]


@pytest.mark.parametrize("lines", [True, False])
def test_a_backup_of_openmemory(services: Services, caller: Caller, tmp_path: Path, lines: bool) -> None:
    kept, archived, deleted = (str(uuid4()) for _ in range(3))
    app, category = str(uuid4()), str(uuid4())
    whole = {
        "user": {"id": str(uuid4()), "user_id": "alice", "name": "Alice"},
        "apps": [{"id": app, "name": "cursor"}],
        "categories": [{"id": category, "name": "work"}],
        "memories": [
            {
                "id": one,
                "app_id": app,
                "content": text,
                "metadata": {"k": 1},
                "state": state,
                "created_at": "2025-01-02T03:04:05+00:00",
                "updated_at": "2025-01-03T03:04:05+00:00",
                "category_ids": [category],
            }
            for one, text, state in (
                (kept, "uses vim", "active"),
                (archived, "used emacs", "archived"),
                (deleted, "doomed", "deleted"),
            )
        ],
    }
    named = [one | {"app": "cursor", "categories": ["work"]} for one in whole["memories"]]
    path = tmp_path / "memories_export_alice.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("memories.json", json.dumps(whole))
        if lines:
            packed = "".join(json.dumps(one) + "\n" for one in named)
            archive.writestr("memories.jsonl.gz", gzip.compress(packed.encode()))
    report = run(services, caller, str(path))
    assert (report.memories, report.refused) == (2, 0)
    found_lines = {line["id"]: line for line in exported(services, caller) if line["type"] == "memory"}
    assert set(found_lines) == {kept, archived}
    assert (found_lines[kept]["user_id"], found_lines[kept]["app_id"]) == ("alice", "cursor")
    assert (found_lines[kept]["categories"], found_lines[kept]["metadata"]) == (["work"], {"k": 1})
    assert found_lines[archived]["metadata"] == {"k": 1, "openmemory_state": "archived"}


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.json", b"{", "not JSON"),
        ("a.json", b'{"x": 1}', "neither a list"),
        ("a.zip", b"PK", "no backup of OpenMemory"),
        ("a.txt", b"", "say --from"),
    ],
)
def test_what_is_no_source_is_named(
    services: Services, caller: Caller, tmp_path: Path, name: str, content: bytes, why: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=why):
        run(services, caller, str(tmp_path / name))
    with pytest.raises(ConfigurationError, match="is not there"):
        run(services, caller, str(tmp_path / "nothing.json"))
