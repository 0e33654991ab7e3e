"""The asyncio limiter decides as the blocking limiter does, and never blocks the event loop."""

import asyncio

import pytest
from blockbuster import BlockingError, blockbuster_ctx

from ratelimit import AsyncLimiter, InvalidRequest, Limit, RateLimited

BASE = 1_700_000_000
FIVE_A_MINUTE = Limit("requests", "5/minute")
TOKENS = Limit("tokens", "90/minute", unit="tokens", per=["tenant"])
CHECKS = [
    {"key": "k", "timestamp": BASE},
    {"key": "k", "timestamp": BASE, "cost": {"requests": 4, "tokens": 33.3}},
    {"key": "k", "timestamp": BASE, "tenant": "t"},
    {"key": "k", "timestamp": BASE + 5, "cost": {"requests": 2}},
    {"key": "k", "timestamp": BASE - 5, "cost": {"requests": 0}},
    {"key": "k", "timestamp": BASE + 9, "cost": {"requests": 9}},
]


def test_it_gives_the_answers_of_the_blocking_limiter(store_url, client, make_limiter, make_async_limiter):
    async def run_checks():
        async with make_async_limiter(FIVE_A_MINUTE, TOKENS) as limits:
            one_by_one = [await limits.check(**check) for check in CHECKS]
            peeked = await limits.peek("k", timestamp=BASE)
            await limits.reset("k")
            await limits.reset("k", tenant="t")
            return one_by_one, peeked, await limits.check_many(CHECKS)

    awaited = asyncio.run(run_checks())
    client.flushall()
    limits = make_limiter(FIVE_A_MINUTE, TOKENS)
    one_by_one = [limits.check(**check) for check in CHECKS]
    peeked = limits.peek("k", timestamp=BASE)
    limits.reset("k")
    limits.reset("k", tenant="t")
    assert awaited == (one_by_one, peeked, limits.check_many(CHECKS))


def test_p1_tasks_that_ask_together_get_what_there_is_and_no_more(make_async_limiter):
    async def run_checks():
        async with make_async_limiter(Limit("requests", "100/minute", burst=37)) as limits:
            return await asyncio.gather(*(limits.check("k", timestamp=BASE) for _ in range(1_000)))

    assert sum(map(bool, asyncio.run(run_checks()))) == 37


def test_five_parallel_calls_never_spend_more_tokens_than_there_are(make_async_limiter):
    async def run_checks():
        async with make_async_limiter(Limit("tokens", "100/minute", unit="tokens")) as limits:
            checks = (limits.check("k", timestamp=BASE, cost={"tokens": 40}) for _ in range(5))
            return await asyncio.gather(*checks)

    assert sum(map(bool, asyncio.run(run_checks()))) == 2


def test_a_fault_in_one_task_leaves_the_others_alone(make_async_limiter):
    async def run_checks():
        async with make_async_limiter(FIVE_A_MINUTE) as limits:
            checks = [limits.check("k"), limits.check("not a key"), limits.check("k", cost={"pages": 1})]
            return await asyncio.gather(*checks, return_exceptions=True)

    good, *bad = asyncio.run(run_checks())
    assert good
    assert all(isinstance(fault, InvalidRequest) for fault in bad)


def test_a_task_that_is_cancelled_takes_no_answer_from_the_others(make_async_limiter):
    async def run_checks():
        async with make_async_limiter(Limit("requests", "500/minute")) as limits:
            tasks = [asyncio.create_task(limits.check(f"k{n}", timestamp=BASE + n)) for n in range(40)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(run_checks())
    assert all(isinstance(answer, asyncio.CancelledError) for answer in answers[::2])
    timestamps = [BASE + n for n in range(1, 40, 2)]
    assert [answer.timestamp.timestamp() for answer in answers[1::2]] == timestamps


def test_closing_answers_what_was_asked_before(make_async_limiter):
    async def run_checks():
        limits = make_async_limiter(FIVE_A_MINUTE)
        tasks = [asyncio.create_task(limits.check(f"k{n}")) for n in range(600)]
        await asyncio.sleep(0)
        await limits.close()
        return [task.result() for task in tasks]

    assert {decision.source for decision in asyncio.run(run_checks())} == {"store"}


def test_acquire_waits_and_lets_other_tasks_run(make_async_limiter):
    async def run_checks():
        async with make_async_limiter(Limit("requests", "20/second", burst=1)) as limits:
            ticks = []

            async def tick():
                while True:
                    ticks.append(await asyncio.sleep(0.001))

            ticking = asyncio.create_task(tick())
            decisions = [await limits.acquire("k", timeout=20) for _ in range(4)]
            ticking.cancel()
            return decisions, len(ticks)

    decisions, ticks = asyncio.run(run_checks())
    assert all(decisions)
    assert ticks > 5


def test_acquire_gives_up_at_once_on_what_never_passes(make_async_limiter):
    async def run_checks():
        async with make_async_limiter(FIVE_A_MINUTE) as limits:
            with pytest.raises(RateLimited):
                await limits.acquire("k", cost={"requests": 6})
            await limits.check("k", cost={"requests": 5})
            with pytest.raises(RateLimited):
                await limits.acquire("k", timeout=1)

    asyncio.run(run_checks())


def test_nothing_blocks_the_loop(real_url):
    async def run_checks():
        with blockbuster_ctx():
            async with AsyncLimiter(real_url, [FIVE_A_MINUTE, TOKENS], deadline=20) as limits:
                await limits.ping()
                await limits.check("k", cost={"tokens": 1})
                await asyncio.gather(*(limits.check(f"k{n}") for n in range(300)))
                await limits.check_many(["k"] * 10)
                await limits.peek("k")
                await limits.acquire("another", timeout=1)
                await limits.reset("k")

    asyncio.run(run_checks())


def test_a_blocked_loop_would_be_noticed(real_url, make_limiter_on):
    blocking = make_limiter_on(real_url, FIVE_A_MINUTE)
    blocking.check("k")  # opens the connection

    async def run_checks():
        with blockbuster_ctx(), pytest.raises(BlockingError):
            blocking.check("k")

    asyncio.run(run_checks())
