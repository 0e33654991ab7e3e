"""What uvicorn writes is sent whole, in order, and in as few pieces as possible."""

import asyncio

import pytest

from service.protocol import JoiningTransport


class Transport:
    """Records what is written to it."""

    def __init__(self):
        self.sent = []

    def write(self, data):
        self.sent.append(data)

    def close(self):
        self.sent.append("closed")

    def is_closing(self):
        return self.sent[-1:] == ["closed"]


@pytest.fixture
def run_on_loop():
    """Run a test on an event loop, with a transport and what it has sent."""

    def run(test):
        async def within():
            transport = Transport()
            await test(JoiningTransport(transport), transport.sent)

        asyncio.run(within())

    return run


def test_head_and_body_leave_together(run_on_loop):
    async def test(joined, sent):
        joined.write(b"head ")
        joined.write(b"body")
        assert sent == [b"head body"]
        await asyncio.sleep(0)
        assert sent == [b"head body"]

    run_on_loop(test)


def test_a_head_without_a_body_leaves_on_the_next_turn(run_on_loop):
    async def test(joined, sent):
        joined.write(b"head")
        assert sent == []
        await asyncio.sleep(0)
        assert sent == [b"head"]

    run_on_loop(test)


def test_pieces_keep_their_order_and_none_is_sent_twice(run_on_loop):
    async def test(joined, sent):
        for piece in (b"1", b"2", b"3"):
            joined.write(piece)
        await asyncio.sleep(0)
        joined.write(b"4")
        await asyncio.sleep(0)
        assert sent == [b"12", b"3", b"4"]

    run_on_loop(test)


def test_what_is_held_leaves_before_the_connection_closes(run_on_loop):
    async def test(joined, sent):
        joined.write(b"last")
        assert not joined.is_closing()
        joined.close()
        assert joined.is_closing()
        await asyncio.sleep(0)
        assert sent == [b"last", "closed"]

    run_on_loop(test)
