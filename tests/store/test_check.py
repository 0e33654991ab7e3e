"""The results of check, check_many, peek, reset and acquire, on every store."""

import contextlib
import dataclasses
import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from ratelimit import Check, Decision, InvalidRequest, Limit, Policy, RateLimited

from ..stored import buckets, put

BASE = 1_700_000_000
FIVE_A_MINUTE = Limit("requests", "5/minute")


def test_a_decision_has_every_member_of_the_answer(make_limiter):
    decision = make_limiter(FIVE_A_MINUTE).check("vk_9f3a51e7c21", timestamp=BASE)

    assert decision
    assert decision.as_dict() == {
        "allowed": True,
        "key": "vk_9f3…c21",
        "plan": "default",
        "model_class": None,
        "timestamp": "2023-11-14T22:13:20.000000Z",
        "clamped": False,
        "retry_after": 0.0,
        "violated": [],
        "reservation": None,
        "source": "store",
        "limits": [
            {
                "name": "requests",
                "unit": "requests",
                "limit": 5,
                "period": 60.0,
                "burst": 5,
                "remaining": 4,
                "reset_after": 12.0,
                "retry_after": 0.0,
                "mode": "enforce",
            }
        ],
    }
    assert json.loads(json.dumps(decision.as_dict())) == decision.as_dict()


def test_a_denial_says_by_what_and_for_how_long(make_limiter):
    limits = make_limiter(FIVE_A_MINUTE, Limit("day", "6/day", burst=5))
    for _ in range(5):
        assert limits.check("k", timestamp=BASE)

    decision = limits.check("k", timestamp=BASE)

    assert not decision
    assert decision.violated == ("requests", "day")
    assert decision.retry_after == pytest.approx(4 * 3600, abs=1e-5)
    assert [state.retry_after for state in decision.limits] == pytest.approx([12.0, 4 * 3600], abs=1e-5)
    assert [state.remaining for state in decision.limits] == [0, 0]


def test_only_the_limits_that_denied_are_violated(make_limiter):
    limits = make_limiter(Limit("many", "100/minute"), Limit("few", "1/minute"))
    limits.check("k", timestamp=BASE)
    assert limits.check("k", timestamp=BASE).violated == ("few",)


def test_limits_are_told_in_the_policys_order_whoever_owns_them(make_limiter):
    scopes = {"a": ["tenant"], "b": ["key"], "c": [], "d": ["tenant", "model"], "e": ["key"], "f": ["model"]}
    limits = make_limiter(*(Limit(name, "1/minute", per=per) for name, per in scopes.items()))

    first, second = (limits.check("k", tenant="t", timestamp=BASE) for _ in range(2))

    assert [state.name for state in first.limits] == list("abcdef")
    assert second.violated == tuple("abcdef")


def test_a_decision_cannot_be_changed(make_limiter):
    decision = make_limiter(FIVE_A_MINUTE).check("k")
    with pytest.raises(dataclasses.FrozenInstanceError):
        decision.allowed = False


def test_without_a_timestamp_the_stores_clock_judges(make_limiter):
    decision = make_limiter(FIVE_A_MINUTE).check("k")
    assert abs(decision.timestamp - datetime.now(UTC)) < timedelta(minutes=1)
    assert not decision.clamped


@pytest.mark.parametrize(
    "timestamp",
    [
        BASE + 0.25,
        datetime.fromtimestamp(BASE + 0.25, UTC),
        datetime.fromtimestamp(BASE + 0.25, UTC).astimezone(),
        "2023-11-14T22:13:20.25Z",
        "2023-11-15T00:13:20.250000+02:00",
        "1700000000.25",
    ],
)
def test_a_timestamp_may_be_written_in_several_ways(make_limiter, timestamp):
    decision = make_limiter(FIVE_A_MINUTE).check("k", timestamp=timestamp)
    assert decision.timestamp == datetime(2023, 11, 14, 22, 13, 20, 250_000, UTC)


def test_requests_cost_one_unless_said_otherwise_and_other_units_nothing(make_limiter):
    limits = make_limiter(FIVE_A_MINUTE, Limit("tokens", "100/minute", unit="tokens"))
    assert [state.remaining for state in limits.check("k", timestamp=BASE).limits] == [4, 100]
    decision = limits.check("k", timestamp=BASE, cost={"requests": 3, "tokens": 0.5})
    assert [state.remaining for state in decision.limits] == [1, 99]


def test_two_limits_of_one_unit_are_both_charged(make_limiter):
    limits = make_limiter(Limit("minute", "50/minute", unit="tokens"), Limit("day", "70/day", unit="tokens"))
    decision = limits.check("k", timestamp=BASE, cost={"tokens": 30})
    assert [state.remaining for state in decision.limits] == [20, 40]


def test_a_cost_above_the_burst_never_passes_and_is_told_so_at_once(make_limiter):
    decision = make_limiter(FIVE_A_MINUTE).check("k", cost={"requests": 6})
    assert not decision
    assert decision.retry_after is None
    assert decision.limits[0].retry_after is None
    assert decision.violated == ("requests",)


def test_a_check_that_costs_nothing_passes_an_empty_bucket(make_limiter):
    limits = make_limiter(FIVE_A_MINUTE)
    assert limits.check("k", timestamp=BASE, cost={"requests": 5})
    assert limits.check("k", timestamp=BASE, cost={"requests": 0})
    assert limits.check("k", timestamp=BASE - 1, cost={"requests": 0})
    assert not limits.check("k", timestamp=BASE)


def test_debt_stops_even_a_check_that_costs_nothing(make_limiter, client):
    limits = make_limiter(FIVE_A_MINUTE)
    limits.check("k", timestamp=BASE)
    put(client, "rl1:{k}:k", requests=(7, BASE * 1_000_000))

    decision = limits.check("k", timestamp=BASE, cost={"requests": 0})

    assert not decision
    assert decision.retry_after == pytest.approx(24, abs=1e-4)
    assert limits.check("k", timestamp=BASE + decision.retry_after, cost={"requests": 0})


def test_a_look_answers_as_a_check_would_and_takes_nothing(make_limiter, read_store):
    limits = make_limiter(FIVE_A_MINUTE)
    assert limits.peek("k", timestamp=BASE).limits[0].remaining == 5
    assert read_store() == {}
    limits.check("k", timestamp=BASE, cost={"requests": 5})
    before = read_store()
    denied = limits.peek("k", timestamp=BASE)
    assert not denied
    assert denied == limits.check("k", timestamp=BASE)
    assert read_store() == before


def test_a_batch_is_decided_in_order_each_check_on_its_own(make_limiter):
    decisions = make_limiter(FIVE_A_MINUTE).check_many(
        [
            {"key": "k", "timestamp": BASE, "cost": {"requests": 4}},
            {"key": "k", "timestamp": BASE, "cost": {"requests": 2}},
            Check(key="k", timestamp=BASE),
            {"key": "other", "timestamp": BASE},
            "just-a-key",
        ]
    )
    assert [bool(decision) for decision in decisions] == [True, False, True, True, True]


def test_an_empty_batch_is_an_empty_answer(make_limiter):
    assert make_limiter(FIVE_A_MINUTE).check_many([]) == []


def test_a_batch_with_a_fault_charges_nothing(make_limiter, read_store):
    with pytest.raises(InvalidRequest):
        make_limiter(FIVE_A_MINUTE).check_many(["k", {"key": "k", "cost": {"requests": -1}}])
    assert read_store() == {}


def test_256_checks_travel_at_once_and_one_more_is_refused(make_limiter):
    limits = make_limiter(FIVE_A_MINUTE)
    assert sum(map(bool, limits.check_many([{"key": "k", "timestamp": BASE}] * 256))) == 5
    with pytest.raises(InvalidRequest, match="256"):
        limits.check_many(["k"] * 257)


def test_reset_forgets_what_one_key_used_and_no_other(make_limiter, read_store):
    limits = make_limiter(
        FIVE_A_MINUTE, Limit("tenant", "9/minute", per=["tenant"]), Limit("all", "9/minute", per=[])
    )
    for key in ("k", "other"):
        limits.check(key, tenant="acme", timestamp=BASE, cost={"requests": 4})

    limits.reset("k", tenant="acme")

    assert set(read_store()) == {"rl1:{acme}:k:other", "rl1:{acme}:t", "rl1:{*}"}
    assert limits.peek("k", tenant="acme", timestamp=BASE).limits[0].remaining == 5


def test_reset_of_a_key_that_never_asked_is_no_error(make_limiter):
    make_limiter(FIVE_A_MINUTE).reset("nobody")


def test_reset_knows_the_tenant_that_the_policy_assigns(make_limiter, read_store):
    limits = make_limiter(
        Policy.from_text("plans: {p: {limits: {requests: {rate: 5/minute}}}}\nkeys: {k: {tenant: acme}}")
    )
    limits.check("k")
    limits.reset("k")
    assert read_store() == {}


def test_acquire_waits_for_its_turn(make_limiter):
    limits = make_limiter(Limit("requests", "50/second", burst=1))
    decisions = [limits.acquire("k", timeout=20) for _ in range(4)]
    assert all(decisions)
    times = [decision.timestamp for decision in decisions]
    assert all(late - early >= timedelta(milliseconds=19.999) for early, late in zip(times, times[1:]))  # noqa: B905, RUF007


@pytest.mark.parametrize("cost", [1, 6], ids=["not in time", "never"])
def test_acquire_gives_up_at_once_on_what_will_not_pass_in_time(make_limiter, cost):
    limits = make_limiter(Limit("requests", "5/day"))
    limits.check("vk_9f3a51e7c21", cost={"requests": 5})
    with pytest.raises(RateLimited) as raised:
        limits.acquire("vk_9f3a51e7c21", timeout=60, cost={"requests": cost})
    assert isinstance(raised.value.decision, Decision)
    assert "vk_9f3a51e7c21" not in str(raised.value)


def test_acquire_never_waits_in_vain_for_a_timestamp_that_stands_still(make_limiter, monkeypatch):
    limits = make_limiter(Limit("requests", "1/second"))
    limits.check("k", timestamp=BASE)
    sleeps = []

    def record_sleep(seconds):
        sleeps.append(seconds)
        assert len(sleeps) == 1, "it checks with the same timestamp again and again"

    monkeypatch.setattr(time, "sleep", record_sleep)
    with contextlib.suppress(InvalidRequest, RateLimited):
        limits.acquire("k", timestamp=BASE, timeout=30)


def test_ping_says_that_the_store_answers(make_limiter):
    make_limiter(FIVE_A_MINUTE).ping()


def test_usual_questions_of_two_plans_travel_in_one_call(make_limiter, client):
    limits = make_limiter(
        Policy.from_text("""
default_plan: a
plans:
  a: {limits: {slow: {rate: 1/day}}}
  b: {limits: {quick: {rate: 9/day}, more: {rate: 8/day}}}
""")
    )
    limits.assign("two", plan="b")
    for _ in range(2):
        one, two = limits.check_many(["one", "two"])
    assert not one
    assert [state.remaining for state in two.limits] == [7, 6]
    assert list(buckets(client, "rl1:{two}:k")) == ["quick", "more"]
    limits.assign("two", plan="a")
    assert limits.check("two").plan == "a"


def test_of_blocked_keys_nothing_is_taken_however_often_they_ask(make_limiter):
    limits = make_limiter(FIVE_A_MINUTE)
    limits.check("other")
    limits.assign("k", blocked=True)
    assert not any(limits.check("k") for _ in range(3))
    assert not any(limits.check("k", cost={"requests": 2}) for _ in range(3))
    limits.assign("k")
    assert limits.check("k").limits[0].remaining == 4


@pytest.mark.parametrize("amount", [True, 1e12 + 1000, float("inf"), float("nan"), -1, "1"])
def test_a_key_that_is_known_is_not_trusted_with_its_cost(make_limiter, amount):
    limits = make_limiter(FIVE_A_MINUTE)
    limits.check("k")
    with pytest.raises(InvalidRequest):
        limits.check("k", cost={"requests": amount})
