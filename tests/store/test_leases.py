"""P9: checks of a hot key are decided in this process with leased tokens; none is lost or spent twice.

Rates are so slow that nothing is refilled during a test: what a bucket lacks is what was taken from it.
"""

import asyncio
import threading
import time
from collections import Counter

import pytest

from ratelimit import AsyncLimiter, Limit, Policy
from ratelimit.shortcuts.leases import CHECKS_BEFORE_LEASE

from ..processes import wait_until
from ..stored import used
from .leases import LONG_LEASE, SLOW, make_key_hot, make_key_hot_async

SHORT_LEASE = {"share": 0.05, "ttl": "1s"}
"""A lease that ends during a test, which waits for that second: a timer cannot be given another clock."""

TOKENS = Limit("tokens", "10000/365d", unit="tokens", lease=LONG_LEASE)
"""A lease takes 500 of these."""

TOKENS_WITHOUT_LEASE = Limit("tokens", "10000/365d", unit="tokens")

on_one_store = pytest.mark.parametrize("any_store", ["valkey"], indirect=True)
"""For tests that wait for a real second, and that send the store nothing that other tests do not send."""


def test_p9_a_hot_key_costs_the_store_nothing_meanwhile(make_limiter_on, real_url, count_commands):
    limits = make_limiter_on(real_url, SLOW)
    make_key_hot(limits)
    before = count_commands()
    decisions = [limits.check("k") for _ in range(29)] + limits.check_many(["k"] * 20)
    assert {decision.source for decision in decisions} == {"lease"}
    assert all(decisions)
    assert count_commands() == before
    assert limits.peek("another").source == "store"


def test_p9_asyncio_leases_alike(real_url, count_commands):
    async def run_checks():
        async with AsyncLimiter(real_url, SLOW, deadline=20) as limits:
            await make_key_hot_async(limits)
            before = count_commands()
            decisions = await asyncio.gather(*(limits.check("k") for _ in range(29)))
            decisions += await limits.check_many(["k"] * 20)
            return decisions, count_commands() - before

    decisions, cost = asyncio.run(run_checks())
    assert {decision.source for decision in decisions} == {"lease"}
    assert (all(decisions), cost) == (True, Counter())


@pytest.mark.parametrize(
    "checks", [CHECKS_BEFORE_LEASE, CHECKS_BEFORE_LEASE + 1, 50, 54, 55, 56, 333, 999, 1000]
)
def test_p9_after_close_nothing_is_missing_but_what_was_admitted(make_limiter, read_used, checks):
    limits = make_limiter(SLOW)
    assert all(limits.check("k") for _ in range(checks))
    limits.close()
    assert read_used() == checks


@pytest.mark.parametrize("checks", [CHECKS_BEFORE_LEASE + 1, 56, 333, 1000, 1500])
def test_p9_asyncio_gives_back_at_close_alike(make_async_limiter, read_used, checks):
    async def run_checks():
        async with make_async_limiter(SLOW) as limits:
            one_by_one = [await limits.check("k") for _ in range(checks // 2)]
            at_once = await asyncio.gather(*(limits.check("k") for _ in range(checks - checks // 2)))
            return [*one_by_one, *at_once]

    decisions = asyncio.run(run_checks())
    assert sum(map(bool, decisions)) == min(checks, 1000)
    assert read_used() == min(checks, 1000)


def test_p9_a_lease_still_under_way_at_close_is_given_back_too(make_async_limiter, read_used):
    async def run_checks():
        async with make_async_limiter(SLOW) as limits:
            return await limits.check_many(["k"] * (CHECKS_BEFORE_LEASE + 1))

    assert all(asyncio.run(run_checks()))
    assert read_used() == CHECKS_BEFORE_LEASE + 1


def test_p9_several_limits_and_costs_are_paid_exactly(make_limiter, read_used):
    limits = make_limiter(SLOW, TOKENS)
    costs = [1, 0, 7, 250, 3.5, 100, 251, 40] * 8  # costs above half a share go to the store
    decisions = [limits.check("k", cost={"tokens": cost}) for cost in costs]
    limits.close()
    assert all(decisions)
    assert {decision.source for decision in decisions} == {"lease", "store"}
    assert read_used() == len(costs)
    assert read_used("tokens") == sum(costs)


def test_p9_all_of_the_burst_is_admitted_and_not_one_more(make_limiter, read_used):
    """A lease may take the last tokens: then they are spent in this process, and no check is denied."""
    limits = make_limiter(SLOW)
    assert Counter(bool(limits.check("k")) for _ in range(1_100)) == {True: 1000, False: 100}
    limits.close()
    assert read_used() == 1000


@pytest.mark.parametrize("left", [49, 50, 51, 54, 55])
def test_p9_no_check_is_denied_for_the_sake_of_a_lease(make_limiter, make_async_limiter, read_used, left):
    """In asyncio a lease is taken together with the check that starts it, and may leave it no token."""
    make_limiter(SLOW).check("k", cost={"requests": 1000 - left})

    async def run_checks():
        async with make_async_limiter(SLOW) as limits:
            return [bool(await limits.check("k")) for _ in range(left + 5)]

    assert asyncio.run(run_checks()) == [True] * left + [False] * 5
    assert read_used() == 1000


def test_p9_nor_is_one_in_a_batch(make_limiter, read_used):
    """The first checks of the batch go to the store, after the lease has taken all that was left."""
    limits = make_limiter(SLOW)
    limits.check("another", cost={"requests": 1000})
    limits.check("k", cost={"requests": 950})
    assert sum(map(bool, limits.check_many(["k"] * 52))) == 50
    assert read_used() == 1000


def test_p9_what_is_told_is_what_the_store_would_say(make_limiter):
    leasing = make_limiter(SLOW, TOKENS)
    plain = make_limiter(Limit("requests", "1000/365d"), TOKENS_WITHOUT_LEASE)
    for number in range(30):
        decision = leasing.check("leased", cost={"tokens": number})
        expected = plain.check("plain", cost={"tokens": number})
        for state, other in zip(decision.limits, expected.limits, strict=True):
            assert (state.name, state.remaining, state.burst) == (other.name, other.remaining, other.burst)
            assert state.reset_after == pytest.approx(other.reset_after, abs=60)  # a token takes hours
    assert decision.source == "lease"


def test_p9_an_idle_lease_goes_back_by_itself(make_limiter, read_used):
    limits = make_limiter(Limit("requests", "1000/365d", lease=SHORT_LEASE))
    admitted = make_key_hot(limits)
    assert read_used() == CHECKS_BEFORE_LEASE + 50
    wait_until(lambda: read_used() == admitted)
    assert make_key_hot(limits) == CHECKS_BEFORE_LEASE + 1  # the limiter takes a second lease


LONG_AND_SHORT_LEASES = """
default_plan: a
plans:
  a: {limits: {requests: {rate: 1000/365d, lease: {share: 0.05, ttl: 60s}}}}
  b: {limits: {requests: {rate: 1000/365d, lease: {share: 0.05, ttl: 1s}}}}
"""


@on_one_store
def test_p9_a_short_lease_ends_though_a_long_one_was_there_before(make_limiter, read_used):
    limits = make_limiter(Policy.from_text(LONG_AND_SHORT_LEASES))
    make_key_hot(limits, "long", plan="a")
    admitted = make_key_hot(limits, plan="b")
    wait_until(lambda: read_used() == admitted)
    assert read_used(name="rl1:{long}:k") == CHECKS_BEFORE_LEASE + 50


def test_p9_asyncio_gives_back_when_idle_alike(make_async_limiter, read_used):
    async def run_checks():
        async with make_async_limiter(Limit("requests", "1000/365d", lease=SHORT_LEASE)) as limits:
            admitted = await make_key_hot_async(limits)
            assert read_used() == CHECKS_BEFORE_LEASE + 51
            await asyncio.to_thread(wait_until, lambda: read_used() == admitted)
            again = await make_key_hot_async(limits)
        return admitted + again

    admitted = asyncio.run(run_checks())
    assert read_used() == admitted


@on_one_store
def test_p9_asyncio_ends_a_short_lease_though_a_long_one_was_there_before(make_async_limiter, read_used):
    async def run_checks():
        async with make_async_limiter(Policy.from_text(LONG_AND_SHORT_LEASES)) as limits:
            await make_key_hot_async(limits, "long", plan="a")
            admitted = await make_key_hot_async(limits, plan="b")
            await asyncio.to_thread(wait_until, lambda: read_used() == admitted)
            assert read_used(name="rl1:{long}:k") == CHECKS_BEFORE_LEASE + 51

    asyncio.run(run_checks())


def test_p9_an_empty_bucket_is_denied_from_memory_and_asked_for_no_lease(
    make_limiter_on, real_url, count_commands
):
    limits = make_limiter_on(real_url, SLOW)
    while limits.check("k"):
        pass
    before = count_commands()
    assert [limits.check("k").source for _ in range(50)] == ["denial-memory"] * 50
    assert count_commands() == before


def test_p9_a_denial_remembered_stops_no_check_that_the_lease_can_pay(make_limiter, read_used):
    limits = make_limiter(SLOW)
    make_key_hot(limits)
    big = {"requests": 990}
    assert [limits.check("k", cost=big).source for _ in range(2)] == ["store", "denial-memory"]
    assert limits.check("k").source == "lease"
    limits.close()
    assert read_used() == CHECKS_BEFORE_LEASE + 2


@on_one_store
def test_p9_what_a_lease_gives_back_is_seen_here_at_once(make_limiter, read_used):
    """A check that was denied because tokens were out on lease passes after their return."""
    limits = make_limiter(Limit("requests", "1000/365d", lease=SHORT_LEASE))
    make_key_hot(limits)
    rest = {"requests": 1000 - CHECKS_BEFORE_LEASE - 1}
    assert not limits.check("k", cost=rest)
    wait_until(lambda: read_used() == CHECKS_BEFORE_LEASE + 1)
    wait_until(lambda: limits.check("k", cost=rest))


def test_p9_a_thousand_leases_that_end_together_go_back_in_turn(make_async_limiter, client):
    """If all were returned at once, the last calls would miss the deadline, though the store is well."""

    async def run_checks():
        async with make_async_limiter(SLOW, deadline=0.5) as limits:
            for _ in range(CHECKS_BEFORE_LEASE + 2):
                await asyncio.gather(*(limits.check(f"k{number}") for number in range(1_000)))
            assert limits._leases.count == 1_000

    asyncio.run(run_checks())
    assert {round(used(client, name=f"rl1:{{k{number}}}:k"), 2) for number in range(1_000)} == {
        CHECKS_BEFORE_LEASE + 2
    }


def test_p9_threads_spend_each_token_once(make_limiter, read_used, monkeypatch):
    """Every decision pauses, so that another thread runs in the middle of it, as happens rarely."""

    def subtract_slowly(left, cost):
        time.sleep(1e-6)
        return left - cost

    monkeypatch.setattr("ratelimit.shortcuts.leases.sub", subtract_slowly)
    limits = make_limiter(SLOW)
    admitted = []

    def run_checks():
        admitted.extend(bool(limits.check("k")) for _ in range(200))

    threads = [threading.Thread(target=run_checks) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    limits.close()
    assert admitted.count(True) == 1000
    assert read_used() == 1000


def test_p9_what_is_given_back_while_the_limiter_closes_is_given_back_once(
    make_limiter, read_used, monkeypatch
):
    """`close` is called while a timer's thread returns leases. It must wait: the connection is in use."""
    limits = make_limiter(Limit("requests", "1000/365d", lease=LONG_LEASE))
    make_key_hot(limits)
    make_key_hot(limits, "another")
    started, may_continue = threading.Event(), threading.Event()
    return_leases = limits._return_leases

    def return_leases_slowly(over):
        started.set()
        may_continue.wait(20)
        return_leases(over)

    monkeypatch.setattr(limits, "_return_leases", return_leases_slowly)
    now = time.monotonic_ns()
    monkeypatch.setattr(time, "monotonic_ns", lambda: now + 61_000_000_000)
    timer, closer = (
        threading.Thread(target=limits._return_expired_leases),
        threading.Thread(target=limits.close),
    )
    timer.start()
    assert started.wait(20)
    closer.start()
    closer.join(0.05)
    assert closer.is_alive()
    may_continue.set()
    closer.join(20)
    timer.join(20)
    assert read_used() == read_used(name="rl1:{another}:k") == CHECKS_BEFORE_LEASE + 1
