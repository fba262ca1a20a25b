"""The closed list of audit events: `thing:happened`, past tense, one for each action, and what kind of act each is."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from service.scope import Action


class AuditEvent(StrEnum):
    """What the trail can say happened. Each has one detail model in `service.audit.details`."""

    SERVICE_PINGED = "service:pinged"
    PROJECT_READ = "project:read"
    PROJECT_UPDATED = "project:updated"
    MEMORY_QUARANTINED = "memory:quarantined"
    REVIEWS_EXPIRED = "reviews:expired"
    REVIEWS_LISTED = "reviews:listed"
    REVIEWS_SEARCHED = "reviews:searched"
    REVIEW_READ = "review:read"
    REVIEW_APPROVED = "review:approved"
    REVIEW_REJECTED = "review:rejected"
    FEEDBACK_GIVEN = "feedback:given"
    MEMORIES_SUMMARIZED = "memories:summarized"
    MEMORY_ADDED = "memory:added"
    MEMORY_ADD_REQUESTED = "memory:add_requested"
    MEMORY_ADD_ENDED = "memory:add_ended"
    MEMORY_RECALLED = "memory:recalled"
    MEMORY_SEARCHED = "memory:searched"
    MEMORY_LISTED = "memory:listed"
    MEMORY_READ = "memory:read"
    MEMORY_UPDATED = "memory:updated"
    MEMORY_DELETED = "memory:deleted"
    MEMORIES_DELETED = "memories:deleted"
    MEMORIES_CONSOLIDATED = "memories:consolidated"
    BATCH_UPDATED = "batch:updated"
    BATCH_DELETED = "batch:deleted"
    HISTORY_READ = "history:read"
    ENTITIES_LISTED = "entities:listed"
    ENTITY_DELETED = "entity:deleted"
    EVENTS_LISTED = "events:listed"
    EVENT_READ = "event:read"
    KEY_CREATED = "key:created"
    KEYS_LISTED = "keys:listed"
    KEY_REVOKED = "key:revoked"
    KEY_ROTATED = "key:rotated"
    KEY_CHANGED = "key:changed"
    IDENTITY_LINKED = "identity:linked"
    IDENTITIES_LISTED = "identities:listed"
    IDENTITY_UNLINKED = "identity:unlinked"
    WEBHOOK_CREATED = "webhook:created"
    WEBHOOKS_LISTED = "webhooks:listed"
    WEBHOOK_UPDATED = "webhook:updated"
    WEBHOOK_DELETED = "webhook:deleted"
    DELIVERIES_LISTED = "deliveries:listed"
    WEBHOOK_DELIVERED = "webhook:delivered"
    TENANT_CREATED = "tenant:created"
    TENANT_SUSPENDED = "tenant:suspended"
    TENANT_RESUMED = "tenant:resumed"
    TENANT_DELETED = "tenant:deleted"
    TENANT_RENAMED = "tenant:renamed"
    TENANT_LIMITED = "tenant:limited"
    TENANT_LANGUAGE_SET = "tenant:language_set"
    LIMIT_REACHED = "limit:reached"
    AUDIT_READ = "audit:read"
    AUDIT_EXPORTED = "audit:exported"
    AUDIT_MATCHED = "audit:matched"
    ERASURE_REQUESTED = "erasure:requested"
    ERASURE_BEGUN = "erasure:begun"
    ERASURE_CONTINUED = "erasure:continued"
    ERASURE_COMPLETED = "erasure:completed"
    ERASURES_LISTED = "erasures:listed"
    ERASURE_READ = "erasure:read"
    CONNECTOR_REMOVED = "connector:removed"
    HOLD_PLACED = "hold:placed"
    HOLDS_LISTED = "holds:listed"
    HOLD_READ = "hold:read"
    HOLD_RELEASED = "hold:released"
    RETENTION_RULE_SET = "retention:rule_set"
    RETENTION_RULE_REMOVED = "retention:rule_removed"
    RETENTION_RULES_READ = "retention:rules_read"
    RETENTION_RUN_STARTED = "retention:run_started"
    RETENTION_RUNS_LISTED = "retention:runs_listed"
    RETENTION_RUN_READ = "retention:run_read"
    MEMORIES_FORGOTTEN = "memories:forgotten"
    TRAIL_DROPPED = "trail:dropped"
    TRAIL_RESTORED = "trail:restored"
    TOMBSTONE_APPLIED = "tombstone:applied"
    EXPORT_REQUESTED = "export:requested"
    EXPORT_READ = "export:read"
    MEMORIES_IMPORTED = "memories:imported"
    BACKUP_MADE = "backup:made"
    KEYRING_MOVED = "keyring:moved"
    KEYRING_REWRAPPED = "keyring:rewrapped"
    EMBEDDER_CHANGED = "embedder:changed"
    ACCESS_DENIED = "access:denied"
    CREDENTIAL_REFUSED = "credential:refused"


#: The event that each action leaves when it is done.
EVENT_OF: Final[dict[Action, AuditEvent]] = {
    Action.PING: AuditEvent.SERVICE_PINGED,
    Action.GET_PROJECT: AuditEvent.PROJECT_READ,
    Action.UPDATE_PROJECT: AuditEvent.PROJECT_UPDATED,
    Action.LIST_REVIEWS: AuditEvent.REVIEWS_LISTED,
    Action.SEARCH_REVIEWS: AuditEvent.REVIEWS_SEARCHED,
    Action.GET_REVIEW: AuditEvent.REVIEW_READ,
    Action.APPROVE_REVIEWS: AuditEvent.REVIEW_APPROVED,
    Action.REJECT_REVIEWS: AuditEvent.REVIEW_REJECTED,
    Action.GIVE_FEEDBACK: AuditEvent.FEEDBACK_GIVEN,
    Action.SUMMARIZE: AuditEvent.MEMORIES_SUMMARIZED,
    Action.ADD: AuditEvent.MEMORY_ADDED,
    Action.SEARCH: AuditEvent.MEMORY_SEARCHED,
    Action.LIST: AuditEvent.MEMORY_LISTED,
    Action.GET: AuditEvent.MEMORY_READ,
    Action.UPDATE: AuditEvent.MEMORY_UPDATED,
    Action.DELETE: AuditEvent.MEMORY_DELETED,
    Action.DELETE_ALL: AuditEvent.MEMORIES_DELETED,
    Action.UPDATE_BATCH: AuditEvent.BATCH_UPDATED,
    Action.DELETE_BATCH: AuditEvent.BATCH_DELETED,
    Action.HISTORY: AuditEvent.HISTORY_READ,
    Action.LIST_ENTITIES: AuditEvent.ENTITIES_LISTED,
    Action.DELETE_ENTITY: AuditEvent.ENTITY_DELETED,
    Action.LIST_EVENTS: AuditEvent.EVENTS_LISTED,
    Action.GET_EVENT: AuditEvent.EVENT_READ,
    Action.CREATE_KEY: AuditEvent.KEY_CREATED,
    Action.LIST_KEYS: AuditEvent.KEYS_LISTED,
    Action.REVOKE_KEY: AuditEvent.KEY_REVOKED,
    Action.ROTATE_KEY: AuditEvent.KEY_ROTATED,
    Action.CHANGE_KEY: AuditEvent.KEY_CHANGED,
    Action.LINK_IDENTITY: AuditEvent.IDENTITY_LINKED,
    Action.LIST_IDENTITIES: AuditEvent.IDENTITIES_LISTED,
    Action.UNLINK_IDENTITY: AuditEvent.IDENTITY_UNLINKED,
    Action.CREATE_WEBHOOK: AuditEvent.WEBHOOK_CREATED,
    Action.LIST_WEBHOOKS: AuditEvent.WEBHOOKS_LISTED,
    Action.UPDATE_WEBHOOK: AuditEvent.WEBHOOK_UPDATED,
    Action.DELETE_WEBHOOK: AuditEvent.WEBHOOK_DELETED,
    Action.LIST_DELIVERIES: AuditEvent.DELIVERIES_LISTED,
    Action.READ_AUDIT: AuditEvent.AUDIT_READ,
    Action.EXPORT_AUDIT: AuditEvent.AUDIT_EXPORTED,
    Action.MATCH_AUDIT: AuditEvent.AUDIT_MATCHED,
    Action.REQUEST_ERASURE: AuditEvent.ERASURE_REQUESTED,
    Action.LIST_ERASURES: AuditEvent.ERASURES_LISTED,
    Action.GET_ERASURE: AuditEvent.ERASURE_READ,
    Action.REMOVE_CONNECTOR: AuditEvent.CONNECTOR_REMOVED,
    Action.REQUEST_EXPORT: AuditEvent.EXPORT_REQUESTED,
    Action.READ_EXPORT: AuditEvent.EXPORT_READ,
    Action.IMPORT_MEMORIES: AuditEvent.MEMORIES_IMPORTED,
    Action.PLACE_HOLD: AuditEvent.HOLD_PLACED,
    Action.LIST_HOLDS: AuditEvent.HOLDS_LISTED,
    Action.GET_HOLD: AuditEvent.HOLD_READ,
    Action.RELEASE_HOLD: AuditEvent.HOLD_RELEASED,
    Action.SET_RETENTION_RULE: AuditEvent.RETENTION_RULE_SET,
    Action.REMOVE_RETENTION_RULE: AuditEvent.RETENTION_RULE_REMOVED,
    Action.LIST_RETENTION_RULES: AuditEvent.RETENTION_RULES_READ,
    Action.RUN_RETENTION: AuditEvent.RETENTION_RUN_STARTED,
    Action.LIST_RETENTION_RUNS: AuditEvent.RETENTION_RUNS_LISTED,
    Action.GET_RETENTION_RUN: AuditEvent.RETENTION_RUN_READ,
}


class Activity(StrEnum):
    """What kind of act an event is; `read` is every event by which memories reached somebody."""

    CREATE = "create"
    READ = "read"
    UPDATE = "update"
    DELETE = "delete"
    OTHER = "other"


ACTIVITY_OF: Final[dict[AuditEvent, Activity]] = {
    AuditEvent.SERVICE_PINGED: Activity.OTHER,
    AuditEvent.PROJECT_READ: Activity.READ,
    AuditEvent.PROJECT_UPDATED: Activity.UPDATE,
    AuditEvent.MEMORY_QUARANTINED: Activity.CREATE,
    AuditEvent.REVIEWS_EXPIRED: Activity.DELETE,
    AuditEvent.MEMORIES_CONSOLIDATED: Activity.UPDATE,
    AuditEvent.REVIEWS_LISTED: Activity.READ,
    AuditEvent.REVIEWS_SEARCHED: Activity.READ,
    AuditEvent.REVIEW_READ: Activity.READ,
    AuditEvent.REVIEW_APPROVED: Activity.CREATE,
    AuditEvent.REVIEW_REJECTED: Activity.DELETE,
    AuditEvent.FEEDBACK_GIVEN: Activity.UPDATE,
    AuditEvent.MEMORIES_SUMMARIZED: Activity.READ,
    AuditEvent.MEMORY_ADDED: Activity.CREATE,
    AuditEvent.MEMORY_ADD_REQUESTED: Activity.CREATE,
    AuditEvent.MEMORY_ADD_ENDED: Activity.CREATE,
    AuditEvent.MEMORY_RECALLED: Activity.READ,
    AuditEvent.MEMORY_SEARCHED: Activity.READ,
    AuditEvent.MEMORY_LISTED: Activity.READ,
    AuditEvent.MEMORY_READ: Activity.READ,
    AuditEvent.MEMORY_UPDATED: Activity.UPDATE,
    AuditEvent.MEMORY_DELETED: Activity.DELETE,
    AuditEvent.MEMORIES_DELETED: Activity.DELETE,
    AuditEvent.BATCH_UPDATED: Activity.UPDATE,
    AuditEvent.BATCH_DELETED: Activity.DELETE,
    AuditEvent.HISTORY_READ: Activity.READ,
    AuditEvent.ENTITIES_LISTED: Activity.READ,
    AuditEvent.ENTITY_DELETED: Activity.DELETE,
    AuditEvent.EVENTS_LISTED: Activity.READ,
    AuditEvent.EVENT_READ: Activity.READ,
    AuditEvent.KEY_CREATED: Activity.CREATE,
    AuditEvent.KEYS_LISTED: Activity.READ,
    AuditEvent.KEY_REVOKED: Activity.DELETE,
    AuditEvent.KEY_ROTATED: Activity.UPDATE,
    AuditEvent.KEY_CHANGED: Activity.UPDATE,
    AuditEvent.IDENTITY_LINKED: Activity.CREATE,
    AuditEvent.IDENTITIES_LISTED: Activity.OTHER,
    AuditEvent.IDENTITY_UNLINKED: Activity.DELETE,
    AuditEvent.WEBHOOK_CREATED: Activity.CREATE,
    AuditEvent.WEBHOOKS_LISTED: Activity.OTHER,
    AuditEvent.WEBHOOK_UPDATED: Activity.UPDATE,
    AuditEvent.WEBHOOK_DELETED: Activity.DELETE,
    AuditEvent.DELIVERIES_LISTED: Activity.OTHER,
    AuditEvent.WEBHOOK_DELIVERED: Activity.OTHER,
    AuditEvent.TENANT_CREATED: Activity.CREATE,
    AuditEvent.TENANT_SUSPENDED: Activity.UPDATE,
    AuditEvent.TENANT_RESUMED: Activity.UPDATE,
    AuditEvent.TENANT_DELETED: Activity.DELETE,
    AuditEvent.TENANT_RENAMED: Activity.UPDATE,
    AuditEvent.TENANT_LIMITED: Activity.UPDATE,
    AuditEvent.TENANT_LANGUAGE_SET: Activity.UPDATE,
    AuditEvent.LIMIT_REACHED: Activity.OTHER,
    AuditEvent.AUDIT_READ: Activity.OTHER,
    AuditEvent.AUDIT_EXPORTED: Activity.OTHER,
    AuditEvent.AUDIT_MATCHED: Activity.OTHER,
    AuditEvent.ERASURE_REQUESTED: Activity.DELETE,
    AuditEvent.ERASURE_BEGUN: Activity.DELETE,
    AuditEvent.ERASURE_CONTINUED: Activity.DELETE,
    AuditEvent.ERASURE_COMPLETED: Activity.DELETE,
    AuditEvent.ERASURES_LISTED: Activity.OTHER,
    AuditEvent.ERASURE_READ: Activity.OTHER,
    AuditEvent.CONNECTOR_REMOVED: Activity.DELETE,
    AuditEvent.HOLD_PLACED: Activity.CREATE,
    AuditEvent.HOLDS_LISTED: Activity.OTHER,
    AuditEvent.HOLD_READ: Activity.OTHER,
    AuditEvent.HOLD_RELEASED: Activity.UPDATE,
    AuditEvent.RETENTION_RULE_SET: Activity.UPDATE,
    AuditEvent.RETENTION_RULE_REMOVED: Activity.UPDATE,
    AuditEvent.RETENTION_RULES_READ: Activity.OTHER,
    AuditEvent.RETENTION_RUN_STARTED: Activity.OTHER,
    AuditEvent.RETENTION_RUNS_LISTED: Activity.OTHER,
    AuditEvent.RETENTION_RUN_READ: Activity.OTHER,
    AuditEvent.MEMORIES_FORGOTTEN: Activity.DELETE,
    AuditEvent.TRAIL_DROPPED: Activity.DELETE,
    AuditEvent.TRAIL_RESTORED: Activity.OTHER,
    AuditEvent.TOMBSTONE_APPLIED: Activity.DELETE,
    AuditEvent.EXPORT_REQUESTED: Activity.OTHER,
    AuditEvent.EXPORT_READ: Activity.READ,
    AuditEvent.MEMORIES_IMPORTED: Activity.CREATE,
    AuditEvent.BACKUP_MADE: Activity.OTHER,
    AuditEvent.KEYRING_MOVED: Activity.OTHER,
    AuditEvent.KEYRING_REWRAPPED: Activity.OTHER,
    AuditEvent.EMBEDDER_CHANGED: Activity.OTHER,
    AuditEvent.ACCESS_DENIED: Activity.OTHER,
    AuditEvent.CREDENTIAL_REFUSED: Activity.OTHER,
}


class Outcome(StrEnum):
    """How it went."""

    DONE = "done"
    REFUSED = "refused"
    NOT_FOUND = "not_found"
    FAILED = "failed"
