"""redis-py with a script of one's own: the floor (`return 1`), and a token bucket as one would write it.

`evalsha` of a script loaded once is what redis-py's documentation has for a script that is called
often; several limits are several calls of it in one pipeline, which is its advice for several calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import redis
import redis.asyncio

from benchmarks.contestants import CONNECTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.workload import Quota

SCRIPTS: Final = {
    "empty": "return 1",
    "bucket": """
        local rate, burst, cost = ARGV[1] / ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
        local time = redis.call('TIME')
        local now = time[1] + time[2] / 1000000
        local state = redis.call('HMGET', KEYS[1], 'tokens', 'at')
        local tokens, at = tonumber(state[1]) or burst, tonumber(state[2]) or now
        tokens = math.min(burst, tokens + (now - at) * rate)
        if tokens < cost then return 0 end
        redis.call('HSET', KEYS[1], 'tokens', tokens - cost, 'at', now)
        redis.call('PEXPIRE', KEYS[1], math.ceil((burst - tokens + cost) / rate * 1000))
        return 1
    """,
}


def _arguments(quotas: Sequence[Quota], key: str, cost: int) -> list[tuple[object, ...]]:
    return [(1, f"{key}:{q.name}", q.count, q.period, q.capacity, cost) for q in quotas]


class Blocking:
    """redis-py for threads."""

    def __init__(self, url: str, quotas: Sequence[Quota], variant: str) -> None:
        self._client: Any = redis.Redis.from_url(url)
        self._quotas = quotas
        self._sha = self._client.script_load(SCRIPTS[variant])

    def check(self, key: str, cost: int) -> bool:
        """See `contestants.Blocking`."""
        calls = _arguments(self._quotas, key, cost)
        if len(calls) == 1:
            return bool(self._client.evalsha(self._sha, *calls[0]))
        pipeline = self._client.pipeline(transaction=False)
        for call in calls:
            pipeline.evalsha(self._sha, *call)
        return all(pipeline.execute())

    def close(self) -> None:
        """See `contestants.Blocking`."""
        self._client.close()


class Asyncio:
    """redis-py for asyncio."""

    def __init__(self, url: str, quotas: Sequence[Quota], variant: str) -> None:
        self._client: Any = redis.asyncio.Redis.from_url(url, max_connections=CONNECTIONS)
        self._quotas = quotas
        self._script = SCRIPTS[variant]

    async def open(self) -> None:
        """See `contestants.Asyncio`."""
        self._sha = await self._client.script_load(self._script)

    async def check(self, key: str, cost: int) -> bool:
        """See `contestants.Asyncio`."""
        calls = _arguments(self._quotas, key, cost)
        if len(calls) == 1:
            return bool(await self._client.evalsha(self._sha, *calls[0]))
        pipeline = self._client.pipeline(transaction=False)
        for call in calls:
            pipeline.evalsha(self._sha, *call)
        return all(await pipeline.execute())

    async def close(self) -> None:
        """See `contestants.Asyncio`."""
        await self._client.aclose()
