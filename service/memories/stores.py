"""What every action of this package works with, and how a stored memory becomes one that its owner can read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from itertools import islice
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, and_

from service.audit.trail import Trail
from service.auth.standing import Standing
from service.embeddings.embedder import Embedder
from service.filters.ast import EVERYTHING, Node, subject_names
from service.filters.evaluate import matches
from service.filters.tokens import Tokenizer
from service.holds.waiting import WaitingHolds
from service.index.interface import Index
from service.memories.serving import Generations
from service.policy.gate import Gate
from service.records import Memory, Provenance, SubjectNames
from service.scope import Action, Caller, Scope, SubjectKind
from service.settings import Settings
from service.storage.announced import AnnouncedRecord, Announcer
from service.storage.database import Database
from service.storage.filter_sql import compile_sql
from service.storage.keyring import Keyring, lost_of
from service.storage.quarantine import Quarantine
from service.storage.record import Unreadable, memories_table
from service.storage.stored import StoredMemory
from service.storage.tombstones import Tombstones
from service.tenants.quotas import Quotas
from service.tenants.subjects import Name, Subjects

#: Memories that are opened at a time where all must be looked at.
_BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class Stores:
    """The record, the index and their companions, handed to every action by the composition root."""

    settings: Settings
    database: Database
    keyring: Keyring
    record: AnnouncedRecord
    quarantine: Quarantine
    waiting_holds: WaitingHolds
    subjects: Subjects
    index: Index
    generations: Generations
    trail: Trail
    gate: Gate
    standing: Standing
    tombstones: Tombstones
    quotas: Quotas
    announcer: Announcer

    @property
    def embedder(self) -> Embedder:
        """The embedding model that serves now. Take it once for vectors and the name that is kept beside them."""
        return self.generations.embedder

    def tokenizer(self, scope: Scope) -> Tokenizer:
        """Return what makes the tenant's filter tokens."""
        return Tokenizer(self.keyring.tenant_secret(scope.tenant_id, "filter-tokens"))

    def check_users(self, caller: Caller, action: Action, where: Node) -> None:
        """Refuse a filter in which a bound principal names another user: Forbidden."""
        for kind, name in subject_names(where):
            if kind is SubjectKind.USER:
                self.gate.check_user(caller, action, SubjectNames(user_id=name), writing=False)

    def lookup(self, connection: Connection | None, scope: Scope, where: Node) -> TenantLookup:
        """Return what a compiler must know of the tenant to compile this filter.

        Without a connection only what this process remembers is used; then the result may be incomplete, which
        `TenantLookup.complete` tells.
        """
        names = subject_names(where)
        if scope.users is not None:
            names |= {(SubjectKind.USER, user) for user in scope.users}
        if connection is None:
            known = self.subjects.known(scope, names)
            return TenantLookup(known or {}, self.tokenizer(scope), scope.users, complete=known is not None)
        return TenantLookup(self.subjects.find(connection, scope, names), self.tokenizer(scope), scope.users)

    def bound_users(self, connection: Connection, scope: Scope) -> frozenset[UUID] | None:
        """Return the users that the principal is bound to, as surrogates; None when it is not bound."""
        return None if scope.users is None else self.lookup(connection, scope, EVERYTHING).users

    def presented(self, connection: Connection, scope: Scope, stored: Sequence[StoredMemory]) -> list[Memory]:
        """Return memories with the names of their subjects; one whose owner was erased meanwhile is left out."""
        names = self.subjects.names(connection, scope, {one for memory in stored for one in memory.subject_ids()})
        return [_memory(memory, names) for memory in stored if memory.owner_id in names]

    def matching(
        self,
        connection: Connection,
        scope: Scope,
        where: Node,
        lookup: TenantLookup,
        wanted: ColumnElement[bool],
        *,
        on: date | None,
    ) -> Iterator[Memory]:
        """Yield the wanted memories that meet a filter, whatever it asks of them, the newest first."""
        clause = and_(compile_sql(where, lookup, memories_table).clause, wanted)
        unreadable: Unreadable = {}
        rows = self.record.stream(connection, scope, clause, users=lookup.users, on=on, unreadable=unreadable)
        while batch := list(islice(rows, _BATCH)):
            for memory in self.presented(connection, scope, batch):
                if matches(where, memory):
                    yield memory
        lost_of(unreadable)

    def subject_names(
        self, connection: Connection, scope: Scope, groups: Sequence[Iterable[UUID]]
    ) -> list[SubjectNames]:
        """Return the names of the subjects of each group, those that are erased left out; asked for all at once."""
        sets = [list(group) for group in groups]
        names = self.subjects.names(connection, scope, {one for group in sets for one in group})
        return [_names(group, names) for group in sets]


@dataclass(frozen=True)
class TenantLookup:
    """Answers a compiler's questions for one tenant and one filter."""

    ids: Mapping[Name, UUID]
    tokenizer: Tokenizer
    bound_to: frozenset[str] | None
    complete: bool = True

    def subject(self, kind: SubjectKind, name: str) -> UUID | None:
        """Return the surrogate of a subject, or None when the tenant has no such subject."""
        return self.ids.get((kind, name))

    def token(self, text: str) -> int:
        """Return the tenant's filter token of a text."""
        return self.tokenizer.token(text)

    def subject_ids(self) -> list[UUID]:
        """Return the subjects that the filter names or the principal is bound to, users first."""
        order = list(SubjectKind)
        named = sorted(self.ids, key=lambda name: (order.index(name[0]), name[1]))
        return [self.ids[name] for name in named]

    @cached_property
    def users(self) -> frozenset[UUID] | None:
        """The users that the principal is bound to, as surrogates; None when it is not bound."""
        if self.bound_to is None:
            return None
        found = (self.ids.get((SubjectKind.USER, user)) for user in self.bound_to)
        return frozenset(one for one in found if one is not None)


def _memory(stored: StoredMemory, names: Mapping[UUID, Name]) -> Memory:
    return Memory(
        id=stored.id,
        text=stored.text,
        subjects=_names(stored.subject_ids(), names),
        metadata=stored.metadata,
        categories=stored.categories,
        created_at=stored.created_at,
        updated_at=stored.updated_at,
        expires_on=stored.expires_on,
        actor=stored.actor,
        role=stored.role,
        inferred=stored.inferred,
        version=stored.version,
        provenance=Provenance(stored.connector, stored.principal_id, stored.event_id, stored.inferred),
    )


def _names(ids: Iterable[UUID], names: Mapping[UUID, Name]) -> SubjectNames:
    return SubjectNames.of(names[one] for one in ids if one in names)
