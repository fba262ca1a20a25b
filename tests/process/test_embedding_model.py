"""`memvault index rebuild --embedder` beside a running service, which is killed in the middle and loses nothing."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import httpx
import pytest
import yaml

from tests.llm.embeddings import ScriptedEmbeddings
from tests.process.memvault import Memvault, add, command, eventually, listed, search

pytestmark = pytest.mark.integration


@pytest.fixture
def words() -> Iterator[ScriptedEmbeddings]:
    """The model that is brought in."""
    with ScriptedEmbeddings() as server:
        yield server


def told(memvault: Memvault) -> str | None:
    """What `/readyz` says of the embedding model."""
    document = httpx.get(f"{memvault.url}/readyz", trust_env=False, timeout=10).json()
    part = document["parts"].get("embedding model")
    return None if part is None else part["reason"]


def begun(memvault: Memvault, asked: list[str]) -> subprocess.Popen[bytes]:
    """Start a command beside the service."""
    return subprocess.Popen(
        [*command(), *asked, "--json", "--data-dir", str(memvault.data_dir)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=memvault.cwd,
        env=memvault.environment(),
    )


def test_a_change_that_is_killed_leaves_the_old_model_serving_and_is_gone_on_with(
    memvault: Memvault, words: ScriptedEmbeddings
) -> None:
    config = memvault.place / "new.yaml"
    config.write_text(yaml.safe_dump({"embeddings": words.settings}), encoding="utf-8")
    asked = ["index", "rebuild", "--embedder", "openai", "--config", str(config)]
    memvault.start()
    with memvault.client() as client:
        add(client, *(f"Note {number} is about tea" for number in range(150)))
        # One call of the command itself, one for the first hundred; the next one waits.
        words.hold_from(3)
        rebuilding = begun(memvault, asked)
        try:
            words.wait_for_calls(3, timeout=180)
            expected = f"100 of 150 memories are embedded by {words.name}; all-MiniLM-L6-v2 serves"
            assert told(memvault) == expected
            assert search(client, "hot beverages")
            [new] = add(client, "She lives in Rome")
            gone = search(client, "Note 7 is about tea")[0]["id"]
            assert client.delete(f"/v1/memories/{gone}/").status_code in (200, 204)
            assert search(client, "Rome")[0]["id"] == new
        finally:
            memvault.kill()
            rebuilding.kill()
            rebuilding.communicate(timeout=30)
    first = set(words.calls[1])
    assert len(first) == 100
    words.release()
    again = len(words.calls)
    memvault.start()
    with memvault.client() as client:
        assert search(client, "Rome")[0]["id"] == new
        # The service may have taken it up by itself by then; either way it is done when the command ends.
        again_rebuilding = begun(memvault, asked)
        _, errors = again_rebuilding.communicate(timeout=180)
        assert again_rebuilding.returncode == 0, errors
        # What was embedded before the kill is not embedded again.
        assert first.isdisjoint(text for call in words.calls[again:] for text in call)
        assert "the settings name all-MiniLM-L6-v2" in str(eventually(lambda: told(memvault)))
        before = len(words.calls)
        assert search(client, "lives Rome")[0]["id"] == new
        assert words.calls[before:] == [["lives Rome"]]
        found = {hit["id"] for hit in search(client, "Note about tea", top_k=200)}
        assert found == listed(client).keys()
        assert gone not in found
        assert len(found) == 150
    assert json.loads((memvault.data_dir / "index-2" / "current").read_text())["model"] == words.name
    assert not (memvault.data_dir / "index").exists()
