"""P1 when estimates are refunded: the bound grows by the refunds in the window, and by nothing else."""

from itertools import accumulate

import hypothesis.strategies as st
from hypothesis import given

from ratelimit import Limit, Policy, Usage

from .model import find_worst_window

SECOND = 1_000_000
BASE = 1_700_000_000 * SECOND
LIMIT = Limit("tokens", "100/minute", unit="tokens")

steps = st.lists(
    st.tuples(
        st.integers(0, 40 * SECOND),  # microseconds since the previous step
        st.sampled_from(["check", "reserve", "reserve", "settle", "settle", "cancel"]),
        st.integers(1, 100),
        st.integers(0, 50),
    ),
    max_size=40,
)


@given(steps=steps)
def test_p1_p7_the_bound_grows_by_what_is_given_back_and_by_nothing_else(
    limiters, open_client, model_url, steps
):
    open_client(model_url).flushall()
    limiter = limiters(model_url, None)
    limiter.policy = Policy.of(LIMIT)
    net, reservations = {}, []
    times = accumulate((step[0] for step in steps), initial=BASE)
    for t, (_, action, amount, index) in zip(list(times)[1:], steps, strict=True):
        taken = do_step(limiter, reservations, t, action, amount, index)
        net[t] = net.get(t, 0) + taken
    if net:
        excess, tolerance = find_worst_window(LIMIT.shape_of(None), list(net.items()))
        assert excess <= tolerance


def do_step(limiter, reservations, t, action, amount, index):
    """Do one step and return the tokens it took; refunds are negative.

    Debt counts as 0, because no check admitted it.
    """
    if action in {"check", "reserve"}:
        decision = limiter.check(
            "k", timestamp=t / SECOND, cost={"tokens": amount, "requests": 0}, reserve=action == "reserve"
        )
        if decision.reservation:
            reservations.append((decision.reservation, amount))
        return amount if decision else 0
    if not reservations:
        return 0
    reservation, estimate = reservations.pop(index % len(reservations))
    if action == "cancel":
        limiter.cancel(reservation)
        return -estimate
    limiter.settle(Usage(input_tokens=amount, timestamp=t / SECOND), reservation=reservation)
    return min(0, amount - estimate)
