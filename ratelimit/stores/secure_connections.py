"""Connections of redis-py with the options of `security`: TLS, and a password that is read from a file."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from redis.asyncio.connection import RedisSSLContext
from redis.asyncio.connection import SSLConnection as AsyncSSLConnection
from redis.connection import SSLConnection
from redis.credentials import CredentialProvider
from redis.exceptions import ConnectionError as LostConnection

from ratelimit.request.check import invalid_field
from ratelimit.stores.security import Security, take_security

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    import redis

Pool = TypeVar("Pool", bound="redis.ConnectionPool | redis.asyncio.ConnectionPool")

_MAX_PASSWORD: Final = 65_536
"""Bytes of the largest password file: a wrong path may name something endless."""


def make_pool(pool_class: type[Pool], url: str, options: Mapping[str, Any]) -> Pool:
    """Make a pool of connections to one server. This reads the files once, and does not connect.

    Args:
        pool_class: redis-py's class, for threads or for asyncio.
        url: `redis://`, `rediss://` or `unix://`, with the options of `security` in its query.
        options: keyword arguments of the pool and of its connections; the URL's query goes before them.

    Raises:
        InvalidRequest: an option is not allowed, or a file cannot be read.
        ValueError: redis-py does not know an option of the query. The message may contain the password.
    """
    plain, security = take_security(url)
    pool: Any = pool_class.from_url(plain, **options, **make_security_options(security))
    pool.connection_class = secure_class(pool.connection_class, security)
    made: Pool = pool
    return made


def make_security_options(security: Security) -> dict[str, Any]:
    """Return the keyword arguments of redis-py's connections, for threads and for asyncio.

    The connection class must be `secure_class` of redis-py's.

    Raises:
        InvalidRequest: a file cannot be read; the message names the file and the option.
    """
    if (fault := find_fault(security)) is not None:
        raise invalid_field("redis", fault)
    options: dict[str, Any] = {
        "ssl_ca_certs": security.ca,
        "ssl_certfile": security.cert,
        "ssl_keyfile": security.key,
    }
    if security.password_file is not None:
        options["credential_provider"] = PasswordFile(security.password_file, security.user)
    return {name: value for name, value in options.items() if value is not None}


def secure_class(connection_class: Any, security: Security) -> Any:  # noqa: ANN401 - redis-py has many classes
    """Return the class of connections that check the server's name, and read the files each time.

    Args:
        connection_class: a class of redis-py, for threads or for asyncio.
        security: the options. Without TLS the class is returned unchanged.
    """
    if issubclass(connection_class, SSLConnection):
        return _secure_class(connection_class, security)
    if issubclass(connection_class, AsyncSSLConnection) and security.changes_tls:
        return _secure_async_class(connection_class, security)
    return connection_class


def _secure_class(connection_class: Any, security: Security) -> Any:  # noqa: ANN401 - redis-py has many classes
    class SecureConnection(connection_class):  # type: ignore[misc]  # mypy does not know the base class
        def _connect(self) -> Any:  # noqa: ANN401 - as in redis-py
            _raise_fault(security)
            return super()._connect()

        def _wrap_socket_with_ssl(self, sock: socket.socket) -> ssl.SSLSocket:
            if not security.changes_tls:
                plain: ssl.SSLSocket = super()._wrap_socket_with_ssl(sock)
                return plain
            wanted = RedisSSLContext(
                keyfile=self.keyfile,
                certfile=self.certfile,
                cert_reqs=self.cert_reqs,
                include_verify_flags=self.ssl_include_verify_flags,
                exclude_verify_flags=self.ssl_exclude_verify_flags,
                ca_certs=self.ca_certs,
                ca_path=self.ca_path,
                ca_data=self.ca_data,
                check_hostname=self.check_hostname,
                min_version=self.ssl_min_version,
                ciphers=self.ssl_ciphers,
                password=self.certificate_password,
            )
            return _make_context(wanted).wrap_socket(sock, server_hostname=security.server_name or self.host)

        def can_read(self, timeout: float = 0) -> bool:
            if not super().can_read(timeout):
                return False
            # Session tickets of TLS 1.3 come after the handshake. redis-py takes them for a reply that nobody
            # has read, and does not use the connection. Reading takes them off the socket.
            self._sock.settimeout(0)
            try:
                self._sock.recv(1)
            except ssl.SSLWantReadError:
                return bool(self._parser._reader.has_data())  # noqa: SLF001 - redis-py has no public name for it
            finally:
                self._sock.settimeout(self.socket_timeout)
            return True

    return SecureConnection


def _secure_async_class(connection_class: Any, security: Security) -> Any:  # noqa: ANN401 - the same
    class SecureConnection(connection_class):  # type: ignore[misc]  # mypy does not know the base class
        async def _connect(self) -> None:
            await asyncio.to_thread(_raise_fault, security)
            await super()._connect()

        def _connection_arguments(self) -> dict[str, Any]:
            # redis-py would keep the context of a connection's first time; the files may be renewed ones.
            self.ssl_context.context = _make_context(self.ssl_context)
            arguments: dict[str, Any] = super()._connection_arguments()
            if security.server_name is not None:
                arguments["server_hostname"] = security.server_name
            return arguments

    return SecureConnection


def _make_context(wanted: Any) -> ssl.SSLContext:  # noqa: ANN401 - redis-py's class declares no attributes
    """Make the context that redis-py's options ask for.

    redis-py's own trusts the system's authorities in addition to those that it is given.
    """
    context = ssl.create_default_context(cafile=wanted.ca_certs, capath=wanted.ca_path, cadata=wanted.ca_data)
    context.check_hostname = wanted.check_hostname
    context.verify_mode = wanted.cert_reqs
    for flag in wanted.include_verify_flags or ():
        context.verify_flags |= flag
    for flag in wanted.exclude_verify_flags or ():
        context.verify_flags &= ~flag
    if wanted.certfile:
        context.load_cert_chain(wanted.certfile, wanted.keyfile, wanted.password)
    if wanted.min_version is not None:
        context.minimum_version = wanted.min_version
    if wanted.ciphers:
        context.set_ciphers(wanted.ciphers)
    return context


def _raise_fault(security: Security) -> None:
    if (fault := find_fault(security)) is not None:
        raise LostConnection(fault)


class PasswordFile(CredentialProvider):
    """Reads the password from a file whenever a connection is opened, so that it can be changed.

    Args:
        path: the file: the password, with or without a line break at its end.
        user: the user; None for the default user.
    """

    def __init__(self, path: str, user: str | None) -> None:
        self._path, self._user = path, user

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return the user, if there is one, and the password.

        Raises:
            redis.ConnectionError: the file cannot be read.
        """
        try:
            password = _read_password(self._path)
        except ValueError as error:
            raise LostConnection(str(error)) from None
        return (password,) if self._user is None else (self._user, password)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """See `get_credentials`."""
        return await asyncio.to_thread(self.get_credentials)


def find_fault(security: Security) -> str | None:
    """Return what is wrong with the files, with the option and the file; None if nothing is."""
    try:
        if security.password_file is not None:
            _read_password(security.password_file)
        for option in ("ca", "cert", "key"):
            if (path := getattr(security, option)) is not None:
                _read_file(option, path)
    except ValueError as error:
        return str(error)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if security.ca is not None:
            context.load_verify_locations(security.ca)
    except (ssl.SSLError, OSError):
        return f"ca: {security.ca} has no certificate in PEM format"
    try:
        if security.cert is not None:
            # Without a password here OpenSSL would ask for one at the terminal.
            context.load_cert_chain(security.cert, security.key, lambda: security.key_password)
    except (ssl.SSLError, OSError):
        key = f" and key: {security.key}" if security.key else ""
        return f"cert: {security.cert}{key} must be a certificate and its private key, in PEM format"
    return None


def _read_password(path: str) -> str:
    content = _read_file("password_file", path)
    if len(content) > _MAX_PASSWORD:
        raise ValueError(f"password_file: {path} is longer than {_MAX_PASSWORD} bytes")
    try:
        password = content.decode().rstrip("\r\n")
    except UnicodeDecodeError:  # Its message contains the password.
        raise ValueError(f"password_file: {path} must be text in UTF-8") from None
    if not password:
        raise ValueError(f"password_file: {path} is empty")
    return password


def _read_file(option: str, path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(_MAX_PASSWORD + 1)
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "not a path"
        raise ValueError(f"{option}: cannot read {path}: {reason}") from None
