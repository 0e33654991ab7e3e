"""Reservations in asyncio: a cancelled task must not keep a slot."""

import asyncio

import anyio
import pytest

from ratelimit import Limit, RateLimited, Usage

TOKENS = Limit("tokens", "1000/day", unit="tokens")
PARALLEL = Limit("parallel", unit="concurrent", capacity=2, ttl="30s")


async def are_slots_freed(limits):
    """Return whether every slot is freed within about 20 seconds."""
    for _ in range(2000):
        if (await limits.peek("k")).limits[0].remaining == 2:
            return True
        await asyncio.sleep(0.01)
    return False


def test_asyncio_reserves_alike(make_async_limiter):
    async def run_reservations():
        async with make_async_limiter(TOKENS, PARALLEL) as limits:
            async with limits.reserve("k", cost={"tokens": 400}) as reservation:
                await reservation.settle(Usage(input_tokens=250))
            held = await limits.reserve("k", cost={"tokens": 700})
            with pytest.raises(RateLimited):
                await limits.reserve("k", cost={"tokens": 700})
            await held.cancel()
            async with limits.reserve("k", cost={"tokens": 50}):
                pass
            return (await limits.peek("k")).limits

    tokens, parallel = asyncio.run(run_reservations())
    assert (tokens.remaining, parallel.remaining) == (700, 2)


def test_asyncio_cancellation_of_any_kind_frees_the_slot(make_async_limiter):
    async def run_reservations():
        async with make_async_limiter(PARALLEL) as limits:
            with anyio.move_on_after(0.05):
                async with limits.reserve("k"):
                    await anyio.sleep_forever()
            task = asyncio.create_task(hold_reservation(limits))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return await are_slots_freed(limits)

    async def hold_reservation(limits):
        async with limits.reserve("k"):
            await asyncio.sleep(60)

    assert asyncio.run(run_reservations())


def test_a_reservation_that_is_cancelled_on_its_way_keeps_no_slot(make_async_limiter):
    async def run_reservations():
        async with make_async_limiter(PARALLEL) as limits:
            for delay in range(12):
                task = asyncio.create_task(hold_reservation(limits))
                await asyncio.sleep(delay / 10_000)
                task.cancel()
                await asyncio.wait({task})
            return await are_slots_freed(limits)

    async def hold_reservation(limits):
        async with limits.reserve("k"):
            await asyncio.sleep(60)

    assert asyncio.run(run_reservations())
