"""Four processes at one key at once: what was admitted ÷ what the limit allows."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from benchmarks.contestants import BUCKET, CONTESTANTS, FEW, OURS
from benchmarks.figures import Cell, Found
from benchmarks.runner import Benchmark, Worker
from benchmarks.worker import Order, Sample
from benchmarks.workload import DAY, Quota

PROCESSES: Final = 4
TASKS: Final = 16
DAILY: Final = Quota("requests", 1000, DAY)
SHORT: Final = Quota("requests", 100, 1, burst=10)  # refills in a tenth of a second: some keep no key at all
DAILY_CELL: Final = Cell(f"{DAILY.count:,} a day")
SHORT_CELL: Final = Cell("100/second, burst 10")


@dataclass
class Accuracy(Benchmark):
    name = "accuracy"
    title = f"{PROCESSES} processes at one key at once"
    quick: ClassVar = {"rounds": 1, "calls": 500, "names": FEW}
    rounds: int = 3  # each with a fresh key
    calls: int = 1000  # of each process
    # One or two ways of each peer: four processes for each take a while to start.
    names: tuple[str, ...] = (*FEW, BUCKET, "limits moving window", "pyrate-limiter token bucket")

    def cells(self) -> Iterator[Cell]:
        for name in self.names:  # a phase for each contestant, whose processes then end
            yield replace(DAILY_CELL, contestants=(name,), phase=name)
            if CONTESTANTS[name].bursts:
                yield replace(SHORT_CELL, contestants=(name,), phase=name, rounds=1)

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
