"""The gRPC interface of a Qdrant server over the same engine as the HTTP one, as far as the service asks.

Requests come in through the messages and services that the client library carries, and are turned into its models by
its own conversions, so that what the adapter sends is what a server would read.
"""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from fastapi import FastAPI
from qdrant_client import grpc as messages
from qdrant_client import models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

from tests.qdrant.collections import (
    Collection,
    Gone,
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


class _Door(grpc.ServerInterceptor):  # type: ignore[misc]
    """Lets in who has the key, while the server is not away; remembers how each call came."""

    def __init__(self, app: FastAPI, calls: list[str]) -> None:
        self._app = app
        self._calls = calls

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        self._calls.append(details.method)
        key = dict(details.invocation_metadata).get("api-key", "")
        state = self._app.state
        if state.away.is_set():
            return _refusing(grpc.StatusCode.UNAVAILABLE, "away")
        if state.api_key is not None and not secrets.compare_digest(key, state.api_key):
            return _refusing(
                grpc.StatusCode.UNAUTHENTICATED, "Must provide an API key or an Authorization bearer token"
            )
        handler = continuation(details)
        service, _, method = details.method.rpartition("/")
        if not state.watch or service != "/qdrant.Points" or method == "CreateFieldIndex":
            return handler

        def watched(request: Any, context: grpc.ServicerContext) -> Any:
            asked = request.query_points if method == "QueryBatch" else [request]
            keys = [_key(one) for one in asked]
            state.requests.append(("points", (method, keys)))
            return handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(watched, handler.request_deserializer, handler.response_serializer)


def _refusing(code: grpc.StatusCode, why: str) -> Any:
    def refuse(request: Any, context: grpc.ServicerContext) -> Any:
        context.abort(code, why)

    return grpc.unary_unary_rpc_method_handler(refuse)


class _Root(messages.QdrantServicer):
    def __init__(self, app: FastAPI) -> None:
        self._app = app

    def HealthCheck(self, request: Any, context: Any) -> Any:
        return messages.HealthCheckReply(title="qdrant - vector search engine", version=self._app.state.version)


class _Base:
    def __init__(self, app: FastAPI) -> None:
        self.state = app.state
        self.engine = app.state.engine

    def known(self, name: str, context: grpc.ServicerContext) -> None:
        aliases = {one.alias_name for one in self.engine.get_aliases().aliases}
        if not self.engine.collection_exists(name) and name not in aliases:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Not found: Collection `{name}` doesn't exist!")

    def shards_of(self, request: Any, context: grpc.ServicerContext, *, write: bool = False) -> str | None:
        self.known(request.collection_name, context)
        collection = self.state.made[actual(self.engine, request.collection_name)]
        try:
            return addressed(collection, _key(request), write=write)
        except Refused as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except Gone as error:
            context.abort(grpc.StatusCode.INTERNAL, str(error))


def _key(request: Any) -> Any:
    if not request.HasField("shard_key_selector"):
        return None
    return GrpcToRest.convert_shard_key_selector(request.shard_key_selector)


class _Collections(_Base, messages.CollectionsServicer):
    def Create(self, request: Any, context: grpc.ServicerContext) -> Any:
        config = GrpcToRest.convert_vectors_config(request.vectors_config)
        sparse = GrpcToRest.convert_sparse_vector_config(request.sparse_vectors_config)
        quantization = None
        if request.HasField("quantization_config"):
            quantization = GrpcToRest.convert_quantization_config(request.quantization_config)
        body = models.CreateCollection(
            vectors=config,
            sparse_vectors=sparse,
            hnsw_config=GrpcToRest.convert_hnsw_config_diff(request.hnsw_config),
            optimizers_config=GrpcToRest.convert_optimizers_config_diff(request.optimizers_config),
            quantization_config=quantization,
            shard_number=request.shard_number,
            replication_factor=request.replication_factor,
            write_consistency_factor=request.write_consistency_factor,
            sharding_method=GrpcToRest.convert_sharding_method(request.sharding_method)
            if request.HasField("sharding_method")
            else None,
            strict_mode_config=GrpcToRest.convert_strict_mode_config(request.strict_mode_config),
            metadata=GrpcToRest.convert_payload(request.metadata),
        )
        self.state.requests.append(("create", body))
        with self.state.local:
            if self.engine.collection_exists(request.collection_name):
                context.abort(grpc.StatusCode.ALREADY_EXISTS, "Wrong input: the collection already exists!")
            self.state.made[request.collection_name] = Collection(body)
            self.engine.create_collection(request.collection_name, vectors_config=config, sparse_vectors_config=sparse)
        return messages.CollectionOperationResponse(result=True)

    def Get(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self.state.local:
            self.known(request.collection_name, context)
            info = described(self.engine, request.collection_name, self.state.made)
        return messages.GetCollectionInfoResponse(result=RestToGrpc.convert_collection_info(info))

    def CreateShardKey(self, request: Any, context: grpc.ServicerContext) -> Any:
        body = GrpcToRest.convert_create_shard_key(request.request)
        with self.state.local:
            self.known(request.collection_name, context)
            name = actual(self.engine, request.collection_name)
            self.state.requests.append(("key", (name, body)))
            collection = self.state.made[name]
            if not self.state.cluster:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Bad request: Distributed mode disabled")
            if not collection.custom or body.shard_key in collection.keys:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"Sharding key {body.shard_key} already exists")
            collection.keys.append(body.shard_key)
        return messages.CreateShardKeyResponse(result=True)

    def CollectionClusterInfo(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self.state.local:
            self.known(request.collection_name, context)
            info = spread(self.state.made[actual(self.engine, request.collection_name)])
        active = messages.ReplicaState.Active
        return messages.CollectionClusterInfoResponse(
            peer_id=info.peer_id,
            shard_count=info.shard_count,
            local_shards=[
                messages.LocalShardInfo(shard_id=one.shard_id, shard_key=_named(one.shard_key), state=active)
                for one in info.local_shards
            ],
            remote_shards=[
                messages.RemoteShardInfo(
                    shard_id=one.shard_id, shard_key=_named(one.shard_key), peer_id=2, state=active
                )
                for one in info.remote_shards
            ],
        )

    def Update(self, request: Any, context: grpc.ServicerContext) -> Any:
        body = GrpcToRest.convert_update_collection(request)
        self.state.requests.append(("update", body))
        with self.state.local:
            self.known(request.collection_name, context)
            changed(self.engine, request.collection_name, self.state.made, body)
        return messages.CollectionOperationResponse(result=True)

    def List(self, request: Any, context: Any) -> Any:
        with self.state.local:
            names = [one.name for one in self.engine.get_collections().collections]
        return messages.ListCollectionsResponse(collections=[messages.CollectionDescription(name=one) for one in names])

    def Delete(self, request: Any, context: Any) -> Any:
        with self.state.local:
            return messages.CollectionOperationResponse(result=self.engine.delete_collection(request.collection_name))

    def CollectionExists(self, request: Any, context: Any) -> Any:
        with self.state.local:
            exists = self.engine.collection_exists(request.collection_name)
        return messages.CollectionExistsResponse(result=messages.CollectionExists(exists=exists))

    def ListAliases(self, request: Any, context: Any) -> Any:
        with self.state.local:
            aliases = self.engine.get_aliases().aliases
        return messages.ListAliasesResponse(aliases=[RestToGrpc.convert_alias_description(one) for one in aliases])

    def UpdateAliases(self, request: Any, context: Any) -> Any:
        with self.state.local:
            self.engine.update_collection_aliases([GrpcToRest.convert_alias_operations(one) for one in request.actions])
        return messages.CollectionOperationResponse(result=True)


def _named(key: Any) -> Any:
    return RestToGrpc.convert_shard_key(key)


class _Points(_Base, messages.PointsServicer):
    def CreateFieldIndex(self, request: Any, context: grpc.ServicerContext) -> Any:
        schema = GrpcToRest.convert_payload_schema_params(request.field_index_params)
        body = models.CreateFieldIndex(field_name=request.field_name, field_schema=schema)
        self.state.requests.append(("index", body))
        with self.state.local:
            self.known(request.collection_name, context)
            fields = self.state.made[actual(self.engine, request.collection_name)].fields
            fields[body.field_name] = body.field_schema
        return _done()

    def Upsert(self, request: Any, context: grpc.ServicerContext) -> Any:
        points = [GrpcToRest.convert_point_struct(one) for one in request.points]
        condition = GrpcToRest.convert_filter(request.update_filter) if request.HasField("update_filter") else None
        with self.state.local:
            key = self.shards_of(request, context, write=True)
            self.engine.upsert(request.collection_name, placed(points, key), update_filter=condition)
        return _done()

    def Delete(self, request: Any, context: grpc.ServicerContext) -> Any:
        selector = GrpcToRest.convert_points_selector(request.points)
        with self.state.local:
            key = self.shards_of(request, context, write=True)
            self.engine.delete(request.collection_name, chosen(selector, key))
        return _done()

    def QueryBatch(self, request: Any, context: grpc.ServicerContext) -> Any:
        questions = [_question(one) for one in request.query_points]
        self.state.requests.extend(("query", one) for one in questions)
        with self.state.local, warnings.catch_warnings():
            self.known(request.collection_name, context)
            warnings.simplefilter("ignore")
            for sent, question in zip(request.query_points, questions, strict=True):
                question.filter = narrowed(question.filter, self.shards_of(sent, context))
            answers = self.engine.query_batch_points(request.collection_name, questions)
        batches = [
            messages.BatchResult(result=[RestToGrpc.convert_scored_point(one) for one in answer.points])
            for answer in answers
        ]
        return messages.QueryBatchResponse(result=batches)

    def Scroll(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self.state.local:
            condition = narrowed(GrpcToRest.convert_filter(request.filter), self.shards_of(request, context))
            points, cursor = self.engine.scroll(
                request.collection_name,
                scroll_filter=condition,
                limit=request.limit,
                offset=GrpcToRest.convert_point_id(request.offset) if request.HasField("offset") else None,
                with_payload=GrpcToRest.convert_with_payload_selector(request.with_payload),
            )
        following = None if cursor is None else RestToGrpc.convert_extended_point_id(cursor)
        found = [RestToGrpc.convert_retrieved_point(one) for one in points]
        return messages.ScrollResponse(result=found, next_page_offset=following)

    def Count(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self.state.local:
            condition = narrowed(GrpcToRest.convert_filter(request.filter), self.shards_of(request, context))
            count = self.engine.count(request.collection_name, count_filter=condition, exact=request.exact).count
        return messages.CountResponse(result=messages.CountResult(count=count))


def _question(request: Any) -> models.QueryRequest:
    return models.QueryRequest(
        query=GrpcToRest.convert_query(request.query),
        using=request.using,
        filter=GrpcToRest.convert_filter(request.filter),
        params=GrpcToRest.convert_search_params(request.params) if request.HasField("params") else None,
        limit=request.limit,
        with_payload=GrpcToRest.convert_with_payload_interface(request.with_payload),
    )


def _done() -> Any:
    result = messages.UpdateResult(operation_id=0, status=messages.UpdateStatus.Completed)
    return messages.PointsOperationResponse(result=result)


def serve(app: FastAPI, calls: list[str], *, tls: tuple[bytes, bytes] | None = None) -> tuple[grpc.Server, int]:
    """Serve the engine of an application over gRPC, and return the server with its port. `tls`: key and certificate."""
    server = grpc.server(ThreadPoolExecutor(8), interceptors=[_Door(app, calls)])
    messages.add_QdrantServicer_to_server(_Root(app), server)
    messages.add_CollectionsServicer_to_server(_Collections(app), server)
    messages.add_PointsServicer_to_server(_Points(app), server)
    if tls is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([tls]))
    server.start()
    return server, port
