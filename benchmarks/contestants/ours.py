"""ratelimit: one check takes from every limit at once."""

import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, Final

from benchmarks import BenchmarkError
from benchmarks.contestants import AsyncCheck, Check
from benchmarks.workload import Quota
from ratelimit import AsyncLimiter, Decision, Limit, Limiter, Observer

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


def observers_of(variant: str) -> list[Observer]:
    """Make the observers: none, `metrics` in one process, `workers`' metrics, or `all` of the sidecar."""
    if not variant:
        return []
    if variant == "workers":  # prometheus_client reads this when it is imported, for the first time below
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="benchmark-")
    from ratelimit.observers.activity import Activity  # noqa: PLC0415 - after the variable is set
    from ratelimit.observers.denial_log import DenialLog  # noqa: PLC0415 - likewise
    from ratelimit.observers.metrics import PrometheusMetrics  # noqa: PLC0415 - likewise

    return [PrometheusMetrics(), *([Activity(), DenialLog()] if variant == "all" else [])]


def blocking(url: str, quotas: Sequence[Quota], variant: str) -> Check:
    observers, options = observers_of(variant), _options(quotas)
    limiter = Limiter(url, limits_of(quotas), deadline=DEADLINE, observers=observers)
    return lambda key, cost: _is_admitted(limiter.check(key, **options(cost)))


async def asyncio(url: str, quotas: Sequence[Quota], variant: str) -> AsyncCheck:
    observers, options = observers_of(variant), _options(quotas)
    limiter = AsyncLimiter(url, limits_of(quotas), deadline=DEADLINE, observers=observers)
    await limiter.ping()

    async def check(key: str, cost: int) -> bool:
        return _is_admitted(await limiter.check(key, **options(cost)))

    return check
