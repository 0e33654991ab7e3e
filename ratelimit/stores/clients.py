"""redis-py clients that fail fast and never repeat a call whose outcome they do not know.

Left to itself redis-py retries up to ten times and takes seconds to give up, and a reply that is
merely late is charged again. Here a call is made once, and a silent server is a timeout after the
deadline.
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

from ratelimit.errors import StoreUnavailable
from ratelimit.request.check import invalid_field
from ratelimit.stores import embedded
from ratelimit.stores.async_transport import (
    AsyncClientTransport,
    AsyncTransport,
    SharedTransport,
    abort_on_disconnect,
)
from ratelimit.stores.transport import ClientTransport, PooledTransport, Transport
from ratelimit.stores.url import ALLOWED, StoreURL

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

CONNECTIONS: Final = 64
"""Most connections of one limiter; a call past that waits in line for one to come free."""

_LINE: Final = 20
"""A place in that line is given up after this many deadlines."""

_BACKSTOP: Final = 4
"""On a loop `aiowire.within` keeps the deadline; redis-py's own timeout only stands behind it."""

Client = TypeVar("Client")
AnyTransport = TypeVar("AnyTransport")


@dataclass(frozen=True, slots=True)
class Store(Generic[Client, AnyTransport]):
    """A client, where it came from, and what is left to do once it is closed.

    Attributes:
        address: the URL under which other processes find the same store.
        client: for commands now and then.
        wire: for the scripts.
    """

    url: StoreURL
    address: str = field(repr=False)
    client: Client
    transport: AnyTransport
    release: Callable[[], None]


def connect(url: str, deadline: float) -> Store[redis.Redis, Transport]:
    """Make a blocking client; nothing is sent before it is first used.

    Args:
        url: the store, as in `StoreURL`.
        deadline: seconds to connect, and seconds to wait for a reply.

    Raises:
        InvalidRequest: the URL names no store.
        StoreUnavailable: the embedded server does not start.
    """

    def real(address: str) -> tuple[redis.Redis, Transport]:
        options = _once(Retry(NoBackoff(), 0), deadline, deadline)
        pool = redis.BlockingConnectionPool.from_url(address, **options)
        pool.connection_class(**pool.connection_kwargs)  # not connected: it only reads its options
        return redis.Redis.from_pool(pool), PooledTransport(pool, CONNECTIONS, _LINE * deadline)

    def fake(server: object) -> tuple[redis.Redis, Transport]:
        client = _fakes().FakeRedis(server=server)
        return client, ClientTransport(client)

    return _open(url, deadline, real, fake)


def connect_async(url: str, deadline: float) -> Store[redis.asyncio.Redis, AsyncTransport]:
    """Make a client for asyncio; otherwise as `connect`."""

    def real(address: str) -> tuple[redis.asyncio.Redis, AsyncTransport]:
        options = _once(AsyncRetry(NoBackoff(), 0), deadline, _BACKSTOP * deadline)
        pool = redis.asyncio.BlockingConnectionPool.from_url(address, **options)
        pool.connection_class = abort_on_disconnect(pool.connection_class)
        pool.connection_class(**pool.connection_kwargs)
        return redis.asyncio.Redis.from_pool(pool), SharedTransport(pool, deadline)

    def fake(server: object) -> tuple[redis.asyncio.Redis, AsyncTransport]:
        client = _fakes().FakeAsyncRedis(server=server)
        return client, AsyncClientTransport(client, deadline)

    return _open(url, deadline, real, fake)


def _open(
    url: str,
    deadline: float,
    real: Callable[[str], tuple[Client, AnyTransport]],
    fake: Callable[[object], tuple[Client, AnyTransport]],
) -> Store[Client, AnyTransport]:
    parsed = StoreURL.parse(url)
    check_deadline(deadline)
    if parsed.scheme == "memory":
        return Store(parsed, url, *fake(_fake_server(parsed.path)), _nothing)
    address, release = _address(parsed)
    try:
        return Store(parsed, address, *real(address), release)
    except (ValueError, TypeError):  # whose message may hold the password
        release()
        raise invalid_field(
            "redis", f"has an option that redis-py does not know; allowed: {ALLOWED}"
        ) from None


def check_deadline(deadline: float) -> None:
    """Refuse a deadline that is none.

    Raises:
        InvalidRequest: it is not above 0 and at most a minute.
    """
    if not 0 < deadline <= 60:  # noqa: PLR2004 - a minute; also false for NaN
        raise invalid_field("deadline", "must be above 0 and at most 60 seconds")


def _once(retry: object, deadline: float, timeout: float) -> dict[str, Any]:
    return {
        "max_connections": CONNECTIONS,
        "timeout": _LINE * deadline,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": retry,
        "retry_on_timeout": False,
        "retry_on_error": [],
        "driver_info": None,  # else each connection reads package metadata from disk, and tells the server
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }


def _address(url: StoreURL) -> tuple[str, Callable[[], None]]:
    if url.scheme != "embedded":
        return url.url, _nothing
    socket = embedded.acquire(url.path)
    return f"unix://{socket}", lambda: embedded.release(url.path)


def _nothing() -> None:
    pass


def _fakes() -> ModuleType:
    try:
        import fakeredis  # noqa: PLC0415 - an extra that only memory:// needs
    except ImportError:
        raise StoreUnavailable(
            "memory:// needs the `embedded` extra: pip install 'ratelimit-sidecar[embedded]'"
        ) from None
    return fakeredis


_fake_servers: dict[str, Any] = {}


def _fake_server(name: str) -> Any:  # noqa: ANN401 - fakeredis has no types
    """Limiters of one process that say `memory://name` share it; without a name it is private."""
    if not name:
        return _fakes().FakeServer()
    if name not in _fake_servers:
        _fake_servers[name] = _fakes().FakeServer()
    return _fake_servers[name]
