"""The asyncio limiter: the same answers, awaited, and never a blocked loop."""

import asyncio

import pytest
from blockbuster import BlockingError, blockbuster_ctx

from ratelimit import AsyncLimiter, InvalidRequest, Limit, RateLimited

BASE = 1_700_000_000
FIVE = Limit("requests", "5/minute")
TOKENS = Limit("tokens", "90/minute", unit="tokens", per=["tenant"])
CALLS = [
    {"key": "k", "timestamp": BASE},
    {"key": "k", "timestamp": BASE, "cost": {"requests": 4, "tokens": 33.3}},
    {"key": "k", "timestamp": BASE, "tenant": "t"},
    {"key": "k", "timestamp": BASE + 5, "cost": {"requests": 2}},
    {"key": "k", "timestamp": BASE - 5, "cost": {"requests": 0}},
    {"key": "k", "timestamp": BASE + 9, "cost": {"requests": 9}},
]


def test_it_gives_the_answers_of_the_blocking_limiter(store_url, client, limiter, async_limiter):
    async def ask():
        async with async_limiter(FIVE, TOKENS) as limits:
            singly = [await limits.check(**call) for call in CALLS]
            looked = await limits.peek("k", timestamp=BASE)
            await limits.reset("k")
            await limits.reset("k", tenant="t")
            return singly, looked, await limits.check_many(CALLS)

    awaited = asyncio.run(ask())
    client.flushall()
    limits = limiter(FIVE, TOKENS)
    singly = [limits.check(**call) for call in CALLS]
    looked = limits.peek("k", timestamp=BASE)
    limits.reset("k")
    limits.reset("k", tenant="t")
    assert awaited == (singly, looked, limits.check_many(CALLS))


def test_p1_tasks_that_ask_together_get_what_there_is_and_no_more(async_limiter):
    async def ask():
        async with async_limiter(Limit("requests", "100/minute", burst=37)) as limits:
            return await asyncio.gather(*(limits.check("k", timestamp=BASE) for _ in range(1_000)))

    assert sum(map(bool, asyncio.run(ask()))) == 37


def test_five_parallel_calls_never_spend_more_tokens_than_there_are(async_limiter):
    async def ask():
        async with async_limiter(Limit("tokens", "100/minute", unit="tokens")) as limits:
            calls = (limits.check("k", timestamp=BASE, cost={"tokens": 40}) for _ in range(5))
            return await asyncio.gather(*calls)

    assert sum(map(bool, asyncio.run(ask()))) == 2


def test_a_fault_in_one_task_leaves_the_others_alone(async_limiter):
    async def ask():
        async with async_limiter(FIVE) as limits:
            calls = [limits.check("k"), limits.check("not a key"), limits.check("k", cost={"pages": 1})]
            return await asyncio.gather(*calls, return_exceptions=True)

    good, *bad = asyncio.run(ask())
    assert good
    assert all(isinstance(fault, InvalidRequest) for fault in bad)


def test_a_task_that_is_cancelled_takes_no_answer_from_the_others(async_limiter):
    async def ask():
        async with async_limiter(Limit("requests", "500/minute")) as limits:
            tasks = [asyncio.create_task(limits.check(f"k{n}", timestamp=BASE + n)) for n in range(40)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(ask())
    assert all(isinstance(answer, asyncio.CancelledError) for answer in answers[::2])
    asked_at = [BASE + n for n in range(1, 40, 2)]
    assert [answer.timestamp.timestamp() for answer in answers[1::2]] == asked_at


def test_closing_answers_what_was_asked_before(async_limiter):
    async def ask():
        limits = async_limiter(FIVE)
        tasks = [asyncio.create_task(limits.check(f"k{n}")) for n in range(600)]
        await asyncio.sleep(0)
        await limits.close()
        return [task.result() for task in tasks]

    assert {decision.source for decision in asyncio.run(ask())} == {"store"}


def test_acquire_waits_and_lets_other_tasks_run(async_limiter):
    async def ask():
        async with async_limiter(Limit("requests", "20/second", burst=1)) as limits:
            turns = []

            async def tick():
                while True:
                    turns.append(await asyncio.sleep(0.001))

            ticking = asyncio.create_task(tick())
            decisions = [await limits.acquire("k", timeout=20) for _ in range(4)]
            ticking.cancel()
            return decisions, len(turns)

    decisions, turns = asyncio.run(ask())
    assert all(decisions)
    assert turns > 5


def test_acquire_gives_up_at_once_on_what_never_passes(async_limiter):
    async def ask():
        async with async_limiter(FIVE) as limits:
            with pytest.raises(RateLimited):
                await limits.acquire("k", cost={"requests": 6})
            await limits.check("k", cost={"requests": 5})
            with pytest.raises(RateLimited):
                await limits.acquire("k", timeout=1)

    asyncio.run(ask())


def test_nothing_blocks_the_loop(real_url):
    async def ask():
        with blockbuster_ctx():
            async with AsyncLimiter(real_url, [FIVE, TOKENS], deadline=20) as limits:
                await limits.ping()
                await limits.check("k", cost={"tokens": 1})
                await asyncio.gather(*(limits.check(f"k{n}") for n in range(300)))
                await limits.check_many(["k"] * 10)
                await limits.peek("k")
                await limits.acquire("another", timeout=1)
                await limits.reset("k")

    asyncio.run(ask())


def test_a_blocked_loop_would_be_noticed(real_url, limiter_of):
    blocking = limiter_of(real_url, FIVE)
    blocking.check("k")  # connects

    async def ask():
        with blockbuster_ctx(), pytest.raises(BlockingError):
            blocking.check("k")

    asyncio.run(ask())
