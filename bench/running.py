"""Times a Memvault that runs already, over REST and MCP, beside the floor on this machine; cleans up behind itself."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

import httpx

from bench.contenders import Contender, Floor
from bench.remote import Mcp, Rest
from bench.speed import OPERATIONS, Case, Keep, Plan, Results, Tell, machine, timed
from bench.stock import ADDER, USER
from bench.texts import memory_text
from service import clock
from service.embeddings.minilm import MiniLM
from service.scope import TenantId, installation_caller

_BATCH: Final = 100
#: Far from the numbers that are loaded, so that nothing is added twice.
_NEW_TEXTS: Final = 100_000_000


def measure(url: str, api_key: str, plan: Plan, folder: Path, tell: Tell, keep: Keep) -> Results:
    """Load the plan's first size of memories for a user of the benchmark's own, time, and delete them again.

    The key needs to read, write and delete memories. Figures include the network between here and there. `keep` gets
    what was found after each case.

    Raises:
        httpx.HTTPError: when the service cannot be reached or refuses the key.
        FileExistsError: when that user has memories already: they would be deleted.
    """
    size = min(plan.sizes)
    results = Results(asdict(plan), machine())
    texts = [memory_text(number) for number in range(size)]
    with ExitStack() as stack:
        tell(f"loading {size} memories")
        stack.enter_context(_loaded(url, api_key, texts))
        embedder = MiniLM(folder / "model")
        scope = installation_caller(TenantId(clock.new_random_id())).scope
        floor = Floor(folder / "floor", embedder, [scope])
        stack.callback(floor.close)
        floor.fill(scope, embedder.embed_documents(texts))
        floor.start()
        rest, mcp = Rest(url, [api_key]), Mcp(url, [api_key])
        stack.callback(rest.close)
        stack.callback(mcp.close)
        contenders: list[Contender] = [floor, rest, mcp]
        numbers = itertools.count(_NEW_TEXTS)
        for operation, callers in itertools.product(OPERATIONS, plan.callers):
            tell(f"timing {operation} with {callers} callers")
            results.cells += timed(contenders, Case(size, 1, operation, callers), plan, numbers)
            keep(results)
    results.complete = True
    keep(results)
    return results


@contextmanager
def _loaded(url: str, api_key: str, texts: list[str]) -> Iterator[None]:
    headers = {"Authorization": f"Token {api_key}"}
    with httpx.Client(base_url=url, headers=headers, timeout=120, trust_env=False) as client:
        for user in (USER, ADDER):
            known = client.post("/v3/memories/", json={"filters": {"user_id": user}, "page_size": 1})
            if known.raise_for_status().json()["count"]:
                raise FileExistsError(f"the user {user} has memories there; delete them first")
            # Nobody's, so none go; a key that may not delete is refused before there is anything to delete.
            client.delete("/v1/memories/", params={"user_id": user}).raise_for_status()
        try:
            for start in range(0, len(texts), _BATCH):
                messages = [{"role": "user", "content": text} for text in texts[start : start + _BATCH]]
                body = {"messages": messages, "user_id": USER, "infer": False}
                client.post("/v3/memories/add/", json=body).raise_for_status()
            yield
        finally:
            answers = [client.delete("/v1/memories/", params={"user_id": user}) for user in (USER, ADDER)]
            for answer in answers:
                answer.raise_for_status()
