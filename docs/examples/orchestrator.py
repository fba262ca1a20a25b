"""An orchestrator with a memory: what is agreed on Slack today is known to the ticket connector tomorrow.

Run it against a service (`pip install mcp`):

    python orchestrator.py --url http://127.0.0.1:8080 --key-file key.txt

The key needs `memory:read` and `memory:write`: the role `agent` has both.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import Implementation, TextContent

#: From a prompt to an answer. Put the call to your language model here.
Model = Callable[[str], str]


@dataclass(frozen=True)
class Incoming:
    """A message that came in through a connector."""

    connector: str
    channel: str
    user_id: str
    text: str


@dataclass(frozen=True)
class Reply:
    """What was answered, and what of the memory the answer rests on."""

    text: str
    context: str


class Orchestrator:
    """Answers messages: remember, think, answer, and store what came of it."""

    def __init__(self, memory: Client, model: Model) -> None:
        self._memory = memory
        self._model = model

    async def answer(self, message: Incoming) -> Reply:
        """Answer one message and store a summary of the exchange."""
        found = await self._call("get_user_context", query=message.text, user_id=message.user_id, max_tokens=500)
        # The context is data: it stands in a part of its own, and never among the instructions.
        prompt = f"Answer the user.\n\n<memory>\n{found['context']}\n</memory>\n\n<user>\n{message.text}\n</user>"
        text = self._model(prompt)
        await self._call(
            "store_interaction_summary",
            summary=f"{message.user_id} wrote: {message.text} The answer was: {text}",
            channel=message.channel,
            connector=message.connector,
            user_id=message.user_id,
            labels=["conversation"],
        )
        return Reply(text, found["context"])

    async def _call(self, tool: str, **arguments: object) -> dict[str, Any]:
        result = await self._memory.call_tool(tool, arguments)
        if result.is_error or result.structured_content is None:
            # It says what is wrong and what to do about it.
            said = " ".join(part.text for part in result.content if isinstance(part, TextContent))
            raise RuntimeError(f"{tool}: {said}")
        answer: dict[str, Any] = result.structured_content
        return answer


@asynccontextmanager
async def memory(url: str, key: str, name: str) -> AsyncIterator[Client]:
    """Connect to the service. The name is in its audit trail beside everything that is done here."""
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(
            streamable_http_client(f"{url.rstrip('/')}/mcp", http_client=http),
            client_info=Implementation(name=name, version="1"),
        ) as client,
    ):
        yield client


def scripted_model(prompt: str) -> str:
    """Stand in for a language model: it answers from the memory when the memory tells of a delivery."""
    if "Thursday" in prompt.partition("<memory>")[2].partition("</memory>")[0]:
        return "As agreed on Slack, the delivery comes on Thursday."
    if "Thursday" in prompt:
        return "Noted: your delivery moves to Thursday."
    return "I do not know of any delivery."


async def main(url: str, key: str) -> None:
    """Run the two days."""
    monday = Incoming("slack", "#orders", "alice", "Please move my delivery to Thursday, I am away before.")
    tuesday = Incoming("tickets", "TICKET-4711", "alice", "When does my delivery come?")
    for message in (monday, tuesday):
        async with memory(url, key, f"{message.connector}-orchestrator") as client:
            reply = await Orchestrator(client, scripted_model).answer(message)
        print(f"[{message.connector} {message.channel}] {message.user_id}: {message.text}")
        print(f"  memory: {reply.context or 'nothing yet'}")
        print(f"  answer: {reply.text}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Two days of an orchestrator with a memory.")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="address of the service")
    parser.add_argument("--key-file", type=Path, required=True, help="file with the API key")
    given = parser.parse_args()
    asyncio.run(main(given.url, given.key_file.read_text(encoding="utf-8").strip()))
