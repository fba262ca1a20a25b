"""Who is calling and what they may reach: TenantId, Action, Permission, Principal, Caller and Scope.

A `Scope` is the only thing that opens the stores, and it can only be made from a `Principal`: an unchecked tenant id
does not type-check and a scope without a credential cannot be spelled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, NewType
from uuid import UUID

from service import clock

TenantId = NewType("TenantId", UUID)

#: The tenant whose trail keeps what happened before a tenant was known (a wrong key, say). It holds no memories.
SYSTEM_TENANT: Final = TenantId(UUID(int=0))


class SubjectKind(StrEnum):
    """The four kinds of subjects that a memory can belong to; the order decides whose key encrypts it."""

    USER = "user"
    AGENT = "agent"
    APP = "app"
    RUN = "run"


class Permission(StrEnum):
    """What a credential can be allowed to do inside its own tenant. None of them reaches another tenant."""

    MEMORY_READ = "memory:read"
    MEMORY_WRITE = "memory:write"
    MEMORY_DELETE = "memory:delete"
    MEMORY_EXPORT = "memory:export"
    MEMORY_IMPORT = "memory:import"
    MEMORY_REVIEW = "memory:review"
    ENTITY_DELETE = "entity:delete"
    IDENTITY_MANAGE = "identity:manage"
    RETENTION_MANAGE = "retention:manage"
    HOLD_PLACE = "hold:place"
    HOLD_RELEASE = "hold:release"
    ERASURE_REQUEST = "erasure:request"
    AUDIT_READ = "audit:read"
    AUDIT_MATCH = "audit:match"
    KEY_MANAGE = "key:manage"
    SETTINGS_READ = "settings:read"
    SETTINGS_MANAGE = "settings:manage"
    WEBHOOK_MANAGE = "webhook:manage"


class Action(StrEnum):
    """Every action of the service. Each passes the gate and leaves one audit row."""

    PING = "ping"
    GET_PROJECT = "get_project"
    UPDATE_PROJECT = "update_project"
    LIST_REVIEWS = "list_reviews"
    SEARCH_REVIEWS = "search_reviews"
    GET_REVIEW = "get_review"
    APPROVE_REVIEWS = "approve_reviews"
    REJECT_REVIEWS = "reject_reviews"
    GIVE_FEEDBACK = "give_feedback"
    SUMMARIZE = "summarize"
    ADD = "add"
    SEARCH = "search"
    LIST = "list"
    GET = "get"
    UPDATE = "update"
    DELETE = "delete"
    DELETE_ALL = "delete_all"
    HISTORY = "history"
    UPDATE_BATCH = "update_batch"
    DELETE_BATCH = "delete_batch"
    LIST_ENTITIES = "list_entities"
    DELETE_ENTITY = "delete_entity"
    LIST_EVENTS = "list_events"
    GET_EVENT = "get_event"
    CREATE_KEY = "create_key"
    LIST_KEYS = "list_keys"
    REVOKE_KEY = "revoke_key"
    ROTATE_KEY = "rotate_key"
    CHANGE_KEY = "change_key"
    LINK_IDENTITY = "link_identity"
    LIST_IDENTITIES = "list_identities"
    UNLINK_IDENTITY = "unlink_identity"
    CREATE_WEBHOOK = "create_webhook"
    LIST_WEBHOOKS = "list_webhooks"
    UPDATE_WEBHOOK = "update_webhook"
    DELETE_WEBHOOK = "delete_webhook"
    LIST_DELIVERIES = "list_deliveries"
    READ_AUDIT = "read_audit"
    EXPORT_AUDIT = "export_audit"
    MATCH_AUDIT = "match_audit"
    REQUEST_ERASURE = "request_erasure"
    LIST_ERASURES = "list_erasures"
    GET_ERASURE = "get_erasure"
    REMOVE_CONNECTOR = "remove_connector"
    REQUEST_EXPORT = "request_export"
    READ_EXPORT = "read_export"
    IMPORT_MEMORIES = "import_memories"
    PLACE_HOLD = "place_hold"
    LIST_HOLDS = "list_holds"
    GET_HOLD = "get_hold"
    RELEASE_HOLD = "release_hold"
    SET_RETENTION_RULE = "set_retention_rule"
    REMOVE_RETENTION_RULE = "remove_retention_rule"
    LIST_RETENTION_RULES = "list_retention_rules"
    RUN_RETENTION = "run_retention"
    LIST_RETENTION_RUNS = "list_retention_runs"
    GET_RETENTION_RUN = "get_retention_run"


class Limit(StrEnum):
    """What a tenant can be limited in, by the name of its setting."""

    MEMORIES = "memories"
    BYTES = "bytes"
    REQUESTS_PER_SECOND = "requests_per_second"
    LLM_CALLS_PER_DAY = "llm_calls_per_day"
    LLM_TOKENS_PER_DAY = "llm_tokens_per_day"
    EVENTS_WAITING = "events_waiting"


class PrincipalKind(StrEnum):
    """What a principal was authenticated by."""

    KEY = "key"
    TOKEN = "token"


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated credential: one tenant, a set of permissions, and the users it is bound to.

    `users` is None for a principal that is not bound; a bound one reads and writes the rows of these users only.
    `acts_for` is the surrogate of the user that a call is made for, where there is one and it is known by now.
    `must_name_user`: a system agent, which has to say for which user each call on memories is made; `acting` is the
    user that a call names, in `users` unless the principal may not act for it.
    `version` is the state of the tenant's credentials that the principal was read at; `limits` are the tenant's own.
    `person` is the human whose credential it is: of a token its subject, of a key its owner; None when nobody knows.
    """

    tenant_id: TenantId
    id: UUID
    permissions: frozenset[Permission]
    users: frozenset[str] | None = None
    connector: str | None = None
    name: str = ""
    acts_for: UUID | None = None
    kind: PrincipalKind = PrincipalKind.KEY
    expires_at: datetime | None = None
    must_name_user: bool = False
    acting: str | None = None
    version: int = field(default=0, compare=False)
    person: UUID | None = None
    limits: Mapping[str, int | None] = field(default_factory=dict, compare=False)

    def acting_as(self, user: str, surrogate: UUID | None) -> Principal:
        """Return the principal as it is in a call for one user: narrowed to it, or to nobody when it is not its own."""
        users = frozenset({user}) if self.users is None or user in self.users else frozenset[str]()
        return replace(self, users=users, acting=user, acts_for=surrogate)


@dataclass(frozen=True, slots=True)
class Caller:
    """One call by a principal: what the audit trail says beside the action. `client` and `purpose` are untrusted."""

    principal: Principal
    request_id: str
    client: str = ""
    face: str = "rest"
    purpose: str | None = None

    @property
    def acting(self) -> UUID | None:
        """The surrogate of the user for whom the call is made, where the credential says so."""
        return self.principal.acts_for

    def acting_for(self, user_id: UUID | None) -> Caller:
        """Return the caller with the surrogate of the user that it acts for, which may be new in this transaction."""
        principal = self.principal
        if principal.acting is None or principal.acts_for is not None or user_id is None:
            return self
        return replace(self, principal=replace(principal, acts_for=user_id))

    @property
    def scope(self) -> Scope:
        """The scope that this caller's credential opens."""
        return Scope.of(self.principal)


@dataclass(frozen=True, slots=True, init=False)
class Scope:
    """The part of the stores that a principal can reach. Made by `Scope.of` from a principal and by nothing else."""

    tenant_id: TenantId
    users: frozenset[str] | None = field(default=None)

    def __init__(self) -> None:
        raise TypeError("a Scope comes from a Principal: use Scope.of(principal)")

    @classmethod
    def of(cls, principal: Principal) -> Scope:
        """Return the scope of a principal: its tenant, narrowed to its users where it is bound."""
        scope = object.__new__(cls)
        object.__setattr__(scope, "tenant_id", principal.tenant_id)
        object.__setattr__(scope, "users", principal.users)
        return scope


#: The principal of the service's own work (authenticating, applying the outbox, running a job). It has no permissions:
#: what a job does for someone is done with the permissions of the key that asked for it.
SERVICE_ID: Final = UUID(int=1)


def service_principal(tenant_id: TenantId) -> Principal:
    """Return the principal that the service itself works as inside one tenant."""
    return Principal(tenant_id=tenant_id, id=SERVICE_ID, permissions=frozenset(), name="service")


def installation_caller(tenant_id: TenantId, permissions: frozenset[Permission] = frozenset()) -> Caller:
    """Return a caller of the installation's plane, whose credential is the database's: what the CLI works as."""
    principal = Principal(tenant_id=tenant_id, id=SERVICE_ID, permissions=permissions, name="service")
    return Caller(principal, request_id=str(clock.new_id()), client="memvault", face="cli")
