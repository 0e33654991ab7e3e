"""P9: repeated denials cost the store nothing, and refunds and resets are seen in time."""

import asyncio
import time
from collections import Counter

import pytest

from ratelimit import AsyncLimiter, Limit, Usage

SLOW = Limit("requests", "5/day")
TOKENS = Limit("tokens", "100/day", unit="tokens")


@pytest.fixture
def clock(monkeypatch):
    """The clock of this process, which tests advance."""

    class Clock:
        now = time.monotonic_ns()

        def __call__(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(time, "monotonic_ns", clock)
    return clock


def empty_bucket(limits, key="k"):
    while limits.check(key):
        pass


def test_p9_a_flood_costs_the_store_nothing(make_limiter_on, real_url, count_commands, clock):
    limits = make_limiter_on(real_url, SLOW)
    empty_bucket(limits)
    count_before = count_commands()
    decisions = [limits.check("k") for _ in range(1_000)] + limits.check_many(["k"] * 200)
    assert {decision.source for decision in decisions} == {"denial-memory"}
    assert not any(decisions)
    assert count_commands() == count_before
    clock.now += 1_000_000_001
    assert limits.check("k").source == "store"


def test_p9_asyncio_remembers_alike(real_url, count_commands, clock):
    async def run_checks():
        async with AsyncLimiter(real_url, SLOW, deadline=20) as limits:
            await limits.check_many(["k"] * 6)
            count_before = count_commands()
            decisions = await asyncio.gather(*(limits.check("k") for _ in range(300)))
            decisions += await limits.check_many(["k"] * 200)
            return decisions, count_commands() - count_before, (await limits.check("another")).source

    decisions, cost, other = asyncio.run(run_checks())
    assert {decision.source for decision in decisions} == {"denial-memory"}
    assert (cost, other) == (Counter(), "store")


def test_p9_a_batch_mixes_what_is_remembered_with_what_is_asked(make_limiter, clock):
    limits = make_limiter(SLOW)
    empty_bucket(limits)
    decisions = limits.check_many(["a", "k", "b", "k"])
    assert [decision.source for decision in decisions] == ["store", "denial-memory"] * 2
    assert [decision.allowed for decision in decisions] == [True, False] * 2


def test_p9_off_by_policy_every_check_is_asked(make_limiter, clock):
    limits = make_limiter(Limit("requests", "5/day", denial_memory=False))
    empty_bucket(limits)
    assert limits.check("k").source == "store"


def test_p9_a_look_is_always_asked(make_limiter, clock):
    limits = make_limiter(SLOW)
    empty_bucket(limits)
    assert limits.peek("k").source == "store"


def test_p9_a_reset_here_is_seen_at_once_and_elsewhere_within_a_second(make_limiter, clock):
    here, there = make_limiter(SLOW), make_limiter(SLOW)
    empty_bucket(here)
    assert not there.check("k")
    here.reset("k")
    assert here.check("k")
    assert there.check("k").source == "denial-memory"
    clock.now += 1_000_000_001
    assert there.check("k")


@pytest.mark.parametrize("method", ["settle", "cancel"])
def test_p9_a_refund_here_is_seen_at_once_and_elsewhere_within_a_second(make_limiter, clock, method):
    here, there = make_limiter(TOKENS), make_limiter(TOKENS)
    held = here.reserve("k", cost={"tokens": 100})
    assert not here.check("k", cost={"tokens": 10})
    assert not there.check("k", cost={"tokens": 10})
    held.settle(Usage(input_tokens=1)) if method == "settle" else held.cancel()
    assert here.check("k", cost={"tokens": 10})
    assert there.check("k", cost={"tokens": 10}).source == "denial-memory"
    clock.now += 1_000_000_001
    assert there.check("k", cost={"tokens": 10})


def test_p9_asyncio_sees_what_it_gives_back_at_once(make_async_limiter, clock):
    async def run_checks():
        async with make_async_limiter(TOKENS) as limits:
            held = await limits.reserve("k", cost={"tokens": 100})
            while_reserved = await limits.check("k", cost={"tokens": 10})
            await held.cancel()
            after_cancel = await limits.check("k", cost={"tokens": 90})
            await limits.check("k", cost={"tokens": 90})
            await limits.reset("k")
            return while_reserved, after_cancel, await limits.check("k", cost={"tokens": 90})

    assert [decision.allowed for decision in asyncio.run(run_checks())] == [False, True, True]


def test_p6_p9_a_check_that_passed_is_repeated_though_the_bucket_is_empty_since(make_limiter, clock):
    limits = make_limiter(Limit("requests", "1/day"))
    assert limits.check("k", request_id="first")
    assert not limits.check("k")
    assert not limits.check("k")
    assert limits.check("k", request_id="first")


def test_p9_a_policy_that_admits_more_is_seen_at_once(make_limiter, clock):
    limits = make_limiter(SLOW)
    empty_bucket(limits)
    limits.policy = Limit("requests", "6/day")
    assert limits.check("k")


def test_p9_a_key_that_is_shut_is_told_so_though_it_was_denied_before(make_limiter, clock):
    limits = make_limiter(SLOW)
    empty_bucket(limits)
    limits.assign("k", blocked=True)
    assert limits.check("k").violated == ("blocked",)
    limits.assign("k")
    assert limits.check("k").violated == ("requests",)


def test_p9_a_reservation_is_denied_from_memory_and_holds_nothing(make_limiter, clock, read_store):
    limits = make_limiter(TOKENS)
    limits.check("k", cost={"tokens": 95})
    before = read_store()
    for _ in range(2):
        decision = limits.check("k", cost={"tokens": 10}, reserve=True)
        assert (decision.allowed, decision.reservation) == (False, None)
    assert decision.source == "denial-memory"
    assert read_store() == before
