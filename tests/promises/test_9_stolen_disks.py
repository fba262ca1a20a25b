"""Stolen disks: what the files of a running installation give away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.llm.scripted import ScriptedLLM
from tests.process.memvault import Memvault, add, eventually, search

pytestmark = pytest.mark.promises

#: One for each place in which something readable could hide; every other one is beyond ASCII.
CANARIES = {
    "text": "quokkatext",
    "text2": "čäñárýtéxt秘密の記憶",
    "text3": "deletedwombat",
    "text4": "oldplatypus",
    "text5": "newechidna",
    "said": "saidnumbat",
    "said2": "gesägtßωмега",
    "fact": "factbandicoot",
    "fact2": "事実カンガルー",
    "user": "userkookaburra",
    "user2": "nützerüsér鳥",
    "agent": "agentgalah",
    "app": "appcockatoo",
    "run": "runlorikeet",
    "key": "keywallaby",
    "key2": "schlüsselключ",
    "value": "valuedingo",
    "value2": "wértзначение",
    "category": "categorytaipan",
    "category2": "kätegorie蛇",
    "query": "querybilby",
    "label": "labelpotoroo",
    "speaker": "speakerquoll",
    "connector": "crmbrolga",
    "idempotency": "idempotencyemu",
}
CONTROL = "controlcassowary対照"
#: Reading a file while it is written, in pieces that overlap by more than a canary.
PIECE, OVERLAP = 1 << 20, 256


@pytest.fixture(scope="module")
def used(written_model: Path) -> Iterator[Memvault]:
    """A running installation that has seen every canary, in every kind of call."""
    with ExitStack() as stack:
        llm = stack.enter_context(ScriptedLLM())
        memvault = Memvault(
            written_model,
            MEMVAULT_LLM__PROVIDER="openai",
            MEMVAULT_LLM__MODEL="scripted",
            MEMVAULT_LLM__API_KEY="sk-scripted",
            MEMVAULT_LLM__BASE_URL=llm.url,
            MEMVAULT_LLM__ATTEMPTS="1",
            MEMVAULT_LOG__LEVEL="debug",
        )
        stack.callback(memvault.remove)
        memvault.start()
        with memvault.client() as client:
            eventually(lambda: client.get("/readyz").json()["parts"]["extraction"]["status"] == "ok", seconds=60)
            use(memvault, client, llm)
            yield memvault


def use(memvault: Memvault, client: httpx.Client, llm: ScriptedLLM) -> None:
    """Do everything that a client can do with content."""
    c = CANARIES
    subjects = {"agent_id": c["agent"], "app_id": c["app"], "run_id": c["run"]}
    metadata = {c["key"]: c["value"], c["key2"]: {c["key"]: [c["value2"]]}, "source": c["connector"]}
    more: dict[str, Any] = {**subjects, "metadata": metadata, "categories": [c["category"], c["category2"]]}
    ids = add(client, f"I keep {c['text']} and {c['text2']}", f"old {c['text4']}", user=c["user"], **more)
    ids += add(client, f"remove {c['text3']}", user=c["user2"], **more)
    spoken = [{"role": "user", "content": f"I am {c['text']}", "name": c["speaker"]}]
    body = {"messages": spoken, "user_id": c["user2"], "infer": False}
    spoken_answer = client.post("/v3/memories/add/", json=body, headers={"Idempotency-Key": c["idempotency"]})
    assert spoken_answer.status_code == 200, spoken_answer.text

    llm.facts(f"The fact is {c['fact']}", f"{c['fact2']} is another")
    extracted = extract(client, f"{c['said']} and {c['said2']}", c["user"], **more)
    assert extracted["status"] == "SUCCEEDED", extracted
    llm.status(400)
    assert extract(client, f"failing {c['said']}", c["user"])["status"] == "FAILED"

    found = search(client, f"{c['query']} {c['text']}", user=c["user"])
    assert any(c["text2"] in hit["memory"] for hit in found)
    assert any(c["fact2"] in hit["memory"] for hit in search(client, c["fact2"], user=c["user"]))
    filters = {"AND": [{"user_id": c["user"]}, {"metadata": {c["key"]: c["value"]}}]}
    assert client.post("/v3/memories/", json={"filters": filters}).json()["count"] >= 2
    assert client.put(f"/v1/memories/{ids[1]}/", json={"text": f"new {c['text5']}"}).status_code == 200
    assert c["text4"] in client.get(f"/v1/memories/{ids[1]}/history/").text
    assert client.delete(f"/v1/memories/{ids[2]}/").status_code == 200
    assert client.get("/v1/events/").status_code == 200
    assert c["user2"] in client.get("/v1/entities/").text
    key = memvault.json("key", "create", "--tenant", "default", "--user", c["user"], "--label", c["label"])
    with memvault.client(key["api_key"]) as bound:
        assert search(bound, c["text"], user=c["user"])
        refused = bound.post("/v3/memories/search/", json={"query": c["query"], "filters": {"user_id": c["user2"]}})
        assert refused.status_code == 403
    # Errors that could repeat what they were given.
    assert client.post("/v3/memories/add/", json={"messages": c["text"], "user_id": [c["user"]]}).status_code == 400
    assert client.get(f"/v1/memories/{c['text']}/", params={c["key"]: c["value"]}).status_code == 404
    assert client.get("/v1/memories/", params={"user_id": c["user"]}).status_code < 500


def extract(client: httpx.Client, text: str, user: str, **more: Any) -> dict[str, Any]:
    """Add with extraction and return the event once it is final."""
    body = {"messages": [{"role": "user", "content": text}], "user_id": user, **more}
    event_id = client.post("/v3/memories/add/", json=body).json()["event_id"]

    def final() -> dict[str, Any] | None:
        event: dict[str, Any] = client.get(f"/v1/event/{event_id}/").json()
        return event if event["status"] in ("SUCCEEDED", "FAILED") else None

    return eventually(final, seconds=60)


def spellings(canary: str) -> set[bytes]:
    """Return a canary in each encoding in which one could read it, and as escapes; without null bytes, as `holders`
    reads the files, so that UTF-16 is found in either order.
    """
    encoded = [canary.encode(encoding) for encoding in ("utf-8", "utf-16-le", "utf-16-be")]
    return {one.replace(b"\0", b"") for one in [*encoded, canary.encode("ascii", "backslashreplace")]}


def holders(folder: Path, *canaries: str) -> dict[str, set[str]]:
    """Return the canaries that stand in files below a folder, each with the files."""
    wanted = {spelling: canary for canary in canaries for spelling in spellings(canary)}
    found: dict[str, set[str]] = {}
    for path in folder.rglob("*"):
        # The first start's key, which is no canary; the model is a link to elsewhere, which is not followed.
        if not path.is_file() or path == folder / "credentials.json":
            continue
        try:
            with path.open("rb") as file:
                tail = b""
                while piece := file.read(PIECE):
                    window = tail + piece.translate(None, b"\0")
                    for spelling, canary in wanted.items():
                        if spelling in window:
                            found.setdefault(canary, set()).add(str(path.relative_to(folder)))
                    tail = window[-OVERLAP:]
        except FileNotFoundError:
            continue
    return found


def checkpoint(memvault: Memvault) -> None:
    """Have Postgres write what it still holds in memory."""
    with psycopg.connect(memvault.superuser_dsn(), autocommit=True) as connection:
        connection.execute("CHECKPOINT")


def test_no_content_is_readable_in_any_file(used: Memvault) -> None:
    """Stolen disks: no readable memory text, metadata or user id in the Postgres files or the Qdrant folder at any
    time.
    """
    for moment in (lambda: None, lambda: checkpoint(used)):
        moment()
        assert holders(used.data_dir, *CANARIES.values()) == {}


def test_the_search_of_the_files_can_find_something(used: Memvault) -> None:
    """A canary that is written past the encryption is found, in heap and WAL; so the search above can fail."""
    with psycopg.connect(used.superuser_dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE controls (text text)")
        connection.execute("INSERT INTO controls VALUES (%s)", [CONTROL])
        connection.execute("CHECKPOINT")
        files = holders(used.data_dir, *CANARIES.values(), CONTROL)[CONTROL]
        connection.execute("DROP TABLE controls")
    assert any(file.startswith("postgres/data/base/") for file in files)
    assert any(file.startswith("postgres/data/pg_wal/") for file in files)
    planted = used.data_dir / "index" / "planted"
    planted.write_bytes(b"x" * (PIECE - 5) + CONTROL.encode("utf-16-le"))
    assert "index/planted" in holders(used.data_dir, CONTROL)[CONTROL]
    planted.unlink()


def test_no_content_is_in_logs_and_metrics(used: Memvault) -> None:
    """Memory text, metadata and user ids are in no log and no metric."""
    with used.client() as client:
        metrics = client.get("/metrics").text
    assert "memvault" in metrics
    assert "route=/v3/memories/search/" in used.stderr
    for place, text in {"metrics": metrics, "log": used.stderr, "output": used.stdout}.items():
        told = [name for name, canary in CANARIES.items() if canary in text or repr(canary)[1:-1] in text]
        assert not told, place
    assert CANARIES["text"] not in used.stderr.lower()
