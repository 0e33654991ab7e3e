"""A load client for HTTP: keep-alive connections, each with one request under way at the most.

Requests are made beforehand, and of each answer only status and length are read: a few microseconds a
request, where a general client costs more than the sidecar. The client's share of a core is part of the
result, to show figures that measure the client. BenchmarkError for any answer that is missing or unexpected.
"""

import asyncio
import contextlib
import itertools
import json
import re
import time
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Self, cast

import uvloop

from benchmarks import BenchmarkError
from benchmarks.programs import Address

_END: Final = b"\r\n\r\n"
# The sidecar writes the name in small letters, gateways do not.
_LENGTH: Final = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: (\d+)\r\n")
_ANY: Final = b"HTTP/1.1 "
_OK: Final = b"HTTP/1.1 200 "
_TICK: Final = 0.001  # seconds: the resolution of the loop's timers
_PATIENCE: Final = 300.0  # seconds until everything must be answered


class Answer(NamedTuple):
    status: int
    body: bytes

    @classmethod
    def parse(cls, received: bytes) -> Self:
        return cls(int(received[9:12]), received[received.find(_END) + len(_END) :])


class Load(NamedTuple):
    latencies: list[float]  # seconds to each answer, from when its request should have left
    rate: float  # answers a second
    client_cores: float  # how much of a core the client took
    answers: list[list[Answer]]  # lane by lane


def post(path: str, fields: object) -> bytes:
    body = json.dumps(fields).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    return get(path, headers, "POST") + body


def get(path: str, headers: Mapping[str, str], method: str = "GET") -> bytes:
    lines = [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: sidecar", *lines, "", "")).encode()


class _Connection(asyncio.Protocol):
    transport: asyncio.Transport
    _answer: "asyncio.Future[bytes] | None" = None  # of the request under way

    def __init__(self, status: bytes, latencies: list[float]) -> None:
        self._status, self._latencies, self._received = status, latencies, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    async def exchange(self, request: bytes, due: float) -> bytes:
        """Send a request that should have left at `due`; return its answer."""
        if self.transport.is_closing():
            raise BenchmarkError("the server closed a connection")
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        received = await self._answer
        self._latencies.append(time.perf_counter() - due)
        return received

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data if self._received else data
        head = received.find(_END)
        if head < 0:
            return
        length = _LENGTH.search(received, 0, head + len(_END))
        if length is None or not received.startswith(self._status):
            self._fail(f"an answer other than expected: {received[:300]!r}")
        elif self._answer and len(received) >= head + len(_END) + int(length[1]):
            self._received = b""
            self._answer.set_result(received)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the server closed a connection: {exc}")

    def _fail(self, fault: str) -> None:
        if self._answer and not self._answer.done():  # an idle connection may be closed
            self._answer.set_exception(BenchmarkError(fault))


Talk = Callable[[_Connection, float], Coroutine[None, None, list[Answer]]]  # from its start on


def _run(address: Address, talks: Sequence[Talk], status: bytes) -> Load:
    """Hold each talk over its own connection; every answer must begin with the status."""

    async def run() -> Load:
        loop, latencies, opened = asyncio.get_running_loop(), list[float](), list[_Connection]()
        try:
            for _ in talks:
                _, made = await loop.create_connection(lambda: _Connection(status, latencies), *address)
                opened.append(made)
            cpu, start = time.process_time(), time.perf_counter()
            async with asyncio.timeout(_PATIENCE):
                talking = (talk(connection, start) for talk, connection in zip(talks, opened, strict=True))
                answers = await asyncio.gather(*talking)
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
            return Load(latencies, len(latencies) / seconds, cpu / seconds, answers)
        except TimeoutError:
            raise BenchmarkError(f"not everything was answered within {_PATIENCE:g} s") from None
        except OSError as error:
            raise BenchmarkError(f"{address[0]}:{address[1]}: {error}") from None
        finally:
            for connection in opened:
                connection.transport.abort()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


def send(address: Address, lanes: Sequence[Iterable[bytes]], status: bytes = _ANY) -> Load:
    """Send all lanes at once, each over its own connection; a request leaves when the last is answered.

    A lane that is a generator is sent the bytes of that answer, and may let its next request depend on it.
    """

    def talk_along(lane: Iterable[bytes]) -> Talk:
        requests = lane if isinstance(lane, Generator) else (request for request in lane)

        async def talk(connection: _Connection, _start: float) -> list[Answer]:
            answers, received = list[bytes](), cast("Any", None)  # before the first request
            with contextlib.suppress(StopIteration):
                while True:
                    received = await connection.exchange(requests.send(received), time.perf_counter())
                    answers.append(received)
            return [Answer.parse(answer) for answer in answers]

        return talk

    return _run(address, [talk_along(lane) for lane in lanes], status)


def flood(address: Address, requests: Sequence[bytes], connections: int, seconds: float) -> Load:
    """Send on every connection as soon as it has its answer, which must be 200."""
    todo, clock = itertools.cycle(requests), time.perf_counter

    def lane() -> Iterator[bytes]:
        until = clock() + seconds  # from its first request on
        while clock() < until:
            yield next(todo)

    return send(address, [lane() for _ in range(connections)], _OK)


def pace(address: Address, requests: Sequence[bytes], connections: int, seconds: float, rate: float) -> Load:
    """Send `rate` requests a second on a schedule, however long the answers take, which must be 200.

    A request that finds no connection free waits, and its latency counts from when it was due.
    """
    todo = zip(range(max(1, int(rate * seconds))), itertools.cycle(requests), strict=False)

    async def talk(connection: _Connection, start: float) -> list[Answer]:
        for number, request in todo:
            due = start + number / rate
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early + _TICK / 2)  # the loop rounds to a tick: never leave early
            await connection.exchange(request, due)
        return []

    return _run(address, [talk] * connections, _OK)
