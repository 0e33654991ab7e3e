"""What one key, one address or one request can make the store keep: what it is admitted, and no more."""

import json

import pytest

from .conftest import TOKEN_LINE
from .wire import send_in_turn, write_request

CHECKS = 3_000
BURST = 5  # of the plan `free`, whose rate gives nothing back during a test
STATE, ANSWER, RECORD = 512, 512, 768
"""Bytes that a key's buckets, a remembered answer and a reservation's record may take, names included."""


def check(number, **fields):
    body = json.dumps({"key": "vk_hostile", "request_id": f"id-{number}", "reserve": True, **fields}).encode()
    return write_request("POST", "/v1/check", TOKEN_LINE, body=body)


def measure(store, pattern):
    """Return how many store keys a pattern matches, and the bytes that they take."""
    names = store.keys(pattern)
    return len(names), sum(store.memory_usage(name) for name in names)


def test_p2_a_hostile_key_makes_the_store_keep_what_it_is_admitted_and_no_more(sidecar, store):
    answers = send_in_turn(sidecar.port, [check(number) for number in range(CHECKS)])
    assert [status for status, _ in answers].count(200) == BURST
    count, size = measure(store, "rl1:{vk_hostile}*")
    assert count == 1 + 2 * BURST  # its buckets, and for each admission an answer and a record
    assert size <= STATE + BURST * (ANSWER + RECORD)
    for name in store.keys("rl1:{vk_hostile}:[Rq]*"):
        assert 0 < store.pttl(name) <= 600_000  # `remember`
    print(f"one key, {CHECKS} checks: {BURST} admitted, {count} store keys, {size} bytes")  # noqa: T201 - figures


def test_p2_settling_again_and_cancelling_again_keep_nothing_more(sidecar, store):
    made = sidecar.check("vk_settles", reserve=True).json()["reservation"]
    body = json.dumps({"reservation": made, "input_tokens": 1}).encode()
    sidecar.client.post("/v1/settle", content=body)
    count, length = measure(store, "rl1:{vk_settles}*")[0], store.xlen("rl1:usage")
    settle = write_request("POST", "/v1/settle", TOKEN_LINE, body=body)
    cancel = write_request("DELETE", f"/v1/reservations/{made}", TOKEN_LINE)
    assert {status for status, _ in send_in_turn(sidecar.port, [settle, cancel] * 200)} == {200, 204}
    assert (measure(store, "rl1:{vk_settles}*")[0], store.xlen("rl1:usage")) == (count, length)


def test_p5_failures_and_slots_are_bounded_by_their_limits(sidecar, store):
    failure = write_request("POST", "/v1/settle", TOKEN_LINE, body=b'{"key": "vk_fails", "status": 500}')
    assert {status for status, _ in send_in_turn(sidecar.port, [failure] * 500)} == {200}
    assert store.strlen("rl1:{vk_fails}:k!failures") <= 8 * (1 + 21)  # the limit is 20
    body = json.dumps({"key": "vk_slots", "plan": "crowd", "reserve": True}).encode()
    reserve = write_request("POST", "/v1/check", TOKEN_LINE, body=body)
    answers = send_in_turn(sidecar.port, [reserve] * 200)
    assert [status for status, _ in answers].count(200) == store.zcard("rl1:{vk_slots}:k#parallel") == 4


def test_made_up_secrets_of_one_address_take_one_bucket(sidecar, store):
    before = store.dbsize()
    secrets = [
        write_request(
            "GET",
            "/v1/authorize",
            TOKEN_LINE,
            b"X-Forwarded-For: 192.0.2.7",
            b"Authorization: Bearer %d" % number,
        )
        for number in range(1_000)
    ]
    answers = [status for status, _ in send_in_turn(sidecar.port, secrets)]
    assert (answers.count(200), answers.count(429)) == (2, 998)
    assert store.dbsize() - before <= 2  # the bucket of the address, and a count for `ratelimit top`


@pytest.mark.parametrize("cost", [{"requests": 0}, {"requests": 0, "tokens": 0}])
def test_a_check_that_costs_nothing_is_bounded_by_no_limit(sidecar, store, cost):
    """Why a gateway must remove the client's X-RateLimit-Cost, and why a plan needs a limit on requests."""
    checks = [check(number, key=f"vk_free_{len(cost)}", cost=cost, reserve=False) for number in range(50)]
    assert {status for status, _ in send_in_turn(sidecar.port, checks)} == {200}
    assert measure(store, f"rl1:{{vk_free_{len(cost)}}}:q*")[0] == 50
