"""The link to the store fails: it is slow, or it loses parts of what passes."""

import contextlib
import itertools
import socket
import struct
import threading

import pytest

from ..processes import wait_until
from ..sidecars import run_sidecar
from ..store.proxy import Proxy
from .judgement import assert_sound
from .load import POLICY
from .own_server import OwnServer


class Link(Proxy):
    """A link to a server which a test can make worse.

    Attributes:
        cuts: how many requests and replies were cut.
    """

    def __init__(self, server_path):
        super().__init__(server_path)
        self._is_over = threading.Event()
        self._count = itertools.count(1)
        self.cuts = 0

    def delay(self, seconds):
        """Let each part of a request, and of a reply, arrive half so much later."""
        self._is_over.clear()

        def send(opened, data):
            self._is_over.wait(seconds / 2)
            opened.sendall(data)

        self.send_request = self.send_reply = send

    def dribble(self):
        """Send replies byte by byte."""

        def send(opened, data):
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in data:
                opened.sendall(bytes([byte]))

        self.send_reply = send

    def cut(self, what, *, every=15, end=lambda _: None):
        """Send only the first half of some requests or replies, and close the connection.

        Args:
            what: `send_request` or `send_reply`.
            every: how many of them pass as they are for each that is cut.
            end: how the connection is closed.
        """

        def send(opened, data):
            if next(self._count) % every:
                opened.sendall(data)
                return
            self.cuts += 1
            opened.sendall(data[: len(data) // 2])
            end(opened)
            raise ConnectionError

        setattr(self, what, send)

    def heal(self):
        """Send everything as it is, and at once."""
        self.send_request = self.send_reply = lambda opened, data: opened.sendall(data)
        self._is_over.set()


def reset(opened):
    """Close a connection with a reset."""
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        opened.shutdown(socket.SHUT_RD)  # wakes the thread that reads from it
    opened.close()


@pytest.fixture(scope="module")
def link(short_dir):
    folder = short_dir / "links"
    folder.mkdir()
    server = OwnServer("redis6", folder)
    server.start()
    link = Link(str(server.socket))
    yield link
    link.heal()
    link.close()
    server.close()


@pytest.fixture(scope="module")
def sidecar(link, history):
    flags = ("--redis", link.url, "--history", str(history), "--deadline", "300ms")
    with run_sidecar(*flags, policy=POLICY) as sidecar:
        yield sidecar


@pytest.fixture
def load(sidecar, link, make_load):
    wait_until(lambda: sidecar.check("probe").json()["source"] == "store")
    with make_load([sidecar.port]) as load:
        load.wait_for_decisions(100)
        yield load
        link.heal()


def finish(load, link):
    link.heal()
    load.finish(100)


@pytest.mark.parametrize("milliseconds", [1, 50])
def test_p1_p2_a_slow_link_breaks_nothing(milliseconds, load, link, history, judge):
    link.delay(milliseconds / 1000)
    load.wait_for_decisions(150)
    finish(load, link)
    assert_sound(judge(load, [history], f"a link that is {milliseconds} ms slower", "nothing"))


def test_p1_p6_p8_calls_that_arrive_seconds_later_break_nothing(load, link, history, judge):
    link.delay(5.0)
    load.wait_for_outages(300)
    finish(load, link)
    assert_sound(judge(load, [history], "a link that is 5,000 ms slower", "nothing"))


def test_p1_p2_replies_that_arrive_byte_by_byte_break_nothing(load, link, history, judge):
    link.dribble()
    load.wait_for_decisions(150)
    finish(load, link)
    assert_sound(judge(load, [history], "replies byte by byte", "nothing"))


@pytest.mark.parametrize(
    ("what", "end", "fault"),
    [
        ("send_reply", reset, "connections reset in the middle of a reply"),
        ("send_reply", lambda _: None, "replies cut in half"),
        ("send_request", lambda _: None, "calls cut in half"),
    ],
)
def test_p1_p6_p8_what_is_cut_breaks_nothing(what, end, fault, load, link, history, judge):
    enough = link.cuts + 20
    link.cut(what, end=end)
    wait_until(lambda: link.cuts >= enough)
    finish(load, link)
    assert_sound(judge(load, [history], fault, "nothing"))
