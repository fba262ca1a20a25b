"""Concrete adapters, chosen by the settings: the index, the embedding model, the streams of the trail."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.audit.stream import LinesFile, Sink, StandardOutput
from service.audit.syslog import Syslog
from service.embeddings import Embedder
from service.embeddings.batching import Batched
from service.embeddings.minilm import MiniLM
from service.embeddings.providers import ProviderEmbedder
from service.engine import LlmSettings
from service.engine.mem0_import import import_mem0
from service.errors import ConfigurationError
from service.index.edge import EdgeIndex
from service.index.interface import Index, IndexDamaged
from service.settings import Audit, Llm, Settings

if TYPE_CHECKING:
    from service.index.server import ServerIndex

_log = logging.getLogger("memvault")


def open_index(settings: Settings, embedder: Embedder, generation: int = 1) -> Index:
    """Open the index. A damaged folder is replaced by an empty one, which upkeep fills again from the record.

    Each embedding model has one of its own: on a server by its name, in the data folder by its generation.
    """
    if settings.index.url is not None:
        return server_index(settings, name=embedder.name, dimensions=embedder.dimensions)
    folder = index_folder(settings.data_dir, generation)
    try:
        return EdgeIndex(folder, dimensions=embedder.dimensions, model=embedder.name)
    except IndexDamaged as error:
        _log.warning("the index is damaged and is made again from the record", extra={"error": error.code})
        return EdgeIndex(folder, dimensions=embedder.dimensions, model=embedder.name, fresh=True)


def index_folder(data_dir: Path, generation: int) -> Path:
    """Return the folder of a generation of the embedded index."""
    return data_dir / ("index" if generation == 1 else f"index-{generation}")


def server_index(settings: Settings, *, name: str, dimensions: int) -> ServerIndex:
    """Return the index of a model on the Qdrant server of the settings; nothing is sent yet."""
    # Here, since the client of a server takes 0.8 s to import, which nobody with the embedded index should wait for.
    from service.index.server import ServerIndex
    from service.index.server_client import connect
    from service.index.server_requests import Layout

    chosen = settings.index
    client = connect(
        chosen.url or "",
        api_key=None if chosen.api_key is None else chosen.api_key.get_secret_value(),
        ca_file=chosen.ca_file,
        grpc_port=chosen.grpc_port,
        timeout=chosen.timeout,
        connections=settings.server.threads,
    )
    layout = Layout(
        shards=chosen.shards,
        shard_keys=chosen.shard_keys,
        replicas=chosen.replicas,
        write_consistency=chosen.write_consistency,
        quantization=chosen.quantization.value,
        on_disk=chosen.on_disk,
    )
    return ServerIndex(client, dimensions=dimensions, model=name, name=chosen.collection, layout=layout)


def open_embedder(settings: Settings, stack: ExitStack) -> Embedder:
    chosen = settings.embeddings
    embedder: Embedder
    if chosen.provider == "minilm":
        embedder = MiniLM(chosen.folder or settings.data_dir / "model", threads=chosen.threads)
    else:
        embedder = ProviderEmbedder(
            chosen.provider,
            chosen.config,
            dimensions=chosen.dimensions,
            prepare=partial(import_mem0, engine_home(settings)),
            timeout=chosen.timeout,
        )
    if embedder.dimensions != chosen.dimensions:
        raise ConfigurationError(
            f"embeddings.dimensions: the model {embedder.name} has {embedder.dimensions}, not {chosen.dimensions}"
        )
    if not chosen.batch_queries:
        return embedder
    batched = Batched(embedder, max_batch=chosen.batch_queries)
    stack.callback(batched.close)
    return batched


def sinks(audit: Audit) -> list[Sink]:
    """Return where the trail is streamed to."""
    sinks: list[Sink] = []
    if audit.stream:
        sinks.append(StandardOutput())
    if audit.stream_file is not None:
        sinks.append(LinesFile(audit.stream_file))
    if audit.syslog.address is not None:
        to = audit.syslog
        sinks.append(
            Syslog(audit.syslog.address, to.port, protocol=to.protocol, facility=to.facility, ca_file=to.ca_file)
        )
    return sinks


def engine_home(settings: Settings) -> Path:
    return settings.data_dir / "mem0"


def llm_settings(llm: Llm) -> LlmSettings | None:
    """Return what the engine needs to know of the LLM, or None when none is configured."""
    if llm.provider is None:
        return None
    config: dict[str, Any] = dict(llm.config)
    if llm.model is not None:
        config["model"] = llm.model
    if llm.api_key is not None:
        config["api_key"] = llm.api_key.get_secret_value()
    if llm.base_url is not None:
        config[f"{llm.provider}_base_url"] = llm.base_url
    return LlmSettings(provider=llm.provider, config=config, timeout_seconds=llm.timeout)
