"""The language that a tenant's memories are written in: whose words keyword search knows."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, select, update

from service import clock
from service.errors import Conflict
from service.scope import TenantId
from service.settings.languages import Language
from service.storage.database import Database
from service.tenants.tables import TenantRow

_tenants: Final[Any] = TenantRow.__table__  # type: ignore[attr-defined]
#: Seconds that a process goes by what it read. What it writes meanwhile in a language of before is made anew, since
#: `service.memories.rewording` begins a good while later.
_TRUSTED: Final = 5.0
_REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Spoken:
    """The language of a tenant; `own` when it is not the installation's.

    From `changed_at` on, until the words of all memories were taken anew, some of them are those of `former`.
    """

    language: Language
    own: bool = False
    former: Language | None = None
    changed_at: datetime | None = None


class Languages:
    """The languages of all tenants: the installation's, and what was set for one tenant. Safe for many threads."""

    def __init__(self, database: Database, default: Language) -> None:
        self._database = database
        self._default = default
        self._known: OrderedDict[TenantId, tuple[float, Spoken]] = OrderedDict()

    def of(self, tenant_id: TenantId) -> Spoken:
        """Return the language of a tenant as it was some seconds ago at most.

        Raises:
            RecordUnavailable: when it cannot be read.
        """
        known = self._known.get(tenant_id)
        moment = clock.monotonic()
        if known is not None and moment < known[0]:
            return known[1]
        with self._database.tenant_blind() as connection:
            spoken = self.read(connection, tenant_id)
        self._known[tenant_id] = (moment + _TRUSTED, spoken)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return spoken

    def read(self, connection: Connection, tenant_id: TenantId) -> Spoken:
        """Return the language of a tenant as it is now."""
        return self._spoken(connection.execute(select(_tenants).where(_tenants.c.id == tenant_id)).first())

    def set(self, connection: Connection, tenant_id: TenantId, language: Language | None) -> Spoken:
        """Give a tenant a language, None for the installation's; `forget` is to be called once this has committed.

        Raises:
            Conflict: while the words of its memories are still taken anew since the last change.
        """
        locked = select(_tenants).where(_tenants.c.id == tenant_id).with_for_update(key_share=True)
        before = self._spoken(connection.execute(locked).one())
        values: dict[str, Any] = {"language": language, "updated_at": clock.now()}
        if (language or self._default) is not before.language:
            if before.changed_at is not None:
                raise Conflict(
                    "language: the words of the tenant's memories are being taken anew since it was changed the last "
                    "time; try again in a few minutes"
                )
            values |= {"former_language": before.language, "language_changed_at": values["updated_at"]}
        row = connection.execute(
            update(_tenants).where(_tenants.c.id == tenant_id).values(**values).returning(_tenants)
        )
        return self._spoken(row.one())

    def forget(self, tenant_id: TenantId) -> None:
        """Read the language of a tenant anew from now on."""
        self._known.pop(tenant_id, None)

    def changed(self, before: datetime) -> list[TenantId]:
        """Return the tenants whose language was changed before a moment and whose words are not taken anew yet."""
        live = _tenants.c.status.not_in(["deleting", "deleted"])
        query = select(_tenants.c.id).where(_tenants.c.language_changed_at <= before, live)
        with self._database.tenant_blind() as connection:
            return [TenantId(row.id) for row in connection.execute(query)]

    def settle(self, tenant_id: TenantId, changed_at: datetime) -> None:
        """Note that the words of all memories are those of the language that was set then."""
        this = (_tenants.c.id == tenant_id) & (_tenants.c.language_changed_at == changed_at)
        with self._database.tenant_blind() as connection:
            connection.execute(update(_tenants).where(this).values(former_language=None, language_changed_at=None))
        self.forget(tenant_id)

    def _spoken(self, row: Any) -> Spoken:
        if row is None:
            return Spoken(self._default)
        own = None if row.language is None else Language(row.language)
        former = None if row.former_language is None else Language(row.former_language)
        return Spoken(own or self._default, own is not None, former, row.language_changed_at)
