"""The official MCP clients for TypeScript against the whole served app: today's line and the one before it."""

from __future__ import annotations

import json
import re

import pytest

from tests.clients.npm_packages import NodePackages

pytestmark = pytest.mark.clients


@pytest.mark.parametrize(("client", "version"), [("client", "2026-07-28"), ("sdk", None)])
def test_a_session(client: str, version: str | None, node_packages: NodePackages, url: str, secret: str) -> None:
    done = node_packages.run("session.mjs", client, f"{url}/mcp", secret)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["server"] == "memvault"
    assert seen.get("version") == version
    assert "get_user_context" in seen["instructions"]
    assert len(seen["tools"]) == 13
    (added,) = seen["added"]["structured"]["results"]
    assert [one["id"] for one in seen["found"]["structured"]["results"]] == [added["id"]]
    assert "Alice prefers tea" in seen["context"]["text"]
    assert seen["context"]["structured"]["context"] == seen["context"]["text"]
    assert seen["wrong"]["isError"]
    assert seen["wrong"]["text"].startswith("invalid_input: query: must not be empty")
    assert "Alice prefers tea" in seen["resource"]
    assert "get_user_context" in seen["prompt"]


def test_a_wrong_key_is_told(node_packages: NodePackages, url: str) -> None:
    done = node_packages.run("session.mjs", "client", f"{url}/mcp", "mv_wrong")
    assert done.returncode != 0
    assert re.search(r"401|Unauthorized|unauthenticated", done.stderr, re.IGNORECASE)
