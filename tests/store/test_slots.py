"""P3, P5 and P7 for limits on open reservations, on a clock that the tests move."""

import pytest

from ratelimit import Limit

BASE = 1_700_000_000


@pytest.fixture
def limits(make_limiter):
    """A limiter with three slots of 30 s, which trusts every timestamp."""
    return make_limiter(make_limit(3), max_skew=None)


def make_limit(capacity):
    return Limit("parallel", unit="concurrent", capacity=capacity, ttl="30s")


def reserve(limits, second):
    return limits.check("k", reserve=True, timestamp=BASE + second)


def test_p7_no_more_reservations_are_open_than_the_capacity(limits):
    assert [bool(reserve(limits, 0)) for _ in range(5)] == [True, True, True, False, False]
    assert not reserve(limits, 29.999)
    assert reserve(limits, 30)


def test_p3_the_wait_is_for_as_many_slots_as_a_lower_capacity_needs(limits):
    assert all(reserve(limits, second) for second in (0, 10, 20))
    limits.policy = make_limit(1)
    wait = reserve(limits, 25).retry_after
    assert wait == 25  # Only when the last of the three is free, less than one is taken.
    assert not reserve(limits, 25 + wait - 0.001)
    assert reserve(limits, 25 + wait)


def test_p5_slots_that_are_over_are_removed_while_new_ones_come(limits, client):
    for number in range(10):
        assert reserve(limits, 31 * number)
    [slots] = [store_key for store_key in client.scan_iter() if "#" in store_key]
    assert client.zcard(slots) == 1
