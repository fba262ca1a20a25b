"""What each audit event says beside who, when and which: one model an event, of numbers, ids, times and codes only.

No model has a field that could hold free text: `Detail` refuses one when the class is made, so that content cannot get
into the trail by way of a new event.
"""

from __future__ import annotations

from datetime import date, datetime
from uuid import UUID

from pydantic import Field

from service.audit.codes import Changed as Changed
from service.audit.codes import Covers as Covers
from service.audit.codes import Erased as Erased
from service.audit.codes import ExportFormat as ExportFormat
from service.audit.codes import Filter as Filter
from service.audit.codes import MatchBy as MatchBy
from service.audit.codes import Reason as Reason
from service.audit.codes import View as View
from service.audit.detail import DETAIL_OF as DETAIL_OF
from service.audit.detail import Code as Code
from service.audit.detail import Detail as Detail
from service.audit.detail import holds_no_text as holds_no_text
from service.audit.events import AuditEvent
from service.scope import Action, Limit, Permission


class ServicePinged(Detail):
    """A credential was shown to be good."""

    event = AuditEvent.SERVICE_PINGED


class MemoryAdded(Detail):
    """Memories were stored: how many are new, how many were there already, how many older ones they supersede."""

    event = AuditEvent.MEMORY_ADDED
    added: int
    known: int
    superseded: int | None = None
    expires_on: date | None = None


class MemoriesConsolidated(Detail):
    """The newest of memories is to stand for others that say the same, or are no longer so: proposed or decided.

    `listed` were told to whoever looked; `held` were passed over, since a hold covers them. `asked` were shown to the
    language model in one question.
    """

    event = AuditEvent.MEMORIES_CONSOLIDATED
    proposed: int = 0
    accepted: int = 0
    dismissed: int = 0
    listed: int = 0
    held: int = 0
    asked: int = 0


class MemoryAddRequested(Detail):
    """An add was put into the queue for extraction."""

    event = AuditEvent.MEMORY_ADD_REQUESTED


class MemoryAddEnded(Detail):
    """An add ended without effect: the code says why."""

    event = AuditEvent.MEMORY_ADD_ENDED
    code: Code


class MemoryRecalled(Detail):
    """Memories were shown to the language model for the extraction of an add."""

    event = AuditEvent.MEMORY_RECALLED


class MemorySearched(Detail):
    """Memories were found by a query."""

    event = AuditEvent.MEMORY_SEARCHED
    limit: int


class MemoryListed(Detail):
    """A page of memories was read."""

    event = AuditEvent.MEMORY_LISTED
    page: int
    total: int


class MemoryRead(Detail):
    """One memory was read."""

    event = AuditEvent.MEMORY_READ


class MemoryUpdated(Detail):
    """One memory was changed: what of it, its version, and its new last visible day if that was changed."""

    event = AuditEvent.MEMORY_UPDATED
    changed: list[Changed]
    version: int | None = None
    expires_on: date | None = None


class MemoryDeleted(Detail):
    """One memory was deleted."""

    event = AuditEvent.MEMORY_DELETED


class MemoriesDeleted(Detail):
    """All memories of a scope were deleted: how many, and how many that waited for a reviewer."""

    event = AuditEvent.MEMORIES_DELETED
    count: int
    quarantined: int = 0


class BatchUpdated(Detail):
    """One memory of a batch was changed: what of it, its version, and its last visible day if that was changed."""

    event = AuditEvent.BATCH_UPDATED
    changed: list[Changed] = Field(default_factory=list)
    version: int | None = None
    expires_on: date | None = None


class BatchDeleted(Detail):
    """The memories of a batch were deleted."""

    event = AuditEvent.BATCH_DELETED


class HistoryRead(Detail):
    """The history of one memory was read."""

    event = AuditEvent.HISTORY_READ


class EntitiesListed(Detail):
    """A page of users, agents, apps and runs was read."""

    event = AuditEvent.ENTITIES_LISTED
    page: int
    total: int


class EntityDeleted(Detail):
    """A user, agent, app or run was removed with all that belongs to it."""

    event = AuditEvent.ENTITY_DELETED


class EventsListed(Detail):
    """A page of events was read, with the memories that they made."""

    event = AuditEvent.EVENTS_LISTED
    page: int
    total: int


class EventRead(Detail):
    """One event was read; `replayed`: as the answer to a repeated add."""

    event = AuditEvent.EVENT_READ
    replayed: bool = False


class KeyCreated(Detail):
    """An API key was made."""

    event = AuditEvent.KEY_CREATED
    permissions: list[Permission]
    users: int | None = None
    not_before: datetime | None = None
    expires_at: datetime | None = None
    must_name_user: bool = False


class KeysListed(Detail):
    """The tenant's keys were listed."""

    event = AuditEvent.KEYS_LISTED


class KeyRevoked(Detail):
    """An API key was revoked."""

    event = AuditEvent.KEY_REVOKED


class KeyRotated(Detail):
    """A key (the target) got a successor (the result) and ends at `ends_at`; `replaced` is a successor never used."""

    event = AuditEvent.KEY_ROTATED
    ends_at: datetime | None = None
    new_ends_at: datetime | None = None
    replaced: UUID | None = None


class KeyChanged(Detail):
    """What an API key may do was changed: all that it may do now."""

    event = AuditEvent.KEY_CHANGED
    permissions: list[Permission]


class TenantCreated(Detail):
    """The installation made the tenant."""

    event = AuditEvent.TENANT_CREATED


class TenantSuspended(Detail):
    """The installation stopped every key of the tenant."""

    event = AuditEvent.TENANT_SUSPENDED


class TenantResumed(Detail):
    """The installation let the keys of the tenant work again."""

    event = AuditEvent.TENANT_RESUMED


class TenantRenamed(Detail):
    """The installation gave the tenant another name."""

    event = AuditEvent.TENANT_RENAMED


class TenantLimited(Detail):
    """The installation set limits of the tenant: those of its own that it has now; null is no limit."""

    event = AuditEvent.TENANT_LIMITED
    limits: dict[Limit, int | None]


class LimitReached(Detail):
    """Something was refused, or has to wait, because of a limit of the tenant: `count` times since the row before."""

    event = AuditEvent.LIMIT_REACHED
    limit: Limit
    count: int


class AuditRead(Detail):
    """The trail itself was read: what of it, by which filters, how many rows, and whether people were named."""

    event = AuditEvent.AUDIT_READ
    view: View
    filters: list[Filter] = Field(default_factory=list)
    rows: int = 0
    names: bool = False


class AuditExported(Detail):
    """The trail was exported. The row is written before the first line leaves."""

    event = AuditEvent.AUDIT_EXPORTED
    format: ExportFormat
    filters: list[Filter] = Field(default_factory=list)


class AuditMatched(Detail):
    """A value was held against the HMACs of the trail."""

    event = AuditEvent.AUDIT_MATCHED
    by: MatchBy
    checked: int
    matched: int
    unmatchable: int


class ErasureRequested(Detail):
    """The erasure of a user, agent, app, run or tenant was asked for; not before `due_at` where that is set."""

    event = AuditEvent.ERASURE_REQUESTED
    kind: Erased
    due_at: datetime | None = None


class ErasureBegun(Detail):
    """An erasure that was due later began."""

    event = AuditEvent.ERASURE_BEGUN
    kind: Erased


class ErasureContinued(Detail):
    """A batch of an erasure removed rows: how many of which table; the memories among them are the targets."""

    event = AuditEvent.ERASURE_CONTINUED
    rows: dict[Code, int]


class ErasureCompleted(Detail):
    """Nothing was left of what an erasure was for, and its receipt was signed; `physical`: files were rewritten."""

    event = AuditEvent.ERASURE_COMPLETED
    kind: Erased
    memories: int
    physical: bool


class ErasuresListed(Detail):
    """A page of erasures was read."""

    event = AuditEvent.ERASURES_LISTED
    page: int
    total: int


class ErasureRead(Detail):
    """An erasure was read, with its receipt."""

    event = AuditEvent.ERASURE_READ


class ConnectorRemoved(Detail):
    """The erasure of all that came through a connector was asked for; not before `due_at` where that is set."""

    event = AuditEvent.CONNECTOR_REMOVED
    due_at: datetime | None = None


class TenantDeleted(Detail):
    """All rows of the tenant were removed and its name was taken from it."""

    event = AuditEvent.TENANT_DELETED


class HoldPlaced(Detail):
    """A legal hold was placed: on what, and how many memories it covers from the start."""

    event = AuditEvent.HOLD_PLACED
    covers: Covers
    members: int


class HoldsListed(Detail):
    """A page of legal holds was read."""

    event = AuditEvent.HOLDS_LISTED
    page: int
    total: int


class HoldRead(Detail):
    """One legal hold was read, with a page of the memories that it covers if one was asked for."""

    event = AuditEvent.HOLD_READ
    page: int | None = None
    total: int | None = None


class RetentionRuleChanged(Detail):
    """A retention rule was added or changed: its version."""

    event = AuditEvent.RETENTION_RULE_SET
    version: int | None = None


class RetentionRuleRemoved(Detail):
    """A retention rule counts no more."""

    event = AuditEvent.RETENTION_RULE_REMOVED


class RetentionRulesRead(Detail):
    """Retention rules, or the versions of one, were read."""

    event = AuditEvent.RETENTION_RULES_READ
    rules: int


class RetentionRunStarted(Detail):
    """A retention run was asked for; `joined`: one was under way, which is it."""

    event = AuditEvent.RETENTION_RUN_STARTED
    dry: bool
    joined: bool


class RetentionRunsListed(Detail):
    """A page of retention runs was read."""

    event = AuditEvent.RETENTION_RUNS_LISTED
    page: int
    total: int


class RetentionRunRead(Detail):
    """A retention run was read, with a page of what it did or would do if one was asked for."""

    event = AuditEvent.RETENTION_RUN_READ
    page: int | None = None
    total: int | None = None


class MemoriesForgotten(Detail):
    """A step of a retention run deleted the targets and hid the results, by rules or expiration dates."""

    event = AuditEvent.MEMORIES_FORGOTTEN
    run: UUID
    deleted: int
    hidden: int


class HoldReleased(Detail):
    """A legal hold was released: how many memories it covered."""

    event = AuditEvent.HOLD_RELEASED
    members: int


class TrailDropped(Detail):
    """The trail's own retention dropped its first `rows` rows, all older than `keep_days`."""

    event = AuditEvent.TRAIL_DROPPED
    rows: int
    keep_days: int


class TrailRestored(Detail):
    """The database was restored: it went back to checkpoint `resumes`, and those up to `last` are void."""

    event = AuditEvent.TRAIL_RESTORED
    resumes: int
    last: int


class AccessDenied(Detail):
    """A call was refused: which action, why, and by which legal holds."""

    event = AuditEvent.ACCESS_DENIED
    action: Action
    reason: Reason
    holds: list[UUID] | None = None


class CredentialRefused(Detail):
    """Credentials were refused, `count` of them since the row before."""

    event = AuditEvent.CREDENTIAL_REFUSED
    code: Code
    count: int
