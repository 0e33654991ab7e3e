"""`rediss://`: the library's own transports on a connection that redis-py has encrypted."""

import asyncio
import contextlib
import gc
import ssl
import threading

import pytest
import trustme

from ratelimit import AsyncLimiter, Limit, StoreUnavailable

LIMIT = Limit("requests", "1000/day", denial_memory=False)


class TlsTerminator:
    """Accepts TLS connections and forwards what they carry to a server's Unix socket, without TLS."""

    def __init__(self, server_path, context):
        self._server_path, self._context = server_path, context
        self.connections = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._start_server(), self._loop).result(10)

    async def _start_server(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader, writer):
        self.connections += 1
        writers = [writer]
        try:
            # Not with `start_server(ssl=…)`: that would not report a handshake that fails.
            with contextlib.suppress(OSError):
                await writer.start_tls(self._context)
                server_reader, server_writer = await asyncio.open_unix_connection(self._server_path)
                writers.append(server_writer)
                await asyncio.gather(
                    self._forward(reader, server_writer), self._forward(server_reader, writer)
                )
        finally:
            for opened in writers:
                opened.transport.abort()

    async def _forward(self, reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
        writer.close()

    async def _stop(self):
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _ in range(4):  # transports close in a later iteration of the event loop
            await asyncio.sleep(0)

    @contextlib.contextmanager
    def freeze(self):
        is_released = threading.Event()
        self._loop.call_soon_threadsafe(is_released.wait, 60)
        try:
            yield
        finally:
            is_released.set()

    def close(self):
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


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
