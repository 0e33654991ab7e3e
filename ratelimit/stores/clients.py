"""redis-py clients that fail fast and never repeat a call whose outcome they do not know.

By default redis-py retries up to ten times and takes seconds to fail, and if a reply is only late, the
retry charges the check again. Here a call is made once, and a server that does not answer is a timeout
after the deadline.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from ratelimit.errors import InvalidRequest, StoreUnavailable
from ratelimit.request.check import invalid_field
from ratelimit.stores import embedded
from ratelimit.stores.async_transport import (
    AsyncClientTransport,
    AsyncTransport,
    SharedTransport,
    abort_on_disconnect,
)
from ratelimit.stores.secure_connections import make_pool
from ratelimit.stores.transport import ClientTransport, PooledTransport, Transport
from ratelimit.stores.url import ALLOWED, StoreURL

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

MAX_CONNECTIONS: Final = 64
"""Connections of one limiter. When all are in use, a call waits until one is free."""

_MAX_WAIT_DEADLINES: Final = 20
"""A call waits for a free connection for at most this many deadlines."""

_SOCKET_TIMEOUT_DEADLINES: Final = 4
"""For asyncio `await_within` enforces the deadline. redis-py's own, longer timeout is a second safeguard."""

Client = TypeVar("Client")
AnyTransport = TypeVar("AnyTransport")


@dataclass(frozen=True, slots=True)
class Store(Generic[Client, AnyTransport]):
    """An open store.

    Attributes:
        url: the URL that named the store.
        address: the URL under which other processes find the same store; may contain a password.
        client: for commands outside the path of a check.
        transport: for the scripts.
        release: what to call after the client is closed; it stops an embedded server that is not in use.
    """

    url: StoreURL
    address: str = field(repr=False)
    client: Client
    transport: AnyTransport
    release: Callable[[], None]


def connect(url: str, deadline: float) -> Store[redis.Redis, Transport]:
    """Make a blocking client. It sends nothing to the store before its first command.

    Args:
        url: the store, as in `StoreURL`.
        deadline: seconds to connect, and seconds to wait for a reply; above 0 and at most 60.

    Raises:
        InvalidRequest: the URL names no store, a file that it names cannot be read, or the deadline is out
            of range.
        StoreUnavailable: the embedded server does not start, or the `embedded` extra is missing.
    """

    def make_real(address: str) -> tuple[redis.Redis, Transport]:
        options = _make_pool_options(Retry(NoBackoff(), 0), deadline, deadline)
        pool = make_pool(redis.BlockingConnectionPool, address, options)
        pool.connection_class(**pool.connection_kwargs)  # Check the options now; this does not connect.
        transport = PooledTransport(pool, MAX_CONNECTIONS, _MAX_WAIT_DEADLINES * deadline)
        return redis.Redis.from_pool(pool), transport

    def make_fake(server: object) -> tuple[redis.Redis, Transport]:
        client = _import_fakeredis().FakeRedis(server=server)
        return client, ClientTransport(client)

    return _open_store(url, deadline, make_real, make_fake)


def connect_async(url: str, deadline: float) -> Store[redis.asyncio.Redis, AsyncTransport]:
    """Make a client for asyncio; otherwise like `connect`."""

    def make_real(address: str) -> tuple[redis.asyncio.Redis, AsyncTransport]:
        timeout = _SOCKET_TIMEOUT_DEADLINES * deadline
        options = _make_pool_options(AsyncRetry(NoBackoff(), 0), deadline, timeout)
        pool = make_pool(redis.asyncio.BlockingConnectionPool, address, options)
        pool.connection_class = abort_on_disconnect(pool.connection_class)
        pool.connection_class(**pool.connection_kwargs)  # Check the options now; this does not connect.
        return redis.asyncio.Redis.from_pool(pool), SharedTransport(pool, deadline)

    def make_fake(server: object) -> tuple[redis.asyncio.Redis, AsyncTransport]:
        client = _import_fakeredis().FakeAsyncRedis(server=server)
        return client, AsyncClientTransport(client, deadline)

    return _open_store(url, deadline, make_real, make_fake)


def _open_store(
    url: str,
    deadline: float,
    make_real: Callable[[str], tuple[Client, AnyTransport]],
    make_fake: Callable[[object], tuple[Client, AnyTransport]],
) -> Store[Client, AnyTransport]:
    parsed = StoreURL.parse(url)
    check_deadline(deadline)
    if parsed.scheme == "memory":
        return Store(parsed, url, *make_fake(get_fake_server(parsed.path)), _do_nothing)
    address, release = _find_address(parsed)
    try:
        return Store(parsed, address, *make_real(address), release)
    except InvalidRequest:
        release()
        raise
    except (ValueError, TypeError, redis.RedisError):  # Their messages may contain the password.
        release()
        raise invalid_field(
            "redis", f"has an option that redis-py does not know; allowed: {ALLOWED}"
        ) from None


def check_deadline(deadline: float) -> None:
    """Make sure that a deadline is in range.

    Raises:
        InvalidRequest: it is not above 0 and at most 60 seconds.
    """
    if not 0 < deadline <= 60:  # noqa: PLR2004 - a minute; also false for NaN
        raise invalid_field("deadline", "must be above 0 and at most 60 seconds")


def _make_pool_options(retry: object, deadline: float, timeout: float) -> dict[str, Any]:
    return {
        "max_connections": MAX_CONNECTIONS,
        "timeout": _MAX_WAIT_DEADLINES * deadline,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": retry,
        "retry_on_timeout": False,
        "retry_on_error": [],
        # redis-py's default, RESP3, needs HELLO, which not every store and proxy knows.
        "protocol": 2,
        # Without this each connection reads package metadata from disk and sends it to the server.
        "driver_info": None,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }


def _find_address(url: StoreURL) -> tuple[str, Callable[[], None]]:
    """Return the URL to connect to, and what to call when it is not needed any more."""
    if url.scheme != "embedded":
        return url.url, _do_nothing
    socket = embedded.acquire(url.path)
    return f"unix://{socket}", lambda: embedded.release(url.path)


def _do_nothing() -> None:
    pass


def _import_fakeredis() -> ModuleType:
    try:
        import fakeredis  # noqa: PLC0415 - an extra that only memory:// needs
    except ImportError:
        raise StoreUnavailable(
            "memory:// needs the `embedded` extra: pip install 'ratelimit-sidecar[embedded]'"
        ) from None
    return fakeredis


_fake_servers: dict[str, Any] = {}


def get_fake_server(name: str) -> Any:  # noqa: ANN401 - fakeredis has no types
    """Return the server of `memory://name`, which limiters of a process share; a new one without a name."""
    if not name:
        return _import_fakeredis().FakeServer()
    if name not in _fake_servers:
        _fake_servers[name] = _import_fakeredis().FakeServer()
    return _fake_servers[name]
