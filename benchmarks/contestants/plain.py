"""redis-py with a script of one's own: the floor (`return 1`), and a token bucket as one would write it.

`evalsha` of a script loaded once is what redis-py's documentation has for a script that is called
often; several limits are several calls of it in one pipeline, which is its advice for several calls.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import redis
import redis.asyncio

from benchmarks.contestants import CONNECTIONS, AsyncCheck, Check
from benchmarks.workload import Quota

SCRIPTS: Final = {
    "empty": "return 1",
    "bucket": Path(__file__).parents[1].joinpath("lua", "bucket.lua").read_text(encoding="utf-8"),
}


def _arguments(quotas: Sequence[Quota], key: str, cost: int) -> list[tuple[object, ...]]:
    return [(1, f"{key}:{q.name}", q.count, q.period, q.capacity, cost) for q in quotas]


def _pipeline(client: Any, sha: str, calls: list[tuple[object, ...]]) -> Any:
    pipeline = client.pipeline(transaction=False)
    for call in calls:
        pipeline.evalsha(sha, *call)
    return pipeline


def blocking(url: str, quotas: Sequence[Quota], variant: str) -> Check:
    client: Any = redis.Redis.from_url(url)
    sha = client.script_load(SCRIPTS[variant])

    def check(key: str, cost: int) -> bool:
        calls = _arguments(quotas, key, cost)
        if len(calls) == 1:
            return bool(client.evalsha(sha, *calls[0]))
        return all(_pipeline(client, sha, calls).execute())

    return check


async def asyncio(url: str, quotas: Sequence[Quota], variant: str) -> AsyncCheck:
    client: Any = redis.asyncio.Redis.from_url(url, max_connections=CONNECTIONS)
    sha = await client.script_load(SCRIPTS[variant])

    async def check(key: str, cost: int) -> bool:
        calls = _arguments(quotas, key, cost)
        if len(calls) == 1:
            return bool(await client.evalsha(sha, *calls[0]))
        return all(await _pipeline(client, sha, calls).execute())

    return check
