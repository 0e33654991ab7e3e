"""Many sidecars and many nodes in virtual time: calls, denials, failures, and what a decision costs."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import polars as pl

from benchmarks.contestants import OURS
from benchmarks.figures import Cell, Found
from benchmarks.runner import Benchmark
from benchmarks.scale import failures, page, plots, regions
from benchmarks.scale.sizing import MAX_PRIMARIES, fit_costs
from benchmarks.scale.world import SHARE, make_limit, measure_traffic
from benchmarks.worker import Order
from benchmarks.workload import ONE

ASKING, LEASES, SMALL = "without leases", "with leases", "with small leases"
EITHER: Final = (ASKING, LEASES)
ALL_THREE: Final = (*EITHER, SMALL)
RATE: Final = 20_000.0  # checks a second of all sidecars, where it is not what changes
HOT_LIMIT: Final = 2_000  # a second, for the one tenant of the sweep over lease sizes
LOADS: Final = {"80 % of the limit": 0.8, "120 % of the limit": 1.2}
STOPS, DIES = "stops", "dies"
DEATH: Final = Cell("a sidecar ends", contestants=(STOPS, DIES))
LOSS: Final = Cell("a node is lost and comes back empty", contestants=tuple(failures.OUTAGES))
WAYS: Final = Cell("three regions", contestants=tuple(regions.WAYS))
FITTED: Final = Cell("cost", contestants=(OURS,))
SIDECARS, RATES, NODES, MILLION, SHARES, COSTS = (
    "sidecars",
    "checks a second of a sidecar",
    "nodes",
    "a million decisions a second",
    "lease size",
    "cost of a decision",
)


@dataclass
class Scale(Benchmark):
    name = "scale"
    title = "Many sidecars and nodes, simulated"
    quick: ClassVar = {
        "sidecars": (50,),
        "rates": (1_000,),
        "nodes": (1, MAX_PRIMARIES),
        "million": (),
        "shares": (0.01, 0.05),
        "tasks": (1, 64),
        "part": 0.05,
    }
    sidecars: tuple[int, ...] = (10, 30, 100, 300, 1_000)
    rates: tuple[int, ...] = (100, 1_000, 10_000)  # checks a second of each of ten sidecars
    nodes: tuple[int, ...] = (1, 3, 6, MAX_PRIMARIES, 100)
    million: tuple[int, ...] = (100, 1_000)  # sidecars
    shares: tuple[float, ...] = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)  # of the burst, in a lease
    tasks: tuple[int, ...] = (1, 2, 4, 8, 16, 64, 256)
    part: float = 1.0  # of the time that is simulated and measured

    def cells(self) -> Iterator[Cell]:
        sweeps = (
            (SIDECARS, self.sidecars, ALL_THREE),
            (RATES, self.rates, EITHER),
            (NODES, self.nodes, EITHER),
            (MILLION, self.million, ALL_THREE),
        )
        for label, steps, contestants in sweeps:
            for at in steps:
                yield Cell(label, at=at, contestants=contestants)
        for share in self.shares:
            yield Cell(SHARES, at=round(share * 1000), contestants=tuple(LOADS))
        yield from (DEATH, LOSS, WAYS)
        for at in self.tasks:
            yield Cell(COSTS, at=at, contestants=(OURS,), rounds=3, phase="real")

    def prepare(self) -> None:
        # Each simulated sidecar would log that its store does not answer.
        logging.getLogger("ratelimit").setLevel(logging.CRITICAL)
        self.stack.callback(logging.getLogger("ratelimit").setLevel, logging.NOTSET)

    def measure(self, cell: Cell, contestant: str, _number: int) -> Mapping[str, float]:
        measures: dict[str, Callable[[int, str], Mapping[str, float]]] = {
            SIDECARS: lambda at, name: self._spread(at, MAX_PRIMARIES, RATE, 1.0, name),
            RATES: lambda at, name: self._spread(10, MAX_PRIMARIES, 10.0 * at, 1.0, name),
            NODES: lambda at, name: self._spread(50, at, RATE, 0.5, name),
            MILLION: lambda at, name: self._spread(at, MAX_PRIMARIES, 1e6, 0.25, name),
            SHARES: self._share,
            DEATH.label: lambda _, name: failures.measure_death(dies=name == DIES, part=self.part),
            LOSS.label: lambda _, name: failures.measure_loss(name, rate=failures.LOSS_RATE * self.part),
            WAYS.label: lambda _, name: regions.measure_way(name, day=regions.DAY * self.part),
            COSTS: self._cost,
        }
        return measures[cell.label](cell.at or 0, contestant)

    def _spread(
        self, sidecars: int, nodes: int, rate: float, seconds: float, name: str
    ) -> Mapping[str, float]:
        """Let 10,000 tenants ask; the hot one asks for twice its limit, and all others for less."""
        count = max(round(rate / 20), 1)
        # Small leases of all sidecars together are half of the burst, and a lease is at least two tokens.
        shares = {ASKING: 0.0, LEASES: SHARE, SMALL: max(0.5 / sidecars, 2 / count)}
        limit = make_limit(count, lease=shares[name])
        return measure_traffic(limit, sidecars=sidecars, nodes=nodes, rate=rate, seconds=seconds * self.part)

    def _share(self, at: int, name: str) -> Mapping[str, float]:
        """Let 20 sidecars ask for one tenant, with a lease of `at` thousandths of the burst."""
        limit = make_limit(HOT_LIMIT, lease=at / 1000)
        rate = HOT_LIMIT * LOADS[name]
        found = measure_traffic(limit, sidecars=20, nodes=1, rate=rate, seconds=5 * self.part, tenants=1)
        return {**found, "used_of_limit": found["admitted_share"] * found["checks"] / self._allowed}

    @property
    def _allowed(self) -> float:
        return HOT_LIMIT * (5 * self.part + 1)  # the rate and one burst

    def _cost(self, at: int, name: str) -> Mapping[str, float]:
        """Measure a decision on a real server, by the number of tasks that ask at once."""
        [worker] = self.crew.hire([name], "asyncio")[name]
        order = Order(self.server.url, ONE, 10_000, "scale-", at, seconds=0.5 * max(self.part, 0.2))
        worker.meet(order)
        worker.warm(order)
        self.server.forget()
        sample = worker.run(order)
        spent = self.server.spent()
        return {
            "checks_per_call": sample.calls / spent.scripts,
            "node_us": spent.process / sample.calls,
            "client_us": 1e6 * sample.cpu / sample.calls,
        }

    def notes(self) -> dict[str, object]:
        return {
            "traffic": "10,000 tenants by Zipf's law (exponent 1)",
            "leases": "of 5 % of the burst for 1 s; small ones of 50 % ÷ sidecars",
            "round trip in a datacentre": "0.5 ms",
            "limit": "each tenant may send a twentieth of all traffic, with the burst of one second",
        }

    def conclude(self, found: Found) -> Iterator[str]:
        measured = [
            [sorted(found.rounds(Cell(COSTS, at=at), OURS, figure))[1] for at in self.tasks]
            for figure in ("checks_per_call", "node_us", "client_us")
        ]
        costs = fit_costs(*measured)
        found.note(FITTED, OURS, {f"{name}_us": value for name, value in vars(costs).items()})
        for place, values in found.items():
            if place.figure in {"over_admitted", "others_without_store"} and any(values):
                where = f"{place.cell} {place.at or ''}".strip()
                yield f"scale: {place.figure} is {max(values):g} ({where}, {place.contestant})"

    def tables(self, found: Found) -> Iterator[tuple[str, pl.DataFrame]]:
        yield from page.make_tables(found.frame()).items()

    def draw(self, found: Found, folder: Path) -> None:
        plots.draw(found.frame(), folder)
