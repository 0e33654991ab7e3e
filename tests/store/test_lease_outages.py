"""P8 and P9: leases while the store does not answer. The checks go on, and `close` does not hang."""

import asyncio

import pytest

from ratelimit import AsyncLimiter, Limit, Limiter, StoreUnavailable
from ratelimit.shortcuts.leases import CHECKS_BEFORE_LEASE

from .leases import LONG_LEASE, SLOW, make_key_hot, make_key_hot_async


def test_p9_p8_in_an_outage_a_lease_goes_on_being_spent(make_limiter_on, proxy):
    limits = make_limiter_on(
        proxy.url, Limit("requests", "100/365d", lease=LONG_LEASE, on_outage="deny"), deadline=1
    )
    make_key_hot(limits)
    proxy.is_dropping_replies = True
    assert [limits.check("k").source for _ in range(4)] == ["lease"] * 4
    decision = limits.check("k")
    assert (decision.allowed, decision.source) == (False, "outage")


def test_p9_p8_a_lease_that_the_store_does_not_answer_is_an_outage_and_asked_once(make_limiter_on, proxy):
    """If the check were sent as well, it would wait for a second deadline."""
    limits = make_limiter_on(proxy.url, SLOW, deadline=0.5)
    for _ in range(CHECKS_BEFORE_LEASE):
        limits.check("k")
    before = proxy.script_count
    proxy.is_dropping_replies = True
    assert limits.check("k").source == "outage"
    assert proxy.script_count == before + 1
    proxy.is_dropping_replies = False
    assert limits.check("k").source == "store"


def take_leases(limits, keys=20):
    for number in range(keys):
        make_key_hot(limits, f"k{number}")


def test_p9_p8_close_hangs_on_no_store_that_is_silent(proxy):
    """After the first lease that cannot be returned, the others are not tried."""
    limits = Limiter(proxy.url, SLOW, deadline=0.5)
    take_leases(limits)
    proxy.is_dropping_replies = True
    before = proxy.script_count
    limits.close()
    assert proxy.script_count == before + 1


def test_p9_p8_asyncio_hangs_on_no_silent_store_either(proxy):
    async def run_checks():
        async with AsyncLimiter(proxy.url, SLOW, deadline=0.5) as limits:
            for number in range(20):
                await make_key_hot_async(limits, f"k{number}")
            proxy.is_dropping_replies = True
            return proxy.script_count

    before = asyncio.run(run_checks())
    assert proxy.script_count == before + 1


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_p9_p8_a_store_that_has_gone_is_no_error_at_close(kind, proxy):
    if kind == "threads":
        with Limiter(proxy.url, SLOW, deadline=0.5) as limits:
            take_leases(limits, 3)
            proxy.close()
        return

    async def run_checks():
        async with AsyncLimiter(proxy.url, SLOW, deadline=0.5) as limits:
            await make_key_hot_async(limits)
            proxy.close()
            with pytest.raises(StoreUnavailable):
                await limits.ping()

    asyncio.run(run_checks())
