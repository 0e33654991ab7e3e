"""Makes calls as fast as they are answered, and says how fast that was."""

from __future__ import annotations

import asyncio
import gc
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.report import percentile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


@dataclass(frozen=True, slots=True)
class Sample:
    """What came of some calls.

    Attributes:
        calls: how many were answered.
        admitted: how many of them with yes.
        seconds: from the first call to the last answer.
        cpu: seconds of processor time that this process took, all threads together.
        p50: seconds to an answer.
        p99: likewise.
    """

    calls: int
    admitted: int
    seconds: float
    cpu: float
    p50: float
    p99: float

    @property
    def rate(self) -> float:
        """Decisions a second."""
        return self.calls / self.seconds


class _Clock:
    """Times a run; the garbage of what came before is not its."""

    def __init__(self, seconds: float) -> None:
        gc.collect()
        self.latencies: list[float] = []
        self.admitted = 0
        self._cpu = time.process_time()
        self._start = time.perf_counter()
        self.until = self._start + seconds

    def sample(self) -> Sample:
        seconds, cpu = time.perf_counter() - self._start, time.process_time() - self._cpu
        p50, p99 = (percentile(self.latencies, p) for p in (50, 99))
        return Sample(len(self.latencies), self.admitted, seconds, cpu, p50, p99)


def threads(
    check: Callable[[str], object], keys: Iterator[str], concurrency: int, seconds: float = float("inf")
) -> Sample:
    """Call for each key, until there are no more or the time is up.

    Args:
        check: makes one call and returns what is true if it was admitted.
        keys: shared by all threads.
        concurrency: threads, each with one call under way; 1 is this thread.
        seconds: after which no call is begun.
    """
    clock = _Clock(seconds)
    now, note, until = time.perf_counter, clock.latencies.append, clock.until

    def call() -> int:
        admitted = 0
        for key in keys:
            start = now()
            if start >= until:
                break
            if check(key):
                admitted += 1
            note(now() - start)
        return admitted

    if concurrency == 1:
        clock.admitted = call()
        return clock.sample()
    with ThreadPoolExecutor(concurrency) as pool:
        clock.admitted = sum(future.result() for future in [pool.submit(call) for _ in range(concurrency)])
    return clock.sample()


async def tasks(
    check: Callable[[str], Awaitable[object]],
    keys: Iterator[str],
    concurrency: int,
    seconds: float = float("inf"),
) -> Sample:
    """See `threads`; for tasks of the running loop."""
    clock = _Clock(seconds)
    now, note, until = time.perf_counter, clock.latencies.append, clock.until

    async def call() -> int:
        admitted = 0
        for key in keys:
            start = now()
            if start >= until:
                break
            if await check(key):
                admitted += 1
            note(now() - start)
        return admitted

    clock.admitted = sum(await asyncio.gather(*(call() for _ in range(concurrency))))
    return clock.sample()
