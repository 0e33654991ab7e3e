"""The URLs that name a store, and what is wrong with the ones that do not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, cast
from urllib.parse import SplitResult, unquote, urlsplit

from ratelimit.request.check import invalid_field

Scheme = Literal["redis", "rediss", "unix", "embedded", "memory"]

ALLOWED = "redis://host:port/db, rediss://…, unix:///path/to.sock, embedded://[/path] or memory://"
_NOT_YET = ("redis+sentinel", "redis+cluster")
_SCHEMES = ("redis", "rediss", "unix", "embedded", "memory")


@dataclass(frozen=True, slots=True)
class StoreURL:
    """A store's URL, taken apart; prints without its password.

    Attributes:
        scheme: what kind of store.
        url: the whole URL, password included; for clients only.
        path: the data folder of `embedded://`, the name of `memory://`; else empty.
    """

    scheme: Scheme
    url: str = field(repr=False)
    path: str = ""

    @classmethod
    def parse(cls, url: str) -> StoreURL:
        """Take a store's URL apart.

        Raises:
            InvalidRequest: it names no store; the message says what does.
        """
        try:
            parts = urlsplit(url)
            valid_port = parts.port is None or parts.port > 0
        except ValueError:  # whose message may hold the password
            raise invalid_field("redis", f"not a URL; allowed: {ALLOWED}") from None
        if parts.scheme in _NOT_YET:
            raise invalid_field("redis", f"{parts.scheme}:// is not supported yet; allowed: {ALLOWED}")
        if parts.scheme not in _SCHEMES:
            raise invalid_field("redis", f"names no store; allowed: {ALLOWED}")
        if not valid_port:
            raise invalid_field("redis", f"port 0 cannot be connected to; allowed: {ALLOWED}")
        scheme = cast("Scheme", parts.scheme)
        if scheme in {"redis", "rediss"}:
            database = parts.path.strip("/")
            if database and not database.isdigit():
                raise invalid_field(
                    "redis", f"the database after the last / must be a number; allowed: {ALLOWED}"
                )
        elif scheme == "unix":
            if not parts.path:
                raise invalid_field("redis", f"unix:// needs the path of a socket; allowed: {ALLOWED}")
        else:
            return cls(scheme, url, unquote(parts.netloc + parts.path))
        return cls(scheme, url)

    def __str__(self) -> str:
        parts: SplitResult = urlsplit(self.url)
        if "@" not in parts.netloc:
            return parts._replace(query="").geturl() if parts.query else self.url
        login, _, host = parts.netloc.rpartition("@")
        user, colon, _ = login.partition(":")  # without a colon it is the password that stands there
        return parts._replace(netloc=f"{user + colon if user and colon else ''}***@{host}", query="").geturl()
