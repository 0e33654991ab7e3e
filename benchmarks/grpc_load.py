"""A load client for gRPC: tasks, each with one call under way at the most, on a few connections.

Messages are bytes made beforehand, and of an answer only the code is read: BenchmarkError unless it is OK.
The client takes about half a core of the machine, which is part of the result.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import grpc
import uvloop
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest

from benchmarks import BenchmarkError
from benchmarks.load import Load
from benchmarks.programs import HOST

METHOD: Final = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
_OK: Final = b"\x08\x01"  # how an answer begins: overall_code = 1, OK
_CONNECTIONS: Final = 4
_OPTIONS: Final = [("grpc.use_local_subchannel_pool", 1)]  # else channels to one port share a connection
Call = Callable[[float], Awaitable[None]]  # one call that should have begun at this time


def message(key: str) -> bytes:
    request = RateLimitRequest(domain="benchmark")
    request.descriptors.add().entries.add(key="key", value=key)
    return bytes(request.SerializeToString())


def flood(port: int, messages: Sequence[bytes], tasks: int, seconds: float) -> Load:
    """Make each task call as soon as it has its answer."""

    async def work(call: Call, start: float) -> None:
        while (now := time.perf_counter()) < start + seconds:
            await call(now)

    return _run(port, messages, tasks, work)


def pace(port: int, messages: Sequence[bytes], tasks: int, seconds: float, rate: float) -> Load:
    """Make `rate` calls a second on a schedule; a latency counts from when its call was due."""
    numbers = iter(range(max(1, int(rate * seconds))))

    async def work(call: Call, start: float) -> None:
        for number in numbers:
            due = start + number / rate
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early + 0.0005)  # the loop rounds to milliseconds: never early
            await call(due)

    return _run(port, messages, tasks, work)


def _run(
    port: int, messages: Sequence[bytes], tasks: int, work: Callable[[Call, float], Awaitable[None]]
) -> Load:
    async def run() -> Load:
        channels = [
            grpc.aio.insecure_channel(f"{HOST}:{port}", options=_OPTIONS) for _ in range(_CONNECTIONS)
        ]
        methods: Any = [channel.unary_unary(METHOD) for channel in channels]
        todo, latencies = itertools.cycle(messages), list[float]()

        def caller(method: Any) -> Call:
            async def call(due: float) -> None:
                answer = await method(next(todo), timeout=30)
                latencies.append(time.perf_counter() - due)
                if not answer.startswith(_OK):
                    raise BenchmarkError(f"an answer other than OK: {answer[:100]!r}")

            return call

        try:
            calls = [caller(methods[number % _CONNECTIONS]) for number in range(tasks)]
            await asyncio.gather(*(call(time.perf_counter()) for call in calls))  # connects
            latencies.clear()
            cpu, start = time.process_time(), time.perf_counter()
            await asyncio.gather(*(work(call, start) for call in calls))
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
            return Load(latencies, len(latencies) / seconds, cpu / seconds, [])
        except grpc.RpcError as error:
            raise BenchmarkError(f"gRPC on port {port}: {error.code()}: {error.details()}") from None
        finally:
            await asyncio.gather(*(channel.close() for channel in channels))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())
