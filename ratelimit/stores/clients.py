"""redis-py clients that fail fast and never repeat a call whose outcome they do not know.

Left to itself redis-py retries up to ten times and takes seconds to give up, and a reply that is
merely late is charged again. Here a call is made once, and a silent server is a timeout after the
deadline.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import hiredis
import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from ratelimit.errors import StoreUnavailable
from ratelimit.request import fault
from ratelimit.stores import embedded
from ratelimit.stores.url import ALLOWED, StoreURL

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

CONNECTIONS: Final = 64
"""Most connections of one limiter; a call past that waits in line for one to come free."""

_LINE: Final = 20
"""A place in that line is given up after this many deadlines."""

_BACKSTOP: Final = 4
"""On a loop `courier.within` keeps the deadline; redis-py's own timeout only stands behind it."""

Client = TypeVar("Client")


@dataclass(frozen=True, slots=True)
class Store(Generic[Client]):
    """A client, where it came from, and what is left to do once it is closed.

    Attributes:
        address: the URL under which other processes find the same store.
    """

    url: StoreURL
    address: str = field(repr=False)
    client: Client
    release: Callable[[], None]


def connect(url: str, deadline: float) -> Store[redis.Redis]:
    """Make a blocking client; nothing is sent before it is first used.

    Args:
        url: the store, as in `StoreURL`.
        deadline: seconds to connect, and seconds to wait for a reply.

    Raises:
        InvalidRequest: the URL names no store.
        StoreUnavailable: the embedded server does not start.
    """

    def client(address: str) -> redis.Redis:
        options = _once(Retry(NoBackoff(), 0), deadline, deadline)
        pool = redis.BlockingConnectionPool.from_url(address, **options)
        pool.connection_class(**pool.connection_kwargs)  # not connected: it only reads its options
        return redis.Redis.from_pool(pool)

    return _open(url, deadline, client, lambda server: _fakes().FakeRedis(server=server))


def connect_async(url: str, deadline: float) -> Store[redis.asyncio.Redis]:
    """Make a client for asyncio; otherwise as `connect`."""

    def client(address: str) -> redis.asyncio.Redis:
        options = _once(AsyncRetry(NoBackoff(), 0), deadline, _BACKSTOP * deadline)
        pool = redis.asyncio.BlockingConnectionPool.from_url(address, **options)
        pool.connection_class = type("Packed", (_Packed, pool.connection_class), {})
        pool.connection_class(**pool.connection_kwargs)
        return redis.asyncio.Redis.from_pool(pool)

    return _open(url, deadline, client, lambda server: _fakes().FakeAsyncRedis(server=server))


class _Packed:
    """Lets hiredis write calls, as redis-py does for threads: for asyncio it would do so in Python."""

    def pack_command(self, *args: str | float) -> list[bytes]:
        """Return a call in the form that the server reads (RESP)."""
        return [hiredis.pack_command(args)]  # type: ignore[arg-type]  # its stub knows a tuple of one


def _open(
    url: str, deadline: float, client: Callable[[str], Client], fake: Callable[[object], Client]
) -> Store[Client]:
    parsed = StoreURL.parse(url)
    check_deadline(deadline)
    if parsed.scheme == "memory":
        return Store(parsed, url, fake(_fake_server(parsed.path)), _nothing)
    address, release = _address(parsed)
    try:
        return Store(parsed, address, client(address), release)
    except (ValueError, TypeError):  # whose message may hold the password
        release()
        raise fault("redis", f"has an option that redis-py does not know; allowed: {ALLOWED}") from None


def check_deadline(deadline: float) -> None:
    """Refuse a deadline that is none.

    Raises:
        InvalidRequest: it is not above 0 and at most a minute.
    """
    if not 0 < deadline <= 60:  # noqa: PLR2004 - a minute; also false for NaN
        raise fault("deadline", "must be above 0 and at most 60 seconds")


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
