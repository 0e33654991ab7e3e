"""Requests that are legal or nearly so, and made to hurt: numbers, slow bodies, trailers, long heads."""

import json
import select
import socket
import sys
from pathlib import Path

import pytest

from .conftest import TOKEN_LINE
from .wire import list_statuses, send_alone, write_request

MAX_GROWTH = 60_000
"""KiB that a sidecar may grow by when one connection sends 25 MB, which as headers would take 500 MB."""


@pytest.fixture(autouse=True)
def no_bug_is_logged(sidecar):
    yield
    assert "Traceback" not in sidecar.output
    assert "a bug" not in sidecar.output


@pytest.mark.parametrize(
    "number", ["-0", "0", "-0.0", "1e-320", "5e-324", "0.1e-400", "1e12", "999999999999.9999"]
)
def test_a_number_at_the_end_of_its_range_leaves_a_state_of_plain_numbers(sidecar, store, number):
    key = f"vk_number_{number}"
    body = f'{{"key": "{key}", "plan": "crowd", "cost": {{"requests": {number}}}}}'.encode()
    answers = [sidecar.client.post("/v1/check", content=body) for _ in range(2)]
    assert {answer.status_code for answer in answers} <= {200, 429}
    for answer in answers:
        [requests] = [limit for limit in answer.json()["limits"] if limit["name"] == "requests"]
        assert 0 <= requests["remaining"] <= 500
    settled = json.dumps({"key": key, "cost": {"requests": 0}}).replace("0}", f"{number}}}")
    assert sidecar.client.post("/v1/settle", content=settled).status_code == 200
    assert sidecar.check(key, plan="crowd").status_code in {200, 429}
    assert sidecar.check("vk_other", plan="crowd").status_code == 200


def test_of_a_json_member_that_is_there_twice_the_last_one_counts(sidecar, store):
    body = b'{"key": "vk_first", "key": "vk_last", "cost": {"tokens": 999, "tokens": 1}}'
    answer = sidecar.client.post("/v1/check", content=body)
    assert answer.status_code == 200
    assert not store.exists("rl1:{vk_first}:k")
    assert store.exists("rl1:{vk_last}:k")
    assert [limit["remaining"] for limit in answer.json()["limits"]][1] == 999


def test_the_content_type_changes_nothing(sidecar):
    body = json.dumps({"key": "vk_type", "plan": "crowd"}).encode()
    types = ["text/plain", "application/json; charset=utf-16", "multipart/form-data; boundary=x", "x" * 9_000]
    for kind in types:
        assert (
            sidecar.client.post("/v1/check", content=body, headers={"Content-Type": kind}).status_code == 200
        )


@pytest.mark.parametrize("path", ["/v1/check", "/v1/authorize"])
def test_trailers_are_no_headers(sidecar, store, path):
    """A gateway that removes the client's X-RateLimit-* headers need not know the trailers of a body."""
    trailers = b"X-RateLimit-Key: vk_trailer\r\nX-RateLimit-Plan: gold\r\nX-RateLimit-Cost: requests=0\r\n"
    body = b'e\r\n{"key":"vk_b"}\r\n0\r\n' + trailers + b"\r\n"
    keys = [b"X-RateLimit-Key: vk_a"] if path == "/v1/authorize" else []
    head = write_request("POST", path, TOKEN_LINE, *keys, b"Transfer-Encoding: chunked", length=b"")
    whole, in_pieces = send_alone(sidecar.port, head + body, [head, body[:9], body[9:30], body[30:]])
    assert list_statuses(whole) == list_statuses(in_pieces) == [200]
    assert not store.exists("rl1:{vk_trailer}:k")


def test_a_token_in_a_trailer_is_none(sidecar):
    head = write_request(
        "GET", "/v1/authorize", b"X-RateLimit-Key: vk_a", b"Transfer-Encoding: chunked", length=b""
    )
    [received] = send_alone(sidecar.port, head + b"0\r\n" + TOKEN_LINE + b"\r\n\r\n")
    assert list_statuses(received) == [401]


def test_half_bodies_and_slow_bodies_keep_nobody_waiting(sidecar, read_state):
    body = b'{"key": "vk_slow"}'
    whole = write_request("POST", "/v1/check", TOKEN_LINE, body=body)
    before = read_state()
    halves = [socket.create_connection(("127.0.0.1", sidecar.port), timeout=10) for _ in range(200)]
    try:
        for number, half in enumerate(halves):
            half.sendall(whole[: -1 - number % (len(whole) - 2)])
        assert sidecar.client.get("/readyz").status_code == 200
        assert read_state() == before
        for half in halves[::2]:
            half.shutdown(socket.SHUT_WR)
    finally:
        for half in halves:
            half.close()
    [slow] = send_alone(sidecar.port, [whole[index : index + 20] for index in range(0, len(whole), 20)])
    assert list_statuses(slow) == [200]
    assert sidecar.client.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("start", "flood"),
    [
        (b"GET /v1/authorize HTTP/1.1\r\nHost: x\r\n", b"x: y\r\n" * 10_000),
        (b"GET /v1/authorize HTTP/1.1\r\nHost: x\r\nX-Api-Key: ", b"x" * 60_000),
        (b"GET /v1/authorize?", b"x" * 60_000),
        (
            b"POST /v1/check HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            b"x: y\r\n" * 10_000,
        ),
        (b"POST /v1/check HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 10_000),
    ],
    ids=["many headers", "a long header", "a long path", "many trailers", "many chunks"],
)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_request_without_an_end_takes_no_memory(sidecar, start, flood):
    before = _read_memory(sidecar.pid)
    with socket.create_connection(("127.0.0.1", sidecar.port), timeout=20) as connection:
        connection.sendall(start)
        for _ in range(25_000_000 // len(flood)):
            try:
                connection.sendall(flood)
            except OSError:
                break  # it has refused the request and closed the connection
        assert sidecar.client.get("/healthz").status_code == 200
        assert _read_memory(sidecar.pid) - before < MAX_GROWTH


def test_a_head_as_long_as_gateways_pass_is_read_and_one_without_an_end_is_431(sidecar):
    start = (
        b"GET /v1/authorize HTTP/1.1\r\nHost: x\r\nX-RateLimit-Key: vk_long\r\n"
        + TOKEN_LINE
        + b"\r\nX-Long: "
    )
    [read] = send_alone(sidecar.port, start + b"x" * 1_000_000 + b"\r\n\r\n")
    assert list_statuses(read) == [200]
    with socket.create_connection(("127.0.0.1", sidecar.port), timeout=20) as connection:
        connection.sendall(start)
        for _ in range(100):
            connection.sendall(b"x" * 30_000)
            if select.select([connection], [], [], 0.005)[0]:
                break
        answer = connection.recv(4_096)
    assert list_statuses(answer) == [431]
    assert json.loads(answer.split(b"\r\n\r\n")[1])["status"] == 431


def _read_memory(pid):
    """Return the memory of a process in KiB."""
    [line] = [
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")
    ]
    return int(line.split()[1])
