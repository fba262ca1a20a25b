"""The least that a service of these parts can be, to see which figures none can reach, whoever writes it.

A search is one HTTP request, one embedding, one call of the index for meaning and words, and one trip to Postgres that
reads ten rows and commits an audit row. An add embeds, commits a memory with an audit row, and writes to the index.
There are no credentials, roles or limits, nothing is encrypted, put in order or looked for a second time.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import psycopg
import qdrant_edge
import uvicorn
from psycopg.types.json import Jsonb
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bench.contenders import finish
from bench.remote import HITS, Rest
from service import clock
from service.embeddings.minilm import MiniLM
from service.index.edge_engine import EdgeEngine, edge_filter
from service.index.edge_shard import Shard, stored
from service.index.interface import Point
from service.index.scoped import chunks
from service.index.selection import DENSE, TERMS, Has, Key, own_subject, within
from service.index.terms import Bm25Terms
from service.scope import Scope, TenantId
from service.storage.stored import IndexEntry

_TABLES: Final = """
    DROP SCHEMA IF EXISTS bare CASCADE;
    CREATE SCHEMA bare;
    CREATE TABLE bare.memories (id uuid PRIMARY KEY, text text NOT NULL);
    CREATE TABLE bare.audit (id bigserial PRIMARY KEY, said jsonb NOT NULL);
"""
_READ: Final = "SELECT id, text FROM bare.memories WHERE id = ANY(%s)"
_KEEP: Final = "INSERT INTO bare.memories (id, text) VALUES (%s, %s)"
_TELL: Final = "INSERT INTO bare.audit (said) VALUES (%s)"
_BACKLOG: Final = 128
#: As many as the service has by default, each with a connection of its own.
_THREADS: Final = 16
_STOP_SECONDS: Final = 30.0


class Bare:
    """A bare server in a process of its own, filled here, and called as `Rest` calls the service.

    It has its index in `folder` and its tables in the database of `dsn`. `close` it, also if it was never started.
    """

    name: Final = "bare"

    def __init__(self, folder: Path, model: Path, dsn: str, scopes: Sequence[Scope]) -> None:
        self._folder, self._model, self._dsn = folder, model, dsn
        self._users = {scope.tenant_id: clock.new_random_id() for scope in scopes}
        self._filled = Shard.create(folder, MiniLM.dimensions)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(_TABLES)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        self._rest = Rest("http://{}:{}".format(*self._listener.getsockname()), [str(n) for n in range(len(scopes))])
        self._process: Any = None

    def fill(self, scope: Scope, entries: Iterable[IndexEntry]) -> None:
        """Store a tenant's memories, before `start`."""
        user, terms = self._users[scope.tenant_id], _terms(scope.tenant_id)
        with psycopg.connect(self._dsn) as connection, connection.cursor() as cursor:
            for chunk in chunks(list(entries)):
                cursor.executemany(_KEEP, [(entry.memory.id, entry.memory.text) for entry in chunk])
                points = [_point(one.memory.id, user, one.vector, terms, one.memory.text) for one in chunk]
                self._filled.write([stored(scope.tenant_id, points, MiniLM.dimensions)])

    def start(self) -> int:
        """Serve from now on; return the process's id. Calls wait until it is ready."""
        finish(self._filled)
        given = (self._folder, self._model, self._dsn, list(self._users.items()), self._listener)
        # A fresh process, not a copy of this one: its threads and locks would come along.
        self._process = multiprocessing.get_context("spawn").Process(target=_serve, args=given, daemon=True)
        self._process.start()
        # The process has it. Were it open here too, calls would wait for ever once the process is gone.
        self._listener.close()
        return int(self._process.pid)

    def search(self, number: int) -> None:
        """See `Contender`."""
        self._rest.search(number)

    def add(self, number: int) -> None:
        """See `Contender`."""
        self._rest.add(number)

    def close(self) -> None:
        """End the process, or let go of the folder."""
        self._rest.close()
        self._listener.close()
        self._filled.discard()
        if self._process is not None:
            self._process.terminate()
            self._process.join(_STOP_SECONDS)


class _Work:
    """What the server's threads do."""

    def __init__(self, folder: Path, model: Path, dsn: str, users: Sequence[tuple[Any, UUID]]) -> None:
        self._engine = EdgeEngine.load(folder)
        self._embedder = MiniLM(model)
        self._terms = [_terms(tenant) for tenant, _ in users]
        self._dsn = dsn
        self._users = users
        mine = [within(tenant, Has(Key.USER, (str(own_subject(tenant, user)),))) for tenant, user in users]
        self._filters = [edge_filter(one) for one in mine]
        self._own = threading.local()

    def search(self, tenant: int, body: dict[str, Any]) -> dict[str, Any]:
        """Return ten memories that are near."""
        text = body["query"]
        vector, terms = self._embedder.embed_query(text).tolist(), self._terms[tenant].query(text)
        request = partial(qdrant_edge.QueryRequest, filter=self._filters[tenant], limit=HITS)
        words = qdrant_edge.SparseVector(list(terms.ids), list(terms.weights))
        asked = [
            request(query=qdrant_edge.Query.Nearest(vector, using=DENSE), with_payload=[Key.MEMORY.value]),
            request(query=qdrant_edge.Query.Nearest(words, using=TERMS), with_payload=[Key.MEMORY.value]),
        ]
        near, _ = self._engine.shard.query_batch(qdrant_edge.QueryBatchRequest(asked))
        scores = {UUID((hit.payload or {})[Key.MEMORY.value]): hit.score for hit in near}
        connection = self._connection()
        with connection.pipeline():
            connection.execute("BEGIN")
            rows = connection.execute(_READ, [list(scores)])
            connection.execute(_TELL, [Jsonb({"found": [str(id_) for id_ in scores]})])
            connection.execute("COMMIT")
        return {"results": [{"id": str(id_), "memory": text, "score": scores[id_]} for id_, text in rows.fetchall()]}

    def add(self, tenant: int, body: dict[str, Any]) -> dict[str, Any]:
        """Keep a memory."""
        text = body["messages"][0]["content"]
        (vector,) = self._embedder.embed_documents([text])
        id_ = clock.new_id()
        connection = self._connection()
        with connection.pipeline():
            connection.execute("BEGIN")
            connection.execute(_KEEP, [id_, text])
            connection.execute(_TELL, [Jsonb({"kept": [str(id_)]})])
            connection.execute("COMMIT")
        # For another user than the one that is searched, as the other contenders add.
        owner, _ = self._users[tenant]
        point = _point(id_, owner, vector, self._terms[tenant], text)
        self._engine.write([stored(owner, [point], MiniLM.dimensions)])
        return {"results": [{"id": str(id_), "memory": text, "event": "ADD"}]}

    def _connection(self) -> psycopg.Connection[Any]:
        kept: psycopg.Connection[Any] | None = getattr(self._own, "connection", None)
        if kept is None:
            kept = self._own.connection = psycopg.connect(self._dsn, autocommit=True, prepare_threshold=0)
        return kept


def _serve(folder: Path, model: Path, dsn: str, users: Sequence[tuple[Any, UUID]], listener: socket.socket) -> None:
    threading.Thread(target=_end_with_the_benchmark, daemon=True).start()
    work, threads = _Work(folder, model, dsn, users), ThreadPoolExecutor(_THREADS)

    def route(path: str, action: Callable[[int, dict[str, Any]], dict[str, Any]]) -> Route:
        async def answer(request: Request) -> Response:
            tenant, body = _tenant(request), await request.json()
            return JSONResponse(await asyncio.get_running_loop().run_in_executor(threads, action, tenant, body))

        return Route(path, answer, methods=["POST"])

    routes = [route("/v3/memories/search/", work.search), route("/v3/memories/add/", work.add)]
    config = uvicorn.Config(Starlette(routes=routes), log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


def _end_with_the_benchmark() -> None:
    """Wait for the process that started this one, which may be killed, and end."""
    if (benchmark := multiprocessing.parent_process()) is not None:
        benchmark.join()
        os._exit(1)


def _tenant(request: Request) -> int:
    return int(request.headers["authorization"].removeprefix("Token "))


def _terms(tenant: TenantId) -> Bm25Terms:
    # Nothing is kept secret here, but the words of each tenant are its own as they are in the service: else a search
    # would go through the lists of all tenants.
    return Bm25Terms(tenant.bytes * 2)


def _point(id_: UUID, user: UUID, vector: Any, terms: Bm25Terms, text: str) -> Point:
    moment = clock.now()
    return Point(id_, 1, vector, terms.document(text), moment, moment, user_id=user)
