"""What it costs to record a history, and how fast one is verified."""

import asyncio
import itertools
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, Final

from benchmarks.contestants import OURS
from benchmarks.figures import Cell, Found
from benchmarks.runner import Benchmark
from ratelimit import AsyncLimiter, Limit
from ratelimit.history import HistoryRecorder, read_history, verify_history

TASKS: Final = 64
KEYS: Final = 10_000
CELL: Final = Cell("2 limits, 10,000 keys", contestants=(OURS,))
RATE: Final = "lines_per_second"
_LIMITS: Final = (Limit("requests", "20/minute"), Limit("tokens", "30000/minute", unit="tokens"))
_COST: Final = {"tokens": 700}


@dataclass
class History(Benchmark):
    name = "history"
    title = "Recording and verifying a history"
    cell = CELL
    quick: ClassVar = {"rounds": 1, "lines": 50_000}
    rounds: int = 5
    lines: int = 200_000

    def measure(self, _cell: Cell, _contestant: str, number: int) -> Mapping[str, float]:
        folder = Path(self.stack.enter_context(TemporaryDirectory()))
        path = folder / f"{number}.jsonl"
        plain = asyncio.run(self._check([]))
        with HistoryRecorder(path) as recorder:
            recorded = asyncio.run(self._check([recorder]))
        limiter = AsyncLimiter("memory://", _LIMITS)  # only for its policy
        started = time.process_time()
        report = verify_history(read_history([path]), limiter.policy)
        seconds = time.process_time() - started
        return {
            "recorder_us": 1e6 * (recorded - plain) / self.lines,
            "bytes_per_line": path.stat().st_size / self.lines,
            RATE: report.decisions / seconds,
            "faults": len(report.faults),
        }

    async def _check(self, recorders: list[HistoryRecorder]) -> float:
        """Check `lines` times with a fresh store; return the processor time in seconds."""
        keys = itertools.islice(itertools.cycle(f"vk_{number:010d}" for number in range(KEYS)), self.lines)
        self.server.client.flushall()

        async def use() -> None:
            for key in keys:
                await limiter.check(key, cost=_COST)

        async with AsyncLimiter(self.server.url, _LIMITS, deadline=10, observers=recorders) as limiter:
            started = time.process_time()
            await asyncio.gather(*(use() for _ in range(TASKS)))
            return time.process_time() - started

    def conclude(self, found: Found) -> Iterable[str]:
        if any(found.rounds(CELL, OURS, "faults")):
            yield "history: a sound history was called wrong"
