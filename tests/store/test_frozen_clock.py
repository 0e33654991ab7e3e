"""P1 and P3 at one instant: every rate admits exactly its burst, and waiting is exact to the millisecond."""

import pytest

from ratelimit import Limit

BASE = 1_700_000_000.123_457
MILLISECOND = 0.001
RATES = [f"{count}/{period}" for period in ("second", "minute") for count in range(1, 201)]
ODD_RATES = ["1/day", "7/day", "86399/day", "11/7d", "100000000/minute", "1000000000000/second", "1/366d"]


def burst_of(rate):
    return int(rate.partition("/")[0])


def at_one_instant(limits, key, checks):
    return limits.check_many([{"key": key, "timestamp": BASE}] * checks)


@pytest.fixture
def frozen(limiter):
    """A limiter that believes any timestamp; each rate is put into force in turn."""
    return limiter(Limit("requests", "1/second"), max_skew=None)


@pytest.fixture
def really_frozen(real_url, limiter_of):
    """The same on real servers only: the fake one takes its time over so many scripts."""
    return limiter_of(real_url, Limit("requests", "1/second"), max_skew=None)


def test_p1_every_rate_admits_exactly_its_burst_at_one_instant(really_frozen):
    wrong = []
    for rate in RATES:
        really_frozen.policy = Limit("requests", rate)
        decisions = at_one_instant(really_frozen, rate, burst_of(rate) + 3)
        if list(map(bool, decisions)) != [True] * burst_of(rate) + [False] * 3:
            wrong.append((rate, sum(map(bool, decisions))))
    assert wrong == []


def test_p3_at_every_rate_waiting_as_told_is_enough_and_a_millisecond_less_is_not(really_frozen):
    wrong = []
    for rate in RATES:
        really_frozen.policy = Limit("requests", rate)
        decisions = at_one_instant(really_frozen, rate, burst_of(rate) + 1)
        wait = decisions[-1].retry_after
        early, exact, again = really_frozen.check_many(
            [{"key": rate, "timestamp": BASE + later} for later in (wait - MILLISECOND, wait, wait)]
        )
        if (bool(early), bool(exact), bool(again)) != (False, True, False):
            wrong.append((rate, wait, bool(early), bool(exact), bool(again)))
    assert wrong == []


@pytest.mark.parametrize("rate", ODD_RATES)
def test_p1_p3_rates_of_any_size_are_exact(frozen, rate):
    frozen.policy = Limit("requests", rate)
    burst = burst_of(rate)
    everything, one_more = frozen.check_many(
        [{"key": "k", "timestamp": BASE, "cost": {"requests": cost}} for cost in (burst, 1)]
    )
    assert everything
    assert not one_more
    wait = one_more.retry_after
    one_period = one_more.limits[0].period
    assert wait == pytest.approx(one_period / burst, abs=2e-6)
    if wait > MILLISECOND:
        assert not frozen.peek("k", timestamp=BASE + wait - MILLISECOND)
    assert frozen.peek("k", timestamp=BASE + wait)


@pytest.mark.parametrize("burst", [1, 2, 3, 10, 1_000_000])
def test_p1_a_burst_of_ones_own_is_exact_too(frozen, burst):
    frozen.policy = Limit("requests", "7/minute", burst=burst)
    shares = [burst / 3] * 3 + [0.001]
    asked = [{"key": "k", "timestamp": BASE, "cost": {"requests": cost}} for cost in shares]
    assert list(map(bool, frozen.check_many(asked))) == [True, True, True, False]


def test_p1_a_tenth_ten_times_is_one(frozen):
    frozen.policy = Limit("requests", "1/minute")
    asked = [{"key": "k", "timestamp": BASE, "cost": {"requests": 0.1}}] * 11
    assert sum(map(bool, frozen.check_many(asked))) == 10


def test_p1_a_client_at_exactly_the_rate_is_never_denied(frozen):
    for count in (1, 3, 7, 36, 59, 144):
        frozen.policy = Limit("requests", f"{count}/minute", burst=1)
        asked = [{"key": f"k{count}", "timestamp": BASE + n * 60 / count + n * 1e-6} for n in range(200)]
        assert all(frozen.check_many(asked))
