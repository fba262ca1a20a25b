"""Details of what a tenant's own people decide: its settings, its reviews, what memories are worth."""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from typing import Literal

from service.audit.details import Detail
from service.audit.events import AuditEvent
from service.settings.languages import Language


class ProjectField(StrEnum):
    """What of a tenant's own settings a change touched: names only."""

    CUSTOM_INSTRUCTIONS = "custom_instructions"
    AGENT_CUSTOM_INSTRUCTIONS = "agent_custom_instructions"
    CUSTOM_CATEGORIES = "custom_categories"
    REVIEW_REQUIRED = "review_required"
    LANGUAGE = "language"


class TenantLanguageSet(Detail):
    """The installation said which language the tenant's memories are in; null is the installation's."""

    event = AuditEvent.TENANT_LANGUAGE_SET
    language: Language | None


class ProjectRead(Detail):
    """The tenant's own settings were read."""

    event = AuditEvent.PROJECT_READ


class ProjectUpdated(Detail):
    """The tenant's own settings were changed: which of them."""

    event = AuditEvent.PROJECT_UPDATED
    changed: list[ProjectField]


class MemoryQuarantined(Detail):
    """Extracted memories wait for a reviewer: how many do, and how many were there or waited already."""

    event = AuditEvent.MEMORY_QUARANTINED
    waiting: int
    known: int


class ReviewsExpired(Detail):
    """Memories that nobody decided on were removed after their last visible day."""

    event = AuditEvent.REVIEWS_EXPIRED
    count: int


class ReviewsListed(Detail):
    """A page of the memories that wait for a reviewer was read."""

    event = AuditEvent.REVIEWS_LISTED
    page: int
    total: int


class ReviewsSearched(Detail):
    """Memories that wait for a reviewer were found by a query."""

    event = AuditEvent.REVIEWS_SEARCHED
    limit: int


class ReviewRead(Detail):
    """One memory that waits for a reviewer was read."""

    event = AuditEvent.REVIEW_READ


class ReviewApproved(Detail):
    """A reviewer let memories of the same subjects into the record: how many are new, and their last visible day."""

    event = AuditEvent.REVIEW_APPROVED
    added: int
    known: int
    expires_on: date | None = None


class ReviewRejected(Detail):
    """A reviewer removed memories that waited."""

    event = AuditEvent.REVIEW_REJECTED
    count: int


class FeedbackGiven(Detail):
    """A key said what a memory is worth; the reason is not told here."""

    event = AuditEvent.FEEDBACK_GIVEN
    verdict: Literal["POSITIVE", "NEGATIVE", "VERY_NEGATIVE"] | None = None


class MemoriesSummarized(Detail):
    """Memories were shown to the language model for a summary, `total` of them match."""

    event = AuditEvent.MEMORIES_SUMMARIZED
    total: int
