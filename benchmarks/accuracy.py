"""Four processes at one key at once: what was admitted ÷ what the limit allows.

The limit is 1,000 a day and a burst of as many, which does not refill by one in the time it takes.
Ours must admit exactly 1,000. A second limit shows how a small burst at a high rate is kept: more
than the burst and what has refilled meanwhile must never pass.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from benchmarks import crew, server
from benchmarks.contestants import BUCKET, CONTESTANTS, OURS, THROTTLED
from benchmarks.report import Result, progress, spread_of_rounds
from benchmarks.worker import Order
from benchmarks.workload import DAY, Quota

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.crew import Worker
    from benchmarks.drive import Sample

PROCESSES: Final = 4
TASKS: Final = 16
DAILY: Final = Quota("requests", 1000, DAY)
SHORT: Final = Quota("requests", 100, 1, burst=10)
"""A burst that refills in a tenth of a second, for which some keep no key at all."""

NAMES: Final = (
    OURS,
    BUCKET,
    "limits fixed window",
    "limits moving window",
    THROTTLED,
    "pyrate-limiter token bucket",
)
"""One or two ways of each peer: four processes for each take a while to start."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much to measure.

    Attributes:
        rounds: each with a fresh key.
        calls: of each process.
        names: of the contestants.
    """

    rounds: int = 3
    calls: int = 1000
    names: tuple[str, ...] = NAMES


FULL: Final = Size()
QUICK: Final = Size(rounds=1, calls=500, names=(OURS, "limits fixed window", THROTTLED))


def run(size: Size = FULL) -> Result:
    """Run the benchmark.

    Raises:
        StoreUnavailable: the server does not start.
        CrewError: a contestant failed.
    """
    daily: dict[str, list[float]] = defaultdict(list)
    short: dict[str, dict[str, float]] = {}
    with server.running() as target, progress() as bar:
        task = bar.add_task("accuracy", total=len(size.names))
        for name in size.names:
            with crew.hired([name] * PROCESSES, "asyncio") as workers:
                for number in range(size.rounds):
                    order = Order(target.url, (DAILY,), 1, f"a{number}", TASKS, calls=size.calls)
                    admitted = sum(sample.admitted for sample in _together(workers, order))
                    daily[name].append(admitted / DAILY.capacity)
                if CONTESTANTS[name].bursts:
                    order = Order(target.url, (SHORT,), 1, "short", 1, calls=size.calls)
                    short[name] = _short(workers[0], order)
            bar.advance(task)
    return _result(size, daily, short)


def _together(workers: Sequence[Worker], order: Order) -> list[Sample]:
    """Carry out an order in all processes at once, after each has connected."""
    warm = Order(order.url, order.quotas, 1, "warm", order.concurrency, calls=order.concurrency)
    for worker in workers:
        worker.run(warm)
    return [worker.end() for worker in [worker.begin(order) for worker in workers]]


def _short(worker: Worker, order: Order) -> dict[str, float]:
    sample = worker.run(order)
    allowed = SHORT.capacity + SHORT.count * sample.seconds / SHORT.period
    return {"calls": sample.calls, "admitted": sample.admitted, "allowed": allowed}


def _result(size: Size, daily: dict[str, list[float]], short: dict[str, dict[str, float]]) -> Result:
    figures: dict[str, Any] = {
        "processes": PROCESSES,
        "tasks_each": TASKS,
        "calls_each": size.calls,
        "admitted_to_allowed": {name: spread_of_rounds(ratios) for name, ratios in daily.items()},
        "short_burst": {"limit": "100/second, burst 10", "contestants": short},
    }
    rows = [(name, f"{_ratios(ratios)} of what is allowed") for name, ratios in daily.items()]
    rows += [
        (f"{name}, 100/second, burst 10", f"{s['admitted']} of {s['calls']}; {s['allowed']:.1f} allowed")
        for name, s in short.items()
    ]
    title = f"{PROCESSES} processes at one key at once"
    return Result("accuracy", title, rows, figures, faults_of(figures))


def faults_of(figures: dict[str, Any]) -> list[str]:
    """Say where ours admitted more or less than it allows."""
    ratios = figures["admitted_to_allowed"][OURS]["rounds"]
    short = figures["short_burst"]["contestants"][OURS]
    faults = [
        f"accuracy: admitted {ratio:.4f} of what {DAILY.count} a day allows" for ratio in ratios if ratio != 1
    ]
    if short["admitted"] > short["allowed"]:
        faults.append(f"accuracy: admitted {short['admitted']} where {short['allowed']:.1f} are allowed")
    return faults


def _ratios(ratios: Sequence[float]) -> str:
    return ", ".join(f"{ratio:.3f}" for ratio in ratios)
