"""Tenants: made, listed and changed (state, name, limits, language) by the installation's plane, never by a key."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from service import clock
from service.audit.details import TenantLimited
from service.audit.events import AuditEvent
from service.audit.tenant_details import TenantLanguageSet
from service.audit.trail import Trail
from service.errors import Conflict, InvalidInput, NotFound
from service.scope import Caller, Limit, TenantId, installation_caller
from service.settings.languages import Language
from service.storage.database import Database
from service.storage.keyring import Keyring
from service.tenants.languages import Languages, Spoken
from service.tenants.tables import TenantRow

_tenants: Final[Any] = TenantRow.__table__  # type: ignore[attr-defined]
#: The tenant that a new installation has.
DEFAULT_TENANT: Final = "default"
#: Fits into a bigint, and into a number of JSON that every reader takes.
_MOST: Final = 2**53
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_LEAVING: Final = ("deleting", "deleted")


@dataclass(frozen=True, slots=True)
class Tenant:
    """An organisation, or a part of one, whose memories no other tenant can reach."""

    id: TenantId
    name: str
    status: str
    created_at: datetime
    version: int = 0
    limits: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TenantState:
    """Whether a tenant's keys may work, the version of its credentials, and its own limits."""

    active: bool
    version: int
    limits: Mapping[str, int | None]


class Tenants:
    """What the installation's plane can do with tenants."""

    def __init__(self, database: Database, keyring: Keyring, trail: Trail, languages: Languages) -> None:
        self._database = database
        self._keyring = keyring
        self._trail = trail
        self._languages = languages

    def create(self, name: str, *, language: Language | None = None) -> Tenant:
        """Make a tenant, with a language of its own or with the installation's.

        Raises:
            InvalidInput: for a name that is not 1 to 63 lower-case letters, digits and hyphens, or looks like an id.
            Conflict: when the name is taken.
        """
        _check_name(name)
        tenant_id = TenantId(clock.new_random_id())
        # The key first: a tenant without its key could not be used, a key without its tenant is harmless.
        self._keyring.create_tenant(tenant_id)
        moment = clock.now()
        caller = installation_caller(tenant_id)
        with self._database.transaction(caller.scope) as connection:
            made = connection.execute(
                insert(_tenants)
                .values(
                    id=tenant_id, name=name, status="active", created_at=moment, updated_at=moment, language=language
                )
                .on_conflict_do_nothing(index_elements=["name"])
                .returning(_tenants.c.id)
            ).scalar()
            if made is not None:
                self._trail.write(connection, caller, AuditEvent.TENANT_CREATED)
                if language is not None:
                    self._language_set(connection, caller, language)
        if made is None:
            raise Conflict(f"there is a tenant {name} already")
        return Tenant(tenant_id, name, "active", moment)

    def get(self, name_or_id: str) -> Tenant:
        """Return a tenant by name or id.

        Raises:
            NotFound: when there is none.
        """
        with self._database.tenant_blind() as connection:
            tenant = _find(connection, name_or_id)
        if tenant is None:
            raise NotFound(f"there is no tenant {name_or_id}; `memvault tenant list` shows them")
        return tenant

    def find(self, name_or_id: str) -> Tenant | None:
        """Return a tenant by name or id, or None."""
        with self._database.tenant_blind() as connection:
            return _find(connection, name_or_id)

    def list(self) -> list[Tenant]:
        """Return all tenants by name, the service's own left out."""
        with self._database.tenant_blind() as connection:
            rows = connection.execute(select(_tenants).where(_tenants.c.status != "system").order_by(_tenants.c.name))
            return [_tenant(row) for row in rows]

    def living(self) -> Sequence[Tenant]:
        """Return the tenants that are not deleted yet, by name."""
        return [tenant for tenant in self.list() if tenant.status != "deleted"]

    def living_ids(self) -> Sequence[TenantId]:
        """Return the ids of the tenants that are not deleted yet: all that upkeep, sweeps and erasures go through."""
        return [tenant.id for tenant in self.living()]

    @staticmethod
    def statuses(connection: Connection) -> dict[str, int]:
        """Return how many tenants there are of each status, the service's own left out."""
        query = select(_tenants.c.status, func.count()).where(_tenants.c.status != "system")
        return {row[0]: int(row[1]) for row in connection.execute(query.group_by(_tenants.c.status))}

    def suspend(self, name_or_id: str) -> Tenant:
        """Stop every key of a tenant, within the seconds that a checked key is trusted."""
        return self._set_status(name_or_id, "suspended", AuditEvent.TENANT_SUSPENDED)

    def resume(self, name_or_id: str) -> Tenant:
        """Let the keys of a suspended tenant work again.

        Raises:
            Conflict: when the tenant is being deleted or is deleted.
        """
        return self._set_status(name_or_id, "active", AuditEvent.TENANT_RESUMED)

    def rename(self, name_or_id: str, name: str) -> Tenant:
        """Give a tenant another name; its id stays, and so do its keys. Tokens that name it have to say the new name.

        Raises:
            InvalidInput: for a name that cannot be one, and for the tenant that every start makes anew.
            Conflict: when the name is taken, or the tenant is being deleted.
        """
        _check_name(name)
        tenant = self.get(name_or_id)
        if tenant.name == DEFAULT_TENANT:
            raise InvalidInput(f"the tenant {DEFAULT_TENANT} keeps its name: the next start would make another one")
        caller = installation_caller(tenant.id)
        taken = select(_tenants.c.id).where(_tenants.c.name == name, _tenants.c.id != tenant.id)
        try:
            with self._database.transaction(caller.scope) as connection:
                if connection.execute(taken).first() is not None:
                    raise Conflict(f"there is a tenant {name} already")
                live = _tenants.c.status.not_in(_LEAVING)
                renamed = update(_tenants).where(_tenants.c.id == tenant.id, live)
                if not connection.execute(renamed.values(name=name, updated_at=clock.now())).rowcount:
                    raise Conflict(f"the tenant {tenant.name} is deleted, for good")
                self._trail.write(connection, caller, AuditEvent.TENANT_RENAMED)
        except IntegrityError:
            raise Conflict(f"there is a tenant {name} already") from None
        return replace(tenant, name=name)

    def set_limits(self, name_or_id: str, changes: Mapping[Limit, int | None], unset: Collection[Limit] = ()) -> Tenant:
        """Give a tenant limits of its own, None for none at all; those in `unset` are the installation's again.

        Raises:
            InvalidInput: for a limit below nothing, or for no requests at all, which is a suspension.
        """
        for limit, most in changes.items():
            least = 1 if limit is Limit.REQUESTS_PER_SECOND else 0
            if most is not None and not least <= most <= _MOST:
                raise InvalidInput(f"{limit}: must be {least} to {_MOST}")
        tenant = self.get(name_or_id)
        caller = installation_caller(tenant.id)
        with self._database.transaction(caller.scope) as connection:
            row = connection.execute(select(_tenants).where(_tenants.c.id == tenant.id).with_for_update()).one()
            limits = {name: most for name, most in row.limits.items() if name not in unset}
            limits |= {limit.value: most for limit, most in changes.items()}
            connection.execute(
                update(_tenants).where(_tenants.c.id == tenant.id).values(limits=limits, updated_at=clock.now())
            )
            own = {limit: limits[limit] for limit in Limit if limit in limits}
            self._trail.write(connection, caller, AuditEvent.TENANT_LIMITED, detail=TenantLimited(limits=own))
        return replace(tenant, limits=limits)

    def set_language(self, name_or_id: str, language: Language | None) -> Spoken:
        """Say which language a tenant's memories are in, None for the installation's; return what holds now.

        Raises:
            Conflict: while the words of its memories are still taken anew since the last change.
        """
        tenant = self.get(name_or_id)
        caller = installation_caller(tenant.id)
        with self._database.transaction(caller.scope) as connection:
            spoken = self._languages.set(connection, tenant.id, language)
            self._language_set(connection, caller, language)
        self._languages.forget(tenant.id)
        return spoken

    def _language_set(self, connection: Connection, caller: Caller, language: Language | None) -> None:
        detail = TenantLanguageSet(language=language)
        self._trail.write(connection, caller, AuditEvent.TENANT_LANGUAGE_SET, detail=detail)

    def _set_status(self, name_or_id: str, status: str, event: AuditEvent) -> Tenant:
        tenant = self.get(name_or_id)
        caller = installation_caller(tenant.id)
        with self._database.transaction(caller.scope) as connection:
            live = _tenants.c.status.not_in(_LEAVING)
            changed = connection.execute(
                update(_tenants).where(_tenants.c.id == tenant.id, live).values(status=status, updated_at=clock.now())
            ).rowcount
            if changed:
                self._trail.write(connection, caller, event)
        if not changed:
            raise Conflict(f"the tenant {tenant.name} is deleted, for good")
        return replace(tenant, status=status)


def is_active(connection: Connection, tenant_id: TenantId) -> bool:
    """Tell whether the tenant's keys may work."""
    state = find_state(connection, tenant_id)
    return state is not None and state.active


def is_leaving(connection: Connection, tenant_id: TenantId) -> bool:
    """Tell whether the tenant is being deleted or was."""
    status = connection.execute(select(_tenants.c.status).where(_tenants.c.id == tenant_id)).scalar()
    return status in _LEAVING


def find_state(connection: Connection, tenant_id: TenantId) -> TenantState | None:
    """Return what decides whether the tenant's keys work, or None when there is no such tenant."""
    query = select(_tenants.c.status, _tenants.c.version, _tenants.c.limits).where(_tenants.c.id == tenant_id)
    row = connection.execute(query).first()
    return None if row is None else TenantState(row.status == "active", row.version, row.limits)


def limits_of(connection: Connection, tenant_id: TenantId) -> Mapping[str, int | None]:
    """Return the limits that were set for a tenant."""
    limits: Mapping[str, int | None] = connection.execute(
        select(_tenants.c.limits).where(_tenants.c.id == tenant_id)
    ).scalar_one()
    return limits


def versions_sum(connection: Connection) -> tuple[int, int]:
    """Return what changes with every change of any tenant's version: the number of tenants and the sum of versions."""
    row = connection.execute(select(func.count(), func.coalesce(func.sum(_tenants.c.version), 0))).one()
    return int(row[0]), int(row[1])


def versions(connection: Connection) -> dict[TenantId, int]:
    """Return the version of each tenant's credentials."""
    return {TenantId(row.id): row.version for row in connection.execute(select(_tenants.c.id, _tenants.c.version))}


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidInput("tenant name: 1 to 63 lower-case letters, digits and hyphens, not starting with a hyphen")
    if _as_id(name) is not None:
        raise InvalidInput(
            "tenant name: must not look like an id: commands take a name or an id, and would mix them up"
        )


def begin_deleting(connection: Connection, tenant_id: TenantId) -> None:
    """Stop every key of a tenant for good: it is being deleted."""
    _move(connection, tenant_id, status="deleting")


def end_deleting(connection: Connection, tenant_id: TenantId) -> bool:
    """Take the name from a tenant whose rows are gone; tell whether there is such a tenant, and it had its name.

    The row stays: the trail of the tenant belongs to its id.
    """
    return _move(connection, tenant_id, status="deleted", name=f"deleted-{tenant_id}")


def _move(connection: Connection, tenant_id: TenantId, **values: str) -> bool:
    live = (_tenants.c.id == tenant_id) & (_tenants.c.status != "deleted")
    return bool(connection.execute(update(_tenants).where(live).values(**values, updated_at=clock.now())).rowcount)


def _as_id(name_or_id: str) -> UUID | None:
    try:
        return UUID(name_or_id)
    except ValueError:
        return None


def _find(connection: Connection, name_or_id: str) -> Tenant | None:
    tenant_id = _as_id(name_or_id)
    condition = _tenants.c.name == name_or_id if tenant_id is None else _tenants.c.id == tenant_id
    row = connection.execute(select(_tenants).where(condition, _tenants.c.status != "system")).first()
    return None if row is None else _tenant(row)


def _tenant(row: Any) -> Tenant:
    return Tenant(TenantId(row.id), row.name, row.status, row.created_at, row.version, row.limits)
