"""A load client for HTTP: keep-alive connections, each with one request under way at the most.

HTTP/1.1 by hand, because a general client costs more than the sidecar it would measure: a few
microseconds a request, on uvloop, from bytes made beforehand. It reads of an answer what it must: the
status and the length. How much of a core the client took is part of the result, so that a figure which
measures the client shows as such. All functions raise BenchmarkError where an answer is missing or
other than expected.
"""

import asyncio
import itertools
import json
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

import uvloop

from benchmarks import BenchmarkError
from benchmarks.programs import Address

_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length: "
_ANY: Final = b"HTTP/1.1 "
_OK: Final = b"HTTP/1.1 200 "
_TICK: Final = 0.001  # seconds, as fine as the loop's timers are; what falls due in between leaves together
_PATIENCE: Final = 300.0  # seconds until everything must be answered


class Answer(NamedTuple):
    status: int
    body: bytes


@dataclass(slots=True)
class Load:
    """What some load came to."""

    rate: float  # answers a second
    latencies: list[float]  # seconds to each answer, from when its request should have left to its last byte
    client_cores: float  # how much of a core the client took
    answers: list[list[Answer]]  # lane by lane, unless the load has no lanes


def post(path: str, fields: object) -> bytes:
    """Return the bytes of a request that posts JSON."""
    body = json.dumps(fields).encode()
    return _head("POST", path, {"Content-Type": "application/json", "Content-Length": str(len(body))}) + body


def get(path: str, headers: dict[str, str]) -> bytes:
    return _head("GET", path, headers)


def _head(method: str, path: str, headers: dict[str, str]) -> bytes:
    lines = [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: sidecar", *lines, "", "")).encode()


class _Connection(asyncio.Protocol):
    transport: asyncio.Transport
    due = 0.0  # when the request under way should have left

    def __init__(self, session: "_Session") -> None:
        self._session, self._received = session, b""
        self._status, self._on_answer = session.status, session.on_answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def ask(self, request: bytes, due: float) -> None:
        self.due = due
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data if self._received else data
        head = received.find(_END)
        if head < 0:
            return
        start = received.find(_LENGTH)
        if start < 0:  # the sidecar writes it in small letters, gateways do not
            start = received[:head].lower().find(_LENGTH)
        start += len(_LENGTH)
        if not received.startswith(self._status) or not len(_LENGTH) <= start < head:
            self._session.fail(f"an answer other than expected: {received[:300]!r}")
        elif len(received) >= head + len(_END) + int(received[start : received.find(b"\r", start)]):
            self._received = b""
            self._on_answer(self, received)

    def connection_lost(self, exc: Exception | None) -> None:
        self._session.fail(f"the server closed a connection: {exc}")


class _Session:
    """The connections of one load, from the first request to the last answer."""

    def __init__(self, status: bytes, on_answer: Callable[[_Connection, bytes], None]) -> None:
        self.status, self.on_answer = status, on_answer
        self.latencies: list[float] = []
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def fail(self, why: str) -> None:
        if not self._ended.done():
            self._ended.set_exception(BenchmarkError(why))

    async def open(self, address: Address, count: int) -> list[_Connection]:
        """Connect, and start the clock."""
        connect = asyncio.get_running_loop().create_connection
        try:
            self.opened = [(await connect(lambda: _Connection(self), *address))[1] for _ in range(count)]
        except OSError as error:
            raise BenchmarkError(f"{address[0]}:{address[1]}: {error}") from error
        self._cpu, self.start = time.process_time(), time.perf_counter()
        return self.opened

    async def measure(self) -> Load:
        """Wait for the end."""
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._ended
        except TimeoutError:
            raise BenchmarkError(f"not everything was answered within {_PATIENCE:g} s") from None
        finally:
            for connection in self.opened:
                connection.transport.abort()
        took, cpu = time.perf_counter() - self.start, time.process_time() - self._cpu
        return Load(len(self.latencies) / took, self.latencies, cpu / took, [])


def _run(load: Coroutine[Any, Any, Load]) -> Load:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(load)


def send(address: Address, lanes: Sequence[Iterable[bytes]]) -> Load:
    """Send every lane over a connection of its own, all lanes at once.

    The next request of a lane leaves when the last is answered. A lane that is a generator is sent that
    answer, and may let its next request depend on it.
    """
    return _run(_send(address, lanes))


async def _send(address: Address, lanes: Sequence[Iterable[bytes]]) -> Load:
    clock = time.perf_counter
    talks: dict[_Connection, Generator[bytes, Any, None]] = {}
    answers: dict[_Connection, list[Answer]] = {}

    def on_answer(connection: _Connection, received: bytes) -> None:
        session.latencies.append(clock() - connection.due)
        answer = Answer(int(received[9:12]), received[received.find(_END) + len(_END) :])
        answers[connection].append(answer)
        go_on(connection, answer)

    def go_on(connection: _Connection, answer: Answer | None) -> None:
        try:
            request = talks[connection].send(answer)
        except StopIteration:
            del talks[connection]
            if not talks:
                session.end()
        else:
            connection.ask(request, clock())

    session = _Session(_ANY, on_answer)
    for connection, lane in zip(await session.open(address, len(lanes)), lanes, strict=True):
        talks[connection] = lane if isinstance(lane, Generator) else (request for request in lane)
        answers[connection] = []
    for connection in session.opened:
        go_on(connection, None)
    load = await session.measure()
    load.answers = list(answers.values())
    return load


def flood(address: Address, requests: Sequence[bytes], connections: int, seconds: float) -> Load:
    """Send on every connection as soon as it has its answer, which must be 200."""
    return _run(_flood(address, itertools.cycle(requests), connections, seconds))


async def _flood(address: Address, todo: Iterator[bytes], connections: int, seconds: float) -> Load:
    clock = time.perf_counter

    def on_answer(connection: _Connection, _: bytes) -> None:
        now = clock()
        note(now - connection.due)
        if now < until:
            connection.ask(next(todo), now)
        else:
            session.end()

    session = _Session(_OK, on_answer)
    note = session.latencies.append
    opened = await session.open(address, connections)
    until = session.start + seconds
    for connection in opened:
        connection.ask(next(todo), session.start)
    return await session.measure()


def pace(address: Address, requests: Sequence[bytes], connections: int, seconds: float, rate: float) -> Load:
    """Send `rate` requests a second on a schedule, however long the answers take, which must be 200.

    A request that finds no connection free waits in line, and its latency counts from when it was
    due: a server that falls behind cannot hide it.
    """
    return _run(_pace(address, itertools.cycle(requests), connections, max(1, int(rate * seconds)), rate))


async def _pace(address: Address, todo: Iterator[bytes], connections: int, count: int, rate: float) -> Load:
    loop, clock = asyncio.get_running_loop(), time.perf_counter
    waiting: deque[float] = deque()

    def on_answer(connection: _Connection, _: bytes) -> None:
        latencies.append(clock() - connection.due)
        if waiting:
            connection.ask(next(todo), waiting.popleft())
        else:
            free.append(connection)
        if len(latencies) == count:
            session.end()

    def send_due(sent: int) -> None:
        due = min(count, 1 + int((clock() - session.start) * rate))
        waiting.extend(session.start + number / rate for number in range(sent, due))
        while waiting and free:
            free.pop().ask(next(todo), waiting.popleft())
        if due < count:
            loop.call_later(max(_TICK, session.start + due / rate - clock()), send_due, due)

    session = _Session(_OK, on_answer)
    latencies, free = session.latencies, [*await session.open(address, connections)]
    send_due(0)
    return await session.measure()
