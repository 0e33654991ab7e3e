"""`rediss://`: the library's own transports on a connection that redis-py has encrypted."""

import asyncio
import contextlib
import gc
import select
import ssl

import pytest
import redis
import trustme

from ratelimit import AsyncLimiter, Limit, StoreUnavailable
from ratelimit.stores.secure_connections import make_pool

from .tls import TlsTerminator

LIMIT = Limit("requests", "1000/day", denial_memory=False)


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["tls1.2", "tls1.3"])
def terminator(request, authority, real_url):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = request.param
    authority.issue_cert("127.0.0.1").configure_cert(context)
    terminator = TlsTerminator(real_url.removeprefix("unix://"), context)
    yield terminator
    terminator.close()


@pytest.fixture
def tls_url(terminator, authority, tmp_path):
    certificate = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(certificate)
    return f"rediss://127.0.0.1:{terminator.port}/0?ssl_ca_certs={certificate}"


def test_a_limiter_decides_over_tls_on_one_connection(tls_url, terminator, make_limiter_on):
    limits = make_limiter_on(tls_url, LIMIT)
    decisions = [limits.check("k") for _ in range(150)]
    assert {decision.source for decision in decisions} == {"store"}
    assert decisions[-1].limits[0].remaining == 850
    assert terminator.connections == 1


def test_a_batch_that_takes_many_tls_records_arrives_whole(tls_url, make_limiter_on):
    limits = make_limiter_on(tls_url, *(Limit(f"limit-{n}", "1000/day") for n in range(40)))
    decisions = limits.check_many([f"k{n}" for n in range(256)])
    assert {decision.source for decision in decisions} == {"store"}
    assert all(len(decision.limits) == 40 for decision in decisions)


def test_asyncio_shares_one_tls_connection(tls_url, terminator):
    async def run_checks():
        async with AsyncLimiter(tls_url, LIMIT, deadline=20) as limits:
            decisions = await asyncio.gather(*(limits.check("k") for _ in range(600)))
            assert {decision.source for decision in decisions} == {"store"}
            assert (await limits.peek("k")).limits[0].remaining == 400

    asyncio.run(run_checks())
    assert terminator.connections == 1


def test_closing_over_tls_waits_for_nobody_and_leaves_no_socket_open(tls_url, terminator):
    async def run_checks():
        limits = AsyncLimiter(tls_url, LIMIT, deadline=20)
        assert (await limits.check("k")).source == "store"
        await limits.ping()  # opens a connection of redis-py
        frozen.enter_context(terminator.freeze())  # it will not answer the end of TLS
        await asyncio.wait_for(limits.close(), 10)

    with contextlib.ExitStack() as frozen, contextlib.closing(asyncio.new_event_loop()) as loop:
        loop.run_until_complete(run_checks())
    gc.collect()


def test_a_certificate_that_nobody_vouches_for_is_an_outage(terminator, make_limiter_on):
    limits = make_limiter_on(f"rediss://127.0.0.1:{terminator.port}/0", LIMIT)
    assert limits.check("k").source == "outage"
    with pytest.raises(StoreUnavailable, match="certificate"):
        limits.ping()


def test_session_tickets_are_not_taken_for_a_reply_that_nobody_has_read(tls_url):
    pool = make_pool(redis.BlockingConnectionPool, tls_url, {"protocol": 2, "driver_info": None})
    connection = pool.make_connection()
    try:
        connection.connect()
        select.select([connection._sock], [], [], 1)  # with TLS 1.3 the tickets come now, with 1.2 nothing
        assert not connection.can_read()
        connection.send_command("PING")
        select.select([connection._sock], [], [], 10)
        assert connection.can_read()
    finally:
        connection.disconnect()
