"""The scan, and the short way of a bucket, give what the slow way gives, to the last bit."""

from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit import Limit, Policy
from ratelimit.engine.bucket import Bucket, compute_remaining_after
from ratelimit.engine.limit_scan import LimitScan
from ratelimit.engine.resolver import Resolver
from ratelimit.policy.shape import Shape
from ratelimit.request.check import make_check

BASE = 1_700_000_000_000_000
COSTS = st.sampled_from([0.0, 1.0, 2.5, 7.0, 40.0])
USED = st.floats(0, 60, allow_subnormal=False)
AGES = st.integers(-30_000_000, 90_000_000)
RATES = st.sampled_from([("7/minute", 7), ("20/minute", 5), ("3/second", 40), ("1000/day", 33)])
MODES = st.sampled_from(["enforce", "shadow"])
LIMITS = st.lists(st.tuples(RATES, MODES, USED, AGES, COSTS), min_size=1, max_size=4)


def make_scan(limits):
    """Return a resolved check with these limits, its scan, and the reply of the script for it."""
    policy = Policy.of(
        *(
            Limit(f"l{number}", rate, burst=burst, unit=f"u{number}", mode=mode)
            for number, ((rate, burst), mode, *_) in enumerate(limits)
        )
    )
    costs = {f"u{number}": cost for number, (*_, cost) in enumerate(limits)}
    resolved = Resolver(policy).resolve(make_check({"key": "k", "cost": costs}), take=True)
    states = [
        number for _, _, used, age, _ in limits for number in (used, float(BASE - age) if used else 0.0)
    ]
    return resolved, resolved.subject.layout.state_struct.pack(BASE, *states)


@given(LIMITS, st.booleans())
@example([(("7/minute", 7), "enforce", 4.5, 0, 1.0)], True)
@example([(("7/minute", 7), "enforce", 6.0, -30_000_000, 0.0)], False)  # late, and takes nothing
@example([(("7/minute", 7), "enforce", 1.0, 90_000_000, 7.0)], True)  # full again long ago
def test_the_scan_finds_what_the_statuses_say(limits, is_allowed):
    resolved, states = make_scan(limits)
    scan = LimitScan(resolved.subject.layout)
    reply = (b"1" if is_allowed else b"0") + states
    denying, near = scan.find(resolved, reply, None, is_allowed)
    by_status = scan._find_by_status(resolved, reply, None, allowed=is_allowed)
    enforced = [placed.limit.mode == "enforce" for placed in resolved.subject.layout.placed_limits]
    if is_allowed and any(enforced[index] for index in denying):
        return  # the script does not admit such a check
    assert (list(denying), list(near)) == tuple(map(list, by_status))


@given(RATES, USED, st.integers(0, 90_000_000), COSTS)
@example(("7/minute", 7), 2.0000001, 0, 0.0)  # 5 are left, but for the last bits
def test_the_short_way_of_a_bucket_is_the_long_way(rate, used, age, cost):
    text, burst = rate
    count, unit = text.split("/")
    period = {"second": 1, "minute": 60, "day": 86_400}[unit] * 1_000_000
    shape = Shape(float(count), float(period), float(burst))
    bucket, t = Bucket(used, BASE - age), BASE
    expected = bucket.take(shape, t, cost).compute_remaining(shape, t)
    assert compute_remaining_after(shape, bucket.used, bucket.at, t, cost) == expected
