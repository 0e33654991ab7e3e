"""Whether a decision costs Redis more as keys, limits, bursts, and the cost of a request grow."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from benchmarks.contestants import OURS, THROTTLED
from benchmarks.figures import Cell, Found, ratio
from benchmarks.runner import Benchmark
from benchmarks.worker import Order
from benchmarks.workload import AMPLE, DAY, Quota, names

TASKS: Final = 64
SLOW: Final = (Quota("requests", 10, DAY, burst=30_000),)  # so slow that every key is in use to the end
LEVELS: Final = ("nothing used", "half used", "all but one used")
KEPT: Final = (OURS, THROTTLED)  # these have many keys in use: one each
MOVING: Final = "limits moving window"
NAMES: Final = (*KEPT, MOVING, "pyrate-limiter log")
ROWS_AT_MOST: Final = 1_000  # the others keep a row for every unit: larger bursts and costs take minutes
_SHARES: Final = {OURS: 4, MOVING: 1 / 5}  # of the calls for a burst, to take some hundredths of a second
RATIOS: Final = {"keys": Cell("many keys ÷ few"), "bursts": Cell("large burst ÷ small")}
REDIS: Final = "redis_us"
Names = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class GrowthCell(Cell):
    sweep: str
    at: int
    paid: int = 0  # by each key before it is measured


@dataclass
class Growth(Benchmark):
    name = "growth"
    title = "Microseconds inside Redis a decision, as things grow"
    quick: ClassVar = {"keys": (1_000, 50_000), "limits": (1, 3), "bursts": (10, 10**9), "costs": (1, 1_000)}
    keys: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)  # how many are in use at once, in turn
    limits: tuple[int, ...] = (1, 2, 4, 8)  # of each key, in turn
    bursts: tuple[int, ...] = tuple(10**n for n in range(10))
    costs: tuple[int, ...] = (1, 10, 100, 1_000, 10_000)  # of a call, in turn
    rounds: int = 4  # even, so that each end of a sweep comes first as often as the other
    calls: int = 1_000  # of each measurement

    @property
    def ends(self) -> dict[str, tuple[int, int]]:  # least and most of the sweeps whose ends are compared
        small = 10 if 10 in self.bursts else self.bursts[0]  # a burst of 1 has no half
        return {"keys": (self.keys[0], self.keys[-1]), "bursts": (small, self.bursts[-1])}

    def cells(self) -> list[GrowthCell]:
        bursts = [
            self._cell("bursts", burst, (*KEPT, MOVING), f"bursts, {level}", paid)
            for burst in self.bursts
            for level, paid in zip(LEVELS, (0, burst // 2, burst - 1), strict=True)
            if level == LEVELS[0] or paid
        ]
        return [
            *sorted((self._cell("keys", keys, KEPT) for keys in self.keys), key=self._turn),
            *(self._cell("limits", limits, KEPT) for limits in self.limits),
            *sorted(bursts, key=self._turn),
            *(self._cell("costs", cost, NAMES) for cost in self.costs),
        ]

    def _cell(self, sweep: str, at: int, names: Names, label: str = "", paid: int = 0) -> GrowthCell:
        if sweep in {"bursts", "costs"} and at > ROWS_AT_MOST:
            names = KEPT
        return GrowthCell(label or sweep, at=at, contestants=names, sweep=sweep, paid=paid)

    def _turn(self, cell: GrowthCell) -> tuple[bool, str]:
        """Put side by side what is compared: noise lasts for seconds, a measurement for less."""
        is_end = cell.at in self.ends[cell.sweep]
        return not is_end, cell.label if is_end else ""

    def prepare(self) -> None:
        """Have so many keys in use in each database but the first, which the other sweeps use."""
        for database, keys in enumerate(self.keys, 1):
            for name in KEPT:
                [worker] = self.crew.hire(NAMES, "asyncio")[name]
                worker.run(Order(self.server.at(database), SLOW, keys, calls=1))
            self.server.multiply(database, names("", keys))

    def measure(self, cell: GrowthCell, contestant: str, number: int) -> Mapping[str, float]:
        [worker] = self.crew.hire(NAMES, "asyncio")[contestant]
        order = self._order(cell, contestant, number)
        if cell.paid:
            worker.run(replace(order, cost=cell.paid))
        return {REDIS: worker.measure(self.server, order)[REDIS]}

    def _order(self, cell: GrowthCell, contestant: str, number: int) -> Order:
        url, at, calls = self.server.url, cell.at, self.calls
        if cell.sweep == "keys":
            url = self.server.at(1 + self.keys.index(at))
            return Order(url, SLOW, at, concurrency=TASKS, calls=2 * calls)
        if cell.sweep == "limits":
            quotas = tuple(Quota(f"limit-{n}", 1000, DAY, f"unit-{n}", AMPLE) for n in range(at))
            return Order(url, quotas, 1_000, f"l{at}-", TASKS, calls=calls)
        if cell.sweep == "bursts":  # every key is new in every round, and asked about once
            calls, quota = round(calls * _SHARES.get(contestant, 1)), Quota("requests", at, DAY, burst=at)
            return Order(url, (quota,), calls, f"b{number}-{at}-{cell.paid}-", TASKS, calls=calls)
        calls, quota = max(TASKS, calls // 5), Quota("tokens", 10**6, DAY, unit="tokens")
        return Order(url, (quota,), calls, f"c{number}-{at}-", TASKS, at, calls=calls)

    def notes(self) -> dict[str, object]:
        return {"tasks": TASKS}

    def conclude(self, found: Found) -> Iterator[str]:
        for sweep, (least, most) in self.ends.items():
            labels = [sweep] if sweep == "keys" else [f"{sweep}, {level}" for level in LEVELS]
            below, above = (
                [found.rounds(Cell(label, at=end), OURS, REDIS) for label in labels] for end in (least, most)
            )
            found.note(RATIOS[sweep], OURS, {"most": most, "least": least})
            ratios = ratio(map(sum, zip(*above, strict=True)), map(sum, zip(*below, strict=True)))
            found.add(RATIOS[sweep], OURS, "ratio", ratios)
        for database, wanted in enumerate(self.keys, 1):
            kept = self.server.keys(database) // len(KEPT) - 1  # less the one that each has warmed up on
            if wanted != kept:  # the figure would be of another number
                yield f"growth: {kept:,} keys in use where there should be {wanted:,}"
