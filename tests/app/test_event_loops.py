"""An asyncio limiter in several event loops, one after the other, as in a worker that calls `asyncio.run`."""

import asyncio
import gc
import warnings

import pytest
import uvloop

from ratelimit import Limit

from ..stored import used


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


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the tasks of a dead loop
@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_p8_a_loop_that_stopped_in_the_middle_of_a_check_holds_up_no_later_one(open_limiter, new_loop):
    limiter = open_limiter(Limit("requests", "5/365d"))
    stopped = new_loop()

    async def stop_in_the_middle():
        waiting = asyncio.ensure_future(limiter.check("k"))
        await asyncio.sleep(0)  # The check waits for its call.
        stopped.stop()
        await waiting

    task = stopped.create_task(stop_in_the_middle())
    stopped.run_forever()
    task._log_destroy_pending = False  # as this test wants it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        stopped.close()

        async def check_and_close():
            decisions = [await asyncio.wait_for(limiter.check("k"), 10) for _ in range(6)]
            await asyncio.wait_for(limiter.close(), 10)
            return [decision.source for decision in decisions]

        with asyncio.Runner(loop_factory=new_loop) as runner:
            assert {*runner.run(check_and_close())} <= {"store", "denial-memory"}


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_p9_leases_of_a_loop_that_ended_return_in_the_next_one(open_limiter, new_loop):
    limiter = open_limiter(Limit("requests", "1000/365d", lease={"share": 0.5, "ttl": "60s"}))

    async def make_key_hot():
        while (await limiter.check("k")).source != "lease":
            pass
        return limiter._return_timer, limiter._return_time

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        with asyncio.Runner(loop_factory=new_loop) as runner:
            timer, end = runner.run(make_key_hot())

        async def go_on():
            limiter._schedule_lease_return(end)
            unchanged = limiter._return_timer is timer
            limiter._return_time = 0  # the time of the timer passes
            limiter._schedule_lease_return(end)
            replaced = limiter._return_timer is not timer
            await limiter.close()
            return unchanged, replaced

        with asyncio.Runner(loop_factory=new_loop) as runner:
            assert runner.run(go_on()) == (True, True)


def test_p8_what_an_ended_loop_left_to_charge_is_charged_at_close(
    open_limiter, short_dir, start_valkey, open_client
):
    limit = Limit("requests", "20/365d", on_outage="local")
    limiter = open_limiter(limit, store=f"unix://{short_dir}/starts-late.sock")
    keys = [f"k{number}" for number in range(40)]  # more than are charged at the same time
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        decisions = asyncio.run(limiter.check_many(keys))
        assert {decision.source for decision in decisions} == {"outage"}
        url = start_valkey("starts-late")
        assert asyncio.run(limiter.check("another")).source == "store"
        asyncio.run(limiter.close())
        del limiter
        gc.collect()
    # Those asked last are charged first: the loop ended before their answers came, as in a lost call.
    client = open_client(url)
    assert [used(client, name=f"rl1:{{{key}}}:k") for key in keys[:8]] == pytest.approx([1] * 8, abs=1e-3)
