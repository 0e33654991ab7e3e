"""limits: `strategy.hit(item, *identifiers)`, the one call its quickstart has for consuming a request.

Several limits are several hits, one after the other, as slowapi and flask-limiter do it. Its asyncio
storage takes the client to use by name; `redispy` is the one whose driver all the others use too.
Each strategy has a prefix of its own, for two of them on one key end in WRONGTYPE.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from limits import RateLimitItemPerSecond, aio, storage, strategies

from benchmarks.contestants import CONNECTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.workload import Quota

STRATEGIES: Final[dict[str, Any]] = {
    "fixed-window": strategies.FixedWindowRateLimiter,
    "moving-window": strategies.MovingWindowRateLimiter,
    "sliding-window-counter": strategies.SlidingWindowCounterRateLimiter,
}
ASYNC_STRATEGIES: Final[dict[str, Any]] = {
    "fixed-window": aio.strategies.FixedWindowRateLimiter,
    "moving-window": aio.strategies.MovingWindowRateLimiter,
    "sliding-window-counter": aio.strategies.SlidingWindowCounterRateLimiter,
}


def _items(quotas: Sequence[Quota]) -> list[tuple[Any, str]]:
    """A window of so many seconds for each quota. It has no burst apart from the count."""
    return [(RateLimitItemPerSecond(quota.capacity, quota.period), quota.name) for quota in quotas]


class Blocking:
    """limits for threads."""

    def __init__(self, url: str, quotas: Sequence[Quota], variant: str) -> None:
        self._storage = storage.RedisStorage(f"redis+{url}", key_prefix=variant)
        self._hit = STRATEGIES[variant](self._storage).hit
        self._items = _items(quotas)

    def check(self, key: str, cost: int) -> bool:
        """See `contestants.Blocking`."""
        return all(self._hit(item, name, key, cost=cost) for item, name in self._items)

    def close(self) -> None:
        """See `contestants.Blocking`."""
        client: Any = self._storage.storage
        client.close()


class Asyncio:
    """limits for asyncio."""

    def __init__(self, url: str, quotas: Sequence[Quota], variant: str) -> None:
        self._storage = aio.storage.RedisStorage(
            f"async+redis+{url}",
            implementation="redispy",
            key_prefix=variant,
            max_connections=CONNECTIONS,
        )
        self._hit = ASYNC_STRATEGIES[variant](self._storage).hit
        self._items = _items(quotas)

    async def open(self) -> None:
        """See `contestants.Asyncio`."""

    async def check(self, key: str, cost: int) -> bool:
        """See `contestants.Asyncio`."""
        return all([await self._hit(item, name, key, cost=cost) for item, name in self._items])

    async def close(self) -> None:
        """See `contestants.Asyncio`."""
        bridge: Any = self._storage.bridge
        await bridge.get_connection().aclose()
