"""P9: the denial memory changes no verdict, compared with an independent model on a real server."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit import Limit, Limiter

from .model import Model, to_micros
from .test_model import make_resolve
from .worlds import busy_worlds, worlds

_PLACEHOLDER = Limit("requests", "1/second")
FEWER = settings(max_examples=max(1, settings().max_examples // 2))


@pytest.fixture(scope="module")
def pair(model_url):
    """Two limiters, each with its own denial memory, as in two processes."""
    made = [Limiter(model_url, _PLACEHOLDER, max_skew=None, deadline=20) for _ in range(2)]
    yield made
    for limiter in made:
        limiter.close()


@given(world=busy_worlds() | worlds(), numbers=st.lists(st.integers(0, 1), min_size=1, max_size=7))
def test_p9_a_remembered_denial_is_the_one_that_the_store_would_give(
    pair, open_client, model_url, world, numbers
):
    policy, sequence = world
    open_client(model_url).flushall()
    model, resolves = Model(policy), [make_resolve(policy), make_resolve(policy)]

    for (check, t), number in zip(sequence, itertools.cycle(numbers)):
        for _ in range(2):  # the second time a denial may come from memory
            expected = model.decide(check, t)
            decision = pair[number]._decide_many([resolves[number](check, t, take=True)])[0]
            assert decision.allowed == expected.allowed
            if decision.source == "denial-memory":
                assert decision.violated
                assert set(decision.violated) <= set(expected.violated)
            else:
                assert decision.violated == expected.violated
                assert to_micros(decision.retry_after) == expected.wait


@FEWER
@given(world=busy_worlds())
def test_p9_p3_a_lone_client_that_waits_as_remembered_is_admitted_and_not_sooner(
    pair, open_client, model_url, world
):
    policy, sequence = world
    open_client(model_url).flushall()
    limiter, resolve = pair[0], make_resolve(policy)

    for check, t in sequence:
        limiter._decide_many([resolve(check, t, take=True)])
        decision = limiter._decide_many([resolve(check, t, take=True)])[0]
        if decision.source == "denial-memory" and decision.retry_after is not None:
            wait = to_micros(decision.retry_after)
            assert not limiter._decide_many([resolve(check, t + wait - 1, take=True)])[0]
            assert limiter._decide_many([resolve(check, t + wait, take=False)])[0]
