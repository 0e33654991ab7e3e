"""Bad input is a 4xx problem that names the field; nothing is charged, and nothing of it repeated."""

import json
import socket
import subprocess
import sys

import pytest

SECRET = "do-not-repeat-me"

FIELDS = [
    ({"key": 5}, "key"),
    ({"key": None}, "key"),
    ({}, "key"),
    ({"key": ""}, "key"),
    ({"key": "k" * 300}, "key"),
    ({"key": "a\nb"}, "key"),
    ({"key": "a\x00b"}, "key"),
    ({"key": "a b"}, "key"),
    ({"key": "a\u2028b"}, "key"),
    ({"key": "schlüssel"}, "key"),
    ({"key": "k", "cost": {"tokens": -1}}, "cost.tokens"),
    ({"key": "k", "cost": {"tokens": "5"}}, "cost.tokens"),
    ({"key": "k", "cost": {"tokens": True}}, "cost.tokens"),
    ({"key": "k", "cost": {"tokens": None}}, "cost.tokens"),
    ({"key": "k", "cost": {"tokens": 1e13}}, "cost.tokens"),
    ({"key": "k", "cost": {"tokens": 10**400}}, "cost.tokens"),
    ({"key": "k", "cost": {"bananas": 1}}, "cost.bananas"),
    ({"key": "k", "cost": [1]}, "cost"),
    ({"key": "k", "cost": 5}, "cost"),
    ({"key": "k", "prompt": SECRET}, "prompt"),
    ({"key": "k", "messages": [{"content": SECRET}]}, "messages"),
    ({"key": "k", "plan": "gold"}, "plan"),
    ({"key": "k", "plan": 1}, "plan"),
    ({"key": "k", "model": ["a"]}, "model"),
    ({"key": "k", "model": SECRET + " " * 10}, "model"),
    ({"key": "k", "tenant": "a\tb"}, "tenant"),
    ({"key": "k", "timestamp": "2026-02-20T15:30:00"}, "timestamp"),
    ({"key": "k", "timestamp": "yesterday"}, "timestamp"),
    ({"key": "k", "timestamp": "2026-02-30T15:30:00Z"}, "timestamp"),
    ({"key": "k", "timestamp": 1771601400000}, "timestamp"),
    ({"key": "k", "timestamp": -1}, "timestamp"),
    ({"key": "k", "timestamp": True}, "timestamp"),
    ({"key": "k", "timestamp": {}}, "timestamp"),
    ({"key": "k", "timestamp": "9999-12-31T23:59:59Z"}, "timestamp"),
    ([], ""),
    ("text", ""),
    (None, ""),
]


@pytest.mark.parametrize(
    ("body", "field"), FIELDS, ids=lambda value: str(value)[:40].encode("ascii", "replace").decode()
)
def test_p10_a_wrong_or_unlisted_field_is_422_and_named(sidecar, body, field):
    response = sidecar.client.post("/v1/check", content=json.dumps(body))
    problem = response.json()
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["status"] == 422
    assert problem["errors"][0]["field"] == field
    assert "Traceback" not in response.text
    assert SECRET not in response.text


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
@pytest.mark.parametrize(
    ("template", "field"),
    [
        ('{"key": "k", "cost": {"tokens": %s}}', "cost.tokens"),
        ('{"key": "k", "timestamp": %s}', "timestamp"),
    ],
)
def test_numbers_that_are_not_finite_are_refused(sidecar, number, template, field):
    response = sidecar.client.post("/v1/check", content=template % number)
    assert response.status_code in {400, 422}
    if response.status_code == 422:
        assert response.json()["errors"][0]["field"] == field


@pytest.mark.parametrize(
    "body", [b"", b"{", b"key=k", b"\xff\xfe", b'{"key": "k"} x', b"[" * 20_000, b'{"key": "\\ud800"}']
)
def test_what_is_not_json_is_400(sidecar, body):
    response = sidecar.client.post("/v1/check", content=body)
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/v1/check", "/v1/check/batch"])
def test_a_megabyte_is_413_whether_its_length_is_announced_or_not(sidecar, path):
    def chunks():
        yield from [b"x" * 65_536] * 16

    for content in (b"x" * 1_000_000, chunks()):
        response = sidecar.client.post(path, content=content)
        assert response.status_code == 413
        assert response.json()["status"] == 413


def test_a_body_that_is_announced_as_too_large_is_not_waited_for(sidecar):
    with socket.create_connection(("127.0.0.1", sidecar.port), timeout=10) as connection:
        connection.sendall(b"POST /v1/check HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n{")
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("length", [b"", b"-1", b"many", b"1" * 5_000])
def test_a_length_that_is_none_is_the_callers_fault(sidecar, length):
    with socket.create_connection(("127.0.0.1", sidecar.port), timeout=10) as connection:
        connection.sendall(b"POST /v1/check HTTP/1.1\r\nHost: x\r\nContent-Length: %s\r\n\r\n{" % length)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(4096).split(b" ")[1:2] in ([b"400"], [b"413"])
    assert "a bug" not in sidecar.output


def test_a_caller_that_hangs_up_in_the_middle_of_its_body_is_no_bug(sidecar):
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", sidecar.port), timeout=10) as connection:
            connection.sendall(b"POST /v1/check HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert sidecar.client.get("/healthz").status_code == 200
    assert "a bug" not in sidecar.output


BUG = """
import sys
import structlog
from service import logs
logs.configure(sys.argv[1])
def serve(key, secret):
    raise RuntimeError("as it happens")
try:
    serve("vk_a_full" + "_identifier", "sk-a" + "-secret")
except RuntimeError:
    structlog.get_logger("ratelimit").exception("a bug in the sidecar")
"""


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_p10_the_traceback_of_a_bug_shows_no_key_and_no_secret(log_format):
    command = [sys.executable, "-c", BUG, log_format]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert "as it happens" in printed
    assert "vk_a_full_identifier" not in printed
    assert "sk-a-secret" not in printed


def test_a_body_of_64_kib_is_still_read(sidecar):
    body = json.dumps({"key": "k"}).encode()
    assert sidecar.client.post("/v1/check", content=body.ljust(65_536)).status_code == 200
    assert sidecar.client.post("/v1/check", content=body.ljust(65_537)).status_code == 413


def test_unknown_pages_and_methods_are_problems_too(sidecar):
    for response, status in (
        (sidecar.client.get("/nowhere"), 404),
        (sidecar.client.get("/v1/check"), 405),
        (sidecar.client.get("/v1/policy"), 404),
    ):
        assert response.status_code == status
        assert response.headers["content-type"] == "application/problem+json"


def test_bad_input_charges_nothing(sidecar, key):
    sidecar.check(key, plan="gold")
    sidecar.check(key, cost={"tokens": -1})
    sidecar.check(key, prompt=SECRET)
    assert sidecar.check(key).json()["limits"][0]["remaining"] == 4


def test_p10_nothing_that_was_sent_by_mistake_reaches_the_log(sidecar):
    sidecar.check("k", prompt=SECRET)
    sidecar.client.get(f"/v1/authorize/{SECRET}", headers={"X-RateLimit-Timestamp": SECRET})
    assert SECRET not in sidecar.output
    assert "Traceback" not in sidecar.output
