"""What is asked of the collection on a Qdrant server, for one tenant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar
from uuid import UUID

from qdrant_client import QdrantClient, models

from service.index.finding import Found, find, found
from service.index.points import identity
from service.index.questions import ByMeaning, ByWords, Finding, Search
from service.index.selection import IDENTITY, Selection
from service.index.server_requests import Quantized, query_request, server_filter
from service.scope import TenantId

_T = TypeVar("_T")


class Addressing(Protocol):
    """What knows which shards of a collection a tenant's points are in."""

    def addressed(self, name: str, tenant_id: TenantId, call: Callable[[str, str | None], _T]) -> _T:
        """Call with a collection, or an alias of one, and the shard key of a tenant in it."""
        ...


class Reach:
    """The collection behind an alias and, where it has shard keys, one tenant's shards of it."""

    def __init__(self, index: Addressing, name: str, tenant_id: TenantId) -> None:
        self._index = index
        self._name = name
        self._tenant = tenant_id

    def __call__(self, call: Callable[[str, str | None], _T], /) -> _T:
        return self._index.addressed(self._name, self._tenant, call)


class ServerReader:
    """See `Reader`. Searches ask by `whole`, which leads nowhere while the index is not complete."""

    def __init__(
        self, client: QdrantClient, reach: Reach, whole: Reach, *, own_idf: bool, quantization: Quantized
    ) -> None:
        self._quantization = quantization
        self._client = client
        self._reach = reach
        self._whole = whole
        self._own_idf = own_idf

    def find(self, search: Search) -> Finding:
        """See `Reader`."""
        return find(self._ask, search)

    def _ask(self, asked: Sequence[ByMeaning | ByWords | None]) -> list[dict[int, Found]]:
        questions = {number: question for number, question in enumerate(asked) if question is not None}

        def ask(name: str, key: str | None) -> list[models.QueryResponse]:
            requests = [
                query_request(question, own_idf=self._own_idf, quantization=self._quantization, key=key)
                for question in questions.values()
            ]
            return self._client.query_batch_points(name, requests)

        answers = dict(zip(questions, self._whole(ask) if questions else [], strict=True))
        return [found(answers[number].points) if number in answers else {} for number in range(len(asked))]

    def scroll(self, where: Selection, *, limit: int, after: UUID | None = None) -> tuple[dict[UUID, int], UUID | None]:
        """See `Reader`."""

        def scroll(name: str, key: str | None) -> tuple[list[models.Record], Any]:
            return self._client.scroll(
                name,
                scroll_filter=server_filter(where),
                limit=limit,
                offset=None if after is None else str(after),
                with_payload=IDENTITY,
                shard_key_selector=key,
            )

        records, cursor = self._reach(scroll)
        return dict(identity(record.payload) for record in records), None if cursor is None else UUID(str(cursor))

    def count(self, where: Selection) -> int:
        """See `Reader`."""

        def count(name: str, key: str | None) -> models.CountResult:
            return self._client.count(name, count_filter=server_filter(where), exact=True, shard_key_selector=key)

        return self._reach(count).count
