"""What a key costs in Redis while it is in use, and that nothing is left of it afterwards."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Final

from benchmarks import server
from benchmarks.contestants import DECIDERS, FEW, OURS
from benchmarks.figures import Cell, Found
from benchmarks.runner import Benchmark, Worker
from benchmarks.worker import Order
from benchmarks.workload import DAY, MINUTE, Quota

TASKS: Final = 64
QUOTAS: Final = (
    Quota("requests", 60, MINUTE),
    Quota("tokens", 90_000, MINUTE, unit="tokens"),
    Quota("requests-daily", 100, DAY),  # so slow that the first key is still there when the last is made
)
BRIEF: Final = (Quota("requests", 20, 1), Quota("tokens", 100, 2, unit="tokens"))  # full after 2 seconds
ACTIVE: Final = Cell("keys in use, with three limits each")
IDLE: Final = Cell("keys left idle", phase="idle")
_IDLE: Final = 10.0  # seconds; the slowest peer keeps a window of two seconds twice as long


@dataclass
class Memory(Benchmark):
    name = "memory"
    title = "Memory of active keys, and of idle ones"
    quick: ClassVar = {"keys": 50_000, "peers": 1_000, "idle": 200, "names": FEW}
    keys: int = 1_000_000  # of ours
    peers: int = 5_000  # keys of each peer
    idle: int = 500  # calls of each whose keys are left to expire
    names: tuple[str, ...] = DECIDERS

    def cells(self) -> list[Cell]:
        return [replace(cell, contestants=self.names) for cell in (ACTIVE, IDLE)]

    def measure(self, cell: Cell, contestant: str, _number: int) -> Mapping[str, float]:
        if cell.label == IDLE.label:
            return self._left[contestant]
        keys = self.keys if contestant == OURS else self.peers
        # A server for each: tables that held others' keys would shrink meanwhile.
        with server.running() as target, contextlib.closing(Worker(contestant, "asyncio")) as worker:
            order = Order(target.url, QUOTAS, keys, concurrency=TASKS, calls=keys)
            worker.warm(order)
            before = target.empty()
            sample = worker.run(order)
            per_key = (target.memory() - before) / keys
            kept, refused = target.keys(), sample.calls - sample.admitted
            return {"keys": keys, "bytes_per_key": per_key, "keys_in_redis": kept, "refused": refused}

    @cached_property
    def _left(self) -> dict[str, dict[str, float]]:
        """Make keys of all contestants, each in a database of its own, and wait until they are gone."""
        for database, name in enumerate(self.names):
            with contextlib.closing(Worker(name, "asyncio")) as worker:
                url = self.server.at(database)
                worker.run(Order(url, BRIEF, self.idle, concurrency=TASKS, calls=self.idle))
        start, left = time.perf_counter(), dict[str, dict[str, float]]()
        while (seconds := time.perf_counter() - start) < _IDLE and len(left) < len(self.names):
            for database, name in enumerate(self.names):
                if name not in left and not self.server.keys(database):
                    left[name] = {"keys_left": 0, "seconds": seconds}
            time.sleep(0.1)
        kept = {name: {"keys_left": float(self.server.keys(at))} for at, name in enumerate(self.names)}
        return kept | left

    def conclude(self, found: Found) -> Iterator[str]:
        figures = ("keys", "keys_in_redis", "refused")
        [keys], [kept], [refused] = (found.rounds(ACTIVE, OURS, figure) for figure in figures)
        [left] = found.rounds(IDLE, OURS, "keys_left")
        if refused:
            yield f"memory: {refused:,.0f} wrongly refused"
        if kept != keys:
            yield f"memory: {kept:,.0f} keys kept of {keys:,.0f} that are in use"
        if left:
            yield f"memory: {left:,.0f} idle keys never expired"
