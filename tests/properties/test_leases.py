"""P9: limiters that lease from the same buckets pay for each token once, whatever they do."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit import Limit, Limiter
from ratelimit.engine.simulation import SimulatedBuckets

from ..stored import used

NOW = 1_700_000_000_000_000  # microseconds; nothing is refilled in a test
BURST, KEYS = 60, ("a", "b")
LIMITS = [
    # a lease holds 12 tokens
    Limit("requests", f"{BURST}/365d", lease={"share": 0.2, "ttl": "60s"}),
    # a lease holds 10 tokens, for all keys of the tenant
    Limit("shared", "100/365d", per=["tenant"], lease={"share": 0.1, "ttl": "60s"}),
]
FEWER = settings(max_examples=max(1, settings().max_examples // 2))
numbers = st.integers(0, 1)
steps = st.lists(
    st.tuples(numbers, st.sampled_from(KEYS), st.integers(1, 30), st.sampled_from([1, 1, 1, 2, 5, 7]))
    | st.tuples(numbers, st.just("reopen"))
    | st.tuples(numbers, st.just("expire"))
    | st.tuples(numbers, st.just("edit")),
    max_size=12,
)


@pytest.fixture
def make_two(model_url, open_client):
    """Two limiters that stand for two processes; each example opens new ones."""

    class TwoLimiters:
        def __init__(self):
            open_client(model_url).flushall()
            self.limiters = [self.open(), self.open()]

        def open(self):
            return Limiter(model_url, LIMITS, deadline=20)

        def close(self):
            for limiter in self.limiters:
                limiter.close()

        def used(self, name, limit):
            return round(used(open_client(model_url), limit, name), 2)

    return TwoLimiters


@FEWER
@given(steps=steps)
def test_p9_what_is_admitted_is_paid_for_once_however_leases_come_and_go(make_two, steps):
    admitted, pair = dict.fromkeys(KEYS, 0), make_two()
    try:
        for number, action, *arguments in steps:
            limiter = pair.limiters[number]
            if action == "reopen":
                limiter.close()
                pair.limiters[number] = pair.open()
            elif action == "expire":
                limiter._return_leases(limiter._leases.pop_expired())
            elif action == "edit":
                limiter.policy = LIMITS
            else:
                key, (times, cost) = action, arguments
                decisions = (limiter.check(key, tenant="t", cost={"requests": cost}) for _ in range(times))
                admitted[key] += cost * sum(map(bool, decisions))
                assert admitted[key] <= BURST
                assert sum(admitted.values()) <= 100
    finally:
        pair.close()
    assert {key: pair.used(f"rl1:{{t}}:k:{key}", "requests") for key in KEYS} == admitted
    assert pair.used("rl1:{t}:t", "shared") == sum(admitted.values())


@FEWER
@given(steps=st.lists(st.tuples(st.booleans(), st.integers(1, 25)), max_size=12))
def test_p9_the_simulator_gives_back_and_charges_as_a_server_does(limiters, model_url, open_client, steps):
    client, limiter, simulated = open_client(model_url), limiters(model_url, 5.0), SimulatedBuckets()
    client.flushall()
    limiter.policy = [Limit("requests", f"{BURST}/365d")]
    for is_check, amount in steps:
        check = limiter._resolve({"key": "k", "cost": {"requests": amount}})
        [(placed, store_key, _)] = check.limit_costs
        if is_check:
            [reply] = simulated.decide([check], now=NOW, max_skew=None)
            assert bool(limiter._decide_many([check])[0]) == reply.startswith(b"1")
        else:
            returned = amount if amount % 3 else -amount
            limiter._return_leases([check.with_costs((float(returned),))])
            simulated.adjust((store_key, "requests"), placed.shape, now=NOW, amount=-returned)
    bucket = simulated.buckets.get((store_key, "requests")) if steps else None
    assert round(used(client, "requests", "rl1:{k}:k"), 2) == (round(bucket.used, 2) if bucket else 0)
