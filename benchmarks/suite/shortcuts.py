"""What is answered without asking Redis: denials that are remembered, and keys that are leased.

A key that was just denied is denied again from memory, for a second at most; meanwhile no command may
reach Redis. A hot key that is leased is answered from what was taken in advance; it is compared
with the same key without a lease, round by round, where checks travel together but all travel.
"""

import asyncio
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import uvloop

from benchmarks.contestants.ours import DEADLINE
from benchmarks.figures import Cell, Found, percentile
from benchmarks.runner import Benchmark
from benchmarks.server import Server
from benchmarks.worker import Sample, call_in_tasks, call_in_threads
from ratelimit import AsyncLimiter, Decision, Limit, Limiter

TASKS: Final = 256
SCARCE: Final = Limit("requests", "1/day")
RATE: Final = "100000000/second"
WARM: Final = 0.1  # seconds
ASKED: Final = 3
"""Checks before the clock starts: the one that is admitted, the store's denial, and one more."""

DENIED: Final = ("denied, blocking", "denied, asyncio")
HOT: Final = {
    "coalesced": Limit("requests", RATE),
    "leased": Limit("requests", RATE, lease={"share": 0.05, "ttl": "1s"}),
}
CELL: Final = Cell("decisions", contestants=(*DENIED, *HOT))


def deny(target: Server, key: str, seconds: float) -> tuple[Sample, Decision]:
    """Measure a key that is denied; return the sample, and the answer to the call after it."""
    with Limiter(target.url, SCARCE, deadline=DEADLINE) as limiter:
        for _ in range(ASKED):
            limiter.check(key)
        target.forget()
        return call_in_threads(limiter.check, itertools.repeat(key), 1, seconds), limiter.check(key)


async def ask_in_tasks(
    target: Server, limit: Limit, key: str, tasks: int, warm: int | None, seconds: float
) -> tuple[Sample, Decision]:
    """Measure a key after so many calls; returns the same as `deny`."""
    keys = itertools.repeat(key)
    async with AsyncLimiter(target.url, limit, deadline=DEADLINE) as limiter:
        await call_in_tasks(limiter.check, itertools.islice(keys, warm), tasks, WARM)
        target.forget()
        return await call_in_tasks(limiter.check, keys, tasks, seconds), await limiter.check(key)


@dataclass
class Shortcuts(Benchmark):
    name = "shortcuts"
    title = "Answers that need no Redis"

    rounds: int = 5
    seconds: float = 0.5  # a denial is remembered for one, and the first calls warm up

    def __post_init__(self) -> None:
        # Who gave the last answer of each round. To note it of every answer would take a tenth of
        # the time of the fastest; the commands tell of them all.
        self._sources: dict[str, Counter[str]] = defaultdict(Counter)

    def cells(self) -> list[Cell]:
        return [replace(CELL, rounds=self.rounds)]

    def prepare(self) -> None:
        self._runner = self.stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))

    def measure(self, _cell: Cell, name: str, number: int) -> Mapping[str, float]:
        if name == DENIED[0]:
            sample, last = deny(self.server, f"vk_denied_{number}", self.seconds)
        else:
            limit = HOT.get(name, SCARCE)
            key, tasks, warm = ("vk_hot", TASKS, None) if name in HOT else (f"vk_refused_{number}", 1, ASKED)
            asked = ask_in_tasks(self.server, limit, key, tasks, warm, self.seconds)
            sample, last = self._runner.run(asked)
        self._sources[name][last.source] += 1
        return {
            "decisions_per_second": sample.rate,
            "p50_us": 1e6 * percentile(sample.latencies, 50),
            "redis_commands": sum(self.server.spent().calls.values()),
            "admitted": sample.admitted,
            "calls": sample.calls,
        }

    def notes(self) -> dict[str, object]:
        sources = {name: dict(counter) for name, counter in self._sources.items()}
        return {"event loop": "uvloop", "tasks": TASKS, "last answers": sources}

    def conclude(self, found: Found) -> Iterator[str]:
        for name in CELL.contestants:
            admitted, calls = (sum(found.rounds(CELL, name, figure)) for figure in ("admitted", "calls"))
            wrong, what = (admitted, "admitted") if name in DENIED else (calls - admitted, "denied")
            if wrong:
                yield f"shortcuts: {wrong:,.0f} wrongly {what} ({name})"


FULL: Final = (Shortcuts(),)
QUICK: Final = (Shortcuts(rounds=2, seconds=0.3),)
