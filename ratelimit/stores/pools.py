"""redis-py's pools, which know how to connect to each kind of store.

A transport takes only the connection class and its arguments from a pool. Each new connection of a Sentinel
URL first asks the Sentinels for the primary; replicas are never used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel

if TYPE_CHECKING:
    from ratelimit.stores.url import Address, StoreURL

_SENTINEL_LOGIN: Final = {"sentinel_username": "username", "sentinel_password": "password"}
"""Options of a Sentinel URL: the login at the Sentinels, if they have one of their own."""


def make_pool(url: StoreURL, options: dict[str, Any], server: Address | None) -> redis.ConnectionPool:
    """Return a pool for threads.

    Args:
        url: the store.
        options: options of redis-py's connections.
        server: the server of a cluster; None for the only server, the primary, or any of the cluster.

    Raises:
        ValueError, TypeError: the URL has an option that redis-py does not know.
    """
    if url.kind not in {"sentinel", "cluster"}:
        return redis.ConnectionPool.from_url(url.url, **options)
    pool = redis.ConnectionPool.from_url(url.make_server_url(server or url.hosts[0]), **options)
    if url.kind == "cluster":
        return pool
    is_encrypted = issubclass(pool.connection_class, redis.SSLConnection)
    of_sentinels, of_primary = _split_options(pool.connection_kwargs, options)
    sentinel: Any = redis.sentinel  # redis-py leaves it untyped.
    manager = _Sentinels(url.hosts, sentinel_kwargs={**of_sentinels, "ssl": is_encrypted})
    found: redis.ConnectionPool = sentinel.SentinelConnectionPool(
        url.service, manager, ssl=is_encrypted, **of_primary
    )
    return found


def make_async_pool(
    url: StoreURL, options: dict[str, Any], server: Address | None
) -> redis.asyncio.ConnectionPool:
    """Return a pool for asyncio; otherwise like `make_pool`."""
    if url.kind not in {"sentinel", "cluster"}:
        return redis.asyncio.ConnectionPool.from_url(url.url, **options)
    pool = redis.asyncio.ConnectionPool.from_url(url.make_server_url(server or url.hosts[0]), **options)
    if url.kind == "cluster":
        return pool
    is_encrypted = issubclass(pool.connection_class, redis.asyncio.SSLConnection)
    of_sentinels, of_primary = _split_options(pool.connection_kwargs, options)
    sentinel: Any = redis.asyncio.sentinel  # redis-py leaves it untyped.
    manager = _AsyncSentinels(url.hosts, sentinel_kwargs={**of_sentinels, "ssl": is_encrypted})
    found: redis.asyncio.ConnectionPool = sentinel.SentinelConnectionPool(
        url.service, manager, ssl=is_encrypted, **of_primary
    )
    return found


class _Sentinels(redis.sentinel.Sentinel):
    """Sentinels, with connections that are closed when the primary is known: it is seldom asked for."""

    def discover_master(self, service_name: str) -> Any:
        try:
            return super().discover_master(service_name)
        finally:
            for client in self.sentinels:
                client.connection_pool.disconnect()


class _AsyncSentinels(redis.asyncio.sentinel.Sentinel):
    """The same for asyncio."""

    async def discover_master(self, service_name: str) -> Any:
        try:
            return await super().discover_master(service_name)
        finally:
            for client in self.sentinels:
                await client.connection_pool.disconnect()


def _split_options(kwargs: dict[str, Any], options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments of connections to the Sentinels, and of those to the primary."""
    of_primary = {name: value for name, value in kwargs.items() if name not in {"host", "port"}}
    of_sentinels = {name: value for name, value in of_primary.items() if name.startswith("ssl_")} | options
    del of_sentinels["retry_on_timeout"]  # The client for Sentinels warns of it. It never retries either way.
    for name, argument in _SENTINEL_LOGIN.items():
        if name in of_primary:
            of_sentinels[argument] = of_primary.pop(name)
    return of_sentinels, of_primary
