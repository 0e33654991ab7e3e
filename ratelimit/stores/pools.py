"""redis-py's pools, which know how to connect to each kind of store.

A transport takes only the connection class and its arguments from a pool. Each new connection of a Sentinel
URL first asks the Sentinels for the primary, and makes sure that it is one; replicas are never used.

Source: redis.io, "Guidelines for Redis clients with support for Redis Sentinel".
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import redis
import redis.asyncio
from redis.exceptions import ConnectionError as LostConnection

from ratelimit.stores.failures import CONNECTION_ERRORS, explain_error
from ratelimit.stores.secure_connections import make_pool as make_server_pool

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from ratelimit.stores.url import Address, StoreURL

    Pool = TypeVar("Pool", bound="redis.ConnectionPool | redis.asyncio.ConnectionPool")

_ASK: Final = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME")


def make_pool(
    pool_class: type[Pool], url: StoreURL, options: Mapping[str, Any], server: Address | None
) -> Pool:
    """Return a pool of connections; this does not connect.

    Args:
        pool_class: redis-py's class, for threads or for asyncio.
        url: the store.
        options: options of redis-py's connections.
        server: the server of a cluster; None for the only server, the primary, or any of the cluster.

    Raises:
        InvalidRequest: a file cannot be read.
        ValueError, TypeError: the URL has an option that redis-py does not know.
    """
    if not url.hosts:
        return make_server_pool(pool_class, url.url, options)
    pool = make_server_pool(pool_class, url.make_server_url(server or url.hosts[0]), options)
    if url.kind == "sentinel":
        sentinels = [make_server_pool(pool_class, url.make_sentinel_url(host), options) for host in url.hosts]
        is_async = issubclass(pool_class, redis.asyncio.ConnectionPool)
        connect_to_primary = _connect_async_to_primary if is_async else _connect_to_primary
        made: Any = pool
        made.connection_class = connect_to_primary(pool.connection_class, sentinels, url.service)
    return pool


def _connect_to_primary(connection_class: Any, sentinels: list[Any], service: str) -> Any:  # noqa: ANN401 - redis-py has many classes
    """Return a class of connections to the primary that the Sentinels name."""

    def ask(sentinel: Any) -> Address | None:  # noqa: ANN401 - a pool
        connection = sentinel.connection_class(**sentinel.connection_kwargs)
        try:
            connection.connect()
            connection.send_command(*_ASK, service)
            return _read_address(connection.read_response())
        finally:
            connection.disconnect()

    def find_primary() -> Address:
        search = _search(sentinels, service)
        sentinel = next(search)
        while True:
            answer: Address | Exception | None
            try:
                answer = ask(sentinel)
            except CONNECTION_ERRORS as error:
                answer = error
            try:
                sentinel = search.send(answer)
            except StopIteration as end:
                return cast("Address", end.value)

    class PrimaryConnection(connection_class):  # type: ignore[misc]  # mypy does not know the base class
        def connect(self) -> None:
            self.host, self.port = find_primary()
            super().connect()
            self.send_command("ROLE")
            try:
                _refuse_replica(self.read_response(), self.host, self.port)
            except BaseException:
                self.disconnect()
                raise

    return PrimaryConnection


def _connect_async_to_primary(connection_class: Any, sentinels: list[Any], service: str) -> Any:  # noqa: ANN401 - redis-py has many classes
    """Return the same for asyncio."""

    async def ask(sentinel: Any) -> Address | None:  # noqa: ANN401 - a pool
        connection = sentinel.connection_class(**sentinel.connection_kwargs)
        try:
            await connection.connect()
            await connection.send_command(*_ASK, service)
            return _read_address(await connection.read_response())
        finally:
            await connection.disconnect(nowait=True)

    async def find_primary() -> Address:
        search = _search(sentinels, service)
        sentinel = next(search)
        while True:
            answer: Address | Exception | None
            try:
                answer = await ask(sentinel)
            except CONNECTION_ERRORS as error:
                answer = error
            try:
                sentinel = search.send(answer)
            except StopIteration as end:
                return cast("Address", end.value)

    class PrimaryConnection(connection_class):  # type: ignore[misc]  # mypy does not know the base class
        async def connect(self) -> None:
            self.host, self.port = await find_primary()
            await super().connect()
            try:
                await self.send_command("ROLE")
                _refuse_replica(await self.read_response(), self.host, self.port)
            except (asyncio.CancelledError, Exception):
                await self.disconnect()
                raise

    return PrimaryConnection


def _read_address(reply: Any) -> Address | None:  # noqa: ANN401 - replies have many types
    if not reply:
        return None
    host, port = reply
    return (host.decode() if isinstance(host, bytes) else host), int(port)


def _refuse_replica(role: Any, host: str, port: int) -> None:  # noqa: ANN401 - replies have many types
    """Raise an error if a server is no primary: it was replaced a moment ago, or is about to become one."""
    if role[0] not in {b"master", "master"}:
        raise LostConnection(f"{host}:{port} is a replica")


def _search(sentinels: list[Any], service: str) -> Generator[Any, Address | Exception | None, Address]:
    """Yield the Sentinel to ask next, and take its answer: an address, none, or an error. Return the primary.

    Raises:
        redis.ConnectionError: no Sentinel names a primary; the message says what each of them answered.
    """
    reasons = []
    for sentinel in list(sentinels):
        answer = yield sentinel
        if isinstance(answer, Exception):
            reasons.append(_explain(sentinel, explain_error(answer)))
        elif answer is None:
            reasons.append(_explain(sentinel, "does not watch it"))
        else:
            _put_first(sentinels, sentinel)
            return answer
    raise LostConnection(f"no Sentinel names a primary of the service {service!r}; {'; '.join(reasons)}")


def _put_first(sentinels: list[Any], sentinel: Any) -> None:  # noqa: ANN401 - a pool
    """Ask the Sentinel first that has answered."""
    if sentinels[0] is not sentinel:
        with contextlib.suppress(ValueError):  # Another thread may have moved it.
            sentinels.remove(sentinel)
            sentinels.insert(0, sentinel)


def _explain(sentinel: Any, reason: str) -> str:  # noqa: ANN401 - a pool
    kwargs = sentinel.connection_kwargs
    return f"{kwargs['host']}:{kwargs['port']}: {reason}"
