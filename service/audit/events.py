"""The closed list of audit events: `thing:happened`, past tense, one for each action."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from service.scope import Action


class AuditEvent(StrEnum):
    """What the trail can say happened."""

    SERVICE_PINGED = "service:pinged"
    MEMORY_ADDED = "memory:added"
    MEMORY_ADD_REQUESTED = "memory:add_requested"
    MEMORY_ADD_ENDED = "memory:add_ended"
    MEMORY_SEARCHED = "memory:searched"
    MEMORY_LISTED = "memory:listed"
    MEMORY_READ = "memory:read"
    MEMORY_UPDATED = "memory:updated"
    MEMORY_DELETED = "memory:deleted"
    MEMORIES_DELETED = "memories:deleted"
    HISTORY_READ = "history:read"
    ENTITIES_LISTED = "entities:listed"
    ENTITY_DELETED = "entity:deleted"
    EVENTS_LISTED = "events:listed"
    EVENT_READ = "event:read"
    KEY_CREATED = "key:created"
    KEYS_LISTED = "keys:listed"
    KEY_REVOKED = "key:revoked"
    ACCESS_DENIED = "access:denied"
    CREDENTIAL_REFUSED = "credential:refused"


#: The event that each action leaves when it is done.
EVENT_OF: Final[dict[Action, AuditEvent]] = {
    Action.PING: AuditEvent.SERVICE_PINGED,
    Action.ADD: AuditEvent.MEMORY_ADDED,
    Action.SEARCH: AuditEvent.MEMORY_SEARCHED,
    Action.LIST: AuditEvent.MEMORY_LISTED,
    Action.GET: AuditEvent.MEMORY_READ,
    Action.UPDATE: AuditEvent.MEMORY_UPDATED,
    Action.DELETE: AuditEvent.MEMORY_DELETED,
    Action.DELETE_ALL: AuditEvent.MEMORIES_DELETED,
    Action.HISTORY: AuditEvent.HISTORY_READ,
    Action.LIST_ENTITIES: AuditEvent.ENTITIES_LISTED,
    Action.DELETE_ENTITY: AuditEvent.ENTITY_DELETED,
    Action.LIST_EVENTS: AuditEvent.EVENTS_LISTED,
    Action.GET_EVENT: AuditEvent.EVENT_READ,
    Action.CREATE_KEY: AuditEvent.KEY_CREATED,
    Action.LIST_KEYS: AuditEvent.KEYS_LISTED,
    Action.REVOKE_KEY: AuditEvent.KEY_REVOKED,
}


class Outcome(StrEnum):
    """How it went."""

    DONE = "done"
    REFUSED = "refused"
    NOT_FOUND = "not_found"
    FAILED = "failed"
