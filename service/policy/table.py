"""The decision: `authorize(principal, action)` over one table. Pure, so that all of it can be enumerated in a test."""

from __future__ import annotations

from typing import Final

from service.scope import Action, Permission, Principal

#: What each action needs. An action that is not here is refused to everybody.
NEEDS: Final[dict[Action, Permission | None]] = {
    Action.PING: None,
    Action.GET_PROJECT: Permission.SETTINGS_READ,
    Action.UPDATE_PROJECT: Permission.SETTINGS_MANAGE,
    Action.LIST_REVIEWS: Permission.MEMORY_REVIEW,
    Action.SEARCH_REVIEWS: Permission.MEMORY_REVIEW,
    Action.GET_REVIEW: Permission.MEMORY_REVIEW,
    Action.APPROVE_REVIEWS: Permission.MEMORY_REVIEW,
    Action.REJECT_REVIEWS: Permission.MEMORY_REVIEW,
    Action.GIVE_FEEDBACK: Permission.MEMORY_WRITE,
    Action.SUMMARIZE: Permission.MEMORY_READ,
    Action.ADD: Permission.MEMORY_WRITE,
    Action.UPDATE: Permission.MEMORY_WRITE,
    Action.UPDATE_BATCH: Permission.MEMORY_WRITE,
    Action.SEARCH: Permission.MEMORY_READ,
    Action.LIST: Permission.MEMORY_READ,
    Action.GET: Permission.MEMORY_READ,
    Action.HISTORY: Permission.MEMORY_READ,
    Action.LIST_ENTITIES: Permission.MEMORY_READ,
    Action.LIST_EVENTS: Permission.MEMORY_READ,
    Action.GET_EVENT: Permission.MEMORY_READ,
    Action.DELETE: Permission.MEMORY_DELETE,
    Action.DELETE_BATCH: Permission.MEMORY_DELETE,
    Action.DELETE_ALL: Permission.MEMORY_DELETE,
    Action.DELETE_ENTITY: Permission.ENTITY_DELETE,
    Action.CREATE_KEY: Permission.KEY_MANAGE,
    Action.LIST_KEYS: Permission.KEY_MANAGE,
    Action.REVOKE_KEY: Permission.KEY_MANAGE,
    Action.ROTATE_KEY: Permission.KEY_MANAGE,
    Action.CHANGE_KEY: Permission.KEY_MANAGE,
    Action.LINK_IDENTITY: Permission.IDENTITY_MANAGE,
    Action.LIST_IDENTITIES: Permission.IDENTITY_MANAGE,
    Action.UNLINK_IDENTITY: Permission.IDENTITY_MANAGE,
    Action.CREATE_WEBHOOK: Permission.WEBHOOK_MANAGE,
    Action.LIST_WEBHOOKS: Permission.WEBHOOK_MANAGE,
    Action.UPDATE_WEBHOOK: Permission.WEBHOOK_MANAGE,
    Action.DELETE_WEBHOOK: Permission.WEBHOOK_MANAGE,
    Action.LIST_DELIVERIES: Permission.WEBHOOK_MANAGE,
    Action.READ_AUDIT: Permission.AUDIT_READ,
    Action.EXPORT_AUDIT: Permission.AUDIT_READ,
    Action.MATCH_AUDIT: Permission.AUDIT_MATCH,
    Action.REQUEST_ERASURE: Permission.ERASURE_REQUEST,
    Action.LIST_ERASURES: Permission.ERASURE_REQUEST,
    Action.GET_ERASURE: Permission.ERASURE_REQUEST,
    Action.REMOVE_CONNECTOR: Permission.ERASURE_REQUEST,
    Action.REQUEST_EXPORT: Permission.MEMORY_EXPORT,
    Action.READ_EXPORT: Permission.MEMORY_EXPORT,
    Action.IMPORT_MEMORIES: Permission.MEMORY_IMPORT,
    Action.PLACE_HOLD: Permission.HOLD_PLACE,
    Action.LIST_HOLDS: Permission.HOLD_PLACE,
    Action.GET_HOLD: Permission.HOLD_PLACE,
    Action.RELEASE_HOLD: Permission.HOLD_RELEASE,
    Action.SET_RETENTION_RULE: Permission.RETENTION_MANAGE,
    Action.REMOVE_RETENTION_RULE: Permission.RETENTION_MANAGE,
    Action.LIST_RETENTION_RULES: Permission.RETENTION_MANAGE,
    Action.RUN_RETENTION: Permission.RETENTION_MANAGE,
    Action.LIST_RETENTION_RUNS: Permission.RETENTION_MANAGE,
    Action.GET_RETENTION_RUN: Permission.RETENTION_MANAGE,
}

#: Roles are names for bundles of permissions.
ROLES: Final[dict[str, frozenset[Permission]]] = {
    "reader": frozenset({Permission.MEMORY_READ}),
    "agent": frozenset({Permission.MEMORY_READ, Permission.MEMORY_WRITE, Permission.MEMORY_DELETE}),
    "operator": frozenset(
        {
            Permission.KEY_MANAGE,
            Permission.SETTINGS_READ,
            Permission.SETTINGS_MANAGE,
            Permission.WEBHOOK_MANAGE,
            Permission.IDENTITY_MANAGE,
        }
    ),
    "compliance_officer": frozenset(
        {
            Permission.AUDIT_READ,
            Permission.AUDIT_MATCH,
            Permission.MEMORY_READ,
            Permission.MEMORY_DELETE,
            Permission.MEMORY_EXPORT,
            Permission.MEMORY_REVIEW,
            Permission.ENTITY_DELETE,
            Permission.RETENTION_MANAGE,
            Permission.HOLD_PLACE,
            Permission.HOLD_RELEASE,
            Permission.ERASURE_REQUEST,
        }
    ),
    "admin": frozenset(Permission),
}


def authorize(principal: Principal, action: Action) -> bool:
    """Tell whether the principal may take the action inside its own tenant."""
    if action not in NEEDS:
        return False
    needed = NEEDS[action]
    return needed is None or needed in principal.permissions


def names_its_user(principal: Principal, action: Action) -> bool:
    """Tell whether the call says for which user it is made, where it has to, and names none but the principal's own.

    A system agent has to for every action on memories and entities, that is each that needs `memory:…` or `entity:…`.
    """
    if principal.acting is not None:
        return principal.users is not None and principal.acting in principal.users
    return not (principal.must_name_user and (NEEDS.get(action) or "").startswith(("memory:", "entity:")))
