"""The limiters beside their peers and redis-py alone, each in a child process, one at a time."""

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import ClassVar, Final

import polars as pl

from benchmarks.contestants import BUCKET, COMPARED, CONTESTANTS, EMPTY, OURS, THROTTLED
from benchmarks.figures import Cell, Found
from benchmarks.runner import WARM, Benchmark
from benchmarks.worker import Mode, Order
from benchmarks.workload import ONE, THREE

RATE: Final = "decisions_per_second"
MANY: Final = 10_000  # keys, where it is not one hot one
# Not sent through all keys beforehand: with threads that run never ended, asleep inside a call. They keep
# an object for each key, so what is measured of them may include making it.
WAITING: Final = tuple(name for name in CONTESTANTS if name.startswith("pyrate"))


@dataclass(frozen=True, kw_only=True)
class LibraryCell(Cell):
    mode: Mode
    concurrency: int  # tasks or threads
    keys: int  # 1 hot one, or `MANY`
    limits: int  # of each key


def cell_of(mode: Mode, concurrency: int, keys: int, limits: int) -> LibraryCell:
    caller = ("task" if mode == "asyncio" else "thread") + ("s" if concurrency > 1 else "")
    which = f"{keys:,} keys" if keys > 1 else "a hot key"
    label = f"{concurrency} {caller}, {which}, {limits} limit{'s' if limits > 1 else ''}"
    return LibraryCell(label, phase=mode, mode=mode, concurrency=concurrency, keys=keys, limits=limits)


ONE_EACH: Final = cell_of("asyncio", 256, MANY, 1)
THREE_EACH: Final = cell_of("asyncio", 256, MANY, 3)
ALONE: Final = cell_of("asyncio", 1, MANY, 1)
ALONE_THREE: Final = cell_of("asyncio", 1, MANY, 3)
THREAD: Final = cell_of("blocking", 1, MANY, 1)
# What the required ratios are taken from; measured in more rounds than the others.
HEADLINES: Final = (ONE_EACH, THREE_EACH, ALONE, ALONE_THREE, THREAD)
MATRIX: Final = (
    *(cell_of("asyncio", *counts) for counts in product((1, 16, 256), (1, MANY), (1, 3))),
    *(cell_of("blocking", *counts) for counts in product((1, 16), (1, MANY), (1, 3))),
)
FEW: Final = (OURS, EMPTY, BUCKET, "limits fixed window", THROTTLED, "pyrate-limiter token bucket")


@dataclass
class Library(Benchmark):
    name = "library"
    title = "Limiters in process, on one real Valkey over a Unix socket"
    quick: ClassVar = {"matrix": HEADLINES, "seconds": 0.1, "headlines": 2, "names": FEW}
    matrix: tuple[LibraryCell, ...] = MATRIX
    seconds: float = 0.2  # for each contestant in each cell and round
    rounds: int = 3
    headlines: int = 5  # rounds of those
    names: tuple[str, ...] = COMPARED

    def cells(self) -> list[LibraryCell]:
        # The contestant that decides nothing is only compared with one limit.
        deciders = tuple(name for name in self.names if CONTESTANTS[name].decides)
        names, rounds = {1: self.names, 3: deciders}, dict.fromkeys(HEADLINES, self.headlines)
        return [replace(c, contestants=names[c.limits], rounds=rounds.get(c, 0)) for c in self.matrix]

    def measure(self, cell: LibraryCell, contestant: str, _number: int) -> Mapping[str, float]:
        [worker] = self.crew.hire(self.names, cell.mode)[contestant]
        quotas, prefix = ONE if cell.limits == 1 else THREE, f"{cell.limits}-"
        order = Order(self.server.url, quotas, cell.keys, prefix, cell.concurrency, seconds=self.seconds)
        if contestant not in WAITING:
            worker.meet(order)
        return worker.measure(self.server, order)

    def notes(self) -> dict[str, object]:
        return {
            "event loop": "uvloop",
            "warm-up calls": f"{WARM} for each task or thread, and one for each key, not counted",
            "time in Redis": "of scripts and whatever else a contestant calls, by INFO commandstats",
            "time of the Redis process": "its processor time, sockets and parsing included",
        }

    def conclude(self, found: Found) -> Iterator[str]:
        for cell in self.cells():
            if refused := sum(found.rounds(cell, OURS, "refused")):  # although there was room for everything
                yield f"library: {refused:,.0f} wrongly refused with {cell.label}"
            rates = {name: statistics.median(found.rounds(cell, name, RATE)) for name in cell.contestants}
            for name, rate in rates.items():
                found.note(cell, name, {"ours_divided_by_it": rates[OURS] / rate})

    def tables(self, found: Found) -> Iterator[tuple[str, pl.DataFrame]]:
        """Give the rates of all cells with as many limits, then every figure of each cell."""
        frame = found.frame()
        for ending in ("1 limit", "3 limits"):
            cells = frame.filter(pl.col("cell").str.ends_with(f", {ending}"), figure=RATE)
            if len(cells):
                rates = pl.col("median").map_elements("{:,.0f}".format, pl.String)
                cells = cells.with_columns(rates, pl.col("cell").str.strip_suffix(f", {ending}"))
                matrix = cells.pivot("cell", index="contestant", values="median")
                yield f"Decisions a second, {ending} a check", matrix
        yield from super().tables(found)
