"""P9: a key that floods costs the store nothing, and what is given back is seen."""

import asyncio
import time

import pytest

from ratelimit import AsyncLimiter, Limit, Usage

SLOW = Limit("requests", "5/day")
TOKENS = Limit("tokens", "100/day", unit="tokens")


@pytest.fixture
def clock(monkeypatch):
    """Our own clock, which tests move."""

    class Clock:
        now = time.monotonic_ns()

        def __call__(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(time, "monotonic_ns", clock)
    return clock


def empty(limits, key="k"):
    while limits.check(key):
        pass


def test_p9_a_flood_costs_the_store_nothing(limiter_of, real_url, commands, clock):
    limits = limiter_of(real_url, SLOW)
    empty(limits)
    before = commands()
    decisions = [limits.check("k") for _ in range(1_000)] + limits.check_many(["k"] * 200)
    assert {decision.source for decision in decisions} == {"denial-memory"}
    assert not any(decisions)
    assert commands() == before
    clock.now += 1_000_000_001
    assert limits.check("k").source == "store"


def test_p9_asyncio_remembers_alike(real_url, commands, clock):
    async def ask():
        async with AsyncLimiter(real_url, SLOW, deadline=20) as limits:
            await limits.check_many(["k"] * 6)
            before = commands()
            decisions = await asyncio.gather(*(limits.check("k") for _ in range(300)))
            decisions += await limits.check_many(["k"] * 200)
            return decisions, commands() - before, (await limits.check("another")).source

    decisions, cost, other = asyncio.run(ask())
    assert {decision.source for decision in decisions} == {"denial-memory"}
    assert (cost, other) == (0, "store")


def test_p9_a_batch_mixes_what_is_remembered_with_what_is_asked(limiter, clock):
    limits = limiter(SLOW)
    empty(limits)
    decisions = limits.check_many(["a", "k", "b", "k"])
    assert [decision.source for decision in decisions] == ["store", "denial-memory"] * 2
    assert [decision.allowed for decision in decisions] == [True, False] * 2


def test_p9_off_by_policy_every_check_is_asked(limiter, clock):
    limits = limiter(Limit("requests", "5/day", denial_memory=False))
    empty(limits)
    assert limits.check("k").source == "store"


def test_p9_a_look_is_always_asked(limiter, clock):
    limits = limiter(SLOW)
    empty(limits)
    assert limits.peek("k").source == "store"


def test_p9_a_reset_here_is_seen_at_once_and_elsewhere_within_a_second(limiter, clock):
    here, there = limiter(SLOW), limiter(SLOW)
    empty(here)
    assert not there.check("k")
    here.reset("k")
    assert here.check("k")
    assert there.check("k").source == "denial-memory"
    clock.now += 1_000_000_001
    assert there.check("k")


@pytest.mark.parametrize("way", ["settle", "cancel"])
def test_p9_a_refund_here_is_seen_at_once_and_elsewhere_within_a_second(limiter, clock, way):
    here, there = limiter(TOKENS), limiter(TOKENS)
    held = here.reserve("k", cost={"tokens": 100})
    assert not here.check("k", cost={"tokens": 10})
    assert not there.check("k", cost={"tokens": 10})
    held.settle(Usage(input_tokens=1)) if way == "settle" else held.cancel()
    assert here.check("k", cost={"tokens": 10})
    assert there.check("k", cost={"tokens": 10}).source == "denial-memory"
    clock.now += 1_000_000_001
    assert there.check("k", cost={"tokens": 10})


def test_p9_asyncio_sees_what_it_gives_back_at_once(async_limiter, clock):
    async def ask():
        async with async_limiter(TOKENS) as limits:
            held = await limits.reserve("k", cost={"tokens": 100})
            before = await limits.check("k", cost={"tokens": 10})
            await held.cancel()
            after = await limits.check("k", cost={"tokens": 90})
            await limits.check("k", cost={"tokens": 90})
            await limits.reset("k")
            return before, after, await limits.check("k", cost={"tokens": 90})

    assert [decision.allowed for decision in asyncio.run(ask())] == [False, True, True]


def test_p6_p9_a_check_that_passed_is_repeated_though_the_bucket_is_empty_since(limiter, clock):
    limits = limiter(Limit("requests", "1/day"))
    assert limits.check("k", request_id="first")
    assert not limits.check("k")
    assert not limits.check("k")
    assert limits.check("k", request_id="first")


def test_p9_a_policy_that_admits_more_is_seen_at_once(limiter, clock):
    limits = limiter(SLOW)
    empty(limits)
    limits.policy = Limit("requests", "6/day")
    assert limits.check("k")


def test_p9_a_key_that_is_shut_is_told_so_though_it_was_denied_before(limiter, clock):
    limits = limiter(SLOW)
    empty(limits)
    limits.assign("k", blocked=True)
    assert limits.check("k").violated == ("blocked",)
    limits.assign("k")
    assert limits.check("k").violated == ("requests",)


def test_p9_a_reservation_is_denied_from_memory_and_holds_nothing(limiter, clock, contents):
    limits = limiter(TOKENS)
    limits.check("k", cost={"tokens": 95})
    before = contents()
    for _ in range(2):
        decision = limits.check("k", cost={"tokens": 10}, reserve=True)
        assert (decision.allowed, decision.reservation) == (False, None)
    assert decision.source == "denial-memory"
    assert contents() == before
