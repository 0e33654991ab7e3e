"""One connection that many calls share: whose answer is whose, and when it is given up."""

import asyncio

import pytest
from redis.exceptions import ConnectionError as LostConnection

from ratelimit.stores.aiowire import _Line


class Transport:
    def __init__(self):
        self.written, self.aborted = [], False

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
        await test(_Line(connection), connection.transport)

    asyncio.run(run())


async def turns(number):
    for _ in range(number):
        await asyncio.sleep(0)


def test_answers_are_handed_out_in_the_order_asked_however_they_arrive():
    async def test(line, _):
        asked = [line.ask(b"") for _ in range(4)]
        asked[1].cancel()
        for piece in (b":1", b"\r\n:2\r\n:", b"3\r\n:4\r\n"):
            line.data_received(piece)
        assert [answer.result() for answer in asked if not answer.cancelled()] == [1, 3, 4]

    on_a_loop(test)


def test_p8_an_answer_that_lies_unread_when_its_time_is_up_still_counts():
    async def test(line, transport):
        answer = line.ask(b"")
        line.late(answer, 4)
        await turns(3)
        line.data_received(b":1\r\n")
        await turns(3)
        assert (answer.result(), transport.aborted, line.lost) == (1, False, False)

    on_a_loop(test)


def test_p6_p8_a_connection_that_is_late_is_given_up_with_all_that_was_asked_on_it():
    """The next answer on it would be taken for another's."""

    async def test(line, transport):
        first, second = line.ask(b""), line.ask(b"")
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
        answer = line.ask(b"")
        line.data_received(b":1\r\n-ERR going away\r\n")
        assert (answer.result(), transport.aborted, line.lost) == (1, True, True)

    on_a_loop(test)


def test_those_who_wait_are_told_when_a_connection_ends():
    async def test(line, _):
        answer = line.ask(b"")
        line.connection_lost(None)
        with pytest.raises(LostConnection):
            answer.result()

    on_a_loop(test)
