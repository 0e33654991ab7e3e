"""P9: a hot key is decided in this process with tokens taken in advance, and nothing is lost or spent twice.

Rates are so slow that nothing comes back during a test: what the store counts as used is what was taken.
"""

import asyncio
import threading
import time
from collections import Counter

import pytest

from ratelimit import AsyncLimiter, Limit, Limiter, Policy, StoreUnavailable
from ratelimit.shortcuts.leases import CHECKS_BEFORE_LEASE as HOT

from ..stored import used as used_of

SHARE = {"share": 0.05, "ttl": "60s"}  # so that in most of these tests no lease ends by itself
BRIEF = {"share": 0.05, "ttl": "1s"}
SLOW = Limit("requests", "1000/365d", lease=SHARE)  # a lease holds 50
TOKENS = Limit("tokens", "10000/365d", unit="tokens", lease=SHARE)  # 500
K = "rl1:{k}:k"

one_store = pytest.mark.parametrize("any_store", ["valkey"], indirect=True)
"""For tests that wait for a real second, and of which the store sees nothing new."""


@pytest.fixture
def used(client):
    """What is missing from a bucket, by the store's own account."""

    def read(limit="requests", name=K):
        return round(used_of(client, limit, name), 2)

    return read


def heat(limits, key="k", **options):
    """Ask until a key is hot and the next check is decided here; return how many passed."""
    decisions = [limits.check(key, **options) for _ in range(HOT + 1)]
    assert decisions[-1].source == "lease"
    return sum(map(bool, decisions))


async def heat_async(limits, key="k", **options):
    """Ask until a key is hot and the next check is decided here; return how many passed."""
    decisions = [await limits.check(key, **options) for _ in range(HOT + 2)]
    assert decisions[-1].source == "lease"
    return sum(map(bool, decisions))


def test_p9_a_hot_key_costs_the_store_nothing_meanwhile(limiter_of, real_url, commands):
    limits = limiter_of(real_url, SLOW)
    heat(limits)
    before = commands()
    decisions = [limits.check("k") for _ in range(29)] + limits.check_many(["k"] * 20)
    assert {decision.source for decision in decisions} == {"lease"}
    assert all(decisions)
    assert commands() == before
    assert limits.peek("another").source == "store"


def test_p9_asyncio_leases_alike(real_url, commands):
    async def ask():
        async with AsyncLimiter(real_url, SLOW, deadline=20) as limits:
            await heat_async(limits)
            before = commands()
            decisions = await asyncio.gather(*(limits.check("k") for _ in range(29)))
            decisions += await limits.check_many(["k"] * 20)
            return decisions, commands() - before

    decisions, cost = asyncio.run(ask())
    assert {decision.source for decision in decisions} == {"lease"}
    assert (all(decisions), cost) == (True, 0)


@pytest.mark.parametrize("checks", [HOT, HOT + 1, 50, 54, 55, 56, 333, 999, 1000])
def test_p9_after_close_nothing_is_missing_but_what_was_admitted(limiter, used, checks):
    limits = limiter(SLOW)
    assert all(limits.check("k") for _ in range(checks))
    limits.close()
    assert used() == checks


@pytest.mark.parametrize("checks", [HOT + 1, 56, 333, 1000, 1500])
def test_p9_asyncio_gives_back_at_close_alike(async_limiter, used, checks):
    async def ask():
        async with async_limiter(SLOW) as limits:
            one_by_one = [await limits.check("k") for _ in range(checks // 2)]
            at_once = await asyncio.gather(*(limits.check("k") for _ in range(checks - checks // 2)))
            return [*one_by_one, *at_once]

    decisions = asyncio.run(ask())
    assert sum(map(bool, decisions)) == min(checks, 1000)
    assert used() == min(checks, 1000)


def test_p9_a_lease_still_under_way_at_close_is_given_back_too(async_limiter, used):
    async def ask():
        async with async_limiter(SLOW) as limits:
            return await limits.check_many(["k"] * (HOT + 1))

    assert all(asyncio.run(ask()))
    assert used() == HOT + 1


def test_p9_several_limits_and_costs_are_paid_exactly(limiter, used):
    limits = limiter(SLOW, TOKENS)
    costs = [1, 0, 7, 250, 3.5, 100, 251, 40] * 8  # above half a share the store is asked
    decisions = [limits.check("k", cost={"tokens": cost}) for cost in costs]
    limits.close()
    assert all(decisions)
    assert {decision.source for decision in decisions} == {"lease", "store"}
    assert used() == len(costs)
    assert used("tokens") == sum(costs)


def test_p9_all_of_the_burst_is_admitted_and_not_one_more(limiter, used):
    """The last share may be all there is: then it is spent here, and nobody is denied for its sake."""
    limits = limiter(SLOW)
    assert Counter(bool(limits.check("k")) for _ in range(1_100)) == {True: 1000, False: 100}
    limits.close()
    assert used() == 1000


@pytest.mark.parametrize("left", [49, 50, 51, 54, 55])
def test_p9_no_check_is_denied_for_the_sake_of_a_lease(limiter, async_limiter, used, left):
    """In asyncio a lease travels beside the check that was worth it, and may leave it nothing."""
    limiter(SLOW).check("k", cost={"requests": 1000 - left})

    async def ask():
        async with async_limiter(SLOW) as limits:
            return [bool(await limits.check("k")) for _ in range(left + 5)]

    assert asyncio.run(ask()) == [True] * left + [False] * 5
    assert used() == 1000


def test_p9_nor_is_one_in_a_batch(limiter, used):
    """The first of them ask the store, and by then the lease has taken all there was."""
    limits = limiter(SLOW)
    limits.check("another", cost={"requests": 1000})
    limits.check("k", cost={"requests": 950})
    assert sum(map(bool, limits.check_many(["k"] * 52))) == 50
    assert used() == 1000


def test_p9_what_is_told_is_what_the_store_would_say(limiter):
    leasing, plain = limiter(SLOW, TOKENS), limiter(Limit("requests", "1000/365d"), TOKENS_PLAIN)
    for number in range(30):
        leased = leasing.check("leased", cost={"tokens": number})
        asked = plain.check("asked", cost={"tokens": number})
        for mine, other in zip(leased.limits, asked.limits, strict=True):
            assert (mine.name, mine.remaining, mine.burst) == (other.name, other.remaining, other.burst)
            assert mine.reset_after == pytest.approx(other.reset_after, abs=60)  # a token takes hours
    assert leased.source == "lease"


TOKENS_PLAIN = Limit("tokens", "10000/365d", unit="tokens")


def test_p9_an_idle_lease_goes_back_by_itself(limiter, used, eventually):
    """A real second: a lease ends by a timer, with no call that could bring a clock of our own."""
    limits = limiter(Limit("requests", "1000/365d", lease=BRIEF))
    admitted = heat(limits)
    assert used() == HOT + 50
    eventually(lambda: used() == admitted)
    assert heat(limits) == HOT + 1  # and it may have another


LONG_AND_SHORT = """
default_plan: a
plans:
  a: {limits: {requests: {rate: 1000/365d, lease: {share: 0.05, ttl: 60s}}}}
  b: {limits: {requests: {rate: 1000/365d, lease: {share: 0.05, ttl: 1s}}}}
"""


@one_store
def test_p9_a_short_lease_ends_though_a_long_one_was_there_before(limiter, used, eventually):
    """A real second, for the same reason."""
    limits = limiter(Policy.from_text(LONG_AND_SHORT))
    heat(limits, "long", plan="a")
    admitted = heat(limits, plan="b")
    eventually(lambda: used() == admitted)
    assert used(name="rl1:{long}:k") == HOT + 50


def test_p9_asyncio_gives_back_when_idle_alike(async_limiter, used, eventually):
    """A real second, for the same reason."""

    async def ask():
        async with async_limiter(Limit("requests", "1000/365d", lease=BRIEF)) as limits:
            admitted = await heat_async(limits)
            assert used() == HOT + 51
            await asyncio.to_thread(eventually, lambda: used() == admitted)
            again = await heat_async(limits)
        return admitted + again

    admitted = asyncio.run(ask())
    assert used() == admitted


@one_store
def test_p9_asyncio_ends_a_short_lease_though_a_long_one_was_there_before(async_limiter, used, eventually):
    """A real second, for the same reason."""

    async def ask():
        async with async_limiter(Policy.from_text(LONG_AND_SHORT)) as limits:
            await heat_async(limits, "long", plan="a")
            admitted = await heat_async(limits, plan="b")
            await asyncio.to_thread(eventually, lambda: used() == admitted)
            assert used(name="rl1:{long}:k") == HOT + 51

    asyncio.run(ask())


def test_p9_an_empty_bucket_is_denied_from_memory_and_asked_for_no_lease(limiter_of, real_url, commands):
    limits = limiter_of(real_url, SLOW)
    while limits.check("k"):
        pass
    before = commands()
    assert [limits.check("k").source for _ in range(50)] == ["denial-memory"] * 50
    assert commands() == before


def test_p9_a_denial_remembered_stops_no_check_that_the_lease_can_pay(limiter, used):
    limits = limiter(SLOW)
    heat(limits)
    big = {"requests": 990}
    assert [limits.check("k", cost=big).source for _ in range(2)] == ["store", "denial-memory"]
    assert limits.check("k").source == "lease"
    limits.close()
    assert used() == HOT + 2


@one_store
def test_p9_what_a_lease_gives_back_is_seen_here_at_once(limiter, used, eventually):
    """A real second: what was denied for the sake of what is out on lease passes once that is back."""
    limits = limiter(Limit("requests", "1000/365d", lease=BRIEF))
    heat(limits)
    rest = {"requests": 1000 - HOT - 1}
    assert not limits.check("k", cost=rest)
    eventually(lambda: used() == HOT + 1)
    eventually(lambda: limits.check("k", cost=rest))


def test_p9_after_a_reset_the_lease_is_neither_spent_nor_given_back(limiter, used):
    limits = limiter(SLOW)
    heat(limits)
    limits.reset("k")
    assert limits.check("k").limits[0].remaining == 999  # hot as it is, by a new lease
    assert used() == 50
    limits.close()
    assert used() == 1


def test_p9_a_reset_of_a_key_gives_its_tenant_back_what_was_leased(limiter, async_limiter, used):
    limit = Limit("shared", "1000/365d", per=["tenant"], lease=SHARE)
    limits = limiter(SLOW, limit)
    heat(limits, tenant="t")
    limits.reset("k", tenant="t")
    limits.close()
    assert used("shared", "rl1:{t}:t") == HOT + 1

    async def ask():
        async with async_limiter(SLOW, limit) as limits:
            await heat_async(limits, tenant="u")
            await limits.reset("k", tenant="u")

    asyncio.run(ask())
    assert used("shared", "rl1:{u}:t") == HOT + 2


def test_p9_p11_a_policy_edit_keeps_what_was_used_and_returns_the_rest(limiter, used):
    limits = limiter(SLOW)
    admitted = heat(limits)
    limits.policy = Limit("requests", "2000/365d", lease=SHARE)
    admitted += heat(limits)
    assert limits.check("k").limits[0].remaining < 2000 - admitted
    limits.close()
    assert used() == admitted + 1


def test_p9_an_assignment_of_another_key_takes_no_lease_anew(limiter, used):
    limits = limiter(SLOW)
    heat(limits)
    limits.assign("another", tenant="t")
    assert limits.check("k").source == "lease"
    assert used() == HOT + 50
    limits.assign("k", blocked=True)
    assert limits.check("k").violated == ("blocked",)
    limits.close()
    assert used() == HOT + 2


def test_p9_a_shadow_limit_is_given_back_no_more_than_it_gave(limiter, used):
    shadow = Limit("shadow", "100/365d", mode="shadow", lease={"share": 0.2, "ttl": "60s"})
    limits = limiter(SLOW, shadow)
    assert all(limits.check("k") for _ in range(90))
    assert limits.check("k", cost={"requests": 20}).limits[1].retry_after > 0
    assert all(limits.check("k") for _ in range(30))
    limits.close()
    assert used() == 140
    assert used("shadow") == 100


def test_p9_p8_in_an_outage_a_lease_goes_on_being_spent(limiter_of, proxy):
    limits = limiter_of(proxy.url, Limit("requests", "100/365d", lease=SHARE, on_outage="deny"), deadline=1)
    heat(limits)
    proxy.swallowing = True
    assert [limits.check("k").source for _ in range(4)] == ["lease"] * 4
    decision = limits.check("k")
    assert (decision.allowed, decision.source) == (False, "outage")


def test_p9_p8_a_lease_that_the_store_does_not_answer_is_an_outage_and_asked_once(limiter_of, proxy):
    """Were the check asked as well, it would wait for a second deadline."""
    limits = limiter_of(proxy.url, SLOW, deadline=0.5)
    for _ in range(HOT):
        limits.check("k")
    before = proxy.scripts
    proxy.swallowing = True
    assert limits.check("k").source == "outage"
    assert proxy.scripts == before + 1
    proxy.swallowing = False
    assert limits.check("k").source == "store"


def many_leases(limits, keys=20):
    for number in range(keys):
        heat(limits, f"k{number}")


def test_p9_p8_close_hangs_on_no_store_that_is_silent(proxy):
    """The first lease that cannot be given back is the last that is tried."""
    limits = Limiter(proxy.url, SLOW, deadline=0.5)
    many_leases(limits)
    proxy.swallowing = True
    before = proxy.scripts
    limits.close()
    assert proxy.scripts == before + 1


def test_p9_p8_asyncio_hangs_on_no_silent_store_either(proxy):
    async def ask():
        async with AsyncLimiter(proxy.url, SLOW, deadline=0.5) as limits:
            for number in range(20):
                await heat_async(limits, f"k{number}")
            proxy.swallowing = True
            return proxy.scripts

    before = asyncio.run(ask())
    assert proxy.scripts == before + 1


@pytest.mark.parametrize("flavour", ["threads", "asyncio"])
def test_p9_p8_a_store_that_has_gone_is_no_error_at_close(flavour, proxy):
    if flavour == "threads":
        with Limiter(proxy.url, SLOW, deadline=0.5) as limits:
            many_leases(limits, 3)
            proxy.close()
        return

    async def ask():
        async with AsyncLimiter(proxy.url, SLOW, deadline=0.5) as limits:
            await heat_async(limits)
            proxy.close()
            with pytest.raises(StoreUnavailable):
                await limits.ping()

    asyncio.run(ask())


def test_p9_a_thousand_leases_that_end_together_go_back_in_turn(async_limiter, client):
    """Not all in one moment: then the last would be late for no fault of the store."""

    async def ask():
        async with async_limiter(SLOW, deadline=0.5) as limits:
            for _ in range(HOT + 2):
                await asyncio.gather(*(limits.check(f"k{number}") for number in range(1_000)))
            assert limits._leases.count == 1_000

    asyncio.run(ask())
    assert {round(used_of(client, name=f"rl1:{{k{number}}}:k"), 2) for number in range(1_000)} == {HOT + 2}


def test_p9_threads_spend_each_token_once(limiter, used, monkeypatch):
    """With another thread in the middle of every decision, as rarely but surely happens."""

    def slowly(left, cost):
        time.sleep(1e-6)
        return left - cost

    monkeypatch.setattr("ratelimit.shortcuts.leases.sub", slowly)
    limits = limiter(SLOW)
    admitted = []

    def ask():
        admitted.extend(bool(limits.check("k")) for _ in range(200))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    limits.close()
    assert admitted.count(True) == 1000
    assert used() == 1000


def test_p9_what_is_given_back_while_the_limiter_closes_is_given_back_once(limiter, used, monkeypatch):
    """The timer has gone off and is at it when `close` comes: that waits, for the connection is in use."""
    limits = limiter(Limit("requests", "1000/365d", lease=SHARE))
    heat(limits)
    heat(limits, "another")
    started, go_on = threading.Event(), threading.Event()
    give_back = limits._return_leases

    def slowly(over):
        started.set()
        go_on.wait(20)
        give_back(over)

    monkeypatch.setattr(limits, "_return_leases", slowly)
    now = time.monotonic_ns()
    monkeypatch.setattr(time, "monotonic_ns", lambda: now + 61_000_000_000)
    looking, closing = (
        threading.Thread(target=limits._return_expired_leases),
        threading.Thread(target=limits.close),
    )
    looking.start()
    assert started.wait(20)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()
    go_on.set()
    closing.join(20)
    looking.join(20)
    assert used() == used(name="rl1:{another}:k") == HOT + 1
