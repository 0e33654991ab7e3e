"""P9: what is remembered of a denial changes no verdict, against an independent model on a real server."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit import Limit, Limiter

from .model import Model, micros
from .test_model import resolver
from .worlds import busy_worlds, worlds

_ANY = Limit("requests", "1/second")
FEWER = settings(max_examples=max(1, settings().max_examples // 2))


@pytest.fixture(scope="module")
def pair(valkey_url):
    """Two limiters with a memory each, as in two processes."""
    made = [Limiter(valkey_url, _ANY, max_skew=None, deadline=20) for _ in range(2)]
    yield made
    for limiter in made:
        limiter.close()


@given(world=busy_worlds() | worlds(), turns=st.lists(st.integers(0, 1), min_size=1, max_size=7))
def test_p9_a_remembered_denial_is_the_one_that_the_store_would_give(
    pair, open_client, valkey_url, world, turns
):
    policy, sequence = world
    open_client(valkey_url).flushall()
    model, asks = Model(policy), [resolver(policy), resolver(policy)]

    for (check, t), turn in zip(sequence, itertools.cycle(turns)):
        for _ in range(2):  # the second time a denial may come from memory
            expected = model.decide(check, t)
            decision = pair[turn]._decide([asks[turn](check, t, take=True)])[0]
            assert decision.allowed == expected.allowed
            if decision.source == "denial-memory":
                assert decision.violated
                assert set(decision.violated) <= set(expected.violated)
            else:
                assert (decision.violated, micros(decision.retry_after)) == (expected.violated, expected.wait)


@FEWER
@given(world=busy_worlds())
def test_p9_p3_a_lone_client_that_waits_as_remembered_is_admitted_and_not_sooner(
    pair, open_client, valkey_url, world
):
    policy, sequence = world
    open_client(valkey_url).flushall()
    limiter, ask = pair[0], resolver(policy)

    for check, t in sequence:
        limiter._decide([ask(check, t, take=True)])
        decision = limiter._decide([ask(check, t, take=True)])[0]
        if decision.source == "denial-memory" and decision.retry_after is not None:
            wait = micros(decision.retry_after)
            assert not limiter._decide([ask(check, t + wait - 1, take=True)])[0]
            assert limiter._decide([ask(check, t + wait, take=False)])[0]
