"""The limiters against their peers, and against redis-py alone, on one real server.

Each contestant plays in a child process of its own, one at a time. In a round every cell of the
matrix is visited, and in each cell every contestant, beginning with another one each round; so
whatever else the machine does, it does to all of them. Ratios are taken within a round.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Final, Literal

from benchmarks import crew, server
from benchmarks.contestants import BUCKET, CONTESTANTS, EMPTY, OURS, THROTTLED
from benchmarks.report import Result, progress, spread_of_rounds
from benchmarks.worker import LOOP, Order
from benchmarks.workload import ONE, THREE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.crew import Measured, Worker

MANY: Final = 10_000
"""Keys, where it is not one hot one."""

Mode = Literal["asyncio", "blocking"]


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One place in the matrix.

    Attributes:
        mode: how calls are made.
        concurrency: tasks or threads.
        keys: 1 hot one, or `MANY`.
        limits: of each key.
    """

    mode: Mode
    concurrency: int
    keys: int
    limits: int

    @property
    def label(self) -> str:
        """The cell in words."""
        who = "task" if self.mode == "asyncio" else "thread"
        plural = "s" if self.concurrency > 1 else ""
        keys = f"{self.keys:,} keys" if self.keys > 1 else "a hot key"
        limits = f"{self.limits} limits" if self.limits > 1 else "1 limit"
        return f"{self.concurrency} {who}{plural}, {keys}, {limits}"

    def order(self, url: str, seconds: float) -> Order:
        """Return what to tell a child."""
        quotas = ONE if self.limits == 1 else THREE
        return Order(url, quotas, self.keys, f"{self.limits}-", concurrency=self.concurrency, seconds=seconds)

    def contestants(self, names: Sequence[str]) -> list[str]:
        """Leave out who makes no sense here: deciding nothing three times over is nothing to compare."""
        return [name for name in names if self.limits == 1 or CONTESTANTS[name].decides]


ONE_EACH: Final = Cell("asyncio", 256, MANY, 1)
THREE_EACH: Final = Cell("asyncio", 256, MANY, 3)
ALONE: Final = Cell("asyncio", 1, MANY, 1)
ALONE_THREE: Final = Cell("asyncio", 1, MANY, 3)
THREAD: Final = Cell("blocking", 1, MANY, 1)

HEADLINES: Final = (ONE_EACH, THREE_EACH, ALONE, ALONE_THREE, THREAD)
"""What the required ratios are taken from; measured in more rounds than the others."""

_MODES: Final[dict[Mode, tuple[int, ...]]] = {"asyncio": (1, 16, 256), "blocking": (1, 16)}

MATRIX: Final = tuple(
    Cell(mode, concurrency, keys, limits)
    for mode, counts in _MODES.items()
    for concurrency, keys, limits in product(counts, (1, MANY), (1, 3))
)


WAITING: Final = tuple(name for name in CONTESTANTS if name.startswith("pyrate"))
"""Not sent through all keys beforehand: with threads that run never ended, asleep inside a call. They keep
an object for each key, so what is measured of them may include making it."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much to measure.

    Attributes:
        cells: of the matrix.
        seconds: for each contestant in each cell and round.
        rounds: of all cells.
        headlines: rounds of the headlines, those among them.
        names: of the contestants.
    """

    cells: tuple[Cell, ...] = MATRIX
    seconds: float = 0.2
    rounds: int = 3
    headlines: int = 5
    names: tuple[str, ...] = tuple(CONTESTANTS)


FULL: Final = Size()
QUICK: Final = Size(
    cells=HEADLINES,
    seconds=0.1,
    headlines=2,
    names=(OURS, EMPTY, BUCKET, "limits fixed window", THROTTLED, "pyrate-limiter token bucket"),
)

_Found = dict[Cell, dict[str, list["Measured"]]]


def run(size: Size = FULL) -> Result:
    """Run the benchmark.

    Raises:
        StoreUnavailable: the server does not start.
        CrewError: a contestant failed.
    """
    found: _Found = defaultdict(lambda: defaultdict(list))
    visits = list(_visits(size))
    with server.running() as target, progress() as bar:
        task = bar.add_task("library", total=sum(len(cell.contestants(size.names)) for _, cell in visits))
        for mode in sorted({cell.mode for cell in size.cells}):
            with crew.hired(size.names, mode) as workers:
                for number, cell in visits:
                    if cell.mode == mode:
                        for worker in _turn(workers, cell, number):
                            order = cell.order(target.url, size.seconds)
                            if worker.name not in WAITING:
                                worker.meet(order)
                            found[cell][worker.name].append(crew.measure(target, worker, order))
                            bar.advance(task)
    return _result(size, found)


def _visits(size: Size) -> Iterator[tuple[int, Cell]]:
    """Give the rounds' numbers and cells in the order that they are measured."""
    for number in range(max(size.rounds, size.headlines)):
        for cell in size.cells:
            if number < (size.headlines if cell in HEADLINES else size.rounds):
                yield number, cell


def _turn(workers: Sequence[Worker], cell: Cell, number: int) -> list[Worker]:
    by_name = {worker.name: worker for worker in workers}
    return [by_name[name] for name in crew.rotated(cell.contestants(list(by_name)), number)]


def _result(size: Size, found: _Found) -> Result:
    cells = [
        {
            "mode": cell.mode,
            "concurrency": cell.concurrency,
            "keys": cell.keys,
            "limits": cell.limits,
            "label": cell.label,
            "contestants": {name: _figures(found[cell][name]) for name in cell.contestants(size.names)},
        }
        for cell in size.cells
    ]
    figures = {
        "event_loop": LOOP,
        "seconds_each": size.seconds,
        "warm_up_calls": f"{crew.WARM} for each task or thread, and one for each key, not counted",
        "cells": cells,
    }
    headlines = {cell.label for cell in HEADLINES}
    rows = [row for cell in cells if cell["label"] in headlines for row in _rows(cell)]
    title = "Limiters in process, on one real Valkey over a Unix socket"
    return Result("library", title, rows, figures, list(_faults(found)))


def _figures(rounds: Sequence[Measured]) -> dict[str, Any]:
    samples = [measured.sample for measured in rounds]
    return {
        "decisions_per_second": spread_of_rounds([sample.rate for sample in samples]),
        "p50_ms": spread_of_rounds([1e3 * sample.p50 for sample in samples]),
        "p99_ms": spread_of_rounds([1e3 * sample.p99 for sample in samples]),
        "client_cpu_us": spread_of_rounds([1e6 * sample.cpu / sample.calls for sample in samples]),
        "redis_us": spread_of_rounds([measured.redis for measured in rounds]),
        "redis_process_us": spread_of_rounds([measured.process for measured in rounds]),
        "refused": sum(sample.calls - sample.admitted for sample in samples),
    }


def _faults(found: _Found) -> Iterator[str]:
    """Say where we refused something although there was room for everything."""
    for cell, contestants in found.items():
        samples = [measured.sample for measured in contestants[OURS]]
        refused = sum(sample.calls - sample.admitted for sample in samples)
        if refused:
            yield f"library: {refused:,} wrongly refused with {cell.label}"


def _rows(cell: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield cell["label"], ""
    for name, figures in cell["contestants"].items():
        rate, p50 = figures["decisions_per_second"], figures["p50_ms"]["median"]
        yield (
            f"  {name}",
            f"{rate['median']:,.0f}/s ({rate['min']:,.0f} to {rate['max']:,.0f}), p50 {p50:.2f} ms",
        )
