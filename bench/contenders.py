"""What is timed inside one process: the embedder alone, the floor, and the engine as the faces call it."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final, Protocol
from unittest import mock
from uuid import UUID

import numpy as np
import qdrant_edge

from bench.remote import HITS, expect
from bench.stock import ADDER, USER
from bench.texts import memory_text, query_text
from service import clock, wiring
from service.auth.keys import Grant
from service.embeddings.embedder import Matrix, Vector
from service.embeddings.minilm import MiniLM
from service.filters.build import subjects_filter
from service.index.edge_engine import EdgeEngine, edge_filter
from service.index.edge_shard import Shard, stored
from service.index.interface import Point
from service.index.questions import SparseTerms
from service.index.scoped import chunks
from service.index.selection import DENSE, Has, Key, own_subject, within
from service.memories.actions import Query
from service.migrations.runner import upgrade
from service.policy.table import ROLES
from service.records import Message, NewMemories, SubjectNames
from service.scope import Caller, Scope, SubjectKind
from service.settings import load_settings
from service.storage.stored import IndexEntry

#: Messages in one add while the memories are loaded.
_LOAD: Final = 100
#: Memories that are embedded to see how many a second the embedder does: some five seconds of it.
_SAMPLE: Final = 1_000
_POLL_SECONDS: Final = 0.5


class Contender(Protocol):
    """Something that can search ten memories among those of one user of one tenant, and add one.

    The number of a call also says whose it is: the tenants take turns.
    """

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


class Embedding:
    """The embedder alone."""

    name: Final = "embedder"

    def __init__(self, embedder: MiniLM) -> None:
        self._embedder = embedder

    def search(self, number: int) -> None:
        """See `Contender`."""
        self._embedder.embed_query(query_text(number))

    def add(self, number: int) -> None:
        """See `Contender`."""
        self._embedder.embed_documents([memory_text(number)])


def embedding_rate(embedder: MiniLM, numbers: range) -> float:
    """Return how many of these memories a second are embedded when nothing else is done, a hundred at a time."""
    texts = [memory_text(one) for one in numbers[:_SAMPLE]]
    began = time.perf_counter()
    for start in range(0, len(texts), _LOAD):
        embedder.embed_documents(texts[start : start + _LOAD])
    return len(texts) / (time.perf_counter() - began)


class Floor:
    """The least that a search or an add can do, in the process.

    A search embeds and calls Qdrant Edge once, for dense vectors only. An add embeds and commits one row so that it is
    on the disk (SQLite, `synchronous = FULL`). There is no keyword search, no encryption and no audit.
    """

    name: Final = "floor"

    def __init__(self, folder: Path, embedder: MiniLM, scopes: Sequence[Scope]) -> None:
        self._embedder = embedder
        folder.mkdir(parents=True)
        # In a process of its own: what it takes to fill and compact a million would weigh on all that is timed.
        self._filled = Shard.create(folder / "index", embedder.dimensions)
        self._engine: EdgeEngine | None = None
        self._user = clock.new_random_id()
        tenants = [scope.tenant_id for scope in scopes]
        mine = [Has(Key.USER, (str(own_subject(tenant, self._user)),)) for tenant in tenants]
        self._filters = [edge_filter(within(tenant, one)) for tenant, one in zip(tenants, mine, strict=True)]
        # Without a transaction that was begun, each statement commits.
        self._rows = sqlite3.connect(folder / "rows", isolation_level=None, check_same_thread=False)
        self._one_by_one = threading.Lock()
        self._rows.execute("PRAGMA journal_mode = WAL")
        self._rows.execute("PRAGMA synchronous = FULL")
        self._rows.execute("CREATE TABLE memories (id BLOB PRIMARY KEY, text TEXT, vector BLOB)")

    def fill(self, scope: Scope, vectors: Iterable[Any]) -> None:
        """Store the vectors of a tenant's memories, as points of the user that is searched. Before `start`."""
        for chunk in chunks([self._point(vector) for vector in vectors]):
            self._filled.write([stored(scope.tenant_id, chunk, self._embedder.dimensions)])

    def start(self) -> None:
        """Bring the index into the shape that the service's own upkeep would give it, and open it in this process."""
        finish(self._filled)
        self._engine = EdgeEngine.load(self._filled.folder)

    def search(self, number: int) -> None:
        """See `Contender`."""
        assert self._engine is not None
        vector = self._embedder.embed_query(query_text(number)).tolist()
        request = qdrant_edge.QueryRequest(
            limit=HITS,
            filter=self._filters[number % len(self._filters)],
            query=qdrant_edge.Query.Nearest(vector, using=DENSE),
        )
        expect(len(self._engine.shard.query(request)))

    def add(self, number: int) -> None:
        """See `Contender`."""
        text = memory_text(number)
        (vector,) = self._embedder.embed_documents([text])
        with self._one_by_one:
            self._rows.execute("INSERT INTO memories VALUES (?, ?, ?)", (clock.new_id().bytes, text, vector.tobytes()))

    def close(self) -> None:
        """Let go of the folder."""
        self._filled.discard()
        if self._engine is not None:
            self._engine.close()
        self._rows.close()

    def _point(self, vector: Any) -> Point:
        moment = clock.now()
        return Point(clock.new_id(), 1, vector, SparseTerms(), moment, moment, user_id=self._user)


def finish(shard: Shard) -> None:
    """Compact a shard that was filled and close it."""
    with shard.use("compact") as call:
        call("optimize")
    shard.close()


class InProcess:
    """Memvault's actions, called as the faces call them: everything but HTTP.

    `dsn` reaches their database as its owner.
    """

    name: Final = "engine"

    def __init__(self, data_dir: Path, api_keys: Sequence[str], stack: ExitStack) -> None:
        settings = load_settings(environ={}, flags={"data_dir": data_dir})
        connections = wiring.reach_record(settings, stack)
        if connections.owner_dsn is None:
            raise LookupError("only a folder with a Postgres of its own is measured")
        self.dsn: Final = connections.owner_dsn
        upgrade(self.dsn, app_role=settings.database.app_role)
        self._installation = wiring.open_installation(settings, connections, stack)
        self._services = wiring.open_services(self._installation, stack)
        self._callers = [self._caller(key) for key in api_keys]
        self._where = subjects_filter(SubjectNames(user_id=USER))

    @property
    def scopes(self) -> list[Scope]:
        """The scopes of the callers, one for each tenant."""
        return [caller.scope for caller in self._callers]

    def new_tenants(self, count: int) -> list[str]:
        """Make so many tenants and return a key for each; calls go to them as well from now on."""
        made = []
        for number in range(count):
            tenant = self._installation.tenants.create(f"bench-{number}-{clock.new_random_id().hex[:8]}")
            grant = Grant(ROLES["agent"], label="bench")
            made.append(self._installation.keys.mint_for_installation(tenant.id, grant).secret)
        self._callers += [self._caller(key) for key in made]
        return made

    def fill(self, numbers: range) -> float:
        """Add the memories of these numbers to every tenant, for the user that is searched, many in one add.

        Return how many a second the first tenant took, which embeds them: the others get the same.
        """
        rates = []
        with _each_text_embedded_once() if len(self._callers) > 1 else nullcontext():
            for caller in self._callers:
                began = time.perf_counter()
                for start in range(0, len(numbers), _LOAD):
                    self._add(caller, [memory_text(one) for one in numbers[start : start + _LOAD]], USER)
                self._services.indexing.drain()
                rates.append(len(numbers) / (time.perf_counter() - began))
        return rates[0]

    def entries(self, scope: Scope) -> Iterator[list[IndexEntry]]:
        """Yield a tenant's memories that are searched, vectors included, so that the others can hold the same."""
        installation, name = self._installation, (SubjectKind.USER, USER)
        record = installation.record
        after: UUID | None = None
        while True:
            with installation.database.transaction(scope) as connection:
                user = installation.subjects.find(connection, scope, [name])[name]
                ids = record.next_ids(connection, after=after, limit=1000)
                part = record.index_entries(connection, scope, ids)
            yield [entry for entry in part.values() if entry.memory.user_id == user]
            if len(ids) < 1000:
                return
            after = ids[-1]

    def search(self, number: int) -> None:
        """See `Contender`."""
        caller = self._callers[number % len(self._callers)]
        query = Query(query_text(number), self._where, limit=HITS)
        expect(len(self._services.memories.search(caller, caller.scope, query)))

    def add(self, number: int) -> None:
        """See `Contender`."""
        self._add(self._callers[number % len(self._callers)], [memory_text(number)], ADDER)

    def maintain(self) -> None:
        """Compact the index. Its upkeep may be at it: closed now, it would begin anew while calls are timed."""
        while not self._services.index.compact():
            time.sleep(_POLL_SECONDS)

    def _caller(self, api_key: str) -> Caller:
        principal = self._installation.keys.find_principal(api_key)
        if principal is None:
            raise LookupError("the folder's own key is not valid in it")
        return Caller(principal, request_id="bench", client="bench")

    def _add(self, caller: Caller, texts: Sequence[str], user: str) -> None:
        messages = [Message("user", text) for text in texts]
        event = self._services.adds.add(
            caller, caller.scope, NewMemories(messages, SubjectNames(user_id=user), infer=False)
        )
        if len(event.results) != len(texts):
            raise LookupError("an add lost messages")


@contextmanager
def _each_text_embedded_once() -> Iterator[None]:
    """Let the built-in embedder remember what it embeds, so that a hundred tenants are filled in the time of a few.

    With one tenant it remembers for nothing: not to be used then, for a million vectors take 1.5 GB.
    """
    known: dict[str, Vector] = {}
    embed = MiniLM.embed_documents

    def embed_documents(self: MiniLM, texts: Sequence[str]) -> Matrix:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        known.update(zip(new, embed(self, new), strict=True))
        return np.array([known[text] for text in texts])

    with mock.patch.object(MiniLM, "embed_documents", embed_documents):
        yield
