"""Request smuggling at the sidecar itself: a message is one request, or none."""

import pytest

from ..counts import read_counts
from .conftest import ADMIN_LINE, TOKEN_LINE
from .smuggling import AMBIGUOUS, PIPELINED, write_message
from .wire import list_statuses, send_alone

HEADERS = TOKEN_LINE + b"\r\nX-RateLimit-Plan: crowd\r\n"
HIDDEN = TOKEN_LINE + b"\r\n" + ADMIN_LINE + b"\r\n"


@pytest.fixture
def count_checks(sidecar):
    return lambda: read_counts(sidecar.client.get("/metrics").text, "ratelimit_checks_total")


@pytest.mark.parametrize("path", [b"/v1/authorize", b"/v1/check", b"/healthz"])
def test_no_message_is_read_as_two_requests(sidecar, store, count_checks, path):
    names = [b"vk_smuggled_%d" % number for number in range(len(AMBIGUOUS))]
    keys = b"X-RateLimit-Key: vk_smuggler\r\n"
    messages = [
        write_message(end, path=path, headers=HEADERS + keys, hidden_headers=HIDDEN, name=name)
        for end, name in zip(AMBIGUOUS.values(), names, strict=True)
    ]
    before = count_checks()
    for variant, received in zip(AMBIGUOUS, send_alone(sidecar.port, *messages), strict=True):
        statuses = [status for status in list_statuses(received) if status != 100]
        assert len(statuses) == 1, (variant, received)
        assert 200 <= statuses[0] < 500, (variant, received)
    assert count_checks() - before <= len(AMBIGUOUS)
    assert not store.keys("*smuggled*")
    assert not store.exists("rl1:keys")
    print(f"smuggling to {path.decode()}: {len(AMBIGUOUS)} messages, no hidden request was read")  # noqa: T201


def test_two_requests_in_one_packet_are_two(sidecar, store):
    """The other tests could not fail if a hidden request did nothing where it is read."""
    message = write_message(PIPELINED, headers=HEADERS, hidden_headers=HIDDEN, name=b"vk_pipelined")
    [received] = send_alone(sidecar.port, message, silence=1.5)
    assert list_statuses(received) == [200, 200]
    assert store.keys("*pipelined*")


def test_a_request_after_one_that_was_refused_is_not_read(sidecar, store):
    message = write_message(PIPELINED, headers=b"X-A : b\r\n", hidden_headers=HIDDEN, name=b"vk_after")
    assert list_statuses(*send_alone(sidecar.port, message)) == [400]
    assert not store.keys("*after*")


def test_the_rest_of_a_body_that_was_refused_is_not_read_as_a_request(sidecar, store):
    hidden = write_message(PIPELINED, headers=HEADERS, hidden_headers=HIDDEN, name=b"vk_rest")
    head = b"POST /v1/check HTTP/1.1\r\nHost: x\r\n" + TOKEN_LINE + b"\r\nContent-Length: %d\r\n\r\n"
    messages = [head % (70_000 + len(hidden)) + b" " * 70_000 + hidden, head % 65_537 + hidden]
    for received in send_alone(sidecar.port, *messages):
        assert list_statuses(received) in (
            [413],
            [],
        )  # without an answer if it closed while bytes were under way
    assert not store.keys("*rest*")
