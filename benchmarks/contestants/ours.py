"""ratelimit: one check takes from every limit at once."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from benchmarks import BenchmarkError
from benchmarks.contestants import AsyncCheck, Check
from benchmarks.workload import Quota
from ratelimit import AsyncLimiter, Decision, Limit, Limiter

DEADLINE: Final = 5.0  # seconds; a busy machine is not an outage, and answers during an outage are no figure


def limits_of(quotas: Sequence[Quota]) -> list[Limit]:
    return [Limit(q.name, f"{q.count}/{q.period}s", burst=q.burst, unit=q.unit) for q in quotas]


def _options(quotas: Sequence[Quota]) -> Callable[[int], Any]:
    # None for one request, which is what a check costs anyway.
    units = {quota.unit for quota in quotas}
    one = {} if units == {"requests"} else {"cost": dict.fromkeys(units, 1)}
    return lambda cost: one if cost == 1 else {"cost": dict.fromkeys(units, cost)}


def _is_admitted(decision: Decision) -> bool:
    if decision.source == "outage":
        raise BenchmarkError("the store did not answer in time")
    return decision.allowed


def blocking(url: str, quotas: Sequence[Quota], _variant: str) -> Check:
    limiter, options = Limiter(url, limits_of(quotas), deadline=DEADLINE), _options(quotas)
    return lambda key, cost: _is_admitted(limiter.check(key, **options(cost)))


async def asyncio(url: str, quotas: Sequence[Quota], _variant: str) -> AsyncCheck:
    limiter, options = AsyncLimiter(url, limits_of(quotas), deadline=DEADLINE), _options(quotas)
    await limiter.ping()

    async def check(key: str, cost: int) -> bool:
        return _is_admitted(await limiter.check(key, **options(cost)))

    return check
