"""pyrate-limiter: a `BucketFactory` that routes each key to a bucket of its own, as its README has it.

`log` is its `RedisBucket`, `token-bucket` its `StateBucket` on a `RedisStateStore`, which the README
recommends for long windows. A bucket holds several rates of one unit and decides them together, so
limits are grouped by unit: one limiter each.

Tasks ask with `blocking=False`, which answers at once. Threads cannot: it then refuses whenever
another thread holds the limiter's lock, nine calls of ten with 16 threads, whatever the limit. So
threads ask with its default, which would wait for room, where all there is to wait for is the lock.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import redis
import redis.asyncio
from pyrate_limiter import (
    AbstractBucket,
    BucketFactory,
    Limiter,
    Rate,
    RateItem,
    RedisBucket,
    RedisStateStore,
    StateBucket,
    TokenBucket,
)
from pyrate_limiter.buckets.redis_bucket import LuaScript
from pyrate_limiter.clocks import WallClock

from benchmarks.contestants import CONNECTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.workload import Quota


class _Buckets(BucketFactory):
    """A bucket for each key, made when first asked for."""

    def __init__(self, client: Any, unit: str, rates: list[Rate], variant: str, sha: str) -> None:  # noqa: ANN401 - either client
        self._client, self._unit, self._rates, self._variant, self._sha = client, unit, rates, variant, sha
        self._clock = WallClock()
        self._algorithm = TokenBucket()
        self._buckets: dict[str, AbstractBucket] = {}

    def wrap_item(self, name: str, weight: int = 1) -> RateItem:
        """Stamp an item with the time."""
        return RateItem(name, self._clock.now(), weight=weight)

    def get(self, item: RateItem) -> AbstractBucket:
        """Return the bucket of an item's key."""
        bucket = self._buckets.get(item.name)
        if bucket is None:
            bucket = self._buckets[item.name] = self._make(f"{self._variant}:{item.name}:{self._unit}")
        return bucket

    def _make(self, key: str) -> AbstractBucket:
        if self._variant == "log":
            # What `RedisBucket.init` does, less one round trip for each key to load the same script.
            return self.create(RedisBucket, self._rates, self._client, key, self._sha)
        return self.create(StateBucket, self._rates, self._algorithm, RedisStateStore(self._client, key))


def _limiters(client: Any, quotas: Sequence[Quota], variant: str, sha: str) -> list[Limiter]:  # noqa: ANN401 - either client
    units: dict[str, list[Rate]] = {}
    for quota in sorted(quotas, key=lambda quota: quota.period):
        # A log of a window has no burst apart from the count.
        count, burst = (quota.capacity, None) if variant == "log" else (quota.count, quota.burst)
        units.setdefault(quota.unit, []).append(Rate(count, 1000 * quota.period, burst))
    return [Limiter(_Buckets(client, unit, rates, variant, sha)) for unit, rates in units.items()]


class Blocking:
    """pyrate-limiter for threads."""

    def __init__(self, url: str, quotas: Sequence[Quota], variant: str) -> None:
        self._client: Any = redis.Redis.from_url(url)
        sha = self._client.script_load(LuaScript.PUT_ITEM)
        self._limiters = _limiters(self._client, quotas, variant, sha)

    def check(self, key: str, cost: int) -> bool:
        """See `contestants.Blocking`."""
        return all(limiter.try_acquire(key, cost) for limiter in self._limiters)

    def close(self) -> None:
        """See `contestants.Blocking`."""
        for limiter in self._limiters:
            limiter.close()
        self._client.close()


class Asyncio:
    """pyrate-limiter for asyncio."""

    def __init__(self, url: str, quotas: Sequence[Quota], variant: str) -> None:
        self._client: Any = redis.asyncio.Redis.from_url(url, max_connections=CONNECTIONS)
        self._quotas, self._variant = quotas, variant

    async def open(self) -> None:
        """See `contestants.Asyncio`."""
        sha = await self._client.script_load(LuaScript.PUT_ITEM)
        self._limiters = _limiters(self._client, self._quotas, self._variant, sha)

    async def check(self, key: str, cost: int) -> bool:
        """See `contestants.Asyncio`."""
        return all([await limiter.try_acquire_async(key, cost, blocking=False) for limiter in self._limiters])

    async def close(self) -> None:
        """See `contestants.Asyncio`."""
        for limiter in self._limiters:
            limiter.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()  # its leaker would go on and complain that the client is closed
        await self._client.aclose()
