"""An asyncio limiter in several event loops, one after the other, as in a worker that calls `asyncio.run`."""

import asyncio
import gc
import warnings

import pytest

from ratelimit import Limit


@pytest.fixture(autouse=True)
def collected():
    """Collect connections here that were not closed before their event loop ended: Python warns of each."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


def test_each_loop_is_answered_by_the_store_and_not_by_an_outage(open_limiter):
    limiter = open_limiter(Limit("requests", "5/365d"))

    async def check_three():
        decisions = await asyncio.gather(*(limiter.check("k") for _ in range(3)))
        return [(bool(decision), decision.source) for decision in decisions]

    async def settle_and_close():
        await limiter.settle({"key": "k", "status": 200})
        await limiter.close()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        assert asyncio.run(check_three()) == [(True, "store")] * 3
        assert asyncio.run(check_three()) == [(True, "store")] * 2 + [(False, "store")]
        asyncio.run(settle_and_close())
        gc.collect()


def test_a_limiter_may_be_closed_in_another_loop(open_limiter):
    limiter = open_limiter(Limit("requests", "5/365d"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        asyncio.run(limiter.ping())
        asyncio.run(limiter.close())
        del limiter
        gc.collect()
