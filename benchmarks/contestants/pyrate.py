"""pyrate-limiter: a `BucketFactory` that gives each key a bucket of its own, as its README has it.

`log` is its `RedisBucket`, `token-bucket` its `StateBucket` on a `RedisStateStore`, which the README
recommends for long windows. A bucket decides several rates of one unit together: one limiter for each unit.

Tasks ask with `blocking=False`, which answers at once. For threads it would refuse whenever another thread
holds the limiter's lock, nine calls of ten with 16 threads, whatever the limit. So threads ask with its
default, which would wait for room, but here it only waits for the lock.
"""

import functools
from collections.abc import Sequence
from typing import Any

import pyrate_limiter as pyrate
import redis
import redis.asyncio
from pyrate_limiter.buckets.redis_bucket import LuaScript
from pyrate_limiter.clocks import WallClock

from benchmarks.contestants import CONNECTIONS, AsyncCheck, Check
from benchmarks.workload import Quota


class _Buckets(pyrate.BucketFactory):
    def __init__(self, client: Any, unit: str, rates: list[pyrate.Rate], variant: str, sha: str) -> None:
        self._clock, algorithm = WallClock(), pyrate.TokenBucket()

        def make(name: str) -> pyrate.AbstractBucket:
            key = f"{variant}:{name}:{unit}"
            if variant == "log":
                # What `RedisBucket.init` does, less one round trip for each key to load the same script.
                return self.create(pyrate.RedisBucket, rates, client, key, sha)
            return self.create(pyrate.StateBucket, rates, algorithm, pyrate.RedisStateStore(client, key))

        self._make = functools.cache(make)

    def wrap_item(self, name: str, weight: int = 1) -> pyrate.RateItem:
        return pyrate.RateItem(name, self._clock.now(), weight=weight)

    def get(self, item: pyrate.RateItem) -> pyrate.AbstractBucket:
        return self._make(item.name)


def make_limiters(client: Any, quotas: Sequence[Quota], variant: str, sha: str) -> list[pyrate.Limiter]:
    units: dict[str, list[pyrate.Rate]] = {}
    for quota in sorted(quotas, key=lambda quota: quota.period):
        # A log of a window has no burst apart from the count.
        count, burst = (quota.capacity, None) if variant == "log" else (quota.count, quota.burst)
        units.setdefault(quota.unit, []).append(pyrate.Rate(count, 1000 * quota.period, burst))
    return [pyrate.Limiter(_Buckets(client, unit, rates, variant, sha)) for unit, rates in units.items()]


def blocking(url: str, quotas: Sequence[Quota], variant: str) -> Check:
    client: Any = redis.Redis.from_url(url)
    limiters = make_limiters(client, quotas, variant, client.script_load(LuaScript.PUT_ITEM))
    return lambda key, cost: all(limiter.try_acquire(key, cost) for limiter in limiters)


async def asyncio(url: str, quotas: Sequence[Quota], variant: str) -> AsyncCheck:
    client: Any = redis.asyncio.Redis.from_url(url, max_connections=CONNECTIONS)
    limiters = make_limiters(client, quotas, variant, await client.script_load(LuaScript.PUT_ITEM))

    async def check(key: str, cost: int) -> bool:
        return all([await limiter.try_acquire_async(key, cost, blocking=False) for limiter in limiters])

    return check
