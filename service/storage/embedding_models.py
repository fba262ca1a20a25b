"""Which embedding model serves and which is being brought in: one truth for all processes, with what opens each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import BigInteger, Column, Connection, Index, delete, func, insert, select, text, update
from sqlmodel import Field, SQLModel

from service import clock
from service.errors import KeyringUnavailable
from service.scope import SYSTEM_TENANT, Scope
from service.storage.database import Database
from service.storage.encryption import Cipher, Place
from service.storage.erasers import keep
from service.storage.keyring import KeyDestroyed, Keyring
from service.storage.tables import NOW, moment


class ModelState(StrEnum):
    """What a model is to the index."""

    SERVING = "serving"
    FILLING = "filling"
    RETIRED = "retired"


class EmbeddingModelRow(SQLModel, table=True):
    """A model and the generation of the index that is of it. `settings` is sealed under the service's own key."""

    __tablename__ = "embedding_models"
    __table_args__ = (Index("embedding_models_one", "state", unique=True, postgresql_where=text("state <> 'retired'")),)

    id: UUID = Field(primary_key=True)
    generation: int = Field(unique=True)
    name: str
    dimensions: int
    settings: bytes
    state: str
    done: int = Field(sa_column=Column(BigInteger, nullable=False))
    total: int = Field(sa_column=Column(BigInteger, nullable=False))
    created_at: datetime = Field(sa_column=moment())
    updated_at: datetime = Field(sa_column=moment())


keep(EmbeddingModelRow, "names of models and the sealed settings of their providers: nothing of a person or a tenant")

_models: Final[Any] = EmbeddingModelRow.__table__  # type: ignore[attr-defined]
_m: Final[Any] = _models.c
_KNOWN: Final = select(_models, (NOW - _m.updated_at).label("idle"))


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """A model: its index is the one of this generation, and `settings` is what opens it."""

    id: UUID
    generation: int
    name: str
    dimensions: int
    settings: Mapping[str, Any]
    state: ModelState
    done: int
    total: int
    idle: timedelta
    """How long nobody had worked at it when it was read."""

    def is_of(self, name: str, dimensions: int) -> bool:
        """Tell whether it is this model."""
        return (self.name, self.dimensions) == (name, dimensions)


class EmbeddingModels:
    """Reads and writes what is known of the models. There is one that serves, and at most one being filled."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database = database
        self._keyring = keyring

    def all(self) -> list[EmbeddingModel]:
        """Return all models, the oldest generation first."""
        with self._database.tenant_blind() as connection:
            return [self._opened(row) for row in connection.execute(_KNOWN.order_by(_m.generation))]

    def states(self) -> list[tuple[int, ModelState]]:
        """Return generations and states alone: cheap enough to be asked every second."""
        with self._database.tenant_blind() as connection:
            rows = connection.execute(select(_m.generation, _m.state).order_by(_m.generation))
            return [(row.generation, ModelState(row.state)) for row in rows]

    def find(self, state: ModelState) -> EmbeddingModel | None:
        """Return the model that is in a state, or None."""
        return next((one for one in self.all() if one.state is state), None)

    def adopt(self, name: str, dimensions: int, settings: Mapping[str, Any]) -> EmbeddingModel:
        """Return the model that serves; where none is known yet, it is this one."""
        with self._database.tenant_blind() as connection:
            _lock(connection)
            row = connection.execute(select(_models).where(_m.state == ModelState.SERVING.value)).first()
            if row is None:
                self._insert(connection, name, dimensions, settings, ModelState.SERVING, total=0)
        known = self.find(ModelState.SERVING)
        assert known is not None
        return known

    def refresh(self, model: EmbeddingModel, settings: Mapping[str, Any]) -> None:
        """Keep other settings of the same model, as after a key of the provider was replaced."""
        if dict(model.settings) != dict(settings):
            self._update(model.id, settings=self._sealed(model.id, settings))

    def begin(
        self, name: str, dimensions: int, settings: Mapping[str, Any], *, total: int, stale_after: timedelta
    ) -> EmbeddingModel | None:
        """Return the model that is to be brought in, or None while another one is; the one that serves if it is that.

        One that nobody has worked at for `stale_after` gives way; the same model goes on where it was left.
        """
        with self._database.tenant_blind() as connection:
            _lock(connection)
            serving = connection.execute(_KNOWN.where(_m.state == ModelState.SERVING.value)).first()
            if serving is not None and (serving.name, serving.dimensions) == (name, dimensions):
                # It may have begun to serve a moment ago.
                return self._opened(serving)
            row = connection.execute(_KNOWN.where(_m.state == ModelState.FILLING.value)).first()
            if row is not None and (row.name, row.dimensions) != (name, dimensions):
                if row.idle < stale_after:
                    return None
                connection.execute(
                    update(_models).where(_m.id == row.id).values(state=ModelState.RETIRED.value, updated_at=NOW)
                )
                row = None
            if row is None:
                self._insert(connection, name, dimensions, settings, ModelState.FILLING, total=total)
            else:
                sealed = self._sealed(row.id, settings)
                connection.execute(
                    update(_models).where(_m.id == row.id).values(settings=sealed, total=total, updated_at=NOW)
                )
        return self.find(ModelState.FILLING)

    def progress(self, model: EmbeddingModel, done: int) -> None:
        """Say how many memories the new index has."""
        self._update(model.id, done=done)

    def switch(self, model: EmbeddingModel, scope: Scope, also: Callable[[Connection], None]) -> bool:
        """Let a model serve that was being filled, in one step; False when it no longer is.

        `also` is done in the same transaction, which is one of the scope's tenant.
        """
        with self._database.transaction(scope) as connection:
            _lock(connection)
            filling = _m.id == model.id, _m.state == ModelState.FILLING.value
            if connection.execute(select(_m.id).where(*filling)).first() is None:
                return False
            moved = {"updated_at": NOW}
            serving = _m.state == ModelState.SERVING.value
            connection.execute(update(_models).where(serving).values(state=ModelState.RETIRED.value, **moved))
            connection.execute(update(_models).where(_m.id == model.id).values(state=ModelState.SERVING.value, **moved))
            also(connection)
        return True

    def empty(self, model: EmbeddingModel, remove: Callable[[], None]) -> None:
        """Remove the index of a model that is being filled, which begins anew; nothing where it no longer is.

        No model begins or takes over meanwhile.
        """
        with self._database.tenant_blind() as connection:
            _lock(connection)
            filling = _m.id == model.id, _m.state == ModelState.FILLING.value
            if connection.execute(select(_m.id).where(*filling)).first() is not None:
                remove()

    def forget(self, model: EmbeddingModel, remove: Callable[[], None], *, shared: bool) -> None:
        """Forget a model that no longer serves, and remove its index; what `remove` raises leaves it known.

        A `shared` index is the same for all generations of a model: the last one that is forgotten takes it along. No
        model begins or takes over meanwhile.
        """
        with self._database.tenant_blind() as connection:
            _lock(connection)
            retired = _m.id == model.id, _m.state == ModelState.RETIRED.value
            if connection.execute(delete(_models).where(*retired).returning(_m.id)).first() is None:
                return
            same = select(_m.id).where(_m.name == model.name, _m.dimensions == model.dimensions)
            if not shared or connection.execute(same.limit(1)).first() is None:
                remove()

    def _insert(
        self,
        connection: Connection,
        name: str,
        dimensions: int,
        settings: Mapping[str, Any],
        state: ModelState,
        *,
        total: int,
    ) -> None:
        model_id = clock.new_id()
        last = connection.execute(select(func.max(_m.generation))).scalar() or 0
        connection.execute(
            insert(_models).values(
                id=model_id,
                generation=last + 1,
                name=name,
                dimensions=dimensions,
                settings=self._sealed(model_id, settings),
                state=state.value,
                done=0,
                total=total,
                created_at=NOW,
                updated_at=NOW,
            )
        )

    def _update(self, model_id: UUID, **values: Any) -> None:
        with self._database.tenant_blind() as connection:
            connection.execute(update(_models).where(_m.id == model_id).values(**values, updated_at=NOW))

    def _cipher(self) -> Cipher:
        return Cipher(self._keyring.tenant_secret(SYSTEM_TENANT, "embedding-models"))

    def _sealed(self, model_id: UUID, settings: Mapping[str, Any]) -> bytes:
        self._keyring.create_tenant(SYSTEM_TENANT)
        return self._cipher().seal_json(dict(settings), _place(model_id))

    def _opened(self, row: Any) -> EmbeddingModel:
        settings: Mapping[str, Any] = {}
        # With another keyring than the one of then: the settings of the installation must name the model.
        with suppress(KeyringUnavailable, KeyDestroyed):
            settings = self._cipher().open_json(row.settings, _place(row.id))
        return EmbeddingModel(
            id=row.id,
            generation=row.generation,
            name=row.name,
            dimensions=row.dimensions,
            settings=settings,
            state=ModelState(row.state),
            done=row.done,
            total=row.total,
            idle=row.idle,
        )


def _place(model_id: UUID) -> Place:
    return Place(SYSTEM_TENANT, "embedding_models", model_id, "settings")


def _lock(connection: Connection) -> None:
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtext("memvault embedding models"))))
