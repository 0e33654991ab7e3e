"""throttled-py: `Throttled(using=…, quota=…, store=RedisStore(server=…)).limit(key, cost)`.

That is its README's "function call" with its README's Redis store; one `Throttled` for each limit,
because each has one quota.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import throttled
import throttled.asyncio
from throttled import rate_limiter

from benchmarks.contestants import CONNECTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.workload import Quota

_OPTIONS = {"CONNECTION_POOL_KWARGS": {"max_connections": CONNECTIONS}}


def _each(package: Any, url: str, quotas: Sequence[Quota], using: str) -> tuple[Any, list[Any]]:  # noqa: ANN401 - a module
    """Make a `Throttled` for each quota on one store; both of its packages have the same names."""
    store = package.RedisStore(server=url, options=_OPTIONS)
    return store, [
        package.Throttled(
            using=using,
            quota=rate_limiter.per_duration(timedelta(seconds=quota.period), quota.count, quota.burst),
            store=store,
            key_prefix=f"throttled:{quota.name}",
        )
        for quota in quotas
    ]


class Blocking:
    """throttled-py for threads."""

    def __init__(self, url: str, quotas: Sequence[Quota], variant: str) -> None:
        self._store, self._throttled = _each(throttled, url, quotas, variant)

    def check(self, key: str, cost: int) -> bool:
        """See `contestants.Blocking`."""
        return not any(limit.limit(key, cost).limited for limit in self._throttled)

    def close(self) -> None:
        """See `contestants.Blocking`; it has no way of its own to close a store."""
        self._store._backend.get_client().connection_pool.disconnect()  # noqa: SLF001 - see above


class Asyncio:
    """throttled-py for asyncio."""

    def __init__(self, url: str, quotas: Sequence[Quota], variant: str) -> None:
        self._store, self._throttled = _each(throttled.asyncio, url, quotas, variant)

    async def open(self) -> None:
        """See `contestants.Asyncio`."""

    async def check(self, key: str, cost: int) -> bool:
        """See `contestants.Asyncio`."""
        return not any([(await limit.limit(key, cost)).limited for limit in self._throttled])

    async def close(self) -> None:
        """See `contestants.Asyncio`."""
        await self._store._backend.get_client().connection_pool.disconnect()  # noqa: SLF001 - as above
