"""The connections: whose answer is whose, when it is given up, and when a thread stays awake for it."""

import asyncio
import itertools
import threading

import pytest
from redis.exceptions import ConnectionError as LostConnection

from ratelimit.stores import transport
from ratelimit.stores.async_transport import _Connection
from ratelimit.stores.transport import _ALONE, _MOST_CALM, PooledTransport


class Transport:
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


class Connection:
    """What redis-py gives, as far as it is used."""

    def __init__(self):
        self._writer = self
        self.transport = Transport()


def on_a_loop(test):
    async def run():
        connection = Connection()
        await test(_Connection(connection), connection.transport)

    asyncio.run(run())


async def turns(number):
    for _ in range(number):
        await asyncio.sleep(0)


def test_answers_are_handed_out_in_the_order_asked_however_they_arrive():
    async def test(line, _):
        asked = [line.send(b"") for _ in range(4)]
        asked[1].cancel()
        for piece in (b":1", b"\r\n:2\r\n:", b"3\r\n:4\r\n"):
            line.data_received(piece)
        assert [answer.result() for answer in asked if not answer.cancelled()] == [1, 3, 4]

    on_a_loop(test)


def test_p8_an_answer_that_lies_unread_when_its_time_is_up_still_counts():
    async def test(line, transport):
        answer = line.send(b"")
        line.late(answer, 4)
        await turns(3)
        line.data_received(b":1\r\n")
        await turns(3)
        assert (answer.result(), transport.aborted, line.lost) == (1, False, False)

    on_a_loop(test)


def test_p6_p8_a_connection_that_is_late_is_given_up_with_all_that_was_asked_on_it():
    """The next answer on it would be taken for another's."""

    async def test(line, transport):
        first, second = line.send(b""), line.send(b"")
        line.late(first, 1)
        await turns(2)
        assert (transport.aborted, line.lost) == (True, True)
        for answer in (first, second):
            with pytest.raises(TimeoutError):
                answer.result()

    on_a_loop(test)


def test_p6_what_nobody_asked_for_is_no_answer_to_the_next_call():
    """A server may say why it hangs up, before it does."""

    async def test(line, transport):
        line.data_received(b"-ERR going away\r\n")
        assert (transport.aborted, line.lost) == (True, True)

    on_a_loop(test)


def test_p6_nor_is_what_follows_an_answer():
    async def test(line, transport):
        answer = line.send(b"")
        line.data_received(b":1\r\n-ERR going away\r\n")
        assert (answer.result(), transport.aborted, line.lost) == (1, True, True)

    on_a_loop(test)


def test_those_who_wait_are_told_when_a_connection_ends():
    async def test(line, _):
        answer = line.send(b"")
        line.connection_lost(None)
        with pytest.raises(LostConnection):
            answer.result()

    on_a_loop(test)


def test_a_connection_lost_before_it_was_taken_over_is_not_taken_over():
    """Nobody would ever be told of its end."""

    async def test():
        connection = Connection()
        connection.transport.closing = True
        with pytest.raises(LostConnection, match="the server closed"):
            _Connection(connection)

    asyncio.run(test())


class Near:
    """A connection to a server that answers at once, or never while somebody watches."""

    def __init__(self):
        self.watched, self.near = [], True

    def idle(self):
        return True

    def send(self, _):
        self.watched.append(False)

    def watch(self):
        self.watched[-1] = True
        return self.near

    def receive(self):
        return 1

    def close(self):
        pass


@pytest.fixture
def line():
    return Near()


@pytest.fixture
def wires(line, monkeypatch):
    monkeypatch.setattr(transport, "_SEVERAL_CORES", True)
    wires = PooledTransport(None, 4, 1.0)
    wires._free.append(line)
    return wires


def ask(wires, times):
    for _ in range(times):
        assert wires.call("PING") == 1


def test_a_thread_that_asks_alone_watches_for_the_reply(wires, line):
    ask(wires, _ALONE + 1)
    assert not any(line.watched)
    ask(wires, 100)
    assert line.watched[_ALONE + 1 :] == [True] * 100


def test_of_a_server_that_is_far_it_soon_stops_watching(wires, line):
    line.near = False
    ask(wires, _ALONE + 1 + 5_000)
    vain = [number for number, watched in enumerate(line.watched[_ALONE + 1 :]) if watched]
    assert vain[:5] == [0, 2, 6, 14, 30]
    assert {later - one for one, later in itertools.pairwise(vain[10:])} == {_MOST_CALM + 1}
    line.near = True
    ask(wires, _MOST_CALM + 1 + 10)
    assert line.watched[-10:] == [True] * 10


def test_threads_that_take_turns_do_not_watch(wires, line):
    for _ in range(5):
        for mine in (True, False):
            thread = threading.Thread(target=ask, args=(wires, _ALONE))
            ask(wires, _ALONE) if mine else (thread.start(), thread.join())
    assert not any(line.watched)


def test_on_one_core_nobody_watches(line, monkeypatch):
    """Who watches would keep the server from answering."""
    monkeypatch.setattr(transport, "_SEVERAL_CORES", False)
    wires = PooledTransport(None, 4, 1.0)
    wires._free.append(line)
    ask(wires, 3 * _ALONE)
    assert not any(line.watched)
