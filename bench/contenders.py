"""What is timed against each other: the floor, the engine in the process, and the engine behind REST."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit
from uuid import UUID

import orjson
import qdrant_edge

from bench.stock import ADDER, USER
from bench.texts import memory_text, query_text
from service import clock, wiring
from service.embeddings.minilm import MiniLM
from service.filters.build import subjects_filter
from service.index.edge import EdgeIndex
from service.index.edge_shard import edge_filter
from service.index.interface import Point
from service.index.points import DENSE
from service.index.selection import Every, Has, Key, within
from service.index.terms import SparseTerms
from service.memories.actions import Query
from service.migrations.runner import upgrade
from service.records import Message, NewMemories, SubjectNames
from service.scope import Caller, Scope, SubjectKind
from service.settings import load_settings
from service.storage.stored import IndexEntry

HITS: Final = 10
#: Messages in one add while the memories are loaded.
_LOAD: Final = 100


class Contender(Protocol):
    """Something that can search ten memories among those of one user, and add one."""

    @property
    def name(self) -> str:
        """What the tables call it."""
        ...

    def search(self, number: int) -> None:
        """Search with the query of a number; raise unless ten memories were found."""
        ...

    def add(self, number: int) -> None:
        """Add the memory of a number."""
        ...


class Floor:
    """The least that a search or an add can do: one embedding and one call of Qdrant Edge in the process.

    Dense vectors only, no record, no keyword search, no encryption, no audit, nothing durable but Edge's own log.
    """

    name: Final = "floor"

    def __init__(self, folder: Path, embedder: MiniLM, scope: Scope) -> None:
        self._embedder = embedder
        self._index = EdgeIndex(folder, dimensions=embedder.dimensions, model=embedder.name)
        self._scope = scope
        self._user, self._adder = clock.new_random_id(), clock.new_random_id()
        mine = Has(Key.USER, (str(self._user),))
        self._filter = edge_filter(within(scope.tenant_id, Every((mine,))))

    def fill(self, entries: Sequence[IndexEntry]) -> None:
        """Store the vectors of memories, as points of the user that is searched."""
        self._index.of(self._scope).upsert([self._point(entry.vector, self._user) for entry in entries])

    def search(self, number: int) -> None:
        """See `Contender`."""
        vector = self._embedder.embed_query(query_text(number)).tolist()
        with self._index.using("search") as shard:
            request = qdrant_edge.QueryRequest(
                limit=HITS, filter=self._filter, query=qdrant_edge.Query.Nearest(vector, using=DENSE)
            )
            _expect(len(shard.query(request)))

    def add(self, number: int) -> None:
        """See `Contender`."""
        vector = self._embedder.embed_documents([memory_text(number)])[0]
        self._index.of(self._scope).upsert([self._point(vector, self._adder)])

    def maintain(self) -> None:
        """Bring the index into the shape that the service's own upkeep would give it."""
        self._index.maintain()

    def close(self) -> None:
        """Let go of the folder."""
        self._index.close()

    def _point(self, vector: Any, user: Any) -> Point:
        moment = clock.now()
        return Point(clock.new_id(), 1, vector, SparseTerms(), moment, moment, user_id=user)


class InProcess:
    """Memvault's actions, called as the faces call them: everything but HTTP."""

    name: Final = "engine"

    def __init__(self, data_dir: Path, api_key: str, stack: ExitStack) -> None:
        settings = load_settings(environ={}, flags={"data_dir": data_dir})
        connections = wiring.reach_record(settings, stack)
        if connections.owner_dsn is not None:
            upgrade(connections.owner_dsn, app_role=settings.database.app_role)
        self._installation = wiring.open_installation(settings, connections, stack)
        self._services = wiring.open_services(self._installation, stack)
        principal = self._installation.keys.find_principal(api_key)
        if principal is None:
            raise LookupError("the folder's own key is not valid in it")
        self._caller = Caller(principal, request_id="bench", client="bench")
        self._where = subjects_filter(SubjectNames(user_id=USER))

    @property
    def scope(self) -> Scope:
        """The scope of the caller."""
        return self._caller.scope

    def fill(self, numbers: range) -> None:
        """Add the memories of these numbers for the user that is searched, many in one add."""
        for start in range(0, len(numbers), _LOAD):
            self._add([memory_text(one) for one in numbers[start : start + _LOAD]], USER)
        self._services.indexing.drain()

    def entries(self) -> list[IndexEntry]:
        """Return the memories that are searched, vectors included, so that the others can hold the same."""
        installation, name = self._installation, (SubjectKind.USER, USER)
        record = installation.record
        found: list[IndexEntry] = []
        with installation.database.transaction(self.scope) as connection:
            user = installation.subjects.find(connection, self.scope, [name])[name]
            after: UUID | None = None
            while True:
                part, after = record.all_index_entries(connection, self.scope, after=after, limit=1000, unreadable={})
                found += [entry for entry in part if entry.memory.user_id == user]
                if after is None:
                    return found

    def search(self, number: int) -> None:
        """See `Contender`."""
        query = Query(query_text(number), self._where, limit=HITS)
        _expect(len(self._services.memories.search(self._caller, self.scope, query)))

    def add(self, number: int) -> None:
        """See `Contender`."""
        self._add([memory_text(number)], ADDER)

    def maintain(self) -> None:
        """Do now what the index's upkeep would do within half a minute."""
        self._services.index.maintain()

    def _add(self, texts: Sequence[str], user: str) -> None:
        messages = [Message("user", text) for text in texts]
        event = self._services.adds.add(
            self._caller, self.scope, NewMemories(messages, SubjectNames(user_id=user), infer=False)
        )
        if len(event.results) != len(texts):
            raise LookupError("an add lost messages")


class Rest:
    """Memvault over HTTP, one kept connection for each calling thread."""

    name: Final = "REST"

    def __init__(self, url: str, api_key: str) -> None:
        address = urlsplit(url)
        self._host, self._port = address.hostname or "", address.port
        self._headers = {"Authorization": f"Token {api_key}", "Content-Type": "application/json"}
        self._own = threading.local()

    def search(self, number: int) -> None:
        """See `Contender`."""
        body = {"query": query_text(number), "filters": {"user_id": USER}, "top_k": HITS, "threshold": 0.0}
        _expect(len(self._post("/v3/memories/search/", body)["results"]))

    def add(self, number: int) -> None:
        """See `Contender`."""
        messages = [{"role": "user", "content": memory_text(number)}]
        self._post("/v3/memories/add/", {"messages": messages, "user_id": ADDER, "infer": False})

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        connection = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = http.client.HTTPConnection(self._host, self._port, timeout=60)
        try:
            connection.request("POST", path, orjson.dumps(body), self._headers)
            response = connection.getresponse()
            answer = response.read()
        except BaseException:
            # A connection that broke off in the middle cannot be used again.
            connection.close()
            raise
        if response.status >= 400:
            raise http.client.HTTPException(f"status {response.status}")
        return orjson.loads(answer)


def _expect(found: int) -> None:
    if found != HITS:
        raise LookupError(f"found {found} memories, not {HITS}")
