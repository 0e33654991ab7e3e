"""`POST /v1/settle`, `DELETE /v1/reservations/{id}`, repeated checks, and assignments, over a socket."""

import json

import pytest

from ratelimit import Limiter, Policy
from ratelimit.stores import open_client

from ..processes import run_ratelimit, wait_until

ADMIN = {"Authorization": "Bearer admin-token"}
METERED = """
default_plan: free
models: {small: [qwen3-4b]}
plans:
  free:
    limits:
      requests: {rate: 1000/day}
      tokens: {unit: tokens, rate: 1000/day}
      parallel: {unit: concurrent, capacity: 2, ttl: 1h}
      failures: {unit: failures, rate: 2/30s, block: 30s}
  pro: {limits: {requests: {rate: 2000/day}, tokens: {unit: tokens, rate: 100000/day}}}
"""


@pytest.fixture(scope="module")
def metered(start_module_sidecar):
    return start_module_sidecar("--admin-token", "admin-token", policy=METERED)


@pytest.fixture
def read_remaining(metered):
    """Read what remains of a key's limit."""

    def read(key, name="tokens"):
        limits = metered.client.get(f"/v1/keys/{key}", headers=ADMIN).json()["limits"]
        return next(state["remaining"] for state in limits if state["name"] == name)

    return read


def reserve(sidecar, key, tokens=100, **more):
    response = sidecar.check(key, reserve=True, cost={"tokens": tokens}, **more)
    assert response.status_code == 200
    return response.json()["reservation"]


def settle(sidecar, **record):
    return sidecar.client.post("/v1/settle", json=record)


def test_p7_settling_charges_what_was_used_instead_of_the_estimate(metered, read_remaining, key):
    reservation = reserve(metered, key)
    assert read_remaining(key) == 900
    response = settle(metered, reservation=reservation, input_tokens=30, output_tokens=12, status=200)
    body = response.json()
    assert (response.status_code, body["settled"], body["replayed"]) == (200, True, False)
    assert {state["name"]: state["remaining"] for state in body["limits"]}["tokens"] == 958
    assert read_remaining(key) == 958


def test_p7_what_was_used_is_charged_even_below_empty(metered, read_remaining, key):
    reservation = reserve(metered, key)
    settle(metered, reservation=reservation, input_tokens=1500)
    assert read_remaining(key) == 0
    denied = metered.check(key)
    assert (denied.status_code, denied.json()["violated"]) == (429, ["tokens"])


def test_p6_settling_again_charges_nothing_and_says_so(metered, read_remaining, key):
    reservation = reserve(metered, key)
    first = settle(metered, reservation=reservation, input_tokens=10).json()
    again = settle(metered, reservation=reservation, input_tokens=500)
    assert (again.status_code, again.json()["replayed"], again.json()["limits"]) == (
        200,
        True,
        first["limits"],
    )
    assert read_remaining(key) == 990


def test_p7_cancelling_gives_back_what_was_taken_once(metered, read_remaining, key):
    reservation = reserve(metered, key)
    for _ in range(2):
        assert metered.client.delete(f"/v1/reservations/{reservation}").status_code == 204
        assert (read_remaining(key), read_remaining(key, "requests"), read_remaining(key, "parallel")) == (
            1000,
            1000,
            2,
        )


def test_p6_settling_what_was_cancelled_is_409_and_charges_nothing(metered, read_remaining, key):
    reservation = reserve(metered, key)
    metered.client.delete(f"/v1/reservations/{reservation}")
    refused = settle(metered, reservation=reservation, input_tokens=500)
    assert (refused.status_code, refused.headers["content-type"]) == (409, "application/problem+json")
    assert read_remaining(key) == 1000


def test_p6_cancelling_what_was_settled_changes_nothing(metered, read_remaining, key):
    reservation = reserve(metered, key)
    settle(metered, reservation=reservation, input_tokens=10)
    assert metered.client.delete(f"/v1/reservations/{reservation}").status_code == 204
    assert read_remaining(key) == 990


@pytest.mark.parametrize("reservation", ["unknown", "A" * 16 + ".dms", "..", "a.b.c", "AAAA.%", "x" * 512])
def test_an_unknown_or_malformed_reservation_is_404(metered, reservation):
    response = settle(metered, reservation=reservation, input_tokens=1)
    assert (response.status_code, response.json()["errors"][0]["field"]) == (404, "reservation")
    assert metered.client.delete("/v1/reservations/unknown").status_code == 404


def test_another_keys_reservation_is_not_settled(metered, read_remaining, key):
    reservation = reserve(metered, key)
    refused = settle(metered, reservation=reservation, key="vk_somebody_else", input_tokens=5)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "key")
    assert read_remaining(key) == 900


@pytest.mark.parametrize(
    ("record", "field"),
    [
        ({}, "key"),
        ({"key": "k", "input_tokens": -1}, "input_tokens"),
        ({"key": "k", "input_tokens": 1.5}, "input_tokens"),
        ({"key": "k", "output_tokens": 10**13}, "output_tokens"),
        ({"key": "k", "output_tokens": "5"}, "output_tokens"),
        ({"key": "k", "status": 99}, "status"),
        ({"key": "k", "status": 600}, "status"),
        ({"key": "k", "latency_ms": -1}, "latency_ms"),
        ({"key": "k", "cost": {"bananas": 1}}, "cost.bananas"),
        ({"key": "k", "cost": {"failures": 1}}, "cost.failures"),
        ({"key": "k", "plan": "gold"}, "plan"),
        ({"key": "k", "timestamp": "2026-02-20T15:30:00"}, "timestamp"),
        ({"key": "k", "completion": "do-not-repeat-me"}, "completion"),
        ({"reservation": ""}, "reservation"),
        ({"reservation": "x" * 513}, "reservation"),
    ],
)
def test_p10_a_wrong_or_unlisted_field_of_a_record_is_422_and_named(metered, record, field):
    response = settle(metered, **record)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == field
    assert "do-not-repeat-me" not in response.text


def test_without_a_reservation_what_was_used_is_charged(metered, read_remaining, key):
    assert settle(metered, key=key, input_tokens=100, output_tokens=50, model="qwen3-4b").status_code == 200
    assert (read_remaining(key), read_remaining(key, "requests")) == (850, 1000)


def test_failures_shut_the_key(metered, key):
    for status in (500, 200, 429, 399):
        settle(metered, key=key, status=status)
        assert metered.check(key).status_code == 200
    settle(metered, key=key, status=400)
    denied = metered.check(key).json()
    assert denied["violated"] == ["failures"]
    assert 29 < denied["retry_after"] <= 30


def test_open_reservations_are_counted(metered, key):
    first, _ = reserve(metered, key), reserve(metered, key)
    denied = metered.check(key, reserve=True).json()
    assert denied["violated"] == ["parallel"]
    settle(metered, reservation=first)
    assert metered.check(key, reserve=True).status_code == 200


def test_p6_a_repeated_check_gives_the_first_answer_and_charges_once(metered, read_remaining, key):
    first, again = (
        metered.check(key, request_id="once", reserve=True, cost={"tokens": 100}).json() for _ in range(2)
    )
    assert first == again
    assert read_remaining(key) == 900
    assert metered.check(key, request_id="twice", cost={"tokens": 100}).status_code == 200
    assert read_remaining(key) == 800


def test_p6_another_sidecar_knows_the_reservation_and_the_request_id(start_sidecar, tmp_path, key):
    redis = f"embedded://{tmp_path / 'store'}"
    one, other = (
        start_sidecar("--redis", redis, policy=METERED),
        start_sidecar("--redis", redis, policy=METERED),
    )
    first = one.check(key, request_id="once", reserve=True, cost={"tokens": 100}).json()
    assert other.check(key, request_id="once", reserve=True, cost={"tokens": 100}).json() == first
    assert settle(other, reservation=first["reservation"], input_tokens=1).json()["replayed"] is False
    assert settle(one, reservation=first["reservation"], input_tokens=1).json()["replayed"] is True


def test_gateways_reserve_and_repeat_with_headers(metered, read_remaining, key):
    headers = {
        "X-RateLimit-Key": key,
        "X-RateLimit-Reserve": "?1",
        "X-RateLimit-Cost": "tokens=100",
        "X-RateLimit-Request-Id": "4f1c",
    }
    first, again = (metered.client.get("/v1/authorize", headers=headers) for _ in range(2))
    assert first.headers["x-ratelimit-reservation"] == again.headers["x-ratelimit-reservation"]
    assert read_remaining(key) == 900
    settle(metered, reservation=first.headers["x-ratelimit-reservation"], input_tokens=1)
    assert read_remaining(key) == 999
    wrong = metered.client.get("/v1/authorize", headers={**headers, "X-RateLimit-Reserve": "yes"})
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "X-RateLimit-Reserve")


def test_an_operator_assigns_a_plan_and_shuts_a_key(metered, key):
    def assign(**fields):
        return metered.client.put(f"/v1/keys/{key}", json=fields, headers=ADMIN)

    assert assign(plan="pro", tenant="acme").json() == {"plan": "pro", "tenant": "acme", "blocked": False}
    assert metered.check(key).json()["plan"] == "pro"
    assert assign(blocked=True).status_code == 200
    denied = metered.check(key)
    assert (denied.status_code, denied.json()["violated"], denied.json()["retry_after"]) == (
        429,
        ["blocked"],
        None,
    )
    assert "retry-after" not in denied.headers
    assert assign().status_code == 200
    assert metered.check(key).json()["plan"] == "free"
    assert assign(plan="gold").json()["errors"][0]["field"] == "plan"
    assert assign(colour="red").json()["errors"][0]["field"] == "colour"
    assert metered.client.put(f"/v1/keys/{key}", json={}).status_code == 401


def test_an_assignment_is_seen_by_every_sidecar_running_or_not_yet(start_sidecar, tmp_path, key):
    redis = f"embedded://{tmp_path / 'store'}"
    one = start_sidecar("--redis", redis, "--admin-token", "admin-token", policy=METERED)
    other = start_sidecar("--redis", redis, policy=METERED)
    one.client.put(f"/v1/keys/{key}", json={"plan": "pro"}, headers=ADMIN)
    wait_until(lambda: other.check(key).json()["plan"] == "pro")
    one.client.put(f"/v1/keys/{key}", json={"blocked": True}, headers=ADMIN)
    assert start_sidecar("--redis", redis, policy=METERED).check(key).status_code == 429
    with Limiter(redis, Policy.from_text(METERED)) as elsewhere:
        elsewhere._run_commands([("HSET", "rl1:keys", "vk_odd", '{"plan": ["pro"], "colour": 1}')])
        elsewhere.assign("vk_new", plan="pro")
    wait_until(lambda: other.check("vk_new").json()["plan"] == "pro")
    assert other.check("vk_odd").json()["plan"] == "free"


def test_the_command_line_knows_what_was_assigned(start_sidecar, tmp_path, key):
    redis = f"embedded://{tmp_path / 'store'}"
    sidecar = start_sidecar("--redis", redis, "--admin-token", "admin-token", policy=METERED)
    sidecar.client.put(f"/v1/keys/{key}", json={"blocked": True}, headers=ADMIN)
    flags = ["--policy", str(sidecar.policy_file), "--redis", redis]
    done = run_ratelimit("check", key, *flags)
    assert (done.returncode, "an operator has blocked the key" in done.stdout) == (1, True)


def test_a_blocked_key_still_shows_what_is_left(metered, read_remaining, key):
    metered.client.put(f"/v1/keys/{key}", json={"blocked": True}, headers=ADMIN)
    shown = metered.client.get(f"/v1/keys/{key}", headers=ADMIN).json()
    assert (shown["allowed"], shown["violated"], read_remaining(key)) == (False, ["blocked"], 1000)
    denied = metered.check(key, timestamp="2100-01-01T00:00:00Z", reserve=True).json()
    assert (denied["clamped"], denied["reservation"]) == (True, None)
    assert "an operator has blocked the key" in denied["detail"]


def test_whose_a_reservation_is_nobody_can_say_otherwise(metered, start_sidecar, tmp_path, key):
    redis = f"embedded://{tmp_path / 'store'}"
    sidecar = start_sidecar("--redis", redis, policy=METERED)
    reservation = reserve(sidecar, key)
    settle(sidecar, reservation=reservation, tenant="evil", plan="nonsense", input_tokens=1)
    client, close = open_client(redis, 5)
    [(_, record)] = client.xrange("rl1:usage")
    close()
    assert (record[b"tenant"].decode(), record[b"plan"]) == (key, b"free")


def test_a_denial_makes_no_reservation(metered, key):
    body = metered.check(key, reserve=True, cost={"tokens": 5000}).json()
    assert (body["allowed"], body["reservation"]) == (False, None)
    assert json.dumps(body)
