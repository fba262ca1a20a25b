"""Puts together the embedding model that serves, the index that is of it, and what brings in another one."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.embeddings import Embedder
from service.embeddings.minilm import MiniLM
from service.errors import ConfigurationError, Conflict, IndexUnavailable
from service.index.edge_folder import IndexFolder
from service.index.switched import SwitchedIndex
from service.memories.changing import STALE_AFTER, ModelChange
from service.memories.indexing import Indexing
from service.memories.serving import Generations, Serving
from service.settings import Settings
from service.settings.tree import Embeddings
from service.storage.embedding_models import EmbeddingModel, EmbeddingModels, ModelState
from service.storage.outbox import Outbox
from service.wiring.adapters import index_folder, open_embedder, open_index, server_index
from service.wiring.counting import count_memories
from service.wiring.tracing import traced, traced_index

if TYPE_CHECKING:
    from service.wiring import Installation

#: What of the settings opens a model wherever it is opened; the rest is how a process uses it.
_KEPT = ("provider", "config", "dimensions", "timeout")
_log = logging.getLogger("memvault")


def open_serving(installation: Installation, stack: ExitStack) -> tuple[Generations, SwitchedIndex]:
    """Open the model that serves and its index."""
    settings, models = installation.settings, models_of(installation)
    model, embedder = _serving(installation, models, stack)
    _sweep(settings, models)
    generations = Generations(_pair(settings, embedder, model), remote=settings.index.url is not None)
    if models.find(ModelState.FILLING) is not None:
        # From the first moment on: the vectors that the new model made already must not be written over.
        generations.changing.set()

    def filling() -> Any:
        return None if generations.filling is None else generations.filling.index

    index = SwitchedIndex(lambda: generations.serving.index, filling, generations.close)
    return generations, index


def open_serving_embedder(installation: Installation, stack: ExitStack) -> Embedder:
    """Open the model that serves, for what needs no index."""
    return _serving(installation, models_of(installation), stack)[1]


def open_change(
    installation: Installation,
    generations: Generations,
    indexing: Indexing,
    stack: ExitStack,
) -> ModelChange:
    """Return what brings in another model; nothing runs yet."""
    settings = installation.settings

    def open_pair(model: EmbeddingModel) -> Serving:
        embedder = open_embedder(_with(settings, model.settings), stack)
        if not model.is_of(embedder.name, embedder.dimensions):
            raise ConfigurationError(f"embeddings: the settings that were kept of {model.name} do not open it")
        return _pair(settings, embedder, model)

    def following(pair: Serving) -> Indexing:
        return Indexing(
            installation.database,
            installation.record,
            installation.keyring,
            pair.index,
            generations,
            Outbox(installation.database),
            installation.tasks,
            languages=installation.languages,
            following=pair,
        )

    return ModelChange(
        models_of(installation),
        generations,
        indexing,
        following,
        open_pair,
        partial(_is_there, settings),
        partial(_remove, settings),
        installation.tenants.living_ids,
        lambda serving: _difference(settings, serving.name, serving.dimensions),
        installation.trail,
    )


def ask_for(installation: Installation, provider: str) -> EmbeddingModel | None:
    """Note that the model of the settings is to be brought in; None when it is the one that serves.

    The model is asked once, so that a wrong URL, key or number of dimensions is told here.

    Raises:
        ConfigurationError: when the settings name another provider, or the model cannot be opened.
        EmbeddingUnavailable: when it does not answer as the settings say.
        Conflict: while another model is being brought in.
    """
    chosen = _chosen(installation.settings.embeddings, provider)
    settings = installation.settings.model_copy(update={"embeddings": chosen})
    name, dimensions = described(chosen)
    models = models_of(installation)
    known = models.find(ModelState.SERVING)
    if known is not None and known.is_of(name, dimensions):
        return None
    with ExitStack() as stack:
        open_embedder(settings, stack).embed_documents(["memvault"])
    total = count_memories(installation)
    model = models.begin(name, dimensions, _kept(chosen), total=total, stale_after=STALE_AFTER)
    if model is None or not model.is_of(name, dimensions):
        raise Conflict("another embedding model is being brought in: wait until that is done")
    return None if model.state is ModelState.SERVING else model


def described(chosen: Embeddings) -> tuple[str, int]:
    """Return the name and the dimensions of the model of the settings, without opening it."""
    if chosen.provider == "minilm":
        return MiniLM.name, chosen.dimensions
    return f"{chosen.provider}/{chosen.config.get('model')}", chosen.dimensions


def models_of(installation: Installation) -> EmbeddingModels:
    """Return what is known of the models of an installation."""
    return EmbeddingModels(installation.database, installation.keyring)


def _pair(settings: Settings, embedder: Embedder, model: EmbeddingModel) -> Serving:
    index = open_index(settings, embedder, model.generation)
    return Serving(traced(embedder, "embeddings"), traced_index(index), model.generation)


def _serving(installation: Installation, models: EmbeddingModels, stack: ExitStack) -> tuple[EmbeddingModel, Embedder]:
    settings = installation.settings
    name, dimensions = described(settings.embeddings)
    model = models.adopt(name, dimensions, _kept(settings.embeddings))
    note = _difference(settings, model.name, model.dimensions)
    if note is None:
        embedder = open_embedder(settings, stack)
        models.refresh(model, _kept(settings.embeddings))
        return model, embedder
    filling = models.find(ModelState.FILLING)
    if filling is None or not filling.is_of(name, dimensions):
        _log.warning("embeddings: %s", note)
    if not model.settings:
        raise ConfigurationError(f"embeddings: {note}. What opens {model.name} cannot be read with this keyring")
    return model, open_embedder(_with(settings, model.settings), stack)


def _difference(settings: Settings, serving: str, its_dimensions: int) -> str | None:
    """Return what to say where the settings name another model than the one that serves."""
    name, dimensions = described(settings.embeddings)
    if (name, dimensions) == (serving, its_dimensions):
        return None
    return (
        f"the settings name {name} ({dimensions} dimensions), the index is of {serving} ({its_dimensions}), which "
        "serves. Name that one in `embeddings`, or bring the other in: "
        f"`memvault index rebuild --embedder {settings.embeddings.provider}`"
    )


def _chosen(embeddings: Embeddings, provider: str) -> Embeddings:
    if embeddings.provider == provider:
        return embeddings
    if provider == "minilm":
        return Embeddings(provider="minilm", threads=embeddings.threads, batch_queries=embeddings.batch_queries)
    raise ConfigurationError(
        f"--embedder {provider}: the settings name {embeddings.provider}; give the model's `embeddings` section in a "
        "file with --config, and its key by environment"
    )


def _kept(embeddings: Embeddings) -> Mapping[str, Any]:
    return {name: getattr(embeddings, name) for name in _KEPT}


def _with(settings: Settings, kept: Mapping[str, Any]) -> Settings:
    embeddings = settings.embeddings.model_copy(update=dict(kept))
    return settings.model_copy(update={"embeddings": embeddings})


def _is_there(settings: Settings, model: EmbeddingModel) -> bool:
    """Tell whether a model has an index, without making one."""
    if settings.index.url is None:
        return index_folder(settings.data_dir, model.generation).exists()
    index = server_index(settings, name=model.name, dimensions=model.dimensions)
    try:
        return index.exists()
    finally:
        index.close()


def _remove(settings: Settings, model: EmbeddingModel) -> None:
    """Remove the index of a model that does not serve.

    Raises:
        IndexUnavailable: when something of it stays.
    """
    if settings.index.url is not None:
        index = server_index(settings, name=model.name, dimensions=model.dimensions)
        try:
            index.drop()
        finally:
            index.close()
    else:
        folder = index_folder(settings.data_dir, model.generation)
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            raise IndexUnavailable(f"the index folder {folder} cannot be removed: see to whom it belongs")


def _sweep(settings: Settings, models: EmbeddingModels) -> None:
    """Remove the folders of generations that nobody knows any more."""
    if settings.index.url is not None:
        return
    known = {index_folder(settings.data_dir, generation) for generation, _ in models.states()}
    for folder in index_folders(settings.data_dir):
        if folder not in known and folder.name != "index":
            shutil.rmtree(folder, ignore_errors=True)


def index_folders(data_dir: Path) -> list[Path]:
    """Return the folders of all generations of the embedded index that are there."""
    return [folder for folder in (data_dir / "index", *sorted(data_dir.glob("index-*"))) if folder.is_dir()]


def refuse_served(data_dir: Path) -> None:
    """Return unless a process has one of the index folders open.

    Raises:
        IndexLocked: when one does.
    """
    for folder in index_folders(data_dir):
        IndexFolder(folder, dimensions=0, model="").close()
