"""ratelimit: one check takes from every limit at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ratelimit import AsyncLimiter, Limit, Limiter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.workload import Quota
    from ratelimit import Decision

DEADLINE: Final = 5.0
"""A busy machine is not an outage, and an outage's answers are nobody's figure."""


class OutageError(RuntimeError):
    """The store did not answer, so the figure would be that of the outage's answers."""


def limits_of(quotas: Sequence[Quota]) -> list[Limit]:
    """Say the quotas as limits."""
    return [Limit(q.name, f"{q.count}/{q.period}s", burst=q.burst, unit=q.unit) for q in quotas]


def passed(decision: Decision) -> bool:
    """Return whether the store, or what remembers it, admitted the request."""
    if decision.source == "outage":
        raise OutageError("the store did not answer in time")
    return decision.allowed


class _Costs:
    """What a check costs: nothing needs to be said of a single request."""

    def __init__(self, quotas: Sequence[Quota]) -> None:
        self._units = {quota.unit for quota in quotas}
        self._ones = self.of(1)

    def of(self, cost: int) -> dict[str, int]:
        return dict.fromkeys(self._units, cost)

    def __call__(self, cost: int) -> dict[str, int] | None:
        if cost == 1:
            return None if self._units == {"requests"} else self._ones
        return self.of(cost)


class Blocking:
    """The blocking limiter."""

    def __init__(self, url: str, quotas: Sequence[Quota], _variant: str) -> None:
        self._limiter = Limiter(url, limits_of(quotas), deadline=DEADLINE)
        self._costs = _Costs(quotas)

    def check(self, key: str, cost: int) -> bool:
        """See `contestants.Blocking`."""
        costs = self._costs(cost)
        return passed(self._limiter.check(key, cost=costs) if costs else self._limiter.check(key))

    def close(self) -> None:
        """See `contestants.Blocking`."""
        self._limiter.close()


class Asyncio:
    """The limiter for asyncio."""

    def __init__(self, url: str, quotas: Sequence[Quota], _variant: str) -> None:
        self._limiter = AsyncLimiter(url, limits_of(quotas), deadline=DEADLINE)
        self._costs = _Costs(quotas)

    async def open(self) -> None:
        """See `contestants.Asyncio`."""
        await self._limiter.ping()

    async def check(self, key: str, cost: int) -> bool:
        """See `contestants.Asyncio`."""
        costs = self._costs(cost)
        return passed(await (self._limiter.check(key, cost=costs) if costs else self._limiter.check(key)))

    async def close(self) -> None:
        """See `contestants.Asyncio`."""
        await self._limiter.close()
