"""What runs in a child process: one contestant, its loops of calls, and their clock.

A child takes orders from a pipe and returns a sample for each. Processor time is then the contestant's
own, and it shares threads, garbage and event loop with no other. All contestants have the same loop:
uvloop, as the sidecar has.
"""

import asyncio
import functools
import gc
import itertools
import time
from array import array
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Literal

import uvloop

from benchmarks.contestants import CONTESTANTS, AsyncCheck, Check, Contestant
from benchmarks.workload import Quota, names

Mode = Literal["asyncio", "blocking"]


@dataclass(frozen=True, slots=True)
class Order:
    """What to measure.

    All contestants use the keys in the same order, and each order goes on where the last one over the
    same keys ended.
    """

    url: str
    quotas: tuple[Quota, ...]  # of every key
    keys: int = 1  # how many
    prefix: str = ""  # what tells these keys from others
    concurrency: int = 1  # threads or tasks, each with one call under way
    cost: int = 1  # of every call
    seconds: float = float("inf")  # after which no call is begun
    calls: int | None = None  # after which it ends earlier


@dataclass(frozen=True, slots=True)
class Sample:
    """What some calls came to."""

    calls: int
    admitted: int
    seconds: float  # from the first call to the last answer
    cpu: float  # seconds of processor time that this process took, all threads together
    latencies: "array[float]"  # seconds to each answer

    @property
    def rate(self) -> float:
        return self.calls / self.seconds


class _Clock:
    """Times a run, without the garbage of what came before."""

    def __init__(self, seconds: float) -> None:
        gc.collect()
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
        admitted = sum(future.result() for future in called)
    return clock.sample(admitted)


async def call_in_tasks(
    check: Callable[[str], Awaitable[object]], keys: Iterator[str], concurrency: int, seconds: float
) -> Sample:
    """See `call_in_threads`; for tasks of the running loop."""
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


@functools.cache
def _walk(prefix: str, keys: int) -> Iterator[str]:
    return itertools.cycle(names(prefix, keys))  # threads may share it: it is one step of the interpreter


def _extent(order: Order) -> tuple[Iterator[str], int, float]:
    keys = itertools.islice(_walk(order.prefix, order.keys), order.calls)
    return keys, order.concurrency, order.seconds


def _play_blocking(contestant: Contestant, pipe: Connection) -> None:
    def carry_out(order: Order, check: Check, cost: int) -> Sample:
        return call_in_threads(lambda key: check(key, cost), *_extent(order))

    checks: dict[object, Check] = {}
    with ExitStack() as stack:
        for order in iter(pipe.recv, None):
            place = order.url, order.quotas
            if place not in checks:
                checks[place] = stack.enter_context(contestant.blocking(*place))
            pipe.send(carry_out(order, checks[place], order.cost))


async def _play_asyncio(contestant: Contestant, pipe: Connection) -> None:
    async def carry_out(order: Order, check: AsyncCheck, cost: int) -> Sample:
        return await call_in_tasks(lambda key: check(key, cost), *_extent(order))

    checks: dict[object, AsyncCheck] = {}
    async with AsyncExitStack() as stack:
        for order in iter(pipe.recv, None):  # the loop stands still between orders: it has nothing to do
            place = order.url, order.quotas
            if place not in checks:
                checks[place] = await stack.enter_async_context(contestant.asyncio(*place))
            pipe.send(await carry_out(order, checks[place], order.cost))


def play(name: str, mode: Mode, pipe: Connection) -> None:
    """Carry out orders until the parent sends None or is gone."""
    with suppress(EOFError):
        if mode == "blocking":
            _play_blocking(CONTESTANTS[name], pipe)
        else:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_play_asyncio(CONTESTANTS[name], pipe))
