"""throttled-py: `Throttled(using=…, quota=…, store=RedisStore(server=…)).limit(key, cost)`.

That is its README's "function call" and Redis store; a `Throttled` has one quota, so each limit has its own.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import throttled
import throttled.asyncio
from throttled import rate_limiter

from benchmarks.contestants import CONNECTIONS, AsyncCheck, Check
from benchmarks.workload import Quota

_OPTIONS = {"CONNECTION_POOL_KWARGS": {"max_connections": CONNECTIONS}}


def _limits(package: Any, url: str, quotas: Sequence[Quota], using: str) -> list[Any]:
    # Both of its packages have the same names.
    store = package.RedisStore(server=url, options=_OPTIONS)
    rates = [rate_limiter.per_duration(timedelta(seconds=q.period), q.count, q.burst) for q in quotas]
    return [
        package.Throttled(using=using, quota=rate, store=store, key_prefix=f"throttled:{q.name}")
        for q, rate in zip(quotas, rates, strict=True)
    ]


def blocking(url: str, quotas: Sequence[Quota], variant: str) -> Check:
    limits = _limits(throttled, url, quotas, variant)
    return lambda key, cost: not any(limit.limit(key, cost).limited for limit in limits)


async def asyncio(url: str, quotas: Sequence[Quota], variant: str) -> AsyncCheck:
    limits = _limits(throttled.asyncio, url, quotas, variant)

    async def check(key: str, cost: int) -> bool:
        return not any([(await limit.limit(key, cost)).limited for limit in limits])

    return check
