"""Opens stores: connections that fail fast, and never repeat a call whose outcome they do not know.

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
from ratelimit.stores.pools import make_pool
from ratelimit.stores.transport import ClientTransport, PooledTransport, Transport
from ratelimit.stores.url import ALLOWED, StoreURL

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from ratelimit.stores.url import Address

MAX_CONNECTIONS: Final = 64
"""Connections of one limiter to one server. When all are in use, a call waits until one is free."""

_MAX_WAIT_DEADLINES: Final = 20
"""A call waits for a free connection for at most this many deadlines."""

_SOCKET_TIMEOUT_DEADLINES: Final = 4
"""For asyncio `await_within` enforces the deadline. redis-py's own, longer timeout is a second safeguard."""

AnyTransport = TypeVar("AnyTransport")


@dataclass(frozen=True, slots=True)
class Store(Generic[AnyTransport]):
    """An open store.

    Attributes:
        url: the URL that named the store.
        address: the URL under which other processes find the same store; may contain a password.
        open_transport: returns a transport with this deadline in seconds; of a cluster, to one of its
            servers. It connects when it is used first.
        release: what to call at the end; it stops an embedded server that is not in use.
    """

    url: StoreURL
    address: str = field(repr=False)
    open_transport: Callable[[float, Address | None], AnyTransport]
    release: Callable[[], None]


def connect(url: str, deadline: float) -> Store[Transport]:
    """Open a store for threads. It sends nothing to the store before its first command.

    Args:
        url: the store, as in `StoreURL`.
        deadline: seconds to connect, and seconds to wait for a reply; above 0 and at most 60.

    Raises:
        InvalidRequest: the URL names no store, a file that it names cannot be read, or the deadline is out
            of range.
        StoreUnavailable: the embedded server does not start, or the `embedded` extra is missing.
    """

    def open_real(store: StoreURL, limit: float, server: Address | None) -> Transport:
        pool = make_pool(redis.ConnectionPool, store, _make_options(Retry(NoBackoff(), 0), limit), server)
        return PooledTransport(pool, MAX_CONNECTIONS, _MAX_WAIT_DEADLINES * limit)

    def open_fake(server: object, _: float) -> Transport:
        return ClientTransport(_import_fakeredis().FakeRedis(server=server))

    return _open_store(url, deadline, open_real, open_fake)


def connect_async(url: str, deadline: float) -> Store[AsyncTransport]:
    """Open a store for asyncio; otherwise like `connect`."""

    def open_real(store: StoreURL, limit: float, server: Address | None) -> AsyncTransport:
        options = _make_options(AsyncRetry(NoBackoff(), 0), _SOCKET_TIMEOUT_DEADLINES * limit)
        pool = make_pool(redis.asyncio.ConnectionPool, store, options, server)
        pool.connection_class = abort_on_disconnect(pool.connection_class)
        return SharedTransport(pool, limit)

    def open_fake(server: object, limit: float) -> AsyncTransport:
        return AsyncClientTransport(_import_fakeredis().FakeAsyncRedis(server=server), limit)

    return _open_store(url, deadline, open_real, open_fake)


def open_client(url: str, deadline: float) -> tuple[Any, Callable[[], None]]:
    """Return redis-py's client for a store, for commands outside the path of a check, and how to close it.

    Args:
        url: the store, as in `StoreURL`.
        deadline: seconds to connect, and seconds to wait for a reply; above 0 and at most 60.

    Raises:
        InvalidRequest: the URL names no store, or the deadline is out of range.
        StoreUnavailable: the embedded server does not start, or the `embedded` extra is missing.
        redis.RedisError, OSError: no server of the cluster answers.
    """
    parsed = StoreURL.parse(url)
    check_deadline(deadline)
    if parsed.kind == "memory":
        fake = _import_fakeredis().FakeRedis(server=get_fake_server(parsed.path))
        return fake, fake.close
    address, release = _find_address(parsed)
    options = _make_options(Retry(NoBackoff(), 0), deadline)
    client: Any
    if parsed.kind == "cluster":
        client = _connect_cluster(parsed, options)
        return client, client.close
    client = redis.Redis(connection_pool=make_pool(redis.ConnectionPool, address, options, None))

    def close() -> None:
        client.close()
        client.connection_pool.disconnect()
        release()

    return client, close


def _connect_cluster(url: StoreURL, options: dict[str, Any]) -> Any:  # noqa: ANN401 - redis-py's client
    node: Any = redis.cluster.ClusterNode  # redis-py leaves it untyped.
    nodes = [node(*host) for host in url.hosts]
    pool = make_pool(redis.ConnectionPool, url, options, None)
    others = {"host", "port", "db", "retry_on_timeout"}  # It has its own of these.
    kwargs = {name: value for name, value in pool.connection_kwargs.items() if name not in others}
    try:
        # Only with a URL does it use the connection class, which knows the name in the certificates.
        return redis.RedisCluster(
            url=_make_plain_url(*url.hosts[0]),
            startup_nodes=nodes,
            cluster_error_retry=Retry(NoBackoff(), 3),
            connection_class=pool.connection_class,
            **kwargs,
        )
    except redis.exceptions.RedisClusterException as error:  # It is not a RedisError.
        raise redis.ConnectionError(str(error)) from None


def _make_plain_url(host: str, port: int) -> str:
    return f"redis://{f'[{host}]' if ':' in host else host}:{port}"


def _open_store(
    url: str,
    deadline: float,
    open_real: Callable[[StoreURL, float, Address | None], AnyTransport],
    open_fake: Callable[[object, float], AnyTransport],
) -> Store[AnyTransport]:
    parsed = StoreURL.parse(url)
    check_deadline(deadline)
    if parsed.kind == "memory":
        fake = get_fake_server(parsed.path)
        return Store(parsed, url, lambda limit, _: open_fake(fake, limit), _do_nothing)
    address, release = _find_address(parsed)
    try:
        # Check the options now; this does not connect.
        options = _make_options(Retry(NoBackoff(), 0), deadline)
        pool = make_pool(redis.ConnectionPool, address, options, None)
        pool.connection_class(**pool.connection_kwargs)
    except InvalidRequest:
        release()
        raise
    except (ValueError, TypeError, redis.RedisError):  # Their messages may contain the password.
        release()
        raise invalid_field(
            "redis", f"has an option that redis-py does not know; allowed: {ALLOWED}"
        ) from None
    return Store(parsed, address.url, lambda limit, server: open_real(address, limit, server), release)


def check_deadline(deadline: float) -> None:
    """Make sure that a deadline is in range.

    Raises:
        InvalidRequest: it is not above 0 and at most 60 seconds.
    """
    if not 0 < deadline <= 60:  # noqa: PLR2004 - a minute; also false for NaN
        raise invalid_field("deadline", "must be above 0 and at most 60 seconds")


def _make_options(retry: object, timeout: float) -> dict[str, Any]:
    """Return the options of redis-py's connections."""
    return {
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


def _find_address(url: StoreURL) -> tuple[StoreURL, Callable[[], None]]:
    """Return the URL to connect to, and what to call when it is not needed any more."""
    if url.kind != "embedded":
        return url, _do_nothing
    socket = embedded.acquire(url.path)
    return StoreURL.parse(f"unix://{socket}"), lambda: embedded.release(url.path)


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
