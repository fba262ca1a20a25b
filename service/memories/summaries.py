"""Summaries: the language model tells in a few sentences what the memories that match a filter say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from sqlalchemy import Connection

from service import clock
from service.audit.events import AuditEvent
from service.audit.tenant_details import MemoriesSummarized
from service.engine.engine import Engine
from service.engine.errors import EngineError
from service.engine.shapes import tokens_of
from service.errors import LlmRequired
from service.filters.ast import Node, subject_names
from service.filters.evaluate import matches
from service.memories.stores import Stores, TenantLookup
from service.records import Memory, SubjectNames
from service.scope import Action, Caller, Scope, SubjectKind
from service.storage.filter_sql import compile_sql
from service.storage.keyring import lost_of
from service.storage.record import Unreadable, memories_table
from service.storage.stored import Slice

#: What the language model is shown, the newest first.
MOST_MEMORIES: Final = 200
_MOST_CHARACTERS: Final = 40_000
#: Rows that are read at a time for a filter that SQL cannot decide alone.
_BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class Summary:
    """What the memories say: how many of them were read for it, and how many match in all."""

    text: str
    memories: int
    matching: int


class Summaries:
    """Asks the language model for summaries."""

    def __init__(self, stores: Stores, engine: Engine, *, offered: bool) -> None:
        self._stores = stores
        self._engine = engine
        self._offered = offered

    def summarise(self, caller: Caller, scope: Scope, where: Node) -> Summary:
        """Return a summary of the newest memories that match. They are shown to the language model, and to nobody else.

        Raises:
            LlmRequired: when there is no language model.
            TooManyRequests: when the tenant has used up its calls or tokens of the language model for the day.
            EngineError: when it does not answer, or not with text.
        """
        stores = self._stores
        stores.gate.check(caller, Action.SUMMARIZE)
        for kind, name in subject_names(where):
            if kind is SubjectKind.USER:
                stores.gate.check_user(caller, Action.SUMMARIZE, SubjectNames(user_id=name), writing=False)
        if not self._offered:
            raise LlmRequired("a summary needs an LLM and none is configured: set llm.provider")
        with stores.database.transaction(scope) as connection:
            lookup = stores.lookup(connection, scope, where)
            memories, total = self._newest(connection, scope, where, lookup)
            shown = _fitting(memories)
            begun = clock.today()
            postponed = stores.quotas.begin_llm_call(connection, scope) if shown else None
            if postponed is None:
                stores.trail.write(
                    connection,
                    caller,
                    AuditEvent.MEMORIES_SUMMARIZED,
                    subjects=lookup.subject_ids(),
                    results=[memory.id for memory in shown],
                    detail=MemoriesSummarized(total=total),
                )
        if postponed is not None:
            raise stores.quotas.too_many_calls(caller, postponed)
        if not shown:
            return Summary("", 0, total)
        # The oldest first, as it came about.
        told = [(memory.created_at.date(), memory.text) for memory in reversed(shown)]
        wait = stores.settings.llm.timeout + 5
        try:
            text, usage = self._engine.summarise(told, wait=wait, tenant_id=scope.tenant_id)
        except EngineError as error:
            stores.quotas.end_llm_call_apart(scope, begun, error.asked, tokens_of(error.usage))
            raise
        stores.quotas.spend_tokens_apart(scope, tokens_of(usage))
        return Summary(text, len(shown), total)

    def _newest(
        self, connection: Connection, scope: Scope, where: Node, lookup: TenantLookup
    ) -> tuple[list[Memory], int]:
        """Return the newest memories that match, as many as are shown at most, and how many match in all."""
        record, users, on = self._stores.record, lookup.users, clock.today()
        compiled = compile_sql(where, lookup, memories_table)
        if compiled.exact:
            part = Slice(0, MOST_MEMORIES)
            rows, total = record.page(connection, scope, compiled.clause, part, users=users, on=on)
            return self._stores.presented(connection, scope, rows), total
        newest, total, unreadable = list[Memory](), 0, Unreadable()
        stream = record.stream(connection, scope, compiled.clause, users=users, on=on, unreadable=unreadable)
        while batch := list(islice(stream, _BATCH)):
            found = [memory for memory in self._stores.presented(connection, scope, batch) if matches(where, memory)]
            newest += found[: MOST_MEMORIES - len(newest)]
            total += len(found)
        lost_of(unreadable)
        return newest, total


def _fitting(memories: Sequence[Memory]) -> list[Memory]:
    shown: list[Memory] = []
    room = _MOST_CHARACTERS
    for memory in memories:
        room -= len(memory.text)
        if room < 0 and shown:
            break
        shown.append(memory)
    return shown
