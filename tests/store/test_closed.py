"""A limiter that is closed says so, whatever it is asked, and decides nothing."""

import asyncio
import multiprocessing

import pytest

from ratelimit import AsyncLimiter, Limit, Limiter, LimiterClosed, Usage

from ..conftest import DEADLINE
from .leases import SLOW, make_key_hot, make_key_hot_async

LIMIT = Limit("requests", "5/365d")
USES = {
    "check": lambda limiter: limiter.check("k"),
    "check_many": lambda limiter: limiter.check_many(["k", "l"]),
    "peek": lambda limiter: limiter.peek("k"),
    "acquire": lambda limiter: limiter.acquire("k"),
    "reserve": lambda limiter: limiter.reserve("k"),
    "settle": lambda limiter: limiter.settle({"key": "k", "status": 200}),
    "cancel": lambda limiter: limiter.cancel(limiter.open_reservation),
    "release": lambda limiter: limiter.release(limiter.open_reservation),
    "assign": lambda limiter: limiter.assign("k", blocked=True),
    "assign_tenant": lambda limiter: limiter.assign_tenant("t"),
    "refresh": lambda limiter: limiter.refresh(),
    "reset": lambda limiter: limiter.reset("k"),
    "ping": lambda limiter: limiter.ping(),
    "count_trimmed_unread": lambda limiter: limiter.count_trimmed_unread(),
}


def test_every_use_of_a_closed_limiter_raises(make_limiter):
    limiter = make_limiter(LIMIT)
    limiter.open_reservation = limiter.reserve("k").id
    limiter.close()
    limiter.close()
    for use in USES.values():
        with pytest.raises(LimiterClosed, match="this limiter is closed; make a new one"):
            use(limiter)
    with pytest.raises(LimiterClosed), limiter:
        pytest.fail("a closed limiter was entered")


def test_every_use_of_a_closed_asyncio_limiter_raises_in_its_loop_and_in_the_next(make_async_limiter):
    limiter = make_async_limiter(LIMIT)

    async def use_all():
        for use in USES.values():
            with pytest.raises(LimiterClosed, match="this limiter is closed; make a new one"):
                await use(limiter)
        with pytest.raises(LimiterClosed):
            async with limiter:
                pytest.fail("a closed limiter was entered")

    async def close_and_use():
        limiter.open_reservation = (await limiter.reserve("k")).id
        await limiter.close()
        await limiter.close()
        await use_all()

    asyncio.run(close_and_use())
    asyncio.run(use_all())


def test_the_denial_memory_of_a_closed_limiter_denies_nothing(make_limiter, make_async_limiter):
    with make_limiter(LIMIT) as limiter:
        limiter.check("k", cost={"requests": 5})
        assert [limiter.check("k").source for _ in range(2)] == ["store", "denial-memory"]
    with pytest.raises(LimiterClosed):
        limiter.check("k")

    async def run():
        async with make_async_limiter(LIMIT) as limiter:
            assert [(await limiter.check("k")).source for _ in range(2)] == ["store", "denial-memory"]
        with pytest.raises(LimiterClosed):
            await limiter.check("k")

    asyncio.run(run())


def test_p9_leases_of_a_closed_limiter_admit_nothing(make_limiter, make_async_limiter):
    with make_limiter(SLOW) as limiter:
        make_key_hot(limiter)
    with pytest.raises(LimiterClosed):
        limiter.check("k")

    async def run():
        async with make_async_limiter(SLOW) as limiter:
            await make_key_hot_async(limiter)
        with pytest.raises(LimiterClosed):
            await limiter.check("k")

    asyncio.run(run())


def test_p9_a_lease_that_arrives_after_close_admits_nothing(make_limiter, monkeypatch):
    limiter = make_limiter(SLOW)
    run_checks = limiter._calls.run_checks

    def close_before_a_lease_arrives(checks):
        replies = run_checks(checks)
        if checks[0].costs == (50,):
            limiter.close()
        return replies

    monkeypatch.setattr(limiter._calls, "run_checks", close_before_a_lease_arrives)
    for _ in range(2):
        with pytest.raises(LimiterClosed):
            make_key_hot(limiter)
    assert limiter.count_leased_tokens() == {}


def test_a_reservation_whose_limiter_was_closed_keeps_the_error_of_its_block(make_limiter):
    limiter = make_limiter(LIMIT)

    def close_within():
        with limiter.reserve("k") as reservation:
            limiter.close()
            with pytest.raises(LimiterClosed):
                reservation.settle(Usage(status=200))
            raise KeyError

    with pytest.raises(KeyError):
        close_within()


def test_an_asyncio_reservation_whose_limiter_was_closed_keeps_the_error_of_its_block(make_async_limiter):
    async def run():
        limiter = make_async_limiter(LIMIT)
        async with limiter.reserve("k") as reservation:
            await limiter.close()
            with pytest.raises(LimiterClosed):
                await reservation.settle(Usage(status=200))
            raise KeyError

    with pytest.raises(KeyError):
        asyncio.run(run())


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")  # limiters are made for that
def test_a_limiter_that_was_closed_before_a_fork_is_closed_in_the_child(make_limiter_on, valkey_url):
    limiter = make_limiter_on(valkey_url, LIMIT)
    limiter.close()

    def check():
        with pytest.raises(LimiterClosed):
            limiter.check("k")

    child = multiprocessing.get_context("fork").Process(target=check)
    child.start()
    child.join(timeout=30)
    child.kill()
    assert child.exitcode == 0


def test_p8_the_end_of_an_embedded_server_is_no_outage():
    with Limiter("embedded://", LIMIT, deadline=DEADLINE) as limiter:
        assert limiter.check("k").source == "store"
    with pytest.raises(LimiterClosed):
        limiter.check("k")

    async def run():
        async with AsyncLimiter("embedded://", LIMIT, deadline=DEADLINE) as limiter:
            assert (await limiter.check("k")).source == "store"
        with pytest.raises(LimiterClosed):
            await limiter.check("k")

    asyncio.run(run())
