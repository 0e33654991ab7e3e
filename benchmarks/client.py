"""A load client: several keep-alive connections, each sending one request after the other.

HTTP/1.1 by hand, because a general client costs more than the sidecar it would measure.
Requests are bytes made beforehand and answers are kept as bytes: while the clock runs nothing
is encoded or decoded, but by a lane that needs one answer for its next request. How much of a
core the client took is part of the result, so that a figure which measures the client gives
itself away.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_NOTICE: Final = 100  # answers between two words about progress: more often would cost what it tells of
_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"


class ClientError(RuntimeError):
    """The server closed a connection, was silent for too long, or did not speak HTTP."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Attributes:
        status: the HTTP status.
        body: as it came.
        latency: seconds from the first byte sent to the last received.
    """

    status: int
    body: bytes
    latency: float


@dataclass(frozen=True, slots=True)
class Run:
    """All answers, lane by lane in the order asked.

    Attributes:
        answers: one list for each lane.
        seconds: from the first request to the last answer, connecting not included.
        cpu: seconds of processor time that the client itself took.
    """

    answers: list[list[Answer]]
    seconds: float
    cpu: float


def post(path: str, body: bytes) -> bytes:
    """Return the bytes of a request that posts JSON."""
    head = f"POST {path} HTTP/1.1\r\nHost: sidecar\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def send(
    host: str,
    port: int,
    lanes: Sequence[Iterable[bytes]],
    *,
    on_answers: Callable[[int], object] = lambda _: None,
    patience: float = 300.0,
) -> Run:
    """Send every lane over a connection of its own, all lanes at once.

    Args:
        host: where to.
        port: likewise.
        lanes: requests, as `post` makes them; the next of a lane leaves when the last is answered.
            A generator is sent that answer, and may let its next request depend on it.
        on_answers: told now and then how many more answers have come.
        patience: seconds after which everything must be answered.

    Raises:
        ClientError: not every request was answered.
    """
    return asyncio.run(_send(host, port, lanes, on_answers, patience))


async def _send(
    host: str,
    port: int,
    lanes: Sequence[Iterable[bytes]],
    on_answers: Callable[[int], object],
    patience: float,
) -> Run:
    connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    try:
        async with asyncio.timeout(patience):
            for _ in lanes:  # one by one, so that those which are open are closed if another fails
                connections.append(await asyncio.open_connection(host, port))  # noqa: PERF401 - a comprehension would lose those
            start, cpu = time.perf_counter(), time.process_time()
            pairs = zip(connections, lanes, strict=True)
            answers = await asyncio.gather(*(_drive(*streams, lane, on_answers) for streams, lane in pairs))
            return Run(answers, time.perf_counter() - start, time.process_time() - cpu)
    except TimeoutError:
        raise ClientError(f"{host}:{port} did not answer everything within {patience:g} s") from None
    except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
        raise ClientError(f"{host}:{port}: {error}") from error
    finally:
        for _, writer in connections:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in connections), return_exceptions=True)


async def _drive(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    lane: Iterable[bytes],
    on_answers: Callable[[int], object],
) -> list[Answer]:
    answers: list[Answer] = []
    talk = _talk(lane)
    request = next(talk, None)
    while request is not None:
        start = time.perf_counter()
        writer.write(request)
        head = (await reader.readuntil(_END)).lower()
        body = await reader.readexactly(_length(head))
        answers.append(Answer(int(head[9:12]), body, time.perf_counter() - start))
        if len(answers) % _NOTICE == 0:
            on_answers(_NOTICE)
        request = _next(talk, answers[-1])
    on_answers(len(answers) % _NOTICE)
    return answers


def _talk(lane: Iterable[bytes]) -> Generator[bytes, Answer, None]:
    """Return a generator that is sent each answer, be the lane one or not."""
    if isinstance(lane, Generator):
        yield from lane
        return
    for request in lane:  # noqa: UP028 - `yield from` would send the answer on to a list
        yield request


def _next(talk: Generator[bytes, Answer, None], answer: Answer) -> bytes | None:
    try:
        return talk.send(answer)
    except StopIteration:
        return None


def _length(head: bytes) -> int:
    start = head.find(_LENGTH)
    if start < 0:
        raise ValueError(f"an answer without Content-Length: {head[:200]!r}")
    start += len(_LENGTH)
    return int(head[start : head.index(b"\r", start)])
