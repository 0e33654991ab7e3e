"""What a key costs in Redis while it is in use, and that nothing is left of it afterwards.

Bytes are the growth of `used_memory`, less what connections take, per key with three limits: tables of the
keyspace, expiry, the allocator's waste and the limits' names are included. Peers make their keys one call at
a time and so make fewer; theirs are bytes per key, too.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Final

from benchmarks import server
from benchmarks.contestants import DECIDERS, FEW, OURS
from benchmarks.contestants.ours import DEADLINE, limits_of
from benchmarks.figures import Cell, Found
from benchmarks.runner import Benchmark, Worker
from benchmarks.worker import Order
from benchmarks.workload import DAY, MINUTE, Quota, names
from ratelimit import AsyncLimiter

BATCH: Final = 256
COST: Final = {"requests": 1, "tokens": 850}
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
        # A server for each: tables that held others' keys would shrink meanwhile.
        with server.running() as target:
            if contestant == OURS:
                return asyncio.run(fill(target, self.keys))
            order = Order(target.url, QUOTAS, self.peers, concurrency=16, calls=self.peers)
            with contextlib.closing(Worker(contestant, "asyncio")) as worker:
                worker.warm(order)
                before = target.empty()
                worker.run(order)
                return {"keys": self.peers, "bytes_per_key": (target.memory() - before) / self.peers}

    @cached_property
    def _left(self) -> dict[str, dict[str, float]]:
        """Make keys of all contestants, each in a database of its own, and wait until they are gone."""
        for database, name in enumerate(self.names):
            with contextlib.closing(Worker(name, "asyncio")) as worker:
                url = self.server.at(database)
                worker.run(Order(url, BRIEF, self.idle, concurrency=16, calls=self.idle))
        start, left = time.perf_counter(), dict[str, dict[str, float]]()
        while (seconds := time.perf_counter() - start) < _IDLE and len(left) < len(self.names):
            for database, name in enumerate(self.names):
                if name not in left and not self.server.keys(database):
                    left[name] = {"keys_left": 0, "seconds": seconds}
            time.sleep(0.1)
        kept = {name: {"keys_left": float(self.server.keys(at))} for at, name in enumerate(self.names)}
        return kept | left

    def conclude(self, found: Found) -> Iterator[str]:
        figures = ("keys", "keys_kept", "refused")
        [keys], [kept], [refused] = (found.rounds(ACTIVE, OURS, figure) for figure in figures)
        [left] = found.rounds(IDLE, OURS, "keys_left")
        if refused:
            yield f"memory: {refused:,.0f} wrongly refused"
        if kept != keys:
            yield f"memory: {kept:,.0f} keys kept of {keys:,.0f} that are in use"
        if left:
            yield f"memory: {left:,.0f} idle keys never expired"


async def fill(target: server.Server, keys: int) -> dict[str, float]:
    async with AsyncLimiter(target.url, limits_of(QUOTAS), deadline=DEADLINE) as limiter:
        await limiter.check("warm", cost=COST)
        before, start, refused = target.empty(), time.perf_counter(), 0
        everyone = names("", keys)
        for first in range(0, keys, BATCH):
            checks = [{"key": key, "cost": COST} for key in everyone[first : first + BATCH]]
            refused += sum(not decision for decision in await limiter.check_many(checks))
        figures = {"seconds_to_fill": time.perf_counter() - start, "refused": refused}
        figures["bytes_per_key"] = (target.memory() - before) / keys
        return {**figures, "keys": keys, "keys_kept": target.keys()}
