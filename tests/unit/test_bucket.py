"""Compares the arithmetic of one bucket with exact fractions."""

from fractions import Fraction
from math import ceil, floor, ulp

from hypothesis import assume, example, given
from hypothesis import strategies as st

from ratelimit.engine.bucket import Bucket
from ratelimit.policy.shape import Shape

BASE = 1_700_000_000_000_000
DAY = 86_400_000_000

_periods = st.sampled_from([1_000_000, 30_000_000, 60_000_000, 3_600_000_000, DAY, 366 * DAY])
shapes = st.builds(
    Shape,
    st.integers(1, 10**8).map(float),
    _periods.map(float),
    st.one_of(st.integers(1, 50), st.integers(1, 10**8)).map(float),
)
costs = st.one_of(st.integers(0, 100).map(float), st.floats(0, 10**6))
times = st.integers(-DAY, DAY).map(lambda offset: BASE + offset)
buckets = st.builds(Bucket, st.one_of(costs, st.floats(0, 10**8)), times)


def compute_exact_missing(bucket, shape, t):
    refilled = Fraction(t - bucket.at) * Fraction(shape.count) / Fraction(shape.period)
    return max(Fraction(0), Fraction(bucket.used) - refilled)


def bound_float_error(bucket, shape, t):
    """Return a bound for the error of a few roundings of numbers this large."""
    refilled = abs(t - bucket.at) * shape.count / shape.period
    return Fraction(8 * ulp(max(bucket.used + refilled, shape.burst, 1.0)))


@given(buckets, shapes, times)
def test_the_missing_tokens_are_exact_up_to_float_error(bucket, shape, t):
    error = abs(Fraction(bucket.compute_missing(shape, t)) - compute_exact_missing(bucket, shape, t))
    assert error <= bound_float_error(bucket, shape, t)


@given(buckets, shapes, times, costs)
def test_p1_what_is_admitted_fits_exactly_up_to_the_tolerance(bucket, shape, t, cost):
    assume(cost > 0)
    total = compute_exact_missing(bucket, shape, t) + Fraction(cost)
    limit, error = Fraction(shape.burst), bound_float_error(bucket, shape, t)
    if bucket.admits(shape, t, cost):
        assert total <= limit + Fraction(shape.tolerance) + error
    else:
        assert total > limit + Fraction(shape.tolerance) - error


@given(buckets, shapes, times, costs)
def test_p3_the_wait_is_the_first_microsecond_that_passes(bucket, shape, t, cost):
    wait = bucket.compute_wait(shape, t, cost)
    if wait is None:
        assert cost > shape.burst
    elif wait == 0:
        assert bucket.admits(shape, t, cost)
    else:
        assert bucket.admits(shape, t + wait, cost)
        assert not bucket.admits(shape, t + wait - 1, cost)


@given(buckets, shapes, times, costs)
def test_p3_only_a_cost_above_the_burst_never_passes(bucket, shape, t, cost):
    assert (bucket.compute_wait(shape, t, cost) is None) == (cost > shape.burst + shape.tolerance)


@given(buckets, shapes, times, costs)
@example(Bucket(0.0, BASE), Shape(1.0, 60e6, 5.0), BASE - 1, 1.0)
def test_p4_time_never_runs_backwards_in_a_bucket(bucket, shape, t, cost):
    after = bucket.take(shape, t, cost)
    assert after.at == max(bucket.at, t)


@given(buckets, shapes, times, st.floats(1e-6, 10**6))
def test_taking_leaves_exactly_that_many_tokens_less(bucket, shape, t, cost):
    after = bucket.take(shape, t, cost)
    later = max(bucket.at, t)
    missing = compute_exact_missing(bucket, shape, later) + Fraction(cost)
    error = bound_float_error(bucket, shape, later) + Fraction(ulp(float(missing)))
    assert abs(compute_exact_missing(after, shape, later) - missing) <= error


@given(buckets, shapes, times, st.integers(0, DAY))
def test_p4_being_later_never_hurts(bucket, shape, t, later):
    assert bucket.compute_missing(shape, t + later) <= bucket.compute_missing(shape, t)


@given(buckets, shapes, times)
def test_remaining_is_whole_and_can_be_taken_at_once(bucket, shape, t):
    remaining, _ = bucket.compute_remaining(shape, t)
    assert remaining >= 0
    if remaining:
        assert bucket.admits(shape, t, remaining)
    exact = Fraction(shape.burst) - compute_exact_missing(bucket, shape, t) + Fraction(shape.tolerance)
    error = bound_float_error(bucket, shape, t)
    assert max(0, floor(exact - error)) <= remaining <= max(0, floor(exact + error))


@given(buckets, shapes, times)
def test_p5_the_time_to_full_is_enough_to_be_full(bucket, shape, t):
    exact = compute_exact_missing(bucket, shape, t) * Fraction(shape.period) / Fraction(shape.count)
    error = bound_float_error(bucket, shape, t) * Fraction(shape.period) / Fraction(shape.count)
    assert ceil(exact - error) <= bucket.compute_remaining(shape, t)[1] <= ceil(exact + error)


@given(shapes, costs)
def test_debt_denies_even_a_check_of_cost_zero(shape, debt):
    bucket = Bucket(shape.burst + debt, BASE)
    assert bucket.admits(shape, BASE, 0.0) == (debt <= shape.tolerance)
    assert bucket.compute_wait(shape, BASE, 0.0) is not None


@given(shapes, st.integers(0, DAY))
def test_a_check_of_cost_zero_is_not_denied_for_being_late(shape, late):
    assert Bucket(shape.burst, BASE).admits(shape, BASE - late, 0.0)


def test_the_tolerance_is_a_millionth_or_what_a_microsecond_refills():
    assert Shape(100.0, 1e6, 1.0).tolerance == 1e-6
    assert Shape(1.0, 60e6, 1.0).tolerance == 1 / 60e6


def test_seven_million_a_minute_is_exact_to_the_token():
    shape = Shape(7e6, 60e6, 7e6)
    bucket = Bucket(7e6, BASE)
    assert bucket.compute_wait(shape, BASE, 1.0) == 9
    assert bucket.compute_wait(shape, BASE, 7e6) == 60_000_000
    assert bucket.compute_remaining(shape, BASE + 30_000_000) == (3_500_000, 30_000_000)
