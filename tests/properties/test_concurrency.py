"""P1 when many tasks of one event loop check at once and their checks are coalesced."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit import AsyncLimiter, Limit

from ..stored import used
from .worlds import BASE, SECOND

MOMENT = BASE / SECOND
FEWER = settings(max_examples=max(1, settings().max_examples // 3))


async def check_all(url, limit, costs):
    async with AsyncLimiter(url, limit, deadline=20) as limiter:
        checks = (limiter.check("k", timestamp=MOMENT, cost={"requests": cost}) for cost in costs)
        return await asyncio.gather(*checks)


@FEWER
@given(burst=st.integers(1, 40), tasks=st.integers(1, 600))
def test_p1_tasks_that_ask_at_once_share_exactly_the_burst(open_client, model_url, burst, tasks):
    open_client(model_url).flushall()
    limit = Limit("requests", "7/minute", burst=burst)

    decisions = asyncio.run(check_all(model_url, limit, [1] * tasks))

    assert sum(decision.allowed for decision in decisions) == min(burst, tasks)


@FEWER
@given(costs=st.lists(st.integers(0, 9), min_size=1, max_size=300))
def test_p1_tasks_of_different_costs_never_take_more_than_the_burst(open_client, model_url, costs):
    open_client(model_url).flushall()
    limit = Limit("requests", "7/minute", burst=50)

    decisions = asyncio.run(check_all(model_url, limit, costs))

    taken = sum(cost for cost, decision in zip(costs, decisions, strict=True) if decision)
    left = 50 - taken
    assert left >= 0
    assert all(cost > left for cost, decision in zip(costs, decisions, strict=True) if not decision)
    assert used(open_client(model_url)) == taken


@FEWER
@given(groups=st.lists(st.integers(0, 256), min_size=1, max_size=12))
def test_each_task_gets_the_answers_to_its_own_checks(open_client, model_url, groups):
    open_client(model_url).flushall()

    async def check_groups():
        async with AsyncLimiter(model_url, Limit("requests", "500/minute"), deadline=20) as limiter:
            # A server that does not have the script yet gets the first calls again, in another order.
            await limiter.check("first", timestamp=MOMENT)
            return await asyncio.gather(
                *(
                    limiter.check_many(
                        [{"key": f"k{group}", "timestamp": MOMENT + number} for number in range(size)]
                    )
                    for group, size in enumerate(groups)
                )
            )

    answers = asyncio.run(check_groups())

    for size, decisions in zip(groups, answers, strict=True):
        assert [decision.timestamp.timestamp() for decision in decisions] == [
            MOMENT + number for number in range(size)
        ]
        assert all(decisions)
