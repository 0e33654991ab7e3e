"""P3 and P4: waits are exact, and timestamps count within `max_skew`."""

from datetime import UTC, datetime, timedelta

import pytest

from ratelimit import InvalidRequest, Limit

BASE = 1_700_000_000
FIVE_A_MINUTE = Limit("requests", "5/minute")  # one token in twelve seconds


def check_at(limits, *times, cost=1):
    return [bool(limits.check("k", timestamp=BASE + t, cost={"requests": cost})) for t in times]


def test_p3_a_client_that_waits_as_told_passes_and_a_millisecond_less_does_not(make_limiter):
    limits = make_limiter(FIVE_A_MINUTE, Limit("hour", "7/hour", burst=6), Limit("day", "1000/day"))
    t = BASE
    for _ in range(10):
        while decision := limits.check("k", timestamp=t):
            pass
        assert not limits.peek("k", timestamp=t + decision.retry_after - 0.001)
        t += decision.retry_after
        assert limits.peek("k", timestamp=t)


@pytest.mark.parametrize("cost", [0.3, 2.25, 4.999])
def test_p3_holds_for_fractional_costs(make_limiter, cost):
    limits = make_limiter(FIVE_A_MINUTE)
    check_at(limits, 0, cost=5)
    options = {"cost": {"requests": cost}}
    wait = limits.check("k", timestamp=BASE, **options).retry_after
    assert wait == pytest.approx(cost * 12, abs=1e-4)
    assert not limits.check("k", timestamp=BASE + wait - 0.001, **options)
    assert limits.check("k", timestamp=BASE + wait, **options)


def test_p3_a_key_that_is_shut_opens_exactly_when_told(make_limiter):
    limits = make_limiter(Limit("failures", "2/30s", unit="failures", block="10s"), max_skew=None)
    for _ in range(3):
        limits.settle({"key": "k", "status": 500, "timestamp": BASE})
    wait = limits.check("k", timestamp=BASE + 4).retry_after
    assert wait == 6
    assert not limits.check("k", timestamp=BASE + 4 + wait - 0.001)
    assert limits.check("k", timestamp=BASE + 4 + wait)


def test_p4_a_late_request_earns_nothing_that_came_after_it(make_limiter):
    limits = make_limiter(FIVE_A_MINUTE)
    assert check_at(limits, 0, cost=5) == [True]
    assert check_at(limits, 12, 11.999, 0, -100) == [True, False, False, False]
    assert check_at(limits, 24) == [True]


def test_p4_a_late_request_pays_like_any_other(make_limiter):
    limits = make_limiter(FIVE_A_MINUTE)
    assert check_at(limits, 60, cost=2) == [True]
    assert check_at(limits, 48, 48, 48) == [True, True, False]
    assert check_at(limits, 60, 60) == [True, False]


def test_p4_a_late_request_never_turns_the_clock_back(make_limiter):
    limits = make_limiter(FIVE_A_MINUTE)
    check_at(limits, 60, cost=3)
    check_at(limits, 50)
    assert check_at(limits, 60, 60) == [True, False]


def test_p4_equal_times_share_one_instants_tokens(make_limiter):
    assert check_at(make_limiter(FIVE_A_MINUTE), *[7] * 9).count(True) == 5


def test_p4_a_future_timestamp_is_clamped_and_the_decision_says_so(make_limiter):
    limits = make_limiter(FIVE_A_MINUTE, max_skew=5)
    now = datetime.now(UTC)
    decision = limits.check("k", timestamp=now + timedelta(hours=1))
    assert decision
    assert decision.clamped
    skew, slack = timedelta(seconds=5), timedelta(milliseconds=5)
    assert now - slack <= decision.timestamp - skew <= datetime.now(UTC) + slack


def test_p4_a_clock_ahead_by_no_more_than_max_skew_is_believed(make_limiter):
    limits = make_limiter(FIVE_A_MINUTE, max_skew=3600)
    timestamp = datetime.now(UTC) + timedelta(minutes=50)
    decision = limits.check("k", timestamp=timestamp)
    assert not decision.clamped
    assert decision.timestamp == timestamp


def test_p4_a_clock_ahead_gains_max_skew_once_and_never_again(make_limiter):
    limits = make_limiter(Limit("requests", "1/minute", burst=2), max_skew=5)
    timestamp = datetime.now(UTC) + timedelta(days=365)
    answers = [bool(limits.check("k", timestamp=timestamp + timedelta(days=n))) for n in range(5)]
    assert answers == [True, True, False, False, False]


def test_p4_with_max_skew_0_no_clock_but_the_stores_counts(make_limiter):
    decision = make_limiter(FIVE_A_MINUTE, max_skew=0).check(
        "k", timestamp=datetime.now(UTC) + timedelta(seconds=90)
    )
    assert decision.clamped


def test_p4_a_replay_trusts_any_timestamp(make_limiter):
    limits = make_limiter(FIVE_A_MINUTE, max_skew=None)
    in_a_century = datetime(2126, 1, 1, tzinfo=UTC)
    decision = limits.check("k", timestamp=in_a_century, cost={"requests": 5})
    assert not decision.clamped
    assert decision.timestamp == in_a_century
    assert not limits.check("k", timestamp=in_a_century)
    assert limits.check("k", timestamp=in_a_century + timedelta(seconds=12))


@pytest.mark.parametrize("micro", [0, 1, 999_999, 123_457])
@pytest.mark.parametrize("year", [1970, 2023, 2107, 2199])
def test_p4_timestamps_are_kept_to_the_microsecond(make_limiter, year, micro):
    when = datetime(year, 6, 1, 12, 30, 15, micro, UTC)
    assert make_limiter(FIVE_A_MINUTE, max_skew=None).check("k", timestamp=when).timestamp == when


def test_p4_fractions_of_a_token_and_of_a_second_are_never_lost(make_limiter):
    limits = make_limiter(Limit("requests", "7/30s", burst=1))
    timestamps = [BASE + n * 30 / 7 + 1e-6 * n for n in range(40)]
    decisions = limits.check_many([{"key": "k", "timestamp": t} for t in timestamps])
    assert all(decisions)


@pytest.mark.parametrize("max_skew", [-1, 86_401, float("nan"), float("inf")])
def test_a_max_skew_that_makes_no_sense_is_refused(make_limiter, max_skew):
    with pytest.raises(InvalidRequest, match="max_skew"):
        make_limiter(FIVE_A_MINUTE, max_skew=max_skew)
