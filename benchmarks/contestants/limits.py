"""limits: `strategy.hit(item, *identifiers)`, the one call its quickstart has for consuming a request.

Several limits are several hits, one after the other, as slowapi and flask-limiter do it. Each strategy has a
prefix of its own, because two of them on one key end in WRONGTYPE.
"""

from collections.abc import Sequence
from typing import Any

from limits import RateLimitItemPerSecond, aio, storage, strategies

from benchmarks.contestants import CONNECTIONS, AsyncCheck, Check
from benchmarks.workload import Quota


def _items(quotas: Sequence[Quota]) -> list[tuple[Any, str]]:
    return [(RateLimitItemPerSecond(quota.capacity, quota.period), quota.name) for quota in quotas]


def blocking(url: str, quotas: Sequence[Quota], variant: str) -> Check:
    store = storage.RedisStorage(f"redis+{url}", key_prefix=variant)
    hit, items = getattr(strategies, f"{variant}RateLimiter")(store).hit, _items(quotas)
    return lambda key, cost: all(hit(item, name, key, cost=cost) for item, name in items)


async def asyncio(url: str, quotas: Sequence[Quota], variant: str) -> AsyncCheck:
    store = aio.storage.RedisStorage(
        f"async+redis+{url}", implementation="redispy", key_prefix=variant, max_connections=CONNECTIONS
    )
    hit, items = getattr(aio.strategies, f"{variant}RateLimiter")(store).hit, _items(quotas)

    async def check(key: str, cost: int) -> bool:
        return all([await hit(item, name, key, cost=cost) for item, name in items])

    return check
