"""Words of a text as a BM25 vector whose term ids only the tenant's key can make."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final

from service.index.questions import SparseTerms
from service.index.words import words_of
from service.scope import TenantId
from service.settings.languages import Language

#: Tokens that an average memory has, for the length normalisation. On LoCoMo (turns of 23 words) recall is flat from 40
#: up and falls below 20, where the longer half of the memories is pushed down too much.
AVERAGE_LENGTH: Final = 40.0

_CACHED_TERMS: Final = 20_000
_CACHED_TENANTS: Final = 64
_KEY_BYTES: Final = 32


class Bm25Terms:
    """Makes the vectors of one tenant. Equal words of two tenants have different ids. Safe for many threads.

    With `former` a search also meets the texts whose vectors are still those of the language of before.
    `average_length` must stay as it is for the life of an index: it is part of the stored weights.
    """

    def __init__(
        self,
        key: bytes,
        language: Language = Language.ENGLISH,
        *,
        former: Language | None = None,
        average_length: float = AVERAGE_LENGTH,
    ) -> None:
        if len(key) < _KEY_BYTES:
            raise ValueError(f"a term key has at least {_KEY_BYTES} bytes")
        self._words = words_of(language, average_length)
        self._former = None if former is None else words_of(former, average_length)
        self._key = key
        # Per tenant and bounded: a few thousand words make most of what people write.
        self._keyed = lru_cache(maxsize=_CACHED_TERMS)(self._term)

    def document(self, text: str) -> SparseTerms:
        """Return the vector of a stored text: saturated term frequencies; what is rare is known to the index only."""
        plain = self._words.document(text)
        return self._sparse(zip(plain.indices, plain.values, strict=True))

    def query(self, text: str) -> SparseTerms:
        """Return the vector of a search text: each distinct term once. Stop words alone give an empty one."""
        found = self._words.query(text)
        if self._former is not None:
            found = list(dict.fromkeys([*found, *self._former.query(text)]))
        return self._sparse((term, 1.0) for term in found)

    def _sparse(self, plain: Iterable[tuple[int, float]]) -> SparseTerms:
        weights: dict[int, float] = {}
        for term, weight in plain:
            keyed = self._keyed(term)
            weights[keyed] = weights.get(keyed, 0.0) + weight
        ids = sorted(weights)
        return SparseTerms(tuple(ids), tuple(weights[term] for term in ids))

    def _term(self, term: int) -> int:
        return int.from_bytes(hmac.digest(self._key, term.to_bytes(4, "big"), "sha256")[:4], "big")


class TenantTerms:
    """Hands out the `Bm25Terms` of tenants, those of the last 64 kept, so that their words are keyed once.

    `key_of` returns the secret of a tenant that term ids are made with. Safe for many threads.
    """

    def __init__(self, key_of: Callable[[TenantId], bytes], *, average_length: float = AVERAGE_LENGTH) -> None:
        def make(tenant_id: TenantId, language: Language, former: Language | None) -> Bm25Terms:
            return Bm25Terms(key_of(tenant_id), language, former=former, average_length=average_length)

        self._of = lru_cache(maxsize=_CACHED_TENANTS)(make)

    def of(
        self, tenant_id: TenantId, language: Language = Language.ENGLISH, former: Language | None = None
    ) -> Bm25Terms:
        """Return what makes the term vectors of a tenant whose texts are in a language."""
        return self._of(tenant_id, language, former)

    def forget(self) -> None:
        """Drop every key, as after a tenant was removed."""
        self._of.cache_clear()
