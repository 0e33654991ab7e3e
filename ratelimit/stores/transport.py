"""How a script's call reaches the server and its reply comes back, for threads.

redis-py opens each connection: addresses, TLS, passwords, databases. After that a call is one write
and one read on its socket, in the server's own protocol (RESP) as hiredis speaks it: on the decision's
path every layer between would cost more than the script.
"""

from __future__ import annotations

import math
import os
import queue
import select
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import hiredis
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import NoScriptError, ResponseError

if TYPE_CHECKING:
    import socket

    import redis

_CHUNK: Final = 65_536

_WATCHED: Final = 100e-6
"""Seconds that a reply is watched for before the thread goes to sleep over it.

A server on the same machine answers in twenty to sixty microseconds, and to fall asleep and be woken costs
as much again: watching made a lone thread 1.7 times as fast, for no more processor time."""

_MOST_CALM: Final = 255
"""Calls without watching after it was in vain, at the most; a few at first."""

_ALONE: Final = 64
"""Calls that a thread makes without any other's between them before it counts as alone."""

_SEVERAL_CORES: Final = len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else [0, 1]) > 1
"""On one core the server could not answer while we watch."""


class Transport(Protocol):
    """Carries one command to the store at a time."""

    def call(self, *command: str | bytes | float) -> Any:  # noqa: ANN401 - whatever the store says
        """Send a command and return its reply; raises what redis-py would."""
        ...

    def close(self) -> None:
        """Close every connection."""
        ...


class ClientTransport:
    """Leaves it to a client: for stores that are not at the other end of a socket."""

    def __init__(self, client: redis.Redis) -> None:
        self._client: Any = client  # redis-py leaves execute_command untyped

    def call(self, *command: str | bytes | float) -> Any:  # noqa: ANN401 - whatever the store says
        """See `Wire`."""
        return self._client.execute_command(*command)

    def close(self) -> None:
        """See `Wire`; the client is closed by its owner."""


class PooledTransport:
    """Connections that threads share, each lent to one at a time.

    Args:
        pool: knows how to connect.
        most: connections at the most.
        patience: seconds to wait for one to come free.
    """

    def __init__(self, pool: redis.ConnectionPool, most: int, patience: float) -> None:
        self._pool = pool
        self._patience = patience
        self._closed = False
        self._thread = 0  # whose call was the last
        self._calm = 0 if _SEVERAL_CORES else math.inf  # calls to make without watching
        self._vain = 0
        self._free: list[_Connection] = []
        self._tickets: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(most):
            self._tickets.put(None)

    def call(self, *command: str | bytes | float) -> Any:  # noqa: ANN401 - whatever the store says
        """See `Wire`."""
        packed = hiredis.pack_command(cast("Any", command))  # its stub knows a tuple of one
        try:
            self._tickets.get(timeout=self._patience)
        except queue.Empty:
            raise LostConnection("every connection is taken") from None
        try:
            line = self._line()
            try:
                reply = self._await(line, packed)
            except BaseException:
                line.close()  # what it may still say would be taken for the answer to another call
                raise
            if self._closed:
                line.close()
            else:
                self._free.append(line)
        finally:
            self._tickets.put(None)
        return raise_error_reply(reply)

    def _await(self, line: _Connection, packed: bytes) -> Any:  # noqa: ANN401 - whatever the store says
        """Make a call, watching for the reply where that is worth it: alone, and of a server that is near."""
        line.send(packed)
        if (thread := threading.get_ident()) != self._thread:
            self._thread = thread
            self._calm = max(self._calm, _ALONE)  # others have better use for the processor
        elif self._calm > 0:
            self._calm -= 1
        else:
            self._vain = 0 if line.watch() else min(2 * self._vain + 1, _MOST_CALM)
            self._calm = self._vain
        return line.receive()

    def _line(self) -> _Connection:
        """Return the connection that was used last, unless the server has hung up meanwhile."""
        while self._free:
            try:
                line = self._free.pop()
            except IndexError:  # another thread was faster
                break
            if line.idle():
                return line
            line.close()
        return _Connection(self._pool)

    def close(self) -> None:
        """See `Wire`."""
        self._closed = True  # a call that is under way closes its own
        while self._free:
            self._free.pop().close()


class _Connection:
    """One connection."""

    def __init__(self, pool: redis.ConnectionPool) -> None:
        self._connection = pool.connection_class(**pool.connection_kwargs)
        self._connection.connect()
        self._socket: socket.socket = self._connection._sock  # noqa: SLF001 - redis-py gives it no other name
        self._deadline: float = self._socket.gettimeout() or math.inf
        self._until = math.inf
        self._reader = hiredis.Reader()
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def idle(self) -> bool:
        """Whether nothing has been said that nobody asked for, such as that the connection ends."""
        return not self._poll.poll(0)

    def send(self, packed: bytes) -> None:
        """Send one command."""
        self._until = time.monotonic() + self._deadline
        self._socket.sendall(packed)

    def watch(self) -> bool:
        """Look for the reply without pause; return whether it has come in time."""
        until = time.perf_counter() + _WATCHED
        while not self._poll.poll(0):
            if time.perf_counter() > until:
                return False
        return True

    def receive(self) -> Any:  # noqa: ANN401 - whatever the store says
        """Wait for the reply to what was sent."""
        reply = self._reader.gets()
        while reply is False:
            chunk = self._socket.recv(_CHUNK)
            if time.monotonic() > self._until:  # each piece may have been in time, but not the whole
                raise TimeoutError
            if not chunk:
                raise LostConnection("the server closed the connection")
            self._reader.feed(chunk)
            reply = self._reader.gets()
        return reply

    def close(self) -> None:
        """Hang up."""
        self._connection.disconnect()


def raise_error_reply(reply: Any) -> Any:  # noqa: ANN401 - whatever the store says
    """Return a reply, or raise the error that it is.

    Raises:
        NoScriptError: the server does not know the script (yet), and has run nothing.
        ResponseError: any other error.
    """
    if isinstance(reply, hiredis.ReplyError):
        text = str(reply)
        raise NoScriptError(text) if text.startswith("NOSCRIPT") else ResponseError(text)
    return reply
