"""A connector with a memory: the two calls that an orchestrator makes, served by FastAPI on Mem0's own client.

Run it against a service (`pip install "mem0ai<2" fastapi uvicorn`: the 0.1 and 1.0 lines of Mem0's client take the
user as an argument of `search`):

    MEM0_TELEMETRY=false python fastapi_connector.py --url http://127.0.0.1:8080 --key-file key.txt --port 8090

The key needs `memory:read` and `memory:write`: the role `agent` has both.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from mem0 import MemoryClient
from pydantic import BaseModel


class ContextRequest(BaseModel):
    """Whose context is wanted, and for what."""

    user_id: str
    query: str = "recent preferences and ongoing tickets"


class SummaryRequest(BaseModel):
    """What came of an interaction, and where it was."""

    user_id: str
    summary: str
    channel: str
    connector: str
    labels: list[str] = []


def create_app(client: MemoryClient) -> FastAPI:
    """Return the connector's app on a client of the memory."""
    app = FastAPI(title="Memory connector")

    @app.post("/tools/get_user_context")
    def get_user_context(request: ContextRequest) -> dict[str, Any]:
        found = client.search(request.query, user_id=request.user_id, limit=5)
        # The 0.1 line answers with a list, the 1.0 line with an object around it.
        hits = found["results"] if isinstance(found, dict) else found
        return {"context_snippets": [hit["memory"] for hit in hits]}

    @app.post("/tools/store_interaction_summary")
    def store_interaction_summary(request: SummaryRequest) -> dict[str, Any]:
        added = client.add(
            [{"role": "assistant", "content": request.summary}],
            user_id=request.user_id,
            metadata={
                "connector": request.connector,
                "channel": request.channel,
                "labels": [*request.labels, "interaction_summary"],
            },
        )
        results = added["results"] if isinstance(added, dict) else added
        return {"status": "ok", "memory_id": results[0]["id"] if results else None}

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A connector with a memory.")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="address of the service")
    parser.add_argument("--key-file", type=Path, required=True, help="file with the API key")
    parser.add_argument("--port", type=int, default=8090, help="port to listen on, on this machine only")
    given = parser.parse_args()
    memory = MemoryClient(host=given.url, api_key=given.key_file.read_text(encoding="utf-8").strip())
    uvicorn.run(create_app(memory), host="127.0.0.1", port=given.port, log_level="warning")
