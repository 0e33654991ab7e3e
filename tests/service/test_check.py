"""`POST /v1/check` and `POST /v1/check/batch`, over a socket."""

import math

import http_sf
import pytest

MEMBERS = {
    *("allowed", "key", "plan", "model_class", "timestamp", "clamped"),
    *("retry_after", "violated", "reservation", "source", "limits"),
}
LIMIT_MEMBERS = {
    *("name", "unit", "limit", "period", "burst"),
    *("remaining", "reset_after", "retry_after", "mode"),
}


def send_check_above_burst(sidecar, key):
    """Send as many checks as the burst allows; return the answer to one more."""
    for _ in range(5):
        assert sidecar.check(key).status_code == 200
    return sidecar.check(key)


def test_an_allowed_check_answers_200_with_the_state_of_every_limit(sidecar, key):
    response = sidecar.check(key, cost={"tokens": 200})
    body = response.json()
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert set(body) == MEMBERS
    assert (body["allowed"], body["plan"], body["source"], body["violated"]) == (True, "free", "store", [])
    assert body["retry_after"] == 0.0
    requests, tokens = body["limits"]
    assert set(requests) == LIMIT_MEMBERS
    assert (requests["name"], requests["limit"], requests["period"], requests["burst"]) == (
        "requests",
        20,
        3600.0,
        5,
    )
    assert (requests["remaining"], requests["reset_after"]) == (4, 180.0)
    assert (tokens["remaining"], tokens["unit"]) == (800, "tokens")


def test_a_denied_check_answers_429_as_a_problem_with_the_same_members(sidecar, key):
    response = send_check_above_burst(sidecar, key)
    body = response.json()
    assert response.status_code == 429
    assert response.headers["content-type"] == "application/problem+json"
    assert set(body) > MEMBERS
    assert body["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert body["violated-policies"] == body["violated"] == ["requests"]
    assert 0 < body["retry_after"] <= 180
    assert body["limits"][0]["remaining"] == 0


def test_headers_follow_the_ietf_draft_on_200_and_429(sidecar, key):
    allowed, denied = sidecar.check(key), send_check_above_burst(sidecar, f"{key}x")
    for response, remaining in ((allowed, 4), (denied, 0)):
        policy = http_sf.parse(response.headers["ratelimit-policy"].encode(), tltype="list")
        state = http_sf.parse(response.headers["ratelimit"].encode(), tltype="list")
        assert policy == [
            ("requests", {"q": 20, "w": 3600}),
            ("tokens", {"q": 1000, "w": 3600, "qu": "tokens"}),
        ]
        assert state[0][0] == "requests"
        assert state[0][1]["r"] == remaining
    assert "retry-after" not in allowed.headers
    assert denied.headers["retry-after"] == str(math.ceil(denied.json()["retry_after"]))


def test_a_cost_above_the_burst_is_denied_at_once_without_retry_after(sidecar, key):
    response = sidecar.check(key, cost={"tokens": 1001})
    assert response.status_code == 429
    assert response.json()["retry_after"] is None
    assert "retry-after" not in response.headers


def test_plan_tenant_and_class_come_from_the_policy_or_the_request(sidecar, key):
    partner = sidecar.check("vk_partner", model="qwen3-4b").json()
    assert (partner["plan"], partner["model_class"]) == ("pro", "small")
    assert sidecar.check(key, plan="anonymous").json()["plan"] == "anonymous"
    assert sidecar.check(key, model="never-heard-of").json()["model_class"] == "other"
    assert sidecar.check(key).json()["model_class"] is None


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        (1771601400, "2026-02-20T15:30:00.000000Z"),
        (1771601400.25, "2026-02-20T15:30:00.250000Z"),
        ("2026-02-20T15:30:00Z", "2026-02-20T15:30:00.000000Z"),
        ("2026-02-20T16:30:00.123456+01:00", "2026-02-20T15:30:00.123456Z"),
    ],
)
def test_timestamps_are_epoch_seconds_or_rfc_3339(sidecar, key, timestamp, expected):
    body = sidecar.check(key, timestamp=timestamp).json()
    assert (body["timestamp"], body["clamped"]) == (expected, False)


def test_p4_a_timestamp_far_ahead_is_clamped_and_the_answer_says_so(sidecar, key):
    body = sidecar.check(key, timestamp="2100-01-01T00:00:00Z").json()
    assert body["clamped"] is True
    assert body["timestamp"] < "2100"


def test_a_batch_answers_each_check_in_order_and_atomically(sidecar, key):
    checks = [{"key": key, "cost": {"tokens": 600}}] * 2 + [
        {"key": key, "cost": {"tokens": 400}},
        {"key": f"{key}2"},
    ]
    response = sidecar.client.post("/v1/check/batch", json=checks)
    assert response.status_code == 200
    decisions = response.json()
    assert [decision["allowed"] for decision in decisions] == [True, False, True, True]
    assert all(set(decision) == MEMBERS for decision in decisions)
    assert decisions[1]["violated"] == ["tokens"]


def test_a_batch_takes_256_checks_and_not_one_more(sidecar, key):
    def ask(number):
        return sidecar.client.post(
            "/v1/check/batch", json=[{"key": f"{key}{index}"} for index in range(number)]
        )

    assert len(ask(256).json()) == 256
    refused = ask(257)
    assert refused.status_code == 422
    assert "256" in refused.json()["detail"]
    assert ask(0).json() == []


def test_a_batch_names_the_check_at_fault_and_charges_none(sidecar, key):
    checks = [{"key": key}, {"key": key, "plan": "gold"}]
    response = sidecar.client.post("/v1/check/batch", json=checks)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "1.plan"
    assert sidecar.check(key).json()["limits"][0]["remaining"] == 4


def test_other_dialects_are_spoken_when_asked_for(start_sidecar, key):
    sidecar = start_sidecar("--dialect", "ietf,openai,venice", "--redis", "memory://")
    headers = (
        start_sidecar("--dialect", "openai", "--redis", "memory://").check(key, cost={"tokens": 100}).headers
    )
    assert headers["x-ratelimit-limit-requests"] == "20"
    assert headers["x-ratelimit-remaining-tokens"] == "900"
    assert headers["x-ratelimit-reset-tokens"] == "6m0s"
    assert "ratelimit" not in headers
    both = sidecar.check(key).headers
    assert both["ratelimit"]
    assert both["x-ratelimit-reset-requests"].isdigit()
