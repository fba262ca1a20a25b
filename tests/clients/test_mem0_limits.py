"""A tenant at its limits, as Mem0's Python client tells of it: it knows a full store and too many requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import psycopg
import pytest
from mem0 import MemoryClient
from mem0.exceptions import MemoryQuotaExceededError, RateLimitError

from service.scope import Limit, TenantId
from service.wiring import Services
from tests.conftest import Postgres, principal_of

pytestmark = [
    pytest.mark.clients,
    # What Mem0 and the libraries under it warn of is not ours to mend.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

Connect = Callable[..., MemoryClient]


@pytest.fixture
def connect(services: Services, tenant: TenantId, url: str) -> Iterator[Connect]:
    """Make a client with a key of a tenant that has these limits."""
    with ExitStack() as stack:

        def make(**limits: int) -> MemoryClient:
            services.installation.tenants.set_limits(str(tenant), {Limit(name): most for name, most in limits.items()})
            secret = principal_of(services, tenant)[1]
            return MemoryClient(api_key=secret, host=url, client=stack.enter_context(httpx.Client()))

        yield make


def test_a_full_tenant(connect: Connect) -> None:
    client = connect(memories=0)
    with pytest.raises(MemoryQuotaExceededError):
        client.add([{"role": "user", "content": "one"}], user_id="alice", infer=False)


def test_too_many_requests(connect: Connect, database: Postgres) -> None:
    client = connect(requests_per_second=1)
    # It fills no more: as if it had been filled in the future.
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("UPDATE rate_buckets SET at = now() + interval '1 hour'")
    with pytest.raises(RateLimitError) as caught:
        [client.get_all(filters={"user_id": "alice"}) for _ in range(3)]
    assert caught.value.debug_info["retry_after"] >= 1
    assert caught.value.debug_info["x_ratelimit_limit"] == "1"
