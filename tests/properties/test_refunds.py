"""P1 where estimates are given back: the bound grows by what is given back meanwhile, and by nothing else."""

from itertools import accumulate

import hypothesis.strategies as st
from hypothesis import given

from ratelimit import Limit, Policy, Usage

from .model import worst_window

SECOND = 1_000_000
BASE = 1_700_000_000 * SECOND
LIMIT = Limit("tokens", "100/minute", unit="tokens")

steps = st.lists(
    st.tuples(
        st.integers(0, 40 * SECOND),  # how long after the step before
        st.sampled_from(["check", "reserve", "reserve", "settle", "settle", "cancel"]),
        st.integers(1, 100),
        st.integers(0, 50),
    ),
    max_size=40,
)


@given(steps=steps)
def test_p1_p7_the_bound_grows_by_what_is_given_back_and_by_nothing_else(
    limiters, open_client, valkey_url, steps
):
    open_client(valkey_url).flushall()
    limiter = limiters(valkey_url, None)
    limiter.policy = Policy.of(LIMIT)
    net, held = {}, []
    times = accumulate((step[0] for step in steps), initial=BASE)
    for t, (_, what, amount, which) in zip(list(times)[1:], steps, strict=True):
        taken = act(limiter, held, t, what, amount, which)
        net[t] = net.get(t, 0) + taken
    if net:
        excess, tolerance = worst_window(LIMIT.shape_of(None), list(net.items()))
        assert excess <= tolerance


def act(limiter, held, t, what, amount, which):
    """Do one step; return what it took, or gave back. Debt was not admitted, and is not counted."""
    if what in {"check", "reserve"}:
        decision = limiter.check(
            "k", timestamp=t / SECOND, cost={"tokens": amount, "requests": 0}, reserve=what == "reserve"
        )
        if decision.reservation:
            held.append((decision.reservation, amount))
        return amount if decision else 0
    if not held:
        return 0
    reservation, estimate = held.pop(which % len(held))
    if what == "cancel":
        limiter.cancel(reservation)
        return -estimate
    limiter.settle(Usage(input_tokens=amount, timestamp=t / SECOND), reservation=reservation)
    return min(0, amount - estimate)
