"""How a script's call reaches the server and its reply comes back, for asyncio; see `wire`.

All calls of a limiter share one connection and may follow each other before the first is answered:
a server answers in the order asked.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast

import hiredis
from redis.exceptions import ConnectionError as LostConnection

from ratelimit.stores.transport import raise_error_reply

if TYPE_CHECKING:
    from collections.abc import Awaitable

    import redis.asyncio

T = TypeVar("T")

_TURNS: Final = 4
"""From a readable socket to a finished call it takes the loop three turns, and one to spare."""

_CLOSED: Final = "the server closed the connection"


async def await_within(deadline: float, call: Awaitable[T]) -> T:
    """Await a call of the store for `deadline` seconds at the most.

    When this process itself was held up, the reply may have come in time and still lie unread
    when the timer goes off. It gets a few turns of the loop to be read: our own delay is no outage.

    Raises:
        TimeoutError: there is no answer.
    """
    task = asyncio.ensure_future(call)
    # If we leave before it ends, its end is nobody's business, and not for asyncio to complain about.
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    try:
        await asyncio.wait({task}, timeout=deadline)
        for _ in range(_TURNS):
            if task.done():
                break
            await asyncio.sleep(0)
        if not task.done():
            raise TimeoutError
    finally:
        task.cancel()
    return await task


def abort_on_disconnect(kind: Any) -> Any:  # noqa: ANN401 - one of redis-py's classes of connections
    """Make connections of this kind end at once when they are closed.

    Nothing is under way on them by then. Left to itself TLS says goodbye and waits half a minute for
    a server that is silent to do likewise, and a loop that ends meanwhile leaves the socket open.
    """

    class HangsUp(kind):  # type: ignore[misc]  # a class that mypy does not know
        async def disconnect(self, **how: object) -> None:
            writer = self._writer
            await super().disconnect(**{**how, "nowait": True})
            if writer is not None:
                writer.transport.abort()

    return HangsUp


class AsyncTransport(Protocol):
    """Carries commands to the store."""

    async def call(self, *command: str | bytes | float) -> Any:  # noqa: ANN401 - whatever the store says
        """Send a command and return its reply; raises what redis-py would, or TimeoutError."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


class AsyncClientTransport:
    """Leaves it to a client: for stores that are not at the other end of a socket."""

    def __init__(self, client: redis.asyncio.Redis, deadline: float) -> None:
        self._client: Any = client  # redis-py leaves execute_command untyped
        self._deadline = deadline

    async def call(self, *command: str | bytes | float) -> Any:  # noqa: ANN401 - whatever the store says
        """See `AsyncWire`."""
        return await await_within(self._deadline, self._client.execute_command(*command))

    async def close(self) -> None:
        """See `AsyncWire`; the client is closed by its owner."""


class SharedTransport:
    """One connection, opened when it is needed and anew after it was lost.

    Args:
        pool: knows how to connect.
        deadline: seconds for a call, connecting included.
    """

    def __init__(self, pool: redis.asyncio.ConnectionPool, deadline: float) -> None:
        self._pool = pool
        self._deadline = deadline
        self._line: _Connection | None = None
        self._opening: asyncio.Task[_Connection] | None = None

    async def call(self, *command: str | bytes | float) -> Any:  # noqa: ANN401 - whatever the store says
        """See `AsyncWire`."""
        packed = hiredis.pack_command(cast("Any", command))  # its stub knows a tuple of one
        loop = asyncio.get_running_loop()
        until = loop.time() + self._deadline
        line = self._line
        if line is None or line.lost:
            line = await await_within(self._deadline, asyncio.shield(self._open()))
        answer = line.send(packed)
        alarm = loop.call_at(until, line.late, answer, _TURNS)
        try:
            return raise_error_reply(await answer)
        finally:
            alarm.cancel()

    def _open(self) -> asyncio.Task[_Connection]:
        """Open a connection once for all who wait for it."""
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._connect())
            self._opening.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return self._opening

    async def _connect(self) -> _Connection:
        if self._line is not None:
            await self._line.close()
        connection: Any = self._pool.connection_class(**self._pool.connection_kwargs)
        try:
            await connection.connect()
            self._line = _Connection(connection)
        except BaseException:
            await connection.disconnect()
            raise
        return self._line

    async def close(self) -> None:
        """See `AsyncWire`."""
        if self._opening is not None:
            self._opening.cancel()
        if self._line is not None:
            await self._line.close()


class _Connection(asyncio.Protocol):
    """One connection, taken over from redis-py once it is greeted.

    Raises:
        redis.ConnectionError: it has been lost since; nobody would tell us any more.
    """

    def __init__(self, connection: Any) -> None:  # noqa: ANN401 - of any of redis-py's classes
        self._connection = connection
        self._transport: asyncio.Transport = connection._writer.transport  # noqa: SLF001 - it has no other name
        if self._transport.is_closing():
            raise LostConnection(_CLOSED)
        self._transport.set_protocol(self)
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self.lost = False

    def send(self, packed: bytes) -> asyncio.Future[Any]:
        """Send one command; the future gets its reply."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        self._transport.write(packed)
        return answer

    def data_received(self, data: bytes) -> None:
        """Hand out what has arrived, in the order asked.

        What nobody asked for would be taken for the answer to the next call: that is the end of it.
        """
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            if not self._waiting:
                self._end(LostConnection("the server said something that nobody asked for"))
                self._transport.abort()
                return
            answer = self._waiting.popleft()
            if not answer.done():  # else whoever asked was cancelled
                answer.set_result(reply)

    def late(self, answer: asyncio.Future[Any], turns: int) -> None:
        """Give up on a connection whose answer has not come in time.

        Not before the loop has had some turns: what it has not read yet may be the answer.
        """
        if answer.done():
            return
        if turns:
            asyncio.get_running_loop().call_soon(self.late, answer, turns - 1)
            return
        self._end(TimeoutError())
        self._transport.abort()

    def connection_lost(self, _: Exception | None) -> None:
        """Tell everybody who still waits."""
        self._end(LostConnection(_CLOSED))

    def _end(self, error: Exception) -> None:
        self.lost = True
        while self._waiting:
            answer = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(error)

    async def close(self) -> None:
        """Hang up."""
        self._end(LostConnection("the limiter is closed"))
        await self._connection.disconnect()
