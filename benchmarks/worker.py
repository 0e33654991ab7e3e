"""What runs in a child process: one contestant, its loops of calls, and their clock.

So the processor time is the contestant's own, and it shares threads, garbage and event loop with no other.
"""

import asyncio
import contextlib
import functools
import gc
import importlib
import itertools
import time
from array import array
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal

import uvloop

from benchmarks.contestants import CONTESTANTS
from benchmarks.workload import Quota, names

Mode = Literal["asyncio", "blocking"]


@dataclass(frozen=True, slots=True)
class Order:
    """What to measure. An order continues through its keys where the last order over the same keys ended."""

    url: str
    quotas: tuple[Quota, ...]  # of every key
    keys: int = 1  # how many
    prefix: str = ""  # what tells these keys from others
    concurrency: int = 1  # threads or tasks, each with one call under way
    cost: int = 1  # of every call
    seconds: float = float("inf")  # no call begins after this time
    calls: int | None = None  # how many at most


@dataclass(frozen=True, slots=True)
class Sample:
    calls: int
    admitted: int
    seconds: float  # from the first call to the last answer
    cpu: float  # seconds of processor time that this process took, all threads together
    latencies: "array[float]"  # seconds to each answer

    @property
    def rate(self) -> float:
        return self.calls / self.seconds


class _Clock:
    def __init__(self, seconds: float) -> None:
        gc.collect()  # what earlier runs left is not this run's work
        self.latencies: list[float] = []
        self._cpu, self._start = time.process_time(), time.perf_counter()
        self.until = self._start + seconds

    def sample(self, admitted: int) -> Sample:
        seconds, cpu = time.perf_counter() - self._start, time.process_time() - self._cpu
        return Sample(len(self.latencies), admitted, seconds, cpu, array("d", self.latencies))


def call_in_threads(
    check: Callable[[str], object], keys: Iterator[str], concurrency: int, seconds: float
) -> Sample:
    """Call for each key until there are no more or the time is up; a single thread is this one."""
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
        return clock.sample(call())
    with ThreadPoolExecutor(concurrency) as pool:
        called = [pool.submit(call) for _ in range(concurrency)]
    return clock.sample(sum(future.result() for future in called))


async def call_in_tasks(
    check: Callable[[str], Awaitable[object]], keys: Iterator[str], concurrency: int, seconds: float
) -> Sample:
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

    return clock.sample(sum(await asyncio.gather(*(call() for _ in range(concurrency)))))


def play(name: str, mode: Mode, pipe: Connection) -> None:
    """Carry out orders until the parent ends this process, or is gone."""
    contestant = CONTESTANTS[name]
    connect: Any = getattr(importlib.import_module(f"benchmarks.contestants.{contestant.module}"), mode)
    call: Any = call_in_threads if mode == "blocking" else call_in_tasks
    walk = functools.cache(lambda prefix, keys: itertools.cycle(names(prefix, keys)))

    with contextlib.suppress(EOFError), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        finish: Callable[[Any], Any] = runner.run if mode == "asyncio" else lambda result: result
        opened = functools.cache(lambda url, quotas: finish(connect(url, quotas, contestant.variant)))

        def carry_out(order: Order) -> None:
            check, cost = opened(order.url, order.quotas), order.cost
            # Threads may share the keys: `cycle` is one step of the interpreter.
            keys = itertools.islice(walk(order.prefix, order.keys), order.calls)
            called = call(lambda key: check(key, cost), keys, order.concurrency, order.seconds)
            pipe.send(finish(called))

        while True:
            carry_out(pipe.recv())
