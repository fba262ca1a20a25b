"""The HTTP interface of a Qdrant server over the engine that its client library carries, as far as the service asks.

What runs below is `qdrant-client`'s local mode: exact search, filters, conditional writes, aliases and rarity over a
part of the points, as the server has them; no graphs, no payload indexes, no strict mode, no log on the disk. A shard
key is a hidden field of the points that are under it, and what a request does not name it does not reach. Requests are
read with the library's own models, which refuse a field that the server does not know.
"""

from __future__ import annotations

import secrets
import threading
import warnings
from typing import Any

from fastapi import APIRouter, Body, Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from pydantic import TypeAdapter
from qdrant_client import QdrantClient, models

from tests.qdrant.collections import (
    Collection,
    Gone,
    Made,
    Refused,
    actual,
    addressed,
    changed,
    chosen,
    described,
    narrowed,
    placed,
    spread,
)

_UPSERT = TypeAdapter(models.PointsList)
_SELECTOR = TypeAdapter(models.PointsSelector)


def create_app(
    *, api_key: str | None = None, version: str = "1.19.0", cluster: bool = True, watch: bool = False
) -> FastAPI:
    """Return a server with an empty memory. `/stop` and `/go` let it fail and recover; they are the tests' own.

    `cluster` is whether it makes shard keys; with `watch` the shard keys of each request about points are remembered.
    """
    engine = QdrantClient(":memory:")
    local = threading.Lock()
    away = threading.Event()
    requests: list[tuple[str, Any]] = []
    made: Made = {}

    def door(key: str | None = Header(default=None, alias="api-key")) -> None:
        if away.is_set():
            raise HTTPException(503, "away")
        if api_key is not None and not secrets.compare_digest(key or "", api_key):
            raise HTTPException(401, "Must provide an API key or an Authorization bearer token")

    async def watched(request: Request) -> None:
        what = request.url.path.partition("/points")
        if watch and what[1]:
            body = await request.json()
            keys = [one.get("shard_key") for one in body.get("searches", [body])]
            requests.append(("points", (f"{request.method} points{what[2]}", keys)))

    router = APIRouter(dependencies=[Depends(door), Depends(watched)])

    def answer(result: Any) -> Response:
        body = TypeAdapter(dict[str, Any]).dump_json({"result": result, "status": "ok", "time": 0.0}, by_alias=True)
        return Response(body, media_type="application/json")

    def known(name: str) -> None:
        if not engine.collection_exists(name) and name not in {one.alias_name for one in engine.get_aliases().aliases}:
            raise HTTPException(404, f"Not found: Collection `{name}` doesn't exist!")

    def shards_of(name: str, key: Any, *, write: bool = False) -> str | None:
        known(name)
        return addressed(made[actual(engine, name)], key, write=write)

    def located(name: str, question: models.QueryRequest) -> models.QueryRequest:
        key = shards_of(name, question.shard_key)
        return question.model_copy(update={"filter": narrowed(question.filter, key), "shard_key": None})

    @router.get("/")
    def root() -> dict[str, str]:
        return {"title": "qdrant - vector search engine", "version": version}

    @router.get("/collections")
    def collections() -> Response:
        with local:
            return answer(engine.get_collections())

    @router.get("/collections/{name}/exists")
    def exists(name: str) -> Response:
        with local:
            return answer({"exists": engine.collection_exists(name)})

    @router.put("/collections/{name}")
    def create(name: str, body: models.CreateCollection) -> Response:
        requests.append(("create", body))
        with local:
            if engine.collection_exists(name):
                raise HTTPException(409, f"Wrong input: Collection `{name}` already exists!")
            made[name] = Collection(body)
            requests.append(("made", made[name]))
            return answer(
                engine.create_collection(name, vectors_config=body.vectors, sparse_vectors_config=body.sparse_vectors)
            )

    @router.delete("/collections/{name}")
    def drop(name: str) -> Response:
        with local:
            return answer(engine.delete_collection(name))

    @router.put("/collections/{name}/index")
    def index(name: str, body: models.CreateFieldIndex) -> Response:
        requests.append(("index", body))
        with local:
            known(name)
            made[actual(engine, name)].fields[body.field_name] = body.field_schema
        return answer({"operation_id": 0, "status": "completed"})

    @router.get("/aliases")
    def aliases() -> Response:
        with local:
            return answer(engine.get_aliases())

    @router.post("/collections/aliases")
    def move(body: models.ChangeAliasesOperation) -> Response:
        with local:
            return answer(engine.update_collection_aliases(body.actions))

    @router.put("/collections/{name}/points")
    def upsert(name: str, body: dict[str, Any] = Body()) -> Response:
        given = _UPSERT.validate_python(body)
        with local:
            key = shards_of(name, given.shard_key, write=True)
            return answer(engine.upsert(name, placed(given.points, key), update_filter=given.update_filter))

    @router.post("/collections/{name}/points/delete")
    def delete(name: str, body: dict[str, Any] = Body()) -> Response:
        selector = _SELECTOR.validate_python(body)
        with local:
            key = shards_of(name, selector.shard_key, write=True)
            return answer(engine.delete(name, chosen(selector, key)))

    @router.post("/collections/{name}/points/query/batch")
    def query(name: str, body: models.QueryRequestBatch) -> Response:
        requests.extend(("query", one) for one in body.searches)
        with local, warnings.catch_warnings():
            questions = [located(name, one) for one in body.searches]
            warnings.simplefilter("ignore")
            return answer(engine.query_batch_points(name, questions))

    @router.post("/collections/{name}/points/query")
    def query_one(name: str, body: models.QueryRequest) -> Response:
        requests.append(("query", body))
        with local, warnings.catch_warnings():
            question = located(name, body)
            warnings.simplefilter("ignore")
            return answer(engine.query_batch_points(name, [question])[0])

    @router.post("/collections/{name}/points")
    def retrieve(name: str, body: models.PointRequest) -> Response:
        with local:
            known(name)
            return answer(engine.retrieve(name, body.ids, with_payload=body.with_payload is not False))

    @router.post("/collections/{name}/points/scroll")
    def scroll(name: str, body: models.ScrollRequest) -> Response:
        with local:
            points, cursor = engine.scroll(
                name,
                scroll_filter=narrowed(body.filter, shards_of(name, body.shard_key)),
                limit=body.limit or 10,
                offset=body.offset,
                with_payload=body.with_payload if body.with_payload is not None else True,
            )
            return answer({"points": points, "next_page_offset": cursor})

    @router.post("/collections/{name}/points/count")
    def count(name: str, body: models.CountRequest) -> Response:
        with local:
            condition = narrowed(body.filter, shards_of(name, body.shard_key))
            return answer(engine.count(name, count_filter=condition, exact=True))

    @router.get("/collections/{name}")
    def about(name: str) -> Response:
        with local:
            known(name)
            return answer(described(engine, name, made))

    @router.patch("/collections/{name}")
    def change(name: str, body: models.UpdateCollection) -> Response:
        requests.append(("update", body))
        with local:
            known(name)
            changed(engine, name, made, body)
            return answer(True)

    @router.put("/collections/{name}/shards")
    def add_key(name: str, body: models.CreateShardingKey) -> Response:
        requests.append(("key", (actual(engine, name), body)))
        with local:
            known(name)
            collection = made[actual(engine, name)]
            if not cluster:
                raise Refused("Bad request: Distributed mode disabled")
            if not collection.custom or body.shard_key in collection.keys:
                raise Refused(f"Bad request: Sharding key {body.shard_key} already exists")
            collection.keys.append(str(body.shard_key))
            return answer(True)

    @router.get("/collections/{name}/cluster")
    def cluster_of(name: str) -> Response:
        with local:
            known(name)
            return answer(spread(made[actual(engine, name)]))

    @router.get("/cluster")
    def state() -> Response:
        if not cluster:
            return answer({"status": "disabled"})
        raft = {"term": 1, "commit": 1, "pending_operations": 0, "leader": 1, "role": "Leader", "is_voter": True}
        working = {"consensus_thread_status": "working", "last_update": "2026-01-01T00:00:00Z"}
        known = {"status": "enabled", "peer_id": 1, "peers": {}, "raft_info": raft, "message_send_failures": {}}
        return answer(known | {"consensus_thread_status": working})

    app = FastAPI(openapi_url=None)

    @app.exception_handler(Refused)
    def refused(request: Request, error: Refused) -> JSONResponse:
        return JSONResponse({"status": {"error": str(error)}, "time": 0.0}, 400)

    @app.exception_handler(Gone)
    def gone(request: Request, error: Gone) -> JSONResponse:
        return JSONResponse({"status": {"error": str(error)}, "time": 0.0}, 500)

    app.state.requests = requests
    app.state.engine, app.state.local, app.state.away, app.state.made = engine, local, away, made
    app.state.api_key, app.state.version, app.state.cluster, app.state.watch = api_key, version, cluster, watch

    @app.post("/stop")
    def stop() -> dict[str, bool]:
        away.set()
        return {"away": True}

    @app.post("/go")
    def go() -> dict[str, bool]:
        away.clear()
        return {"away": False}

    app.include_router(router)
    return app
