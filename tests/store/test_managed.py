"""Stores as others run them: with commands forbidden, behind proxies, and refusing for a while."""

import asyncio
import contextlib
import logging
import threading

import pytest
import redis

from ratelimit import AsyncLimiter, Limit, StoreUnavailable

from ..processes import find_free_cluster_port, wait_until
from .every_call import CALLS, prepare
from .servers import run_server

ALLOW = Limit("requests", "1000/day", denial_memory=False)
RECORD = {"key": "vk_a", "input_tokens": 3}
DENY = Limit("tokens", "1000/day", unit="tokens", on_outage="deny")

FORBIDDEN = [f'rename-command {name} ""' for name in ("CLIENT", "HELLO", "SCRIPT", "CONFIG")]

NEEDED = ("config", "info", "ping", "eval", "evalsha", "mget", "set", "time")
"""The commands of a check, of a ping and of the test itself."""

PLAIN = {"protocol": 2, "driver_info": None}
"""Options of a client that sends neither HELLO nor CLIENT."""


@pytest.fixture(scope="module", params=["valkey", "redis6"])
def managed_url(request):
    """A server with a password that forbids CLIENT, HELLO, SCRIPT and CONFIG, and so knows RESP2 only."""
    with run_server(request.param, *FORBIDDEN, "requirepass s3cret") as url:
        yield url.replace("unix://", "unix://:s3cret@") + "?db=1"


def test_the_server_forbids_what_redis_py_sends_by_itself(managed_url):
    with redis.Redis.from_url(managed_url) as client, pytest.raises(redis.RedisError):
        client.ping()


@pytest.mark.parametrize("call", CALLS)
def test_everything_works_where_commands_are_forbidden(managed_url, call):
    with redis.Redis.from_url(managed_url, **PLAIN) as client:
        prepare(client)
        CALLS[call](managed_url)


@pytest.mark.parametrize("url_options", ["", "?db=0"])
def test_a_new_connection_sends_nothing_that_is_not_needed(
    real_url, open_client, make_limiter_on, url_options
):
    client = open_client(real_url)
    client.config_resetstat()
    limiter = make_limiter_on(real_url + url_options, ALLOW)
    limiter.check("k")
    limiter.ping()
    sent = {name.partition("|")[0] for name in client.info("commandstats")}
    assert sent <= {f"cmdstat_{name}" for name in NEEDED}


NO_SCRIPT = b"-NOSCRIPT No matching script. Please use EVAL.\r\n"
NO_SCRIPT_VALKEY = b"-NOSCRIPT No matching script.\r\n"


def make_rewrite(text):
    """Return a function that replaces NOSCRIPT in replies with another error."""
    error = f"-{text}\r\n".encode()
    return lambda data: error if data.startswith(b"-NOSCRIPT") else data


async def check_async(url):
    async with AsyncLimiter(url, ALLOW, deadline=20) as limiter:
        return await limiter.check("k")


@pytest.mark.parametrize(
    "text",
    [
        "ERR NOSCRIPT No matching script. Please use EVAL",
        "No matching script. Please use EVAL.",
        "ERR unknown command 'EVALSHA', with args beginning with: 'abc' ",
    ],
)
def test_a_script_that_has_not_run_for_sure_is_sent(proxy, open_client, real_url, make_limiter_on, text):
    proxy.rewrite_reply = make_rewrite(text)
    open_client(real_url).script_flush()
    limiter = make_limiter_on(proxy.url, ALLOW)
    assert limiter.check("k").source == "store"
    assert proxy.script_count == 2
    assert limiter.check("k").limits[0].remaining == 998
    open_client(real_url).script_flush()
    assert asyncio.run(check_async(proxy.url)).limits[0].remaining == 997


@pytest.mark.parametrize("text", ["ERR internal error", "ERR proxy: the reply was NOSCRIPT", "ERR timeout"])
def test_p6_a_script_that_may_have_run_is_not_sent_again(proxy, open_client, real_url, make_limiter_on, text):
    proxy.rewrite_reply = make_rewrite(text)
    open_client(real_url).script_flush()
    assert make_limiter_on(proxy.url, ALLOW).check("k").source == "outage"
    assert asyncio.run(check_async(proxy.url)).source == "outage"
    assert proxy.script_count == 2, "one for each check"


@pytest.fixture(params=["valkey", "redis6"])
def run_kind(request):
    return lambda *lines: run_server(request.param, *lines)


@pytest.fixture
def see_failure(make_limiter_on, caplog):
    """See what checks answer while a store answers with an error, and that they took nothing of it."""

    def see(url, word, recover, *, command="settle", reads=False):
        limiter = make_limiter_on(url, ALLOW, DENY)
        with caplog.at_level(logging.WARNING, "ratelimit"):
            denied = [limiter.check("vk_a") for _ in range(5)]
        assert {(decision.allowed, decision.source) for decision in denied} == {(False, "outage")}
        assert make_limiter_on(url, ALLOW).check("vk_a").source == "outage"
        assert word in caplog.text
        assert limiter.peek("vk_a").source == ("store" if reads else "outage")
        with pytest.raises(StoreUnavailable, match=word) as raised:
            limiter.settle(RECORD) if command == "settle" else limiter.reset("vk_a")
        assert not raised.value.refused
        recover()
        decision = limiter.check("vk_a")
        assert (decision.source, decision.limits[0].remaining) == ("store", 999), "the breaker is closed"

    return see


def open_plain(url):
    return redis.Redis.from_url(url, **PLAIN)


def test_a_store_that_is_busy_with_a_script_decides_nothing(run_kind, see_failure):
    with run_kind("lua-time-limit 1") as url, open_plain(url) as client, open_plain(url) as runner:
        running = threading.Thread(target=run_for_ever, args=(runner,))
        running.start()
        try:
            wait_until(lambda: is_busy(client))
            see_failure(url, "BUSY", lambda: client.script_kill() and wait_until(lambda: not is_busy(client)))
        finally:
            if is_busy(client):
                client.script_kill()
            running.join(10)


def run_for_ever(client):
    with contextlib.suppress(redis.ResponseError):  # the test ends the script
        client.eval("while true do end", 0)


def is_busy(client):
    try:
        client.ping()
    except redis.ResponseError as error:
        return "BUSY" in str(error)
    return False


def test_a_store_without_memory_decides_nothing(run_kind, see_failure):
    with run_kind("maxmemory 1", "maxmemory-policy noeviction") as url, open_plain(url) as client:
        see_failure(url, "OOM", lambda: client.config_set("maxmemory", 0), reads=True)


def test_a_replica_that_serves_reads_only_decides_nothing(run_kind, see_failure):
    with run_kind("replicaof 127.0.0.1 1") as url, open_plain(url) as client:
        see_failure(url, "READONLY", client.slaveof, reads=True)


def test_a_replica_without_its_primary_decides_nothing(run_kind, see_failure):
    with (
        run_kind("replicaof 127.0.0.1 1", "replica-serve-stale-data no") as url,
        open_plain(url) as client,
    ):
        see_failure(url, "MASTERDOWN", client.slaveof)


def test_a_cluster_that_is_down_decides_nothing(run_kind, see_failure):
    with (
        run_kind("cluster-enabled yes", f"port {find_free_cluster_port()}") as url,
        open_plain(url) as client,
    ):

        def recover():
            client.execute_command("CLUSTER", "ADDSLOTS", *range(16_384))
            wait_until(lambda: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO"))

        see_failure(url, "CLUSTERDOWN", recover, command="reset")


def test_a_store_that_is_loading_decides_nothing(proxy, see_failure):
    loading = b"-LOADING Redis is loading the dataset in memory\r\n"
    proxy.rewrite_reply = lambda _: loading
    see_failure(proxy.url, "LOADING", lambda: setattr(proxy, "rewrite_reply", lambda data: data))
