"""Brings in another embedding model while serving: fills an index of its own beside the one of now, and switches."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Final
from uuid import UUID

from sqlalchemy import Connection

from service import clock
from service.audit.detail import is_code
from service.audit.events import AuditEvent
from service.audit.moves import EmbedderChanged
from service.audit.trail import Trail
from service.embeddings.embedder import Embedder, EmbeddingRefused, EmbeddingUnavailable, Matrix, Vector
from service.errors import IndexUnavailable
from service.memories.indexing import Indexing
from service.memories.serving import Generations, Serving
from service.scope import SYSTEM_TENANT, Scope, TenantId, installation_caller
from service.storage.embedding_models import EmbeddingModel, EmbeddingModels, ModelState
from service.ticking import Ticker

#: A change that nobody has worked at for so long belongs to a process that has ended.
STALE_AFTER: Final = timedelta(minutes=2)
#: Seconds between two signs of one that is worked at, however long its provider takes for a batch.
_SIGN_EVERY: Final = 15.0
#: Seconds between two looks at what was written meanwhile; well under the time that outbox rows are kept.
_FOLLOW_EVERY: Final = 5.0
#: Looks at what was written meanwhile before the last one, for which writes wait.
_LAST_ROUNDS: Final = 10
#: Seconds before a model that failed is asked again; after the last one the change fails and can be gone on with.
_PAUSES: Final = (1.0, 2.0, 4.0, 8.0, 16.0)
#: Seconds between two looks of a process at which model serves.
_LOOK_EVERY: Final = 2.0
_log = logging.getLogger("memvault.index")


class ChangeUnderWay(IndexUnavailable):
    """This process brings the model in already: it is the same work, and no thread is to wait for its end."""


class ModelChange:
    """Fills the index of the model that is to serve, and lets it serve. One process at a time does the work."""

    def __init__(
        self,
        models: EmbeddingModels,
        generations: Generations,
        indexing: Indexing,
        following: Callable[[Serving], Indexing],
        open_pair: Callable[[EmbeddingModel], Serving],
        is_there: Callable[[EmbeddingModel], bool],
        remove: Callable[[EmbeddingModel], None],
        tenants: Callable[[], Sequence[TenantId]],
        differs: Callable[[Embedder], str | None],
        trail: Trail,
    ) -> None:
        self._models = models
        self._trail = trail
        self._generations = generations
        self._indexing = indexing
        self._following = following
        self._open_pair = open_pair
        self._is_there = is_there
        self._remove = remove
        self._tenants = tenants
        self._stopping = threading.Event()
        self._running = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="memvault-models", daemon=True)
        self._filling: EmbeddingModel | None = None
        self._done = 0
        self._differs = differs

    def run(self, progress: Callable[[int], None] = lambda done: None) -> int:
        """Bring the model in that is waiting for it; return how many memories its index got.

        It goes on where an earlier run was cut short: what was embedded then is not embedded again.

        Raises:
            EmbeddingUnavailable: when the new model does not answer; the old one serves on.
            ChangeUnderWay: while another thread does it.
            IndexUnavailable: while another process does it or rebuilds the index.
        """
        if not self._running.acquire(blocking=False):
            raise ChangeUnderWay("this process is bringing an embedding model in already", retry_after=10)
        try:
            model = self._models.find(ModelState.FILLING)
            return self._done if model is None else self._brought_in(model, progress)
        finally:
            self._running.release()

    def state(self) -> tuple[str, str | None] | None:
        """Return what readiness tells of a change that is under way or of settings that differ; else None."""
        model = self._filling
        serving = self._generations.embedder.name
        if model is not None:
            return "starting", f"{self._done} of {model.total} memories are embedded by {model.name}; {serving} serves"
        note = self._differs(self._generations.embedder)
        return None if note is None else ("off", note)

    def start(self) -> None:
        """Look from time to time which model serves, since another process may bring one in."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(10)

    def look(self) -> None:
        """Let the model serve that does for all processes, and take note of one that is being brought in."""
        states = dict(self._models.states())
        filling = ModelState.FILLING in states.values()
        if filling:
            known = self._models.find(ModelState.FILLING)
            if known is not None:
                self._filling, self._done = known, known.done
            self._generations.changing.set()
        elif self._generations.filling is None:
            self._filling = None
            self._generations.changing.clear()
        if states.get(self._generations.serving.generation) is not ModelState.SERVING:
            with self._generations.lock:
                model = self._models.find(ModelState.SERVING)
                if model is not None and model.generation != self._generations.serving.generation:
                    self._generations.switch(self._open_pair(model))
                    self._indexing.begin_anew()
                    _log.warning("another embedding model serves from now on", extra={"model": model.name})

    def tidy(self) -> None:
        """Remove the indexes of models that no longer serve, once no process can be asking them any more.

        Raises:
            IndexUnavailable, RecordUnavailable: when it cannot be told that the index that serves lacks nothing.
        """
        shared = self._generations.serving.index.shared
        retired = [
            model
            for model in self._models.all()
            if model.state is ModelState.RETIRED and (not shared or model.idle > STALE_AFTER)
        ]
        if retired and shared:
            # Others wrote to the old index until they saw the switch, and forgot their outbox rows. Whoever switched
            # compares the new one at once; what becomes of that in a process that ends or that lost a store, nobody
            # knows, and nothing else would find a memory that is in no index any more.
            self._indexing.agree(self._tenants())
        for model in retired:
            self._models.forget(model, partial(self._remove, model), shared=shared)

    def is_stale(self) -> bool:
        """Tell whether a model is to be brought in and the process that worked at it has ended."""
        model = self._models.find(ModelState.FILLING)
        return model is not None and model.idle > STALE_AFTER and not self._running.locked()

    def remove_idle(self) -> None:
        """Remove what indexes there are beside the one that serves and that nobody fills, with all that was deleted.

        A change that was cut short leaves one, which no deletion reaches. Little is lost: it is filled from the record,
        which has the vectors that were made. One that this process fills stays, for deletions reach that.

        Raises:
            IndexUnavailable: while another process fills one or may still be asking it, or where it cannot be removed.
        """
        # A run that begins meanwhile waits; it begins with an empty index itself.
        if not self._beside() or not self._running.acquire(blocking=False):
            return
        try:
            self.tidy()
            model = self._models.find(ModelState.FILLING)
            if model is not None:
                with self._indexing.claimed():
                    self._models.empty(model, partial(self._remove, model))
            if self._beside():
                raise _left_beside()
        finally:
            self._running.release()

    def count_beside(self, scope: Scope, subject: UUID | None) -> int:
        """Return how many points of the tenant, or of one of its subjects, the index has that this process fills.

        Raises:
            IndexUnavailable: where there is another beside the one that serves: nobody can tell what is in it.
        """
        filling = self._generations.filling
        if filling is not None:
            return filling.index.of(scope).count(subject=subject)
        if self._beside():
            raise _left_beside()
        return 0

    def _beside(self) -> list[EmbeddingModel]:
        """Return the models that do not serve and have an index of their own that is there."""
        if all(state is ModelState.SERVING for _, state in self._models.states()):
            return []
        models, shared = self._models.all(), self._generations.serving.index.shared
        serving = {(one.name, one.dimensions) for one in models if one.state is ModelState.SERVING}
        return [
            one
            for one in models
            if one.state is not ModelState.SERVING
            # On a server the generations of a model have one index together.
            and not (shared and (one.name, one.dimensions) in serving)
            and self._is_there(one)
        ]

    def _brought_in(self, model: EmbeddingModel, progress: Callable[[int], None]) -> int:
        """Fill the index of a model and let it serve, giving signs of life for as long as that takes."""
        with self._indexing.claimed() as alive:

            def told(done: int) -> None:
                self._told(model, done)
                alive(done)
                progress(done)

            def sign() -> None:
                self._models.progress(model, self._done)
                alive(self._done)

            signs = Ticker("memvault-change", _SIGN_EVERY, sign)
            signs.start()
            try:
                return self._filled(model, told)
            finally:
                signs.stop()

    def _filled(self, model: EmbeddingModel, told: Callable[[int], None]) -> int:
        generations = self._generations
        # What an earlier run left has what was deleted since; all is copied from the record again anyway.
        self._models.empty(model, partial(self._remove, model))
        opened = self._open_pair(model)
        patient = _Patient(opened.embedder, self._stopping)
        pair = Serving(patient, opened.index, opened.generation)
        generations.filling = pair
        generations.changing.set()
        try:
            told(0)
            pair.index.mark_incomplete()
            following = self._following(pair)
            done, looked = 0, clock.monotonic()
            for copied, _ in following.copied(self._tenants, pair.index.of):
                done += copied
                told(done)
                if clock.monotonic() - looked >= _FOLLOW_EVERY:
                    following.follow()
                    looked = clock.monotonic()
            # What was written or deleted before the outbox was looked at for the first time, and between two looks.
            generations.comparing.set()
            following.agree(self._tenants(), lambda: told(done))
            for _ in range(_LAST_ROUNDS):
                if following.follow() == 0:
                    break
            pair.index.mark_complete()
            pair.index.flush()
            with generations.lock:
                # What is committed from here on is written to the new index, after the lock or from the outbox.
                patient.hurry = True
                following.follow()
                pair.index.flush()
                if not self._switched(model, done):
                    raise IndexUnavailable("another embedding model was asked for meanwhile; this one is given up")
                old = generations.switch(Serving(opened.embedder, opened.index, opened.generation))
                self._indexing.begin_anew()
                generations.filling = None
        except BaseException:
            generations.filling = None
            opened.index.close()
            raise
        finally:
            generations.comparing.clear()
            patient.hurry = True
        self._filling = None
        generations.changing.clear()
        self._indexing.catch_up()
        _log.warning("another embedding model serves from now on", extra={"model": model.name})
        if old.index.shared:
            # What a process wrote that had not seen the switch yet.
            self._indexing.agree(self._tenants())
        else:
            generations.close_retired(lambda one: one.index.close())
            self.tidy()
        return done

    def _switched(self, model: EmbeddingModel, done: int) -> bool:
        """Let the model serve for all processes, with the row that tells it; False when it is no longer wanted."""
        before, caller = self._models.find(ModelState.SERVING), installation_caller(SYSTEM_TENANT)

        def tell(connection: Connection) -> None:
            detail = EmbedderChanged(
                before=None if before is None else _provider(before),
                after=_provider(model),
                before_dimensions=None if before is None else before.dimensions,
                dimensions=model.dimensions,
                generation=model.generation,
                memories=done,
            )
            self._trail.write(connection, caller, AuditEvent.EMBEDDER_CHANGED, detail=detail)

        return self._models.switch(model, caller.scope, tell)

    def _told(self, model: EmbeddingModel, done: int) -> None:
        self._filling, self._done = model, done
        self._models.progress(model, done)

    def _watch(self) -> None:
        failed = False
        while not self._stopping.wait(_LOOK_EVERY):
            try:
                self.look()
                failed = False
            except Exception as error:
                if not failed:
                    _log.error("which model serves cannot be told", extra={"error": type(error).__name__})
                failed = True


def _left_beside() -> IndexUnavailable:
    """Return the error of what cannot be so while an index that deletions may not have reached is there."""
    return IndexUnavailable("an index of another embedding model has not been removed yet; it is tried again")


def _provider(model: EmbeddingModel) -> str | None:
    """Return whose a model is, if that is a code; names of models are free text, which the trail takes none of."""
    name = str(model.settings.get("provider", ""))
    return name if is_code(name) else None


class _Patient:
    """A model that is asked again when it fails, as a provider does that limits its callers."""

    def __init__(self, embedder: Embedder, stopping: threading.Event) -> None:
        self._embedder = embedder
        self._stopping = stopping
        #: Set when others wait: then it is asked once.
        self.hurry = False

    @property
    def name(self) -> str:
        """See `Embedder`."""
        return self._embedder.name

    @property
    def dimensions(self) -> int:
        """See `Embedder`."""
        return self._embedder.dimensions

    def embed_query(self, text: str) -> Vector:
        """See `Embedder`."""
        return self._embedder.embed_query(text)

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        """See `Embedder`."""
        for pause in _PAUSES:
            try:
                return self._embedder.embed_documents(texts)
            except EmbeddingRefused:
                # Waiting does not help; whose text it is finds out who asked for several.
                raise
            except EmbeddingUnavailable:
                if self.hurry or self._stopping.wait(pause):
                    raise
        return self._embedder.embed_documents(texts)
