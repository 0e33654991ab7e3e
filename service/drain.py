"""Stop without losing a request.

On SIGTERM the sidecar says that it is not ready and goes on answering for a while. Each answer then closes
its connection, so that clients go to another sidecar, and no request meets a connection that is being closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Final

import structlog

from service.background import run_in_background

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection
    from types import FrameType

    from starlette.types import Message, Send

log = structlog.get_logger("ratelimit")

LINGER: Final = 0.5
"""Seconds for which it goes on at least while there are connections: busy ones are closed by an answer."""

_TICK: Final = 0.02
"""Seconds between two looks at the connections."""

_CLOSE: Final = (b"connection", b"close")


class Drain:
    """Whether the sidecar is draining.

    Attributes:
        is_active: whether a drain has begun. A plain attribute, because every request looks at it.
        begun: set when a drain begins, and never cleared.
    """

    def __init__(self) -> None:
        self.is_active = False
        self.begun = asyncio.Event()

    def begin(self) -> None:
        """Begin to drain."""
        self.is_active = True
        self.begun.set()


def close_after_response(send: Send) -> Send:
    """Return a `send` whose response tells the client that the connection is closed after it."""

    async def send_closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), _CLOSE]}
        await send(message)

    return send_closing


@contextlib.asynccontextmanager
async def drain_on_sigterm(drain: Drain, seconds: float) -> AsyncIterator[None]:
    """Drain on SIGTERM, and only then let the server stop, until the block ends.

    The server's own handler of the signal is called after the drain; on a second SIGTERM, at once. Without a
    server that handles SIGTERM, or outside the main thread, nothing happens here.

    Args:
        drain: begins with the signal.
        seconds: how long to go on.
    """
    stop = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or not callable(stop):
        yield
        return
    loop = asyncio.get_running_loop()

    def handle(number: int, frame: FrameType | None) -> None:
        if drain.is_active:
            stop(number, frame)
        else:
            loop.call_soon_threadsafe(drain.begin)

    signal.signal(signal.SIGTERM, handle)
    try:
        async with run_in_background(_run_drain(drain, seconds, stop)):
            yield
    finally:
        signal.signal(signal.SIGTERM, stop)


async def _run_drain(drain: Drain, seconds: float, stop: Callable[[int, FrameType | None], object]) -> None:
    await drain.begun.wait()
    log.info("draining: not ready, and goes on answering", seconds=seconds)
    loop = asyncio.get_running_loop()
    end, started = loop.time() + seconds, loop.time()
    connections = _find_connections(stop)
    while loop.time() < end or (  # noqa: ASYNC110
        connections and loop.time() < started + LINGER
    ):
        await asyncio.sleep(_TICK)  # uvicorn tells nobody when a connection ends
    stop(signal.SIGTERM, None)


def _find_connections(stop: object) -> Collection[object]:
    """Return the open connections of the server whose method `stop` is: uvicorn's."""
    state = getattr(getattr(stop, "__self__", None), "server_state", None)
    connections: Collection[object] = getattr(state, "connections", ())
    return connections
