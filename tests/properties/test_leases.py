"""P9: whatever limiters do that lease the same buckets, they pay for each token once."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit import Limit, Limiter

from ..stored import used

BURST, KEYS = 60, ("a", "b")
LIMITS = [
    Limit("requests", f"{BURST}/365d", lease={"share": 0.2, "ttl": "60s"}),  # a lease holds 12
    Limit("shared", "100/365d", per=["tenant"], lease={"share": 0.1, "ttl": "60s"}),  # of all keys, 10
]
FEWER = settings(max_examples=max(1, settings().max_examples // 2))
whose = st.integers(0, 1)
steps = st.lists(
    st.tuples(whose, st.sampled_from(KEYS), st.integers(1, 30), st.sampled_from([1, 1, 1, 2, 5, 7]))
    | st.tuples(whose, st.just("reopen"))
    | st.tuples(whose, st.just("over"))
    | st.tuples(whose, st.just("edit")),
    max_size=12,
)


@pytest.fixture
def two(valkey_url, open_client):
    """Limiters in place of two processes, opened anew for each example."""

    class Two:
        def __init__(self):
            open_client(valkey_url).flushall()
            self.limiters = [self.open(), self.open()]

        def open(self):
            return Limiter(valkey_url, LIMITS, deadline=20)

        def close(self):
            for limiter in self.limiters:
                limiter.close()

        def used(self, name, field):
            return round(used(open_client(valkey_url), field, name), 2)

    return Two


@FEWER
@given(steps=steps)
def test_p9_what_is_admitted_is_paid_for_once_however_leases_come_and_go(two, steps):
    admitted, limits = dict.fromkeys(KEYS, 0), two()
    try:
        for number, what, *how in steps:
            limiter = limits.limiters[number]
            if what == "reopen":
                limiter.close()
                limits.limiters[number] = limits.open()
            elif what == "over":
                limiter._give_back(limiter._leases.pop_expired())
            elif what == "edit":
                limiter.policy = LIMITS
            else:
                times, cost = how
                asked = (limiter.check(what, tenant="t", cost={"requests": cost}) for _ in range(times))
                admitted[what] += cost * sum(map(bool, asked))
                assert admitted[what] <= BURST
                assert sum(admitted.values()) <= 100
    finally:
        limits.close()
    assert {key: limits.used(f"rl1:{{t}}:k:{key}", "requests") for key in KEYS} == admitted
    assert limits.used("rl1:{t}:t", "shared") == sum(admitted.values())
