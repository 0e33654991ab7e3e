"""Sends commands to the store and returns their replies, for asyncio; see `transport`.

All calls of a limiter share one connection. A call may be sent before the calls ahead of it have their
replies: the server replies in the order in which it received the commands.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast

import hiredis
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import ReadOnlyError

from ratelimit.stores.transport import as_error, raise_error_reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    import redis.asyncio

    from ratelimit.stores.transport import Command

T = TypeVar("T")

_LOOP_TURNS: Final = 4
"""The event loop needs three turns from a readable socket to a finished call. This is one more."""

_CLOSED_BY_SERVER: Final = "the server closed the connection"


async def await_within(deadline: float, call: Awaitable[T]) -> T:
    """Await a call to the store for at most `deadline` seconds.

    If this process itself was delayed, the reply may have come in time and not be read yet when the
    timer ends. So the event loop gets a few more turns to read it: a delay of our own is no outage.

    Raises:
        TimeoutError: there is no reply.
    """
    task = asyncio.ensure_future(call)
    # If this function is cancelled, nobody reads the task's error. Read it here, or asyncio logs it.
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    try:
        await asyncio.wait({task}, timeout=deadline)
        for _ in range(_LOOP_TURNS):
            if task.done():
                break
            await asyncio.sleep(0)
        if not task.done():
            raise TimeoutError
    finally:
        task.cancel()
    return await task


def abort_on_disconnect(connection_class: Any) -> Any:  # noqa: ANN401 - redis-py has many connection classes
    """Return a class of connections that end at once when they are closed.

    No command is under way on them at that time. Without this, TLS sends a closing message and waits half
    a minute for a server that does not answer it. If the event loop ends before, the socket stays open.
    """

    class AbortingConnection(connection_class):  # type: ignore[misc]  # mypy does not know the base class
        async def disconnect(self, **options: object) -> None:
            writer = self._writer
            await super().disconnect(**{**options, "nowait": True})
            if writer is not None:
                writer.transport.abort()

    return AbortingConnection


class AsyncTransport(Protocol):
    """Sends commands to the store."""

    async def call(self, *command: str | bytes | float) -> Any:  # noqa: ANN401 - replies have many types
        """Send a command and return its reply.

        Raises:
            redis.RedisError: the connection was lost, or the store replied with an error.
            OSError: the connection was lost.
            TimeoutError: there was no reply within the deadline.
        """
        ...

    async def call_many(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands together and return their replies. An error reply is returned, not raised.

        Raises:
            redis.RedisError, OSError: the connection was lost.
            TimeoutError: there were not all replies within the deadline.
        """
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


class AsyncClientTransport:
    """Sends commands through a client, for stores that have no socket (`memory://`)."""

    def __init__(self, client: redis.asyncio.Redis, deadline: float) -> None:
        self._client: Any = client  # redis-py leaves execute_command untyped.
        self._deadline = deadline

    async def call(self, *command: str | bytes | float) -> Any:  # noqa: ANN401 - replies have many types
        """See `AsyncTransport`."""
        return await await_within(self._deadline, self._client.execute_command(*command))

    async def call_many(self, commands: Sequence[Command]) -> list[Any]:
        """See `AsyncTransport`."""
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = await await_within(self._deadline, pipeline.execute(raise_on_error=False))
        return replies

    async def close(self) -> None:
        """See `AsyncTransport`. The client's owner closes the client."""


class SharedTransport:
    """One connection, opened for the first call, and again after it was lost.

    Args:
        pool: has the connection class and its arguments; it does not keep this connection.
        deadline: seconds for a call, including the time to connect.
    """

    def __init__(self, pool: redis.asyncio.ConnectionPool, deadline: float) -> None:
        self._pool = pool
        self._deadline = deadline
        self._connection: _Connection | None = None
        self._opening: asyncio.Task[_Connection] | None = None
        self._waiting_calls = 0  # calls that wait for the connection
        self._loop: asyncio.AbstractEventLoop | None = None  # the event loop of all of these

    async def call(self, *command: str | bytes | float) -> Any:  # noqa: ANN401 - replies have many types
        """See `AsyncTransport`."""
        packed = hiredis.pack_command(cast("Any", command))  # Its stub has the type of a one-item tuple.
        loop = asyncio.get_running_loop()
        until = loop.time() + self._deadline
        connection = self._connection
        if connection is None or connection.is_lost or self._waiting_calls or self._loop is not loop:
            connection = await self._wait_for_connection(loop)
        reply = connection.send(packed)
        timer = loop.call_at(until, connection.end_if_late, reply, _LOOP_TURNS)
        try:
            return raise_error_reply(await reply)
        except ReadOnlyError:
            # The primary has become a replica: a new connection may find the new primary.
            connection.end(LostConnection(_CLOSED_BY_SERVER))
            raise
        finally:
            timer.cancel()

    async def call_many(self, commands: Sequence[Command]) -> list[Any]:
        """See `AsyncTransport`."""
        packed = b"".join([hiredis.pack_command(cast("Any", command)) for command in commands])
        loop = asyncio.get_running_loop()
        until = loop.time() + self._deadline
        connection = self._connection
        if connection is None or connection.is_lost or self._waiting_calls or self._loop is not loop:
            connection = await self._wait_for_connection(loop)
        replies = connection.send_many(packed, len(commands))
        timer = loop.call_at(until, connection.end_if_late, replies[-1], _LOOP_TURNS)
        try:
            await replies[-1]  # The server replies in the order of the commands.
        except BaseException:
            for reply in replies:
                if not reply.cancel() and not reply.cancelled():
                    reply.exception()  # Read here, or asyncio logs it: the last one has the same error.
            raise
        finally:
            timer.cancel()
        return [as_error(reply.result()) for reply in replies]

    async def _wait_for_connection(self, loop: asyncio.AbstractEventLoop) -> _Connection:
        """Return the connection when it is open. Later calls wait, too, so that this one is sent first."""
        if self._loop is not None and self._loop is not loop:
            # A program may run one event loop after the other. A connection of the one before never answers.
            self._connection, self._opening, self._waiting_calls = None, None, 0
        self._loop = loop
        self._waiting_calls += 1
        try:
            return await await_within(self._deadline, asyncio.shield(self._open()))
        finally:
            self._waiting_calls -= 1

    def _open(self) -> asyncio.Task[_Connection]:
        """Open one connection for all calls that wait for it."""
        is_open = self._connection is not None and not self._connection.is_lost
        if self._opening is None or (self._opening.done() and not is_open):
            self._opening = asyncio.create_task(self._connect())
            # If every waiting call was cancelled, nobody reads the error: read it here, or asyncio logs it.
            self._opening.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return self._opening

    async def _connect(self) -> _Connection:
        if self._connection is not None:
            await self._connection.close()
        connection: Any = self._pool.connection_class(**self._pool.connection_kwargs)
        try:
            await connection.connect()
            # A server refuses a client's certificate only after the handshake.
            await connection.send_command("PING")
            await connection.read_response()
            self._connection = _Connection(connection)
        except BaseException:
            await connection.disconnect()
            raise
        return self._connection

    async def close(self) -> None:
        """See `AsyncTransport`."""
        if self._loop is not asyncio.get_running_loop():
            return  # The connection ended with its event loop.
        if self._opening is not None:
            self._opening.cancel()
        if self._connection is not None:
            await self._connection.close()


class _Connection(asyncio.Protocol):
    """One connection, taken over from redis-py after redis-py has set it up.

    Raises:
        redis.ConnectionError: the connection was already lost. asyncio would not report that again.
    """

    def __init__(self, connection: Any) -> None:  # noqa: ANN401 - redis-py has many connection classes
        self._connection = connection
        self._transport: asyncio.Transport = connection._writer.transport  # noqa: SLF001 - it has no public name
        if self._transport.is_closing():
            raise LostConnection(_CLOSED_BY_SERVER)
        self._transport.set_protocol(self)
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self.is_lost = False

    def send(self, packed: bytes) -> asyncio.Future[Any]:
        """Send one command and return the future that gets its reply.

        Raises:
            redis.ConnectionError: the connection was lost before, perhaps just after it was opened: a server
                refuses a client's certificate after the handshake. What is written then is not reported.
        """
        if self.is_lost:
            raise LostConnection(_CLOSED_BY_SERVER)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._transport.write(packed)
        return future

    def send_many(self, packed: bytes, count: int) -> list[asyncio.Future[Any]]:
        """Send several commands together and return the futures that get their replies; see `send`."""
        if self.is_lost:
            raise LostConnection(_CLOSED_BY_SERVER)
        create_future = asyncio.get_running_loop().create_future
        futures: list[asyncio.Future[Any]] = [create_future() for _ in range(count)]
        self._waiting += futures
        self._transport.write(packed)
        return futures

    def data_received(self, data: bytes) -> None:
        """Give the replies that have arrived to the calls that wait, in the order sent.

        A reply without a call ends the connection: it would be taken for the reply to the next call.
        """
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            if not self._waiting:
                self.end(LostConnection("the server sent a reply to no command"))
                return
            future = self._waiting.popleft()
            if not future.done():  # It is done if the task that waited for it was cancelled.
                future.set_result(reply)

    def end_if_late(self, future: asyncio.Future[Any], turns: int) -> None:
        """End the connection if a reply has not come in time.

        The event loop first gets some turns: the reply may have arrived and not be read yet.
        """
        if future.done():
            return
        if turns:
            asyncio.get_running_loop().call_soon(self.end_if_late, future, turns - 1)
            return
        self.end(TimeoutError())

    def connection_lost(self, _: Exception | None) -> None:
        """Fail all calls that still wait for a reply."""
        self._fail_waiting(LostConnection(_CLOSED_BY_SERVER))

    def end(self, error: Exception) -> None:
        """Close the connection at once, and fail all calls that still wait for a reply."""
        self._fail_waiting(error)
        self._transport.abort()

    def _fail_waiting(self, error: Exception) -> None:
        self.is_lost = True
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(error)

    async def close(self) -> None:
        """Close the connection."""
        self._fail_waiting(LostConnection("the limiter is closed"))
        await self._connection.disconnect()
