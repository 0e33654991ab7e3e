"""ratelimit: one check takes from every limit at once."""

from collections.abc import Callable, Sequence
from typing import Final

from benchmarks import BenchmarkError
from benchmarks.contestants import AsyncCheck, Check
from benchmarks.workload import Quota
from ratelimit import AsyncLimiter, Decision, Limit, Limiter

DEADLINE: Final = 5.0
"""Seconds. A busy machine is not an outage, and answers during an outage are no figure."""


def limits_of(quotas: Sequence[Quota]) -> list[Limit]:
    return [Limit(q.name, f"{q.count}/{q.period}s", burst=q.burst, unit=q.unit) for q in quotas]


def _costs(quotas: Sequence[Quota]) -> Callable[[int], dict[str, int] | None]:
    # None for one request, which is what a check costs anyway.
    units = {quota.unit for quota in quotas}
    ones = None if units == {"requests"} else dict.fromkeys(units, 1)
    return lambda cost: ones if cost == 1 else dict.fromkeys(units, cost)


def _is_admitted(decision: Decision) -> bool:
    if decision.source == "outage":
        raise BenchmarkError("the store did not answer in time")
    return decision.allowed


def blocking(url: str, quotas: Sequence[Quota], _variant: str) -> Check:
    limiter, costs = Limiter(url, limits_of(quotas), deadline=DEADLINE), _costs(quotas)

    def check(key: str, cost: int) -> bool:
        by_unit = costs(cost)
        return _is_admitted(limiter.check(key, cost=by_unit) if by_unit else limiter.check(key))

    return check


async def asyncio(url: str, quotas: Sequence[Quota], _variant: str) -> AsyncCheck:
    limiter, costs = AsyncLimiter(url, limits_of(quotas), deadline=DEADLINE), _costs(quotas)
    await limiter.ping()

    async def check(key: str, cost: int) -> bool:
        by_unit = costs(cost)
        return _is_admitted(await (limiter.check(key, cost=by_unit) if by_unit else limiter.check(key)))

    return check
