"""A load client for HTTP: keep-alive connections, each with one request under way at the most.

Requests are made beforehand, and of each answer only status and length are read: a few microseconds a
request, where a general client costs more than the sidecar. The client's share of a core is part of the
result, to show figures that measure the client. BenchmarkError for any answer that is missing or unexpected.
"""

import asyncio
import itertools
import json
import re
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Self, cast

import uvloop

from benchmarks import BenchmarkError
from benchmarks.programs import Address

_END: Final = b"\r\n\r\n"
# The sidecar writes the name in small letters, gateways do not.
_LENGTH: Final = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: (\d+)\r\n")
_ANY: Final = b"HTTP/1.1 "
_OK: Final = b"HTTP/1.1 200 "
_TICK: Final = 0.001  # seconds, as fine as the loop's timers are; what falls due in between leaves together
_PATIENCE: Final = 300.0  # seconds until everything must be answered


class Answer(NamedTuple):
    status: int
    body: bytes

    @classmethod
    def parse(cls, received: bytes) -> Self:
        return cls(int(received[9:12]), received[received.find(_END) + len(_END) :])


def post(path: str, fields: object) -> bytes:
    body = json.dumps(fields).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    return get(path, headers, "POST") + body


def get(path: str, headers: Mapping[str, str], method: str = "GET") -> bytes:
    lines = [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: sidecar", *lines, "", "")).encode()


class _Connection(asyncio.Protocol):
    transport: asyncio.Transport
    due = 0.0  # when the request under way should have left
    is_done = (
        False  # no request follows, so the server may close the connection: it does after 5 idle seconds
    )

    def __init__(self, load: "Load", on_answer: "OnAnswer") -> None:
        self._load, self._status, self._on_answer, self._received = load, load.status, on_answer, b""

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
        length = _LENGTH.search(received, 0, head + len(_END))
        if length is None or not received.startswith(self._status):
            self._load.end(f"an answer other than expected: {received[:300]!r}")
        elif len(received) >= head + len(_END) + int(length[1]):
            self._received = b""
            self._load.latencies.append(time.perf_counter() - self.due)
            self._on_answer(self, received)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.is_done:
            self._load.end(f"the server closed a connection: {exc}")


OnAnswer = Callable[[_Connection, bytes], None]


class Load:
    rate: float  # answers a second
    client_cores: float  # how much of a core the client took
    start: float

    def __init__(self, status: bytes) -> None:
        self.status = status  # how every answer must begin
        self.latencies: list[float] = []  # seconds to each answer, from when its request should have left
        self.answers: list[list[Answer]] = []  # lane by lane, if the load has lanes
        self.opened: list[_Connection] = []

    def end(self, fault: str = "") -> None:
        if not self._ended.done():
            self._ended.set_result(fault)

    def run(self, address: Address, connections: int, begin: Callable[[], None], on_answer: OnAnswer) -> Self:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._run(address, connections, begin, on_answer))
        return self

    async def _run(self, address: Address, connections: int, begin: Any, on_answer: OnAnswer) -> None:
        loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[str] = loop.create_future()
        try:
            for _ in range(connections):
                made = await loop.create_connection(lambda: _Connection(self, on_answer), *address)
                self.opened.append(made[1])
            cpu, self.start = time.process_time(), time.perf_counter()
            begin()
            async with asyncio.timeout(_PATIENCE):
                fault = await self._ended
            seconds, cpu = time.perf_counter() - self.start, time.process_time() - cpu
            self.rate, self.client_cores = len(self.latencies) / seconds, cpu / seconds
        except TimeoutError:
            fault = f"not everything was answered within {_PATIENCE:g} s"
        except OSError as error:
            fault = f"{address[0]}:{address[1]}: {error}"
        finally:
            for connection in self.opened:
                connection.transport.abort()
        if fault:
            raise BenchmarkError(fault)


def send(address: Address, lanes: Sequence[Iterable[bytes]], status: bytes = _ANY) -> Load:
    """Send all lanes at once, each over its own connection; a request leaves when the last is answered.

    A lane that is a generator is sent the bytes of that answer, and may let its next request depend on it.
    """
    load = Load(status)
    talks: dict[_Connection, Generator[bytes, Any, None]] = {}
    answers: dict[_Connection, list[bytes]] = {}

    def begin() -> None:
        for connection, lane in zip(load.opened, lanes, strict=True):
            talks[connection] = lane if isinstance(lane, Generator) else (request for request in lane)
            answers[connection] = []
        for connection in load.opened:
            send_next(connection, None)

    def on_answer(connection: _Connection, received: bytes) -> None:
        answers[connection].append(received)
        send_next(connection, received)

    def send_next(connection: _Connection, received: bytes | None) -> None:
        try:
            request = talks[connection].send(received)
        except StopIteration:
            del talks[connection]
            connection.is_done = True
            if not talks:
                load.end()
        else:
            connection.ask(request, time.perf_counter())

    load.run(address, len(lanes), begin, on_answer)
    load.answers = [[Answer.parse(received) for received in lane] for lane in answers.values()]
    return load


def flood(address: Address, requests: Sequence[bytes], connections: int, seconds: float) -> Load:
    """Send on every connection as soon as it has its answer, which must be 200."""
    todo, clock = itertools.cycle(requests), time.perf_counter

    def lane() -> Iterator[bytes]:
        until = clock() + seconds
        while clock() < until:
            yield next(todo)

    return send(address, [lane() for _ in range(connections)], _OK)


def pace(address: Address, requests: Sequence[bytes], connections: int, seconds: float, rate: float) -> Load:
    """Send `rate` requests a second on a schedule, however long the answers take, which must be 200.

    A request that finds no connection free waits, and its latency counts from when it was due.
    """
    load, clock, todo = Load(_OK), time.perf_counter, itertools.cycle(requests)
    waiting, free, count = deque[float](), list[_Connection](), max(1, int(rate * seconds))

    def begin() -> None:
        free.extend(load.opened)
        send_due(0)

    def on_answer(connection: _Connection, _: bytes) -> None:
        if waiting:
            connection.ask(next(todo), waiting.popleft())
        else:
            free.append(connection)
        if len(load.latencies) == count:
            load.end()

    def send_due(sent: int) -> None:
        due = min(count, 1 + int((clock() - load.start) * rate))
        waiting.extend(load.start + number / rate for number in range(sent, due))
        while waiting and free:
            free.pop().ask(next(todo), waiting.popleft())
        if due < count:
            delay = max(_TICK, load.start + due / rate - clock())
            asyncio.get_running_loop().call_later(delay, send_due, due)

    return load.run(address, connections, begin, on_answer)
