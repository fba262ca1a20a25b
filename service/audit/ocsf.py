"""The trail in the Open Cybersecurity Schema Framework, version 1.3.0 (https://schema.ocsf.io/1.3.0).

Calls are API Activity (6003); what is done with keys and tenants is Entity Management (3004); a refused credential is
Authentication (3002). What has no attribute there (surrogates, HMACs, purpose, detail) stands in `unmapped`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from service.audit.entries import Entry, document
from service.audit.events import ACTIVITY_OF, EVENT_OF, Activity, AuditEvent, Outcome
from service.scope import Action

VERSION: Final = "1.3.0"
API_ACTIVITY, ENTITY_MANAGEMENT, AUTHENTICATION = 6003, 3004, 3002
_CLASS_NAMES: Final = {
    API_ACTIVITY: "API Activity",
    ENTITY_MANAGEMENT: "Entity Management",
    AUTHENTICATION: "Authentication",
}
_CATEGORY_NAMES: Final = {3: "Identity & Access Management", 6: "Application Activity"}
_LOGON: Final = (1, "Logon")
_ACTIVITIES: Final = {
    Activity.CREATE: (1, "Create"),
    Activity.READ: (2, "Read"),
    Activity.UPDATE: (3, "Update"),
    Activity.DELETE: (4, "Delete"),
    Activity.OTHER: (99, "Other"),
}
#: Reading the trail is a read to a SIEM, though no memory reached anybody by it.
_READS_OF_THE_TRAIL: Final = (AuditEvent.AUDIT_READ, AuditEvent.AUDIT_EXPORTED, AuditEvent.AUDIT_MATCHED)
_MANAGED: Final = {
    AuditEvent.KEY_CREATED: "API key",
    AuditEvent.KEYS_LISTED: "API key",
    AuditEvent.KEY_REVOKED: "API key",
    AuditEvent.KEY_ROTATED: "API key",
    AuditEvent.KEY_CHANGED: "API key",
    AuditEvent.TENANT_CREATED: "tenant",
    AuditEvent.TENANT_SUSPENDED: "tenant",
    AuditEvent.TENANT_RESUMED: "tenant",
    AuditEvent.TENANT_RENAMED: "tenant",
    AuditEvent.TENANT_LIMITED: "tenant",
    AuditEvent.TENANT_LANGUAGE_SET: "tenant",
}
_INFORMATIONAL, _LOW, _MEDIUM = (1, "Informational"), (2, "Low"), (3, "Medium")
_SEVERITIES: Final = {Outcome.NOT_FOUND: _LOW, Outcome.FAILED: _LOW, Outcome.REFUSED: _MEDIUM}
_SUCCESS, _FAILURE = (1, "Success"), (2, "Failure")


def class_of(event: AuditEvent) -> int:
    """Return the OCSF class of an event."""
    if event is AuditEvent.CREDENTIAL_REFUSED:
        return AUTHENTICATION
    return ENTITY_MANAGEMENT if event in _MANAGED else API_ACTIVITY


def ocsf(entry: Entry) -> dict[str, Any]:
    """Return an entry as an OCSF event."""
    event, outcome = AuditEvent(entry.event), Outcome(entry.outcome)
    class_uid = class_of(event)
    activity_id, activity = _activity(event, entry.detail)
    severity_id, severity = _SEVERITIES.get(outcome, _INFORMATIONAL)
    status_id, status = _SUCCESS if outcome is Outcome.DONE else _FAILURE
    found: dict[str, Any] = {
        "metadata": {
            "version": VERSION,
            "product": {"name": "Memvault", "vendor_name": "Memvault"},
            "uid": str(entry.id),
            "event_code": entry.event,
            "correlation_uid": entry.request_id,
            "log_name": "audit",
            "sequence": entry.seq,
            "tenant_uid": str(entry.tenant_id),
        },
        "time": int(entry.at.timestamp() * 1000),
        "category_uid": class_uid // 1000,
        "category_name": _CATEGORY_NAMES[class_uid // 1000],
        "class_uid": class_uid,
        "class_name": _CLASS_NAMES[class_uid],
        "activity_id": activity_id,
        "activity_name": activity,
        "type_uid": class_uid * 100 + activity_id,
        "type_name": f"{_CLASS_NAMES[class_uid]}: {activity}",
        "severity_id": severity_id,
        "severity": severity,
        "status_id": status_id,
        "status": status,
        "status_code": entry.outcome,
        "actor": _actor(entry),
        "unmapped": document(entry),
    }
    return found | _OF_CLASS[class_uid](entry, event)


def _activity(event: AuditEvent, detail: Any) -> tuple[int, str]:
    if event is AuditEvent.CREDENTIAL_REFUSED:
        return _LOGON
    if event is AuditEvent.ACCESS_DENIED:
        # What was refused says what was attempted.
        event = EVENT_OF[Action(detail["action"])]
    activity = Activity.READ if event in _READS_OF_THE_TRAIL else ACTIVITY_OF[event]
    return _ACTIVITIES[activity]


def _actor(entry: Entry) -> dict[str, Any]:
    actor: dict[str, Any] = {"app_name": entry.client or entry.face}
    if entry.connector is not None:
        actor["app_uid"] = entry.connector
    if entry.principal_id is not None:
        user: dict[str, Any] = {"uid": str(entry.principal_id), "type_id": 3, "type": "System"}
        if entry.acting_subject_id is not None:
            user["uid_alt"] = str(entry.acting_subject_id)
        actor["user"] = user
    return actor


def _api_call(entry: Entry, event: AuditEvent) -> dict[str, Any]:
    refused = entry.detail.get("action") if event is AuditEvent.ACCESS_DENIED else None
    return {
        "api": {
            "operation": refused or entry.event,
            "service": {"name": f"memvault-{entry.face}"},
            "request": {"uid": entry.request_id},
        },
        # The trail keeps no addresses: the endpoint is the software that called.
        "src_endpoint": {"name": entry.client or "unknown", "svc_name": entry.connector or entry.face},
        "resources": [{"uid": str(one)} for one in dict.fromkeys((*entry.target_ids, *entry.result_ids))],
    }


def _management(entry: Entry, event: AuditEvent) -> dict[str, Any]:
    kind = _MANAGED[event]
    uid = str(entry.tenant_id) if kind == "tenant" or not entry.target_ids else str(entry.target_ids[0])
    return {"entity": {"type": kind, "uid": uid}}


def _logon(entry: Entry, event: AuditEvent) -> dict[str, Any]:
    return {
        "user": {"name": "unknown", "type_id": 0, "type": "Unknown"},
        "service": {"name": f"memvault-{entry.face}"},
        "src_endpoint": {"name": entry.client or "unknown"},
        "status_detail": "INVALID_CREDENTIALS",
        "count": int(entry.detail.get("count", 1)),
    }


_OF_CLASS: Final[dict[int, Callable[[Entry, AuditEvent], dict[str, Any]]]] = {
    API_ACTIVITY: _api_call,
    ENTITY_MANAGEMENT: _management,
    AUTHENTICATION: _logon,
}
