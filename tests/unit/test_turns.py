"""Calls of the rate-limit service wait for each other for some turns of the event loop."""

import asyncio

import pytest

from service.rls.turns import QUIET_TURNS, TURNS, Turns


async def count_turns(waiting):
    """Return how many turns pass until something is done."""
    task, turns = asyncio.ensure_future(waiting), 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    return turns


def test_a_call_that_is_alone_waits_for_some_turns_and_no_longer():
    async def run():
        return await count_turns(Turns().wait())

    assert QUIET_TURNS <= asyncio.run(run()) <= QUIET_TURNS + 3


def test_calls_that_come_in_different_turns_go_on_in_the_same_one():
    async def run():
        turns, ended = Turns(), []

        async def call(number):
            await turns.wait()
            ended.append(number)

        tasks = []
        for number in range(8):
            tasks.append(asyncio.create_task(call(number)))
            for _ in range(3):
                await asyncio.sleep(0)
            assert ended == []
        await tasks[0]
        assert ended == [*range(8)]
        await asyncio.gather(*tasks)

    asyncio.run(run())


def test_calls_that_keep_coming_do_not_make_the_first_wait_for_ever():
    async def run():
        turns = Turns()
        first, tasks, passed = asyncio.create_task(turns.wait()), [], 0
        while not first.done():
            tasks.append(asyncio.create_task(turns.wait()))
            await asyncio.sleep(0)
            passed += 1
        await asyncio.gather(*tasks)
        return passed

    assert asyncio.run(run()) <= TURNS + 3


def test_a_call_that_is_cancelled_does_not_end_the_others():
    async def run():
        turns = Turns()
        cancelled, other = (asyncio.create_task(turns.wait()) for _ in range(2))
        await asyncio.sleep(0)
        cancelled.cancel()
        await other
        with pytest.raises(asyncio.CancelledError):
            await cancelled

    asyncio.run(run())
