"""Sends commands to the store and returns their replies, for threads.

redis-py opens each connection: it resolves the address and handles TLS, passwords and databases. After
that a command is one write and one read on the connection's socket, in the store's protocol (RESP) as
hiredis packs and parses it. Every layer in between would cost more time than the script itself.
"""

from __future__ import annotations

import math
import os
import queue
import re
import select
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import hiredis
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError

from ratelimit.stores.refusals import find_refusal

if TYPE_CHECKING:
    import socket

    import redis

_READ_SIZE: Final = 65_536

_SPIN_TIME: Final = 100e-6
"""Seconds for which a thread polls for a reply before it sleeps until the reply comes.

A server on the same machine answers in twenty to sixty microseconds, and falling asleep and being woken
costs as much again. Polling made a single thread 1.7 times as fast and used no more processor time."""

_MAX_CALLS_WITHOUT_SPIN: Final = 255
"""After polling in vain the next calls do not poll: a few calls at first, at most this many."""

_CALLS_UNTIL_ALONE: Final = 64
"""A thread counts as alone after this many calls with no call of another thread in between."""

_HAS_SEVERAL_CORES: Final = len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else [0, 1]) > 1
"""On one core the server cannot answer while this process polls."""


Command = Sequence[str | bytes | float]
"""A command and its arguments."""


class Transport(Protocol):
    """Sends one command at a time to the store."""

    def call(self, *command: str | bytes | float) -> Any:  # noqa: ANN401 - replies have many types
        """Send a command and return its reply.

        Raises:
            redis.RedisError: the connection was lost, or the store replied with an error.
            OSError: the connection was lost, or there was no reply within the deadline.
        """
        ...

    def call_many(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands together and return their replies. An error reply is returned, not raised.

        Raises:
            redis.RedisError: the connection was lost.
            OSError: the connection was lost, or there were not all replies within the deadline.
        """
        ...

    def close(self) -> None:
        """Close every connection."""
        ...


class ClientTransport:
    """Sends commands through a client, for stores that have no socket (`memory://`)."""

    def __init__(self, client: redis.Redis) -> None:
        self._client: Any = client  # redis-py leaves execute_command untyped.

    def call(self, *command: str | bytes | float) -> Any:  # noqa: ANN401 - replies have many types
        """See `Transport`."""
        return self._client.execute_command(*command)

    def call_many(self, commands: Sequence[Command]) -> list[Any]:
        """See `Transport`."""
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = pipeline.execute(raise_on_error=False)
        return replies

    def close(self) -> None:
        """See `Transport`. The client's owner closes the client."""


class PooledTransport:
    """A pool of connections that threads share. One thread at a time uses a connection.

    Args:
        pool: has the connection class and its arguments; it does not keep these connections.
        max_connections: how many connections may be in use at the same time.
        max_wait: seconds for which a call waits for a connection that no other thread uses.
    """

    def __init__(self, pool: redis.ConnectionPool, max_connections: int, max_wait: float) -> None:
        self._pool = pool
        self._max_wait = max_wait
        self._closed = False
        self._last_thread = 0
        self._calls_without_spin = 0 if _HAS_SEVERAL_CORES else math.inf  # how many are still to come
        self._spin_backoff = 0  # how many there were after polling was last in vain
        self._free: list[_Connection] = []
        self._permits: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(max_connections):
            self._permits.put(None)

    def call(self, *command: str | bytes | float) -> Any:  # noqa: ANN401 - replies have many types
        """See `Transport`."""
        packed = hiredis.pack_command(cast("Any", command))  # Its stub has the type of a one-item tuple.
        [reply] = self._call(packed, 1)
        return raise_error_reply(reply)

    def call_many(self, commands: Sequence[Command]) -> list[Any]:
        """See `Transport`."""
        packed = b"".join([hiredis.pack_command(cast("Any", command)) for command in commands])
        return [as_error(reply) for reply in self._call(packed, len(commands))]

    def _call(self, packed: bytes, count: int) -> list[Any]:
        """Send `count` commands on one connection and return their replies."""
        try:
            self._permits.get(timeout=self._max_wait)
        except queue.Empty:
            raise LostConnection("every connection is in use") from None
        try:
            connection = self._take_connection()
            try:
                replies = self._exchange(connection, packed, count)
            except BaseException:
                # A late reply on this connection would be taken for the reply to another call.
                connection.close()
                raise
            if self._closed or is_read_only(replies[-1]):
                connection.close()
            else:
                self._free.append(connection)
        finally:
            self._permits.put(None)
        return replies

    def _exchange(self, connection: _Connection, packed: bytes, count: int) -> list[Any]:
        """Send commands and return the replies; poll if the thread is alone and the server is near."""
        connection.send(packed)
        if (thread := threading.get_ident()) != self._last_thread:
            self._last_thread = thread
            # The other threads can make better use of the processor.
            self._calls_without_spin = max(self._calls_without_spin, _CALLS_UNTIL_ALONE)
        elif self._calls_without_spin > 0:
            self._calls_without_spin -= 1
        else:
            self._spin_backoff = (
                0 if connection.spin() else min(2 * self._spin_backoff + 1, _MAX_CALLS_WITHOUT_SPIN)
            )
            self._calls_without_spin = self._spin_backoff
        return [connection.receive() for _ in range(count)]

    def _take_connection(self) -> _Connection:
        """Return the connection that was used last and is still open, or a new connection."""
        while self._free:
            try:
                connection = self._free.pop()
            except IndexError:  # Another thread has taken the last one.
                break
            if connection.is_idle():
                return connection
            connection.close()
        return _Connection(self._pool)

    def close(self) -> None:
        """See `Transport`."""
        self._closed = True  # A call that is under way closes its own connection.
        while self._free:
            self._free.pop().close()


class _Connection:
    """One connection."""

    def __init__(self, pool: redis.ConnectionPool) -> None:
        self._connection = pool.connection_class(**pool.connection_kwargs)
        self._connection.connect()
        self._socket: socket.socket = self._connection._sock  # noqa: SLF001 - redis-py has no public name for it
        self._deadline: float = self._socket.gettimeout() or math.inf
        self._receive_by = math.inf
        self._reader = hiredis.Reader()
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def is_idle(self) -> bool:
        """Whether the socket is open and has nothing to read, such as the server's end of the connection."""
        return not self._poll.poll(0)

    def send(self, packed: bytes) -> None:
        """Send commands."""
        self._receive_by = time.monotonic() + self._deadline
        self._socket.sendall(packed)

    def spin(self) -> bool:
        """Poll for the reply without a pause; return whether it came within `_SPIN_TIME`."""
        until = time.perf_counter() + _SPIN_TIME
        while not self._poll.poll(0):
            if time.perf_counter() > until:
                return False
        return True

    def receive(self) -> Any:  # noqa: ANN401 - replies have many types
        """Wait for the next reply, and return it."""
        reply = self._reader.gets()
        while reply is False:
            chunk = self._socket.recv(_READ_SIZE)
            # The socket's timeout is for each chunk, the deadline for the whole reply.
            if time.monotonic() > self._receive_by:
                raise TimeoutError
            if not chunk:
                raise LostConnection("the server closed the connection")
            self._reader.feed(chunk)
            reply = self._reader.gets()
        return reply

    def close(self) -> None:
        """Close the connection."""
        self._connection.disconnect()


def raise_error_reply(reply: Any) -> Any:  # noqa: ANN401 - replies have many types
    """Return a reply; raise it if it is an error.

    Raises:
        NoScriptError: the server does not have the script (yet), and has run nothing.
        ReadOnlyError: the server is a replica, and has written nothing.
        AuthenticationError, NoPermissionError: the server refuses this client, or this command to its user.
        ResponseError: the server replied with any other error.
    """
    if isinstance(reply, hiredis.ReplyError):
        raise as_error(reply)
    return reply


def as_error(reply: Any) -> Any:  # noqa: ANN401 - replies have many types
    """Return a reply; if it is an error, as one of the errors that `raise_error_reply` raises."""
    if not isinstance(reply, hiredis.ReplyError):
        return reply
    text = str(reply)
    if proves_no_run(text):
        return NoScriptError(text)
    if is_read_only(reply):
        return ReadOnlyError(text)
    return find_refusal(text) or ResponseError(text)


def is_read_only(reply: object) -> bool:
    """Whether a reply says that the server is a replica: the primary was replaced."""
    return isinstance(reply, hiredis.ReplyError) and "READONLY" in str(reply)


_NO_RUN: Final = re.compile(
    r"(?:ERR )?(?:NOSCRIPT\b|No matching script\b|(?:unknown|unsupported) command\W{0,3}EVALSHA\b)",
    re.IGNORECASE,
)


def proves_no_run(text: str) -> bool:
    """Return whether an error reply to EVALSHA proves that the server has not run the script.

    Redis and Valkey say NOSCRIPT. Some others say ERR before it, leave it out, or do not know EVALSHA. Only
    the beginning counts: the error of a script that has run may quote any text.
    """
    return _NO_RUN.match(text) is not None
