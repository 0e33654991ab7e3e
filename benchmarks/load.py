"""Load for the HTTP benchmark: as much as a server takes, or as much as it is told to.

Made to cost little beside a server on the same machine: a few microseconds a request, on uvloop,
from bytes made beforehand. It reads of an answer what it must: the status and the length.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import uvloop

from benchmarks.client import ClientError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length: "
_OK: Final = b"HTTP/1.1 200 "
_PATIENCE: Final = 30.0
_TICK: Final = 0.001  # as fine as the loop's timers are; what falls due in between leaves together


@dataclass(frozen=True, slots=True)
class Load:
    """What came of some load.

    Attributes:
        rate: answers a second.
        latencies: seconds to each answer, from when it should have left to its last byte.
        client_cores: how much of a core the client took.
    """

    rate: float
    latencies: list[float]
    client_cores: float


class _Connection(asyncio.Protocol):
    """One connection, with one request under way at the most."""

    def __init__(self, on_answer: Callable[[_Connection], None], broken: asyncio.Future[None]) -> None:
        self._on_answer = on_answer
        self._broken = broken
        self._received = b""
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def ask(self, request: bytes, due: float) -> None:
        """Send a request that should have left at `due`."""
        self.due = due
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data if self._received else data
        head = received.find(_END)
        if head < 0:
            return
        start = received.find(_LENGTH) + len(_LENGTH)
        if not received.startswith(_OK) or not len(_LENGTH) <= start < head:
            self._fail(f"an answer other than expected: {received[:300]!r}")
        elif len(received) >= head + len(_END) + int(received[start : received.find(b"\r", start)]):
            self._received = b""
            self._on_answer(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the server closed a connection: {exc}")

    def _fail(self, why: str) -> None:
        if not self._broken.done():
            self._broken.set_exception(ClientError(why))


def flood(address: tuple[str, int], requests: Sequence[bytes], connections: int, seconds: float) -> Load:
    """Send on every connection as soon as it has its answer.

    Raises:
        ClientError: an answer was missing, or not 200.
    """

    async def send() -> Load:
        clock, todo = time.perf_counter, itertools.cycle(requests)
        latencies: list[float] = []

        def on_answer(connection: _Connection) -> None:
            now = clock()
            latencies.append(now - connection.due)
            if now < until:
                connection.ask(next(todo), now)
            elif not ended.done():
                ended.set_result(None)

        ended = asyncio.get_running_loop().create_future()
        opened = await _open(address, connections, on_answer, ended)
        start, cpu = clock(), time.process_time()
        until = start + seconds
        for connection in opened:
            connection.ask(next(todo), start)
        return await _measure(opened, ended, latencies, start, cpu)

    return _run(send())


def pace(
    address: tuple[str, int], requests: Sequence[bytes], connections: int, seconds: float, rate: float
) -> Load:
    """Send `rate` requests a second on a schedule, however long the answers take.

    A request that finds no connection free waits in line, and its latency counts from when it was
    due: a server that falls behind cannot hide it.

    Raises:
        ClientError: an answer was missing, or not 200.
    """

    async def send() -> Load:
        loop, clock, todo = asyncio.get_running_loop(), time.perf_counter, itertools.cycle(requests)
        latencies: list[float] = []
        waiting: deque[float] = deque()
        count = max(1, int(rate * seconds))

        def on_answer(connection: _Connection) -> None:
            latencies.append(clock() - connection.due)
            if waiting:
                connection.ask(next(todo), waiting.popleft())
            else:
                free.append(connection)
            if len(latencies) == count and not ended.done():
                ended.set_result(None)

        ended = loop.create_future()
        opened = await _open(address, connections, on_answer, ended)
        free = [*opened]
        start, cpu = clock(), time.process_time()

        def send_due(sent: int) -> None:
            due = min(count, 1 + int((clock() - start) * rate))
            waiting.extend(start + number / rate for number in range(sent, due))
            while waiting and free:
                free.pop().ask(next(todo), waiting.popleft())
            if due < count:
                loop.call_later(max(_TICK, start + due / rate - clock()), send_due, due)

        send_due(0)
        return await _measure(opened, ended, latencies, start, cpu)

    return _run(send())


async def _open(
    address: tuple[str, int],
    connections: int,
    on_answer: Callable[[_Connection], None],
    ended: asyncio.Future[None],
) -> list[_Connection]:
    loop = asyncio.get_running_loop()
    try:
        return [
            (await loop.create_connection(lambda: _Connection(on_answer, ended), *address))[1]
            for _ in range(connections)
        ]
    except OSError as error:
        raise ClientError(f"{address[0]}:{address[1]}: {error}") from error


async def _measure(
    opened: list[_Connection], ended: asyncio.Future[None], latencies: list[float], start: float, cpu: float
) -> Load:
    try:
        async with asyncio.timeout(_PATIENCE):
            await ended
    except TimeoutError:
        raise ClientError(f"not everything was answered within {_PATIENCE:g} s") from None
    finally:
        for connection in opened:
            connection.transport.abort()
    took = time.perf_counter() - start
    return Load(len(latencies) / took, latencies, (time.process_time() - cpu) / took)


def _run(load: Coroutine[None, None, Load]) -> Load:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(load)
