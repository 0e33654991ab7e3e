"""Four processes at one key at once: what was admitted ÷ what the limit allows.

The limit is 1,000 a day and a burst of as many, which does not refill by one in the time it takes.
Ours must admit exactly 1,000. A second limit shows how a small burst at a high rate is kept: more
than the burst and what has refilled meanwhile must never pass.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

from benchmarks.contestants import BUCKET, CONTESTANTS, OURS, THROTTLED
from benchmarks.figures import Cell, Found
from benchmarks.runner import Benchmark, Worker
from benchmarks.worker import Order, Sample
from benchmarks.workload import DAY, Quota

PROCESSES: Final = 4
TASKS: Final = 16
DAILY: Final = Quota("requests", 1000, DAY)
SHORT: Final = Quota("requests", 100, 1, burst=10)
"""A burst that refills in a tenth of a second, for which some keep no key at all."""

DAILY_CELL: Final = Cell(f"{DAILY.count:,} a day")
SHORT_CELL: Final = Cell("100/second, burst 10")

_MORE: Final = (
    BUCKET,
    "limits fixed window",
    "limits moving window",
    THROTTLED,
    "pyrate-limiter token bucket",
)
"""One or two ways of each peer: four processes for each take a while to start."""


@dataclass
class Accuracy(Benchmark):
    name = "accuracy"
    title = f"{PROCESSES} processes at one key at once"

    rounds: int = 3  # each with a fresh key
    calls: int = 1000  # of each process
    names: tuple[str, ...] = (OURS, *_MORE)

    def cells(self) -> list[Cell]:
        # A phase for each contestant, whose processes then end.
        pairs = [(cell, name) for name in self.names for cell in (DAILY_CELL, SHORT_CELL)]
        return [
            replace(cell, contestants=(name,), phase=name, rounds=self.rounds if cell is DAILY_CELL else 1)
            for cell, name in pairs
            if cell is DAILY_CELL or CONTESTANTS[name].bursts
        ]

    def measure(self, cell: Cell, contestant: str, number: int) -> Mapping[str, float]:
        workers = self.crew.hire([contestant], "asyncio", PROCESSES)[contestant]
        if cell.label == SHORT_CELL.label:
            sample = workers[0].run(Order(self.server.url, (SHORT,), 1, "short", calls=self.calls))
            allowed = SHORT.capacity + SHORT.count * sample.seconds / SHORT.period
            return {"calls": sample.calls, "admitted": sample.admitted, "allowed": allowed}
        order = Order(self.server.url, (DAILY,), 1, f"a{number}", TASKS, calls=self.calls)
        admitted = sum(sample.admitted for sample in run_together(workers, order))
        return {"admitted_to_allowed": admitted / DAILY.capacity}

    def notes(self) -> dict[str, object]:
        return {"tasks of each": TASKS}

    def conclude(self, found: Found) -> Iterator[str]:
        for ratio in found.rounds(DAILY_CELL, OURS, "admitted_to_allowed"):
            if ratio != 1:
                yield f"accuracy: admitted {ratio:.4f} of what {DAILY.count} a day allows"
        [admitted], [allowed] = (found.rounds(SHORT_CELL, OURS, name) for name in ("admitted", "allowed"))
        if admitted > allowed:
            yield f"accuracy: admitted {admitted:g} where {allowed:.1f} are allowed"


def run_together(workers: Sequence[Worker], order: Order) -> list[Sample]:
    """Carry out an order in all processes at once, after each has connected."""
    for worker in workers:
        worker.run(replace(order, prefix="warm", calls=order.concurrency))
    with ThreadPoolExecutor(len(workers)) as pool:
        return list(pool.map(lambda worker: worker.run(order), workers))


FULL: Final = (Accuracy(),)
QUICK: Final = (Accuracy(rounds=1, calls=500, names=(OURS, "limits fixed window", THROTTLED)),)
