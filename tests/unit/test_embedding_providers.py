"""Providers through Mem0: a real client against a server that speaks OpenAI's API and answers with real vectors."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.embeddings import Embedder, EmbeddingRefused, EmbeddingUnavailable
from service.embeddings.minilm import MiniLM
from service.embeddings.providers import ProviderEmbedder
from service.engine.mem0_import import import_mem0
from service.errors import ConfigurationError
from service.settings import load_settings
from service.wiring.adapters import open_embedder


class Server(ThreadingHTTPServer):
    """Answers `POST /v1/embeddings` with MiniLM's vectors times `scale`, cut to `keep`, or with `status`.

    Texts of more than `longest` characters, and more than `most` of them, are refused.
    """

    def __init__(self, minilm: MiniLM) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.minilm = minilm
        self.scale, self.keep, self.status = 3.0, 384, 200
        self.longest, self.most = 10_000, 100


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
        vectors = self.server.minilm.embed_documents(texts) * self.server.scale
        data = [
            {"object": "embedding", "index": row, "embedding": vector[: self.server.keep].tolist()}
            for row, vector in enumerate(vectors)
        ]
        answer: dict[str, Any] = {
            "object": "list",
            "model": "m",
            "data": data,
            "usage": {"prompt_tokens": 1, "total_tokens": 1},
        }
        status = self.server.status
        if len(texts) > self.server.most or max(map(len, texts)) > self.server.longest:
            status = 413
        if status != 200:
            answer = {"error": {"message": f"cannot embed {texts}"}}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> MiniLM:
    return MiniLM(tmp_path_factory.mktemp("model"), threads=1)


@pytest.fixture
def server(minilm: MiniLM) -> Iterator[Server]:
    with Server(minilm) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def provider(server: Server, tmp_path: Path) -> ProviderEmbedder:
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    config = {"model": "m", "api_key": "k", "openai_base_url": url}
    return ProviderEmbedder("openai", config, dimensions=384, prepare=partial(import_mem0, tmp_path), timeout=20)


def test_vectors_come_in_order_and_normalised(provider: ProviderEmbedder, minilm: MiniLM) -> None:
    embedder: Embedder = provider
    assert (embedder.name, embedder.dimensions) == ("openai/m", 384)
    texts = ["a", "a ticket about invoices", "something else entirely"]
    assert np.allclose(embedder.embed_documents(texts), minilm.embed_documents(texts), atol=1e-5)
    query = embedder.embed_query(texts[1])
    assert query.dtype == np.float32
    assert np.allclose(query, minilm.embed_query(texts[1]), atol=1e-5)
    assert embedder.embed_documents([]).shape == (0, 384)
    assert embedder.embed_query("").shape == (384,)


def test_a_call_may_take_as_long_as_the_settings_say(server: Server, tmp_path: Path) -> None:
    config = {"model": "m", "api_key": "k", "openai_base_url": f"http://127.0.0.1:{server.server_address[1]}/v1"}
    section = {"provider": "openai", "config": config, "timeout": 77}
    with ExitStack() as stack:
        embedder = open_embedder(load_settings(environ={}, flags={"data_dir": tmp_path, "embeddings": section}), stack)
    assert isinstance(embedder, ProviderEmbedder)
    assert embedder._mem0.client.timeout == 77


def test_failures_do_not_repeat_the_text(provider: ProviderEmbedder, server: Server) -> None:
    server.status = 400
    with pytest.raises(EmbeddingUnavailable, match="BadRequestError") as caught:
        provider.embed_query("a secret")
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, EmbeddingRefused), (413, EmbeddingRefused), (401, EmbeddingUnavailable), (503, EmbeddingUnavailable)],
)
def test_a_text_that_is_refused_is_told_apart_from_a_provider_that_is_away(
    status: int, kind: type[EmbeddingUnavailable], provider: ProviderEmbedder, server: Server
) -> None:
    server.status = status
    with pytest.raises(EmbeddingUnavailable) as caught:
        provider.embed_query("a secret")
    assert type(caught.value) is kind


def test_a_text_longer_than_the_model_reads_is_cut(provider: ProviderEmbedder, server: Server, minilm: MiniLM) -> None:
    server.longest = 600
    long = "an invoice that nobody has paid. " * 60
    texts = ["a", long, "a ticket about invoices", "b"]
    vectors = provider.embed_documents(texts)
    assert np.allclose(vectors[[0, 2, 3]], minilm.embed_documents([texts[0], *texts[2:]]), atol=1e-5)
    assert np.allclose(vectors[1], minilm.embed_query(long[: len(long) // 4]), atol=1e-5)
    assert np.allclose(provider.embed_query(long), vectors[1], atol=1e-5)


def test_more_texts_than_the_provider_takes_at_once_are_sent_apart(
    provider: ProviderEmbedder, server: Server, minilm: MiniLM
) -> None:
    server.most = 2
    texts = [f"note {number}" for number in range(7)]
    assert np.allclose(provider.embed_documents(texts), minilm.embed_documents(texts), atol=1e-5)


def test_vectors_of_another_size_are_refused(provider: ProviderEmbedder, server: Server) -> None:
    server.keep = 100
    with pytest.raises(EmbeddingRefused, match=r"\(1, 100\) instead of \(1, 384\)"):
        provider.embed_query("a")


def test_zero_vectors_are_refused(provider: ProviderEmbedder, server: Server) -> None:
    server.scale = 0.0
    with pytest.raises(EmbeddingRefused, match="zero"):
        provider.embed_documents(["a"])


def test_lone_surrogates_are_refused(provider: ProviderEmbedder) -> None:
    with pytest.raises(ValueError, match="surrogate"):
        provider.embed_query("\ud800")


@pytest.mark.parametrize(
    ("name", "config", "words"),
    [
        ("openai", {"model": "m", "api_key": "k"}, "openai_base_url"),
        ("openai", {"openai_base_url": "http://127.0.0.1:9/v1"}, "'model'"),
        ("fastembed", {"model": "m"}, "downloads"),
        ("nonesuch", {"model": "m"}, "unknown to Mem0"),
        ("openai", {"model": "m", "openai_base_url": "http://127.0.0.1:9/v1", "typo": 1}, "typo"),
    ],
)
def test_wrong_settings_are_named(name: str, config: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=words):
        ProviderEmbedder(name, config, dimensions=384, prepare=partial(import_mem0, tmp_path), timeout=20)
