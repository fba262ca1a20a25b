"""Details of what a tenant's own people decide: its settings."""

from __future__ import annotations

from enum import StrEnum

from service.audit.details import Detail
from service.audit.events import AuditEvent


class ProjectField(StrEnum):
    """What of a tenant's own settings a change touched: names only."""

    CUSTOM_INSTRUCTIONS = "custom_instructions"
    AGENT_CUSTOM_INSTRUCTIONS = "agent_custom_instructions"
    CUSTOM_CATEGORIES = "custom_categories"
    REVIEW_REQUIRED = "review_required"


class ProjectRead(Detail):
    """The tenant's own settings were read."""

    event = AuditEvent.PROJECT_READ


class ProjectUpdated(Detail):
    """The tenant's own settings were changed: which of them."""

    event = AuditEvent.PROJECT_UPDATED
    changed: list[ProjectField]
