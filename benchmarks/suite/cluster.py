"""One limiter over three servers: what a cluster costs, and what it decides, beside one server."""

import asyncio
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

import uvloop

from benchmarks import cluster
from benchmarks.contestants.ours import DEADLINE
from benchmarks.figures import Cell, Found
from benchmarks.runner import Benchmark
from benchmarks.worker import call_in_tasks
from benchmarks.workload import names
from ratelimit import AsyncLimiter, Limit

TASKS: Final = 256
TENANTS: Final = 10_000
LIMIT: Final = Limit("requests", "1000000/day")
NODES: Final = {"1 server": 1, "3 servers": 3}
ONE, THREE = NODES
CELL: Final = Cell(f"{TASKS} tasks, {TENANTS:,} tenants", contestants=tuple(NODES))
RATIO: Final = Cell("3 servers ÷ 1 server", contestants=(THREE,))
WARM: Final = 0.3  # seconds


@dataclass
class OverMachines(Benchmark):
    name = "cluster"
    title = "A cluster of three servers beside one server"
    quick: ClassVar = {"rounds": 3, "seconds": 0.5}
    cell = CELL
    rounds: int = 15
    seconds: float = 0.3  # short, so that a round is over before the machine changes

    def prepare(self) -> None:
        self._runner = self.stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        self._stores = {
            name: self.stack.enter_context(cluster.running(nodes)) for name, nodes in NODES.items()
        }
        self._keys = itertools.cycle(names("tenant-", TENANTS))

    def measure(self, _cell: Cell, name: str, _number: int) -> Mapping[str, float]:
        return self._runner.run(self._measure(self._stores[name]))

    async def _measure(self, store: cluster.Cluster) -> Mapping[str, float]:
        async with AsyncLimiter(store.url, LIMIT, deadline=DEADLINE) as limiter:
            await call_in_tasks(limiter.check, self._keys, TASKS, WARM)
            store.forget()
            sample = await call_in_tasks(limiter.check, self._keys, TASKS, self.seconds)
            work = store.work()
            last = await limiter.check("last")
        return {
            "decisions_per_second": sample.rate,
            "redis_us": work.scripts / sample.calls,
            "redis_process_us": work.process / sample.calls,
            "checks_per_call": sample.calls / work.calls,
            "wrong": sample.calls - sample.admitted + (last.source != "store"),
        }

    def notes(self) -> dict[str, object]:
        return {"event loop": "uvloop", "machine": "all servers and the client share its processors"}

    def conclude(self, found: Found) -> Iterator[str]:
        for figure in ("decisions_per_second", "redis_us", "redis_process_us"):
            one, three = (found.rounds(CELL, name, figure) for name in NODES)
            found.add(RATIO, THREE, figure, [b / a for a, b in zip(one, three, strict=True)])
        for name in NODES:
            if wrong := sum(found.rounds(CELL, name, "wrong")):
                yield f"cluster: {wrong:,.0f} checks were not admitted by the store ({name})"
