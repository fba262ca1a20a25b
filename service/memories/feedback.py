"""Feedback: whether a memory was any good, said by whoever uses it; one word a key and memory."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy.dialects.postgresql import insert

from service import clock
from service.audit.events import AuditEvent, Outcome
from service.audit.tenant_details import FeedbackGiven
from service.errors import InvalidInput, NotFound
from service.memories.limits import check_characters
from service.memories.stores import Stores
from service.memories.tables import FeedbackRow
from service.scope import Action, Caller, Scope
from service.storage.encryption import Place

_feedback: Final[Any] = FeedbackRow.__table__  # type: ignore[attr-defined]
REASON_CHARS: Final = 2_000


class Verdict(StrEnum):
    """What can be said of a memory, in Mem0's words."""

    POSITIVE = "POSITIVE"
    NEGATIVE = "NEGATIVE"
    VERY_NEGATIVE = "VERY_NEGATIVE"


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a key says of a memory. No verdict: it takes back what it said before."""

    id: UUID
    verdict: Verdict | None
    reason: str | None


class Feedbacks:
    """Takes feedback."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def give(
        self, caller: Caller, scope: Scope, memory_id: UUID, verdict: Verdict | None, reason: str | None
    ) -> Feedback:
        """Keep what the caller's key says of a memory, in the place of what it said before.

        Raises:
            InvalidInput: for an overlong reason.
            NotFound: when the caller's scope does not reach such a memory.
        """
        stores = self._stores
        stores.gate.check(caller, Action.GIVE_FEEDBACK, targets=[memory_id])
        if reason is not None:
            check_characters(reason, "feedback_reason")
            if len(reason) > REASON_CHARS:
                raise InvalidInput(f"feedback_reason: must have {REASON_CHARS} characters at most")
        feedback = None
        with stores.database.transaction(scope) as connection:
            users = stores.bound_users(connection, scope)
            # Locked, so that the memory is there as long as what is said of it is written.
            found = stores.record.find(connection, scope, [memory_id], users=users, on=clock.today(), lock=True)
            if memory := found.get(memory_id):
                feedback_id, moment = clock.new_id(), clock.now()
                same = (_feedback.c.memory_id == memory_id) & (_feedback.c.principal_id == caller.principal.id)
                earlier = connection.execute(_feedback.select().where(same)).first()
                feedback_id = earlier.id if earlier else feedback_id
                cipher = stores.keyring.subject(scope.tenant_id, memory.owner_id)
                place = Place(scope.tenant_id, "feedback", feedback_id, "reason")
                values = {
                    "verdict": verdict.value if verdict else None,
                    "reason": None if reason is None else cipher.seal(reason.encode(), place),
                    "updated_at": moment,
                }
                connection.execute(
                    insert(_feedback)
                    .values(
                        tenant_id=scope.tenant_id,
                        id=feedback_id,
                        memory_id=memory_id,
                        owner_id=memory.owner_id,
                        principal_id=caller.principal.id,
                        created_at=moment,
                        **values,
                    )
                    .on_conflict_do_update(constraint="feedback_of_key", set_=values)
                )
                feedback = Feedback(feedback_id, verdict, reason)
            stores.trail.write(
                connection,
                caller,
                AuditEvent.FEEDBACK_GIVEN,
                subjects=memory.subject_ids() if memory else (),
                targets=[memory_id],
                outcome=Outcome.DONE if feedback else Outcome.NOT_FOUND,
                detail=FeedbackGiven(verdict=verdict.value if verdict else None),
            )
        if feedback is None:
            raise NotFound("there is no such memory")
        return feedback
