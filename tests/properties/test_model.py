"""P1, P2 and P3 on real servers: every decision is compared with that of an independent model."""

from fractions import Fraction

import pytest
from hypothesis import given, settings

from ratelimit.engine.check_script import read_decision
from ratelimit.engine.keyspace import ONE_SERVER
from ratelimit.engine.resolver import Resolver
from ratelimit.engine.simulation import SimulatedBuckets
from ratelimit.request.check import make_check

from ..stored import buckets
from .model import Model, find_worst_window, to_expected
from .worlds import BASE, SECOND, busy_worlds, worlds

MILLISECOND = 1_000
YEAR = 365 * 86_400 * SECOND
FEWER = settings(max_examples=max(1, settings().max_examples // 5))

replay_or_skew = pytest.mark.parametrize("max_skew", [None, 5.0], ids=["replay", "skew"])


def list_checks(resolve, policy, sequence):
    """Return resolved checks for one call, with the model and its answer to each.

    After each denial follow checks that only look: after the wait it gave, a microsecond earlier and a
    millisecond earlier.
    """
    model, checks, expected = Model(policy), [], []
    for check, t in sequence:
        answer = model.decide(check, t)
        checks.append(resolve(check, t, take=True))
        expected.append(answer)
        if answer.wait is not None and answer.wait > 0 and t + answer.wait < BASE + YEAR:
            for wait in (answer.wait, answer.wait - 1, answer.wait - MILLISECOND):
                if wait >= 0:
                    checks.append(resolve(check, t + wait, take=False))
                    expected.append(model.decide(check, t + wait, take=False))
                    assert expected[-1].allowed == (wait == answer.wait)
    return model, checks, expected


def make_resolve(policy, keyspace=ONE_SERVER):
    resolve_check = Resolver(policy, keyspace=keyspace).resolve

    def resolve(check, t, *, take):
        return resolve_check(make_check({**check, "timestamp": t / SECOND}), take=take)

    return resolve


def read_buckets(client):
    """Return every bucket in the store that was ever used."""
    found = [buckets(client, name) for name in client.scan_iter(count=1_000)]
    return sorted(bucket for group in found for bucket in group.values() if bucket != (0, 0))


def assert_follows_the_model(limiter, client, world):
    policy, sequence = world
    client.flushall()
    resolve = make_resolve(policy, limiter._resolver.keyspace)
    model, checks, expected = list_checks(resolve, policy, sequence)

    decisions = limiter._decide_many(checks)

    assert [to_expected(decision) for decision in decisions] == expected
    assert read_buckets(client) == sorted((bucket.used, bucket.at) for bucket in model.buckets.values())


@replay_or_skew
@given(world=worlds())
def test_p1_p2_p3_a_server_decides_as_the_model_does(limiters, open_client, model_url, max_skew, world):
    assert_follows_the_model(limiters(model_url, max_skew), open_client(model_url), world)


@replay_or_skew
@FEWER
@given(world=worlds())
def test_p1_p2_p3_redis_6_decides_as_the_model_does(limiters, open_client, redis6_url, max_skew, world):
    assert_follows_the_model(limiters(redis6_url, max_skew), open_client(redis6_url), world)


@replay_or_skew
@given(world=worlds())
def test_p1_p2_p3_the_simulator_decides_as_the_model_does(max_skew, world):
    policy, sequence = world
    _, checks, expected = list_checks(make_resolve(policy), policy, sequence)

    replies = SimulatedBuckets().decide(checks, now=BASE + YEAR, max_skew=max_skew and int(max_skew * SECOND))

    decisions = [read_decision(check, reply) for check, reply in zip(checks, replies, strict=True)]
    assert [to_expected(decision) for decision in decisions] == expected


@given(world=busy_worlds() | worlds())
def test_p1_no_window_of_request_time_admits_more_than_its_bound(limiters, open_client, model_url, world):
    policy, sequence = world
    open_client(model_url).flushall()
    limiter = limiters(model_url, None)
    resolve = make_resolve(policy, limiter._resolver.keyspace)

    decisions = limiter._decide_many([resolve(check, t, take=True) for check, t in sequence])

    admitted = {}
    for (check, t), decision in zip(sequence, decisions, strict=True):
        for limit_cost, state in zip(Model(policy).list_limit_costs(check), decision.limits, strict=True):
            if decision.allowed and state.retry_after == 0 and limit_cost.cost:
                _, events = admitted.setdefault(limit_cost.bucket_id, (limit_cost.shape, []))
                events.append((t, limit_cost.cost))
    for shape, events in admitted.values():
        excess, tolerance = find_worst_window(shape, events)
        assert excess <= tolerance


def test_p1_the_bound_itself_is_computed_right():
    class Shape:
        count, period, burst, tolerance = 1.0, 1_000_000.0, 2.0, 0.0

    excess, _ = find_worst_window(Shape, [(0, 1.0), (0, 1.0), (SECOND, 1.0), (2 * SECOND, 1.5)])
    assert excess == Fraction(1, 2)
    excess, _ = find_worst_window(Shape, [(10 * SECOND, 2.0), (0, 2.0)])
    assert excess == 0
