"""What `memvault serve` says when it is up: three blocks to paste, and where the key is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from service.cli.credentials import FirstKey, KeyState
from service.wiring import DEFAULT_TENANT

_MAKE_A_KEY: Final = f"memvault key create --tenant {DEFAULT_TENANT} --role admin"


def welcome(url: str, known: FirstKey, *, path: Path) -> str:
    """Return the text for the terminal. The key is shown on the first start only; later its file is named."""
    head = f"Memvault serves on {url}  (docs: {url}/docs, state: {url}/readyz, stop: Ctrl-C)"
    if known.state is KeyState.BOOTSTRAP:
        return head
    if known.state is KeyState.KEPT:
        return f"{head}\nThe admin key of tenant {known.credentials['tenant_id']} is in {path}"
    if known.state is KeyState.REFUSED:
        return f"{head}\nThe key in {path} is not valid any more; make another with: {_MAKE_A_KEY}"
    if known.state is KeyState.UNKNOWN:
        return f"{head}\nNo admin key is kept in {path}; make one with: {_MAKE_A_KEY}"
    key = known.credentials["api_key"]
    server = {"mcpServers": {"memvault": {"url": f"{url}/mcp", "headers": {"Authorization": f"Bearer {key}"}}}}
    return f"""{head}

Your admin key: {key}
It is kept in {path} (readable by you only).

1. curl

curl -sS {url}/v3/memories/add/ -H 'Authorization: Token {key}' -H 'Content-Type: application/json' \\
  -d '{{"messages": [{{"role": "user", "content": "I love Italian food"}}], "user_id": "alice", "infer": false}}'

2. Python (pip install mem0ai)

from mem0 import MemoryClient
client = MemoryClient(host="{url}", api_key="{key}")
print(client.search("What food does she like?", filters={{"user_id": "alice"}}))

3. MCP client

{json.dumps(server, indent=2)}
"""
