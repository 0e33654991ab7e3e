"""P5: every store key expires by itself, and its value is laid out as documented."""

import math
import struct
import time

import pytest

from ratelimit import Limit, Policy

from .. import stored
from ..processes import wait_until

BASE = 1_700_000_000
STORE_KEY = "rl1:{k}:k"


def find_time_to_full(decision):
    return max(state.reset_after for state in decision.limits) * 1000


def assert_time_to_live(client, key, least, greatest):
    """Check the time to live, in milliseconds.

    It may be less on a slow test machine, and more because a store key expires at the end of a millisecond.
    """
    assert least - 20_000 <= client.pttl(key) <= math.ceil(greatest) + 1


@pytest.mark.parametrize("rate", ["1/second", "7/minute", "3/day", "1000000000000/second", "1/366d"])
def test_p5_every_key_has_a_time_to_live_from_its_first_check(make_limiter, client, rate):
    decision = make_limiter(Limit("requests", rate), Limit("all", rate, per=[])).check("k")
    assert decision
    assert set(client.scan_iter()) >= (
        {STORE_KEY, "rl1:{*}"} if find_time_to_full(decision) > 10_000 else set()
    )
    assert all(client.pttl(key) != -1 for key in client.scan_iter())


@pytest.mark.parametrize("cost", [1, 2.5, 60])
def test_p5_it_covers_the_time_to_full(make_limiter, client, cost):
    limits = make_limiter(Limit("requests", "60/hour"))
    decision = limits.check("k", cost={"requests": cost})
    assert_time_to_live(client, STORE_KEY, find_time_to_full(decision), find_time_to_full(decision))
    assert find_time_to_full(decision) == pytest.approx(cost * 60_000)


def test_p5_it_covers_max_skew_too_where_the_caller_brought_the_time(make_limiter, client):
    limits = make_limiter(Limit("requests", "60/hour"), max_skew=3600)
    limits.check("k", timestamp=BASE)
    assert_time_to_live(client, STORE_KEY, 3_660_000, 3_660_000)


def test_p5_it_covers_how_far_the_time_lies_ahead(make_limiter, client):
    limits = make_limiter(Limit("requests", "60/hour"), max_skew=3600)
    limits.check("k", timestamp=time.time() + 7200)
    assert_time_to_live(client, STORE_KEY, 60_000 + 2 * 3_600_000, 60_000 + 2 * 3_600_000 + 1)


def test_p5_a_replay_outlives_its_refill_by_a_minute(make_limiter, client):
    limits = make_limiter(Limit("requests", "60/hour"), max_skew=None)
    limits.check("k", timestamp=BASE)
    assert_time_to_live(client, STORE_KEY, 120_000, 120_000)


def test_p5_it_covers_the_slowest_limit_of_an_owner(make_limiter, client):
    limits = make_limiter(Limit("second", "100/second"), Limit("day", "24/day"), Limit("minute", "9/minute"))
    limits.check("k")
    assert_time_to_live(client, STORE_KEY, 3_600_000, 3_600_000)


def test_p5_a_fast_limit_never_shortens_the_life_of_a_slow_one(make_limiter, client):
    limits = make_limiter(Limit("tokens", "24/day", unit="tokens"), Limit("requests", "100/second"))
    limits.check("k", cost={"tokens": 2})
    limits.check("k", cost={"tokens": 0})
    assert_time_to_live(client, STORE_KEY, 7_200_000, 7_200_000)


def test_p5_each_admission_lengthens_it(make_limiter, client):
    limits = make_limiter(Limit("requests", "24/day"))
    for used in range(1, 5):
        limits.check("k")
        assert_time_to_live(client, STORE_KEY, used * 3_600_000, used * 3_600_000)


def test_p5_more_than_a_periods_worth_lives_until_it_is_back(make_limiter, client):
    limits = make_limiter(Limit("requests", "24/day"), Limit("trial", "24/day", burst=90))
    limits.check("k")
    stored.put(client, STORE_KEY, requests=(1, time.time_ns() // 1000), trial=(47, time.time_ns() // 1000))
    limits.check("k")
    assert_time_to_live(client, STORE_KEY, 48 * 3_600_000, 48 * 3_600_000)


def test_p5_a_bucket_in_debt_for_ages_is_kept_until_2200(make_limiter, client):
    """No timestamp lies after that year, and the exact time to live would be more than the store accepts."""
    limits = make_limiter(Limit("tokens", "1/366d", burst=10, unit="tokens"), max_skew=None)
    limits.settle({"key": "k", "timestamp": 0, "cost": {"tokens": 10**12}})
    assert client.pttl(STORE_KEY) == pytest.approx((7_258_118_400 - time.time()) * 1000, abs=20_000)
    assert not limits.check("k", timestamp=7e9, cost={"tokens": 0})
    limits.settle({"key": "k", "timestamp": 0, "cost": {"tokens": 1}})
    assert client.pttl(STORE_KEY) == pytest.approx((7_258_118_400 - time.time()) * 1000, abs=20_000)


def test_p5_an_idle_store_is_an_empty_store(make_limiter, client):
    limits = make_limiter(
        Limit("requests", "1000/second", burst=5), Limit("all", "200/second", per=[]), max_skew=0.05
    )
    for n in range(20):
        limits.check(f"k{n}")
        limits.check(f"k{n}", timestamp=time.time())
    assert client.dbsize() > 1
    wait_until(lambda: client.dbsize() == 0)


def test_p5_the_state_is_what_the_documents_say(make_limiter, client):
    limits = make_limiter(Limit("requests", "5/minute"), Limit("tokens", "90/minute", unit="tokens"))
    limits.check("k", timestamp=BASE + 0.5, cost={"tokens": 12.5})
    names, _, packed = client.get(STORE_KEY).partition("|")
    *states, full_at = struct.unpack("<5d", packed.encode("latin-1"))
    assert names == "requests,tokens"
    assert states == [1, 1_700_000_000_500_000, 12.5, 1_700_000_000_500_000]
    assert full_at == pytest.approx(1e6 * (time.time() + 12 + 5), abs=20e6)
    assert client.pttl(STORE_KEY) == pytest.approx(full_at / 1000 - 1000 * time.time(), abs=20_000)


@pytest.mark.parametrize("used", [1 / 3, 0.1, 1e-9, 12345.678901234567, 999_999_999_999.0625, 5e-324])
def test_p5_no_digit_is_lost_on_the_way_to_the_store(make_limiter, client, used):
    limits = make_limiter(Limit("requests", "1000000000000/second"), max_skew=None)
    limits.check("k", timestamp=BASE, cost={"requests": used})
    assert stored.used(client) == used


def test_p5_limits_that_take_nothing_leave_nothing(make_limiter, client):
    limits = make_limiter(Limit("requests", "5/minute"), Limit("tokens", "90/minute", unit="tokens"))
    limits.check("k", cost={"requests": 0})
    assert client.dbsize() == 0
    limits.check("k")
    assert stored.used(client, "requests") == 1
    assert stored.used(client, "tokens") == 0


def test_p5_classes_not_models_are_what_is_filed(make_limiter, client):
    limits = make_limiter(
        Policy.from_text("""
models: {small: [m1]}
plans: {p: {limits: {requests: {per: [key, model], rate: {small: 5/minute, other: 1/minute}}}}}
""")
    )
    for model in ("m1", "a-prompt-by-mistake", "another"):
        limits.check("k", model=model)
    assert set(client.keys()) == {f"{STORE_KEY}/small", f"{STORE_KEY}/other"}
    assert all(list(stored.buckets(client, name)) == ["requests"] for name in client.scan_iter())


def test_p5_plans_that_take_turns_keep_the_longest_life(make_limiter, client):
    limits = make_limiter(
        Policy.from_text("""
default_plan: a
plans:
  a: {limits: {slow: {rate: 24/day}}}
  b: {limits: {quick: {rate: 100/second}}}
""")
    )
    for plan in "abaaab":
        limits.check("k", plan=plan)
    assert_time_to_live(client, STORE_KEY, 4 * 3_600_000, 4 * 3_600_000)


def test_p5_a_settlement_does_not_shorten_the_life_of_another_limit(make_limiter, client):
    limits = make_limiter(Limit("slow", "24/day"), Limit("tokens", "100/second", unit="tokens"))
    limits.check("k")
    limits.settle({"key": "k", "cost": {"tokens": 1}})
    assert_time_to_live(client, STORE_KEY, 3_600_000, 3_600_000)


def test_p5_a_settlement_of_nothing_leaves_nothing(make_limiter, client):
    limits = make_limiter(Limit("tokens", "100/day", unit="tokens"), Limit("images", "5/day", unit="images"))
    limits.settle({"key": "k", "cost": {"tokens": 0}})
    assert client.keys() == ["rl1:usage"]
    held = limits.reserve("k", cost={"tokens": 5})
    client.delete(STORE_KEY)
    held.cancel()
    assert not client.exists(STORE_KEY)


@pytest.mark.parametrize("any_store", ["valkey"], indirect=True)  # Redis 6.2 has no PEXPIRETIME
def test_p5_a_key_goes_within_a_millisecond_after_it_is_full_and_never_before(make_limiter, client):
    limits = make_limiter(Limit("requests", "1000000/second"))
    for cost in range(200_000, 200_020):
        limits.check("k", cost={"requests": cost})
        [full] = struct.unpack("<d", client.get(STORE_KEY).encode("latin-1")[-8:])
        assert full < client.pexpiretime(STORE_KEY) * 1000 <= full + 1000


def test_p5_on_the_stores_clock_a_replay_outlives_its_refill_by_a_minute_too(make_limiter, client):
    make_limiter(Limit("requests", "60/hour"), max_skew=None).check("k")
    assert_time_to_live(client, STORE_KEY, 120_000, 120_000)


def test_p5_what_is_remembered_of_checks_and_settlements_expires(make_limiter, client):
    limits = make_limiter(Limit("tokens", "1000/day", unit="tokens"), remember=60)
    _open, settled, cancelled = (limits.reserve("k", request_id=f"r{number}") for number in range(3))
    settled.settle({"input_tokens": 5})
    cancelled.cancel()
    remembered = [key for key in client.scan_iter() if ":R:" in key or ":q:" in key]
    assert len(remembered) == 6
    for key in remembered:
        assert_time_to_live(client, key, 60_000, 60_000)


def test_p5_what_is_known_by_heart_is_bounded(make_limiter, monkeypatch):
    monkeypatch.setattr("ratelimit.engine.resolver._MAX_CACHED", 10)
    limits = make_limiter(Limit("requests", "500/day"))
    for number in range(50):
        limits.check(f"k{number}", model=f"m{number}")
    assert len(limits._resolver._cache) <= 10
