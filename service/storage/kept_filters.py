"""Filters that are kept: people in them as surrogates, sealed under the tenant's key, decided on stored memories."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from service.filters.ast import All, Any_, Condition, Node, Not, Op, Scalar, subject_names
from service.filters.evaluate import matches
from service.filters.parse import parse_filter
from service.filters.render import as_wire
from service.filters.tokens import Tokenizer
from service.filters.values import FilterLimits
from service.records import Json, Memory, SubjectNames
from service.scope import Scope, SubjectKind
from service.storage.encryption import Cipher, Place
from service.storage.keyring import Keyring
from service.storage.stored import StoredMemory

#: Wider than what callers may send: a tree that was accepted once is always read again, rendered with more objects.
_LIMITS: Final = FilterLimits(
    depth=100, conditions=10_000, values=10_000, all_values=1_000_000, string=10_000, id=10_000
)


@dataclass(frozen=True, slots=True)
class SurrogateLookup:
    """Answers the compiler for a filter whose subjects are surrogates already."""

    tokenizer: Tokenizer

    def subject(self, kind: SubjectKind, name: str) -> UUID | None:
        """Return the surrogate, which is the name."""
        return UUID(name)

    def token(self, text: str) -> int:
        """Return the tenant's filter token of a text."""
        return self.tokenizer.token(text)


def pinned(node: Node, ids: Mapping[tuple[SubjectKind, str], UUID]) -> Node:
    """Return the filter with the surrogate of each subject in the place of its name. All names must be among `ids`."""
    return _renamed(node, lambda kind, name: str(ids[(kind, name)]))


def unpinned(node: Node, names: Mapping[UUID, tuple[SubjectKind, str]]) -> Node:
    """Return a pinned filter with names again; who was erased stays a surrogate."""
    return _renamed(node, lambda _, surrogate: names.get(UUID(surrogate), (None, surrogate))[1])


def pinned_subjects(node: Node) -> set[UUID]:
    """Return the surrogates in a pinned filter."""
    return {UUID(surrogate) for _, surrogate in subject_names(node)}


def meets(node: Node, memory: StoredMemory) -> bool:
    """Tell whether a stored memory meets a pinned filter. Pure."""
    return matches(node, _with_surrogates(memory))


def lookup(keyring: Keyring, scope: Scope) -> SurrogateLookup:
    """Return what compiles a pinned filter for the tenant."""
    return SurrogateLookup(Tokenizer(keyring.tenant_secret(scope.tenant_id, "filter-tokens")))


def tenant_cipher(keyring: Keyring, scope: Scope) -> Cipher:
    """Return the cipher for what belongs to the tenant itself and to none of its subjects."""
    return Cipher(keyring.tenant_secret(scope.tenant_id, "tenant-content"))


def seal_filter(keyring: Keyring, scope: Scope, node: Node, place: Place) -> bytes:
    """Return a pinned filter, sealed for its place."""
    return tenant_cipher(keyring, scope).seal_json(as_wire(node), place)


def open_filter(keyring: Keyring, scope: Scope, sealed: bytes, place: Place) -> Node:
    """Return a pinned filter that was sealed."""
    return read_filter(tenant_cipher(keyring, scope).open_json(sealed, place))


def read_filter(wire: Json) -> Node:
    """Return the tree of a filter that was rendered by `as_wire`."""
    return parse_filter(wire, limits=_LIMITS)


def _renamed(node: Node, rename: Callable[[SubjectKind, str], str]) -> Node:
    match node:
        case All(parts):
            return All(tuple(_renamed(part, rename) for part in parts))
        case Any_(parts):
            return Any_(tuple(_renamed(part, rename) for part in parts))
        case Not(part):
            return Not(_renamed(part, rename))
        case Condition():
            kind = node.field.subject
            if kind is None or node.op is Op.EXISTS:
                return node
            if isinstance(node.value, tuple):
                return replace(node, value=tuple(_new(kind, one, rename) for one in node.value))
            return replace(node, value=_new(kind, node.value, rename))


def _new(kind: SubjectKind, value: Scalar, rename: Callable[[SubjectKind, str], str]) -> Scalar:
    return rename(kind, value) if isinstance(value, str) else value


def _with_surrogates(stored: StoredMemory) -> Memory:
    names = (stored.user_id, stored.agent_id, stored.app_id, stored.run_id)
    return Memory(
        id=stored.id,
        text=stored.text,
        subjects=SubjectNames(*(None if one is None else str(one) for one in names)),
        metadata=stored.metadata,
        categories=stored.categories,
        created_at=stored.created_at,
        updated_at=stored.updated_at,
        expires_on=stored.expires_on,
        actor=stored.actor,
        role=stored.role,
        inferred=stored.inferred,
        version=stored.version,
    )
