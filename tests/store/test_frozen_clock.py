"""P1 and P3 at one instant: every rate admits exactly its burst, and waits are exact to the millisecond."""

import pytest

from ratelimit import Limit

BASE = 1_700_000_000.123_457
MILLISECOND = 0.001
RATES = [f"{count}/{period}" for period in ("second", "minute") for count in range(1, 201)]
ODD_RATES = ["1/day", "7/day", "86399/day", "11/7d", "100000000/minute", "1000000000000/second", "1/366d"]


def parse_burst(rate):
    return int(rate.partition("/")[0])


def check_at_one_instant(limits, key, checks):
    return limits.check_many([{"key": key, "timestamp": BASE}] * checks)


@pytest.fixture
def replay_limiter(make_limiter):
    """A limiter that trusts any timestamp; tests set its policy to each rate in turn."""
    return make_limiter(Limit("requests", "1/second"), max_skew=None)


@pytest.fixture
def real_replay_limiter(real_url, make_limiter_on):
    """The same on real servers only: the fake server is too slow for so many scripts."""
    return make_limiter_on(real_url, Limit("requests", "1/second"), max_skew=None)


def test_p1_every_rate_admits_exactly_its_burst_at_one_instant(real_replay_limiter):
    wrong = []
    for rate in RATES:
        real_replay_limiter.policy = Limit("requests", rate)
        decisions = check_at_one_instant(real_replay_limiter, rate, parse_burst(rate) + 3)
        if list(map(bool, decisions)) != [True] * parse_burst(rate) + [False] * 3:
            wrong.append((rate, sum(map(bool, decisions))))
    assert wrong == []


def test_p3_at_every_rate_waiting_as_told_is_enough_and_a_millisecond_less_is_not(real_replay_limiter):
    wrong = []
    for rate in RATES:
        real_replay_limiter.policy = Limit("requests", rate)
        decisions = check_at_one_instant(real_replay_limiter, rate, parse_burst(rate) + 1)
        wait = decisions[-1].retry_after
        early, exact, again = real_replay_limiter.check_many(
            [{"key": rate, "timestamp": BASE + seconds} for seconds in (wait - MILLISECOND, wait, wait)]
        )
        if (bool(early), bool(exact), bool(again)) != (False, True, False):
            wrong.append((rate, wait, bool(early), bool(exact), bool(again)))
    assert wrong == []


@pytest.mark.parametrize("rate", ODD_RATES)
def test_p1_p3_rates_of_any_size_are_exact(replay_limiter, rate):
    replay_limiter.policy = Limit("requests", rate)
    burst = parse_burst(rate)
    whole_burst, one_more = replay_limiter.check_many(
        [{"key": "k", "timestamp": BASE, "cost": {"requests": cost}} for cost in (burst, 1)]
    )
    assert whole_burst
    assert not one_more
    wait = one_more.retry_after
    one_period = one_more.limits[0].period
    assert wait == pytest.approx(one_period / burst, abs=2e-6)
    if wait > MILLISECOND:
        assert not replay_limiter.peek("k", timestamp=BASE + wait - MILLISECOND)
    assert replay_limiter.peek("k", timestamp=BASE + wait)


@pytest.mark.parametrize("burst", [1, 2, 3, 10, 1_000_000])
def test_p1_a_burst_of_ones_own_is_exact_too(replay_limiter, burst):
    replay_limiter.policy = Limit("requests", "7/minute", burst=burst)
    shares = [burst / 3] * 3 + [0.001]
    checks = [{"key": "k", "timestamp": BASE, "cost": {"requests": cost}} for cost in shares]
    assert list(map(bool, replay_limiter.check_many(checks))) == [True, True, True, False]


def test_p1_a_tenth_ten_times_is_one(replay_limiter):
    replay_limiter.policy = Limit("requests", "1/minute")
    checks = [{"key": "k", "timestamp": BASE, "cost": {"requests": 0.1}}] * 11
    assert sum(map(bool, replay_limiter.check_many(checks))) == 10


def test_p1_a_client_at_exactly_the_rate_is_never_denied(replay_limiter):
    for count in (1, 3, 7, 36, 59, 144):
        replay_limiter.policy = Limit("requests", f"{count}/minute", burst=1)
        checks = [{"key": f"k{count}", "timestamp": BASE + n * 60 / count + n * 1e-6} for n in range(200)]
        assert all(replay_limiter.check_many(checks))
