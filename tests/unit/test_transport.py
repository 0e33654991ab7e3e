"""Connections: which call gets which reply, when a connection ends, and when a thread polls for a reply."""

import asyncio
import itertools
import queue
import socket
import threading
from types import SimpleNamespace

import pytest
from redis.exceptions import ConnectionError as LostConnection

from ratelimit.stores import transport
from ratelimit.stores.async_transport import _Connection
from ratelimit.stores.transport import _CALLS_UNTIL_ALONE, _MAX_CALLS_WITHOUT_SPIN, PooledTransport


class FakeAsyncioTransport:
    def __init__(self):
        self.written, self.aborted, self.closing = [], False, False

    def is_closing(self):
        return self.closing

    def set_protocol(self, protocol):
        pass

    def write(self, data):
        self.written.append(data)

    def abort(self):
        self.aborted = True


class FakeRedisConnection:
    """The parts of redis-py's connection that are used."""

    def __init__(self):
        self._writer = self
        self.transport = FakeAsyncioTransport()


def run_with_connection(test):
    async def run():
        redis_connection = FakeRedisConnection()
        await test(_Connection(redis_connection), redis_connection.transport)

    asyncio.run(run())


async def run_loop_turns(number):
    for _ in range(number):
        await asyncio.sleep(0)


def test_replies_go_to_the_calls_in_the_order_sent_however_they_arrive():
    async def test(connection, _):
        replies = [connection.send(b"") for _ in range(4)]
        replies[1].cancel()
        for chunk in (b":1", b"\r\n:2\r\n:", b"3\r\n:4\r\n"):
            connection.data_received(chunk)
        assert [reply.result() for reply in replies if not reply.cancelled()] == [1, 3, 4]

    run_with_connection(test)


def test_p8_an_answer_that_lies_unread_when_its_time_is_up_still_counts():
    async def test(connection, asyncio_transport):
        reply = connection.send(b"")
        connection.end_if_late(reply, 4)
        await run_loop_turns(3)
        connection.data_received(b":1\r\n")
        await run_loop_turns(3)
        assert (reply.result(), asyncio_transport.aborted, connection.is_lost) == (1, False, False)

    run_with_connection(test)


def test_p6_p8_a_connection_that_is_late_is_given_up_with_all_that_was_asked_on_it():
    """The late reply would be taken for the reply to the next call."""

    async def test(connection, asyncio_transport):
        first, second = connection.send(b""), connection.send(b"")
        connection.end_if_late(first, 1)
        await run_loop_turns(2)
        assert (asyncio_transport.aborted, connection.is_lost) == (True, True)
        for reply in (first, second):
            with pytest.raises(TimeoutError):
                reply.result()

    run_with_connection(test)


def test_p6_what_nobody_asked_for_is_no_answer_to_the_next_call():
    """A server may send an error before it closes the connection."""

    async def test(connection, asyncio_transport):
        connection.data_received(b"-ERR going away\r\n")
        assert (asyncio_transport.aborted, connection.is_lost) == (True, True)

    run_with_connection(test)


def test_p6_nor_is_what_follows_an_answer():
    async def test(connection, asyncio_transport):
        reply = connection.send(b"")
        connection.data_received(b":1\r\n-ERR going away\r\n")
        assert (reply.result(), asyncio_transport.aborted, connection.is_lost) == (1, True, True)

    run_with_connection(test)


def test_waiting_calls_fail_when_the_connection_ends():
    async def test(connection, _):
        reply = connection.send(b"")
        connection.connection_lost(None)
        with pytest.raises(LostConnection):
            reply.result()

    run_with_connection(test)


def test_a_connection_that_is_already_lost_is_not_taken_over():
    """asyncio would not report its end again."""

    async def test():
        redis_connection = FakeRedisConnection()
        redis_connection.transport.closing = True
        with pytest.raises(LostConnection, match="the server closed"):
            _Connection(redis_connection)

    asyncio.run(test())


class FakeConnection:
    """A connection to a server that answers at once, or never while a thread polls."""

    def __init__(self):
        self.spins, self.near = [], True

    def is_idle(self):
        return True

    def send(self, _):
        self.spins.append(False)

    def spin(self):
        self.spins[-1] = True
        return self.near

    def receive(self):
        return 1

    def close(self):
        pass


@pytest.fixture
def connection():
    return FakeConnection()


def make_pooled_transport(connection):
    pooled = PooledTransport(None, 4, 1.0)
    pooled._free.append(connection)
    return pooled


@pytest.fixture
def pooled(connection, monkeypatch):
    monkeypatch.setattr(transport, "_HAS_SEVERAL_CORES", True)
    return make_pooled_transport(connection)


def call_often(pooled, times):
    for _ in range(times):
        assert pooled.call("PING") == 1


def test_a_thread_that_is_alone_polls_for_the_reply(pooled, connection):
    call_often(pooled, _CALLS_UNTIL_ALONE + 1)
    assert not any(connection.spins)
    call_often(pooled, 100)
    assert connection.spins[_CALLS_UNTIL_ALONE + 1 :] == [True] * 100


def test_a_thread_soon_stops_polling_if_the_server_is_far(pooled, connection):
    connection.near = False
    call_often(pooled, _CALLS_UNTIL_ALONE + 1 + 5_000)
    in_vain = [number for number, spun in enumerate(connection.spins[_CALLS_UNTIL_ALONE + 1 :]) if spun]
    assert in_vain[:5] == [0, 2, 6, 14, 30]
    distances = {later - earlier for earlier, later in itertools.pairwise(in_vain[10:])}
    assert distances == {_MAX_CALLS_WITHOUT_SPIN + 1}
    connection.near = True
    call_often(pooled, _MAX_CALLS_WITHOUT_SPIN + 1 + 10)
    assert connection.spins[-10:] == [True] * 10


def test_threads_that_take_turns_do_not_poll(pooled, connection):
    for _ in range(5):
        call_often(pooled, _CALLS_UNTIL_ALONE)
        other = threading.Thread(target=call_often, args=(pooled, _CALLS_UNTIL_ALONE))
        other.start()
        other.join()
    assert not any(connection.spins)


def test_on_one_core_no_thread_polls(connection, monkeypatch):
    """A thread that polls would keep the server from answering."""
    monkeypatch.setattr(transport, "_HAS_SEVERAL_CORES", False)
    pooled = make_pooled_transport(connection)
    call_often(pooled, 3 * _CALLS_UNTIL_ALONE)
    assert not any(connection.spins)


class TricklingSocket:
    """A socket with a timeout of a second, on which a byte comes each 0.4 s: in time for each `recv`."""

    def __init__(self, reply, clock):
        self._ends = socket.socketpair()
        self._bytes = iter(reply)
        self._clock = clock

    def gettimeout(self):
        return 1.0

    def fileno(self):
        return self._ends[0].fileno()

    def sendall(self, _):
        pass

    def recv(self, _):
        self._clock.now += 0.4
        return bytes([next(self._bytes)])

    def close(self):
        for end in self._ends:
            end.close()


@pytest.fixture
def trickling_pool(monkeypatch):
    """A pool for connections to a server that answers byte by byte."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(transport, "time", SimpleNamespace(monotonic=lambda: clock.now))
    trickling = TricklingSocket(b"+PONG\r\n", clock)
    opened = SimpleNamespace(_sock=trickling, connect=lambda: None, disconnect=trickling.close)
    yield SimpleNamespace(connection_class=lambda: opened, connection_kwargs={})
    trickling.close()


def test_p8_a_reply_that_comes_byte_by_byte_is_given_up_at_the_deadline(trickling_pool):
    with pytest.raises(TimeoutError):
        PooledTransport(trickling_pool, 4, 1.0).call("PING")


def test_p8_a_call_waits_for_a_connection_in_use_only_so_long():
    class NoPermits:
        def get(self, timeout=None):
            waits.append(timeout)
            raise queue.Empty

    pooled, waits = PooledTransport(None, 4, 1.5), []
    pooled._permits = NoPermits()
    with pytest.raises(LostConnection, match="in use"):
        pooled.call("PING")
    assert waits == [1.5]
