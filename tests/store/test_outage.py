"""P8: what checks answer when the store does not, and that nothing hangs."""

import asyncio
import logging
import threading
import time

import pytest

from ratelimit import AsyncLimiter, Limit, StoreUnavailable
from ratelimit.engine.bucket import Bucket

from ..processes import wait_until

BASE = 1_700_000_000
TIME_LIMIT = 5.0
"""Seconds after which a test fails; the limiters' deadline is a hundredth of it."""

ALLOW = Limit("requests", "5/minute")
DENY = Limit("tokens", "5/minute", unit="tokens", on_outage="deny")
LOCAL = Limit("local", "2/minute", on_outage="local")


@pytest.fixture
def make_limiter_without_store(dead_url, make_limiter_on):
    """Make limiters on a store that refuses connections, and on one that never answers."""

    def make(*limits, **options):
        return make_limiter_on(dead_url, *limits, deadline=0.05, **options)

    return make


@pytest.fixture(autouse=True)
def _fail_if_slow():
    start = time.monotonic()
    yield
    assert time.monotonic() - start < TIME_LIMIT


def test_p8_allow_allows(make_limiter_without_store):
    decision = make_limiter_without_store(ALLOW).check("k")
    assert decision
    assert (decision.source, decision.retry_after, decision.violated) == ("outage", 0.0, ())


def test_p8_deny_denies_and_asks_to_come_back(make_limiter_without_store):
    decision = make_limiter_without_store(ALLOW, DENY).check("k")
    assert not decision
    assert (decision.source, decision.violated) == ("outage", ("tokens",))
    assert decision.retry_after > 0
    assert int(decision.headers()["Retry-After"]) >= 1


def test_p8_local_limits_in_this_process(make_limiter_without_store):
    limits = make_limiter_without_store(ALLOW, LOCAL)
    decisions = [limits.check("k", timestamp=BASE) for _ in range(4)]
    assert [bool(decision) for decision in decisions] == [True, True, False, False]
    assert {decision.source for decision in decisions} == {"outage"}
    assert decisions[2].violated == ("local",)
    assert decisions[2].retry_after == pytest.approx(30, abs=1e-4)
    assert limits.check("another", timestamp=BASE)


def test_p8_a_shadow_limit_never_denies_not_even_in_an_outage(make_limiter_without_store):
    shadows = [Limit(name, "1/day", mode="shadow", on_outage=name) for name in ("deny", "local")]
    limits = make_limiter_without_store(*shadows)
    assert all(limits.check("k") for _ in range(3))


def test_p8_a_batch_is_answered_whole(make_limiter_without_store):
    decisions = make_limiter_without_store(LOCAL).check_many([{"key": "k", "timestamp": BASE}] * 5)
    assert [bool(decision) for decision in decisions] == [True, True, False, False, False]


def test_p8_a_look_is_answered_too_and_takes_nothing(make_limiter_without_store):
    limits = make_limiter_without_store(LOCAL)
    assert all(limits.peek("k", timestamp=BASE) for _ in range(4))
    assert limits.check("k", timestamp=BASE).source == "outage"


def test_p8_the_denial_of_an_outage_lists_limits_in_the_policys_order(make_limiter_without_store):
    scopes = {"a": ["tenant"], "b": ["key"], "c": [], "d": ["tenant"]}
    limits = [Limit(name, "1/day", per=per, on_outage="deny") for name, per in scopes.items()]
    assert make_limiter_without_store(*limits).check("k", tenant="t").violated == ("a", "b", "c", "d")


def test_p8_not_even_an_outage_trusts_a_clock_further_than_max_skew(make_limiter_without_store):
    for limit in (DENY, LOCAL):
        decision = make_limiter_without_store(limit).check("k", timestamp=time.time() + 86_400)
        assert decision.clamped
        assert decision.timestamp.timestamp() < time.time() + 60


def test_p8_reset_and_ping_say_in_one_line_that_nobody_answers(make_limiter_without_store, dead_url):
    limits = make_limiter_without_store(ALLOW)
    port = dead_url.rpartition(":")[2].partition("/")[0]
    for call in (limits.ping, lambda: limits.reset("k")):
        with pytest.raises(StoreUnavailable) as raised:
            call()
        message = str(raised.value)
        assert port in message
        assert "s3cret" not in message
        assert "\n" not in message
        assert raised.value.__cause__ is None


def test_p8_asyncio_answers_alike(dead_url):
    async def run_checks():
        async with AsyncLimiter(dead_url, [ALLOW, LOCAL], deadline=0.05) as limits:
            decisions = await asyncio.gather(*(limits.check("k", timestamp=BASE) for _ in range(50)))
            peeked = await limits.peek("k", timestamp=BASE)
            with pytest.raises(StoreUnavailable, match="redis://"):
                await limits.ping()
            with pytest.raises(StoreUnavailable):
                await limits.reset("k")
            return decisions, peeked

    decisions, peeked = asyncio.run(run_checks())
    assert sum(map(bool, decisions)) == 2
    assert {decision.source for decision in decisions} == {"outage"}
    assert not peeked


def test_p8_an_outage_is_logged_when_it_begins_and_not_for_every_check(make_limiter_without_store, caplog):
    caplog.set_level(logging.INFO, "ratelimit")
    limits = make_limiter_without_store(ALLOW)
    for _ in range(3):
        limits.check("vk_9f3a51e7c21")
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "127.0.0.1" in record.getMessage()
    assert "s3cret" not in caplog.text
    assert "vk_9f3a51e7c21" not in caplog.text


def test_p8_the_end_of_an_outage_is_logged_and_the_store_decides_again(make_limiter_on, proxy, caplog):
    caplog.set_level(logging.INFO, "ratelimit")
    limits = make_limiter_on(proxy.url, ALLOW, deadline=0.5)
    limits.check("k")
    proxy.is_dropping_replies = True
    assert limits.check("k").source == "outage"
    proxy.is_dropping_replies = False
    assert limits.check("k").source == "store"
    # A second after the first line at the earliest: a store that flaps must not flood the log.
    wait_until(lambda: limits.peek("k") is not None and "again" in caplog.text)
    assert len(caplog.records) == 2


def test_p8_a_server_that_has_hung_up_meanwhile_is_no_outage(make_limiter_on, real_url, open_client):
    """A server closes connections when it restarts, or when they have been idle for long."""
    limits = make_limiter_on(real_url, ALLOW)
    limits.check("k")
    open_client(real_url).client_kill_filter(_type="normal", skipme=True)
    assert limits.check("k").source == "store"

    async def run_checks():
        async with AsyncLimiter(real_url, ALLOW, deadline=20) as limits:
            await limits.check("k")
            await asyncio.to_thread(open_client(real_url).client_kill_filter, _type="normal", skipme=True)
            while not limits._calls._transport._connection.is_lost:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.001)
            return await limits.check("k")

    assert asyncio.run(run_checks()).source == "store"


def test_p8_p1_threads_share_exactly_the_burst_of_a_local_limit(make_limiter_on, tmp_path, slow_decisions):
    limits = make_limiter_on(f"unix://{tmp_path}/gone.sock", Limit("requests", "50/day", on_outage="local"))
    admitted = []

    def run_checks():
        admitted.extend(bool(limits.check("k", timestamp=BASE)) for _ in range(20))

    threads = [threading.Thread(target=run_checks) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert admitted.count(True) == 50


@pytest.fixture
def slow_decisions(monkeypatch):
    """Let another thread run in the middle of every decision, as happens rarely but surely."""
    admits = Bucket.admits

    def admits_slowly(*args):
        time.sleep(1e-6)
        return admits(*args)

    monkeypatch.setattr(Bucket, "admits", admits_slowly)
