"""What is answered without a call to Redis: denials that are remembered, and keys that are leased."""

import asyncio
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final

import uvloop

from benchmarks.contestants.ours import DEADLINE
from benchmarks.figures import Cell, Found, percentile
from benchmarks.runner import Benchmark
from benchmarks.worker import Sample, call_in_tasks, call_in_threads
from ratelimit import AsyncLimiter, Decision, Limit, Limiter

TASKS: Final = 256
SCARCE: Final = Limit("requests", "1/day")
RATE: Final = "100000000/second"
WARM: Final = 0.1  # seconds
ASKED: Final = 3  # checks before the clock starts: one that is admitted, the store's denial, and one more
DENIED: Final = ("denied, blocking", "denied, asyncio")
HOT: Final = {
    "coalesced": Limit("requests", RATE),
    "leased": Limit("requests", RATE, lease={"share": 0.05, "ttl": "1s"}),
}
CELL: Final = Cell("decisions", contestants=(*DENIED, *HOT))
_Measured = tuple[Sample, Decision]


@dataclass
class Shortcuts(Benchmark):
    name = "shortcuts"
    title = "Answers that need no Redis"
    quick: ClassVar = {"rounds": 2, "seconds": 0.3}
    cell = CELL
    rounds: int = 5
    seconds: float = 0.5  # a denial is remembered for one, and the first calls warm up
    # The source of the last answer of each round. To note that of every answer would take a tenth of the time
    # of the fastest; the number of commands covers all answers.
    _sources: dict[str, Counter[str]] = field(init=False, default_factory=lambda: defaultdict(Counter))

    def prepare(self) -> None:
        self._runner = self.stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))

    def measure(self, _cell: Cell, name: str, number: int) -> Mapping[str, float]:
        if name == DENIED[0]:
            sample, last = self._call_in_thread(f"vk_denied_{number}")
        elif name in HOT:
            sample, last = self._runner.run(self._call_in_tasks(HOT[name], "vk_hot", TASKS, None))
        else:
            sample, last = self._runner.run(self._call_in_tasks(SCARCE, f"vk_refused_{number}", 1, ASKED))
        self._sources[name][last.source] += 1
        return {
            "decisions_per_second": sample.rate,
            "p50_us": 1e6 * percentile(sample.latencies, 50),
            "redis_commands": sum(self.server.spent().calls.values()),
            "admitted": sample.admitted,
            "calls": sample.calls,
        }

    def _call_in_thread(self, key: str) -> _Measured:
        """Measure a key that is denied; return the sample, and the answer to the call after it."""
        with Limiter(self.server.url, SCARCE, deadline=DEADLINE) as limiter:
            for _ in range(ASKED):
                limiter.check(key)
            self.server.forget()
            return call_in_threads(limiter.check, itertools.repeat(key), 1, self.seconds), limiter.check(key)

    async def _call_in_tasks(self, limit: Limit, key: str, tasks: int, warm: int | None) -> _Measured:
        """Do the same in tasks after `warm` calls, or as many as `WARM` seconds allow."""
        keys = itertools.repeat(key)
        async with AsyncLimiter(self.server.url, limit, deadline=DEADLINE) as limiter:
            await call_in_tasks(limiter.check, itertools.islice(keys, warm), tasks, WARM)
            self.server.forget()
            return await call_in_tasks(limiter.check, keys, tasks, self.seconds), await limiter.check(key)

    def notes(self) -> dict[str, object]:
        sources = {name: dict(counter) for name, counter in self._sources.items()}
        return {"event loop": "uvloop", "tasks": TASKS, "last answers": sources}

    def conclude(self, found: Found) -> Iterator[str]:
        for name in CELL.contestants:
            admitted, calls = (sum(found.rounds(CELL, name, figure)) for figure in ("admitted", "calls"))
            wrong, what = (admitted, "admitted") if name in DENIED else (calls - admitted, "denied")
            if wrong:
                yield f"shortcuts: {wrong:,.0f} wrongly {what} ({name})"
