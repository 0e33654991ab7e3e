"""redis-py with a script of one's own: the floor (`return 1`), and a token bucket as one would write it.

`evalsha` of a script loaded once is what redis-py's documentation has for a script that is called often;
several limits are several calls of it in one pipeline, which is its advice for several calls.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import redis
import redis.asyncio

from benchmarks.contestants import CONNECTIONS, AsyncCheck, Check
from benchmarks.workload import Quota

BUCKET: Final = Path(__file__).parents[1].joinpath("lua", "bucket.lua")
SCRIPTS: Final = {"empty": "return 1", "bucket": BUCKET.read_text(encoding="utf-8")}


def _caller(client: Any, sha: str, quotas: Sequence[Quota]) -> Callable[[str, int], Any]:
    def call(key: str, cost: int) -> Any:
        calls = [(sha, 1, f"{key}:{q.name}", q.count, q.period, q.capacity, cost) for q in quotas]
        if len(calls) == 1:
            return client.evalsha(*calls[0])
        pipeline = client.pipeline(transaction=False)
        for arguments in calls:
            pipeline.evalsha(*arguments)
        return pipeline.execute()

    return call


def blocking(url: str, quotas: Sequence[Quota], variant: str) -> Check:
    client: Any = redis.Redis.from_url(url)
    call = _caller(client, client.script_load(SCRIPTS[variant]), quotas)
    return lambda key, cost: _is_admitted(call(key, cost))


async def asyncio(url: str, quotas: Sequence[Quota], variant: str) -> AsyncCheck:
    client: Any = redis.asyncio.Redis.from_url(url, max_connections=CONNECTIONS)
    call = _caller(client, await client.script_load(SCRIPTS[variant]), quotas)

    async def check(key: str, cost: int) -> bool:
        return _is_admitted(await call(key, cost))

    return check


def _is_admitted(answer: Any) -> bool:
    return all(answer) if isinstance(answer, list) else bool(answer)
