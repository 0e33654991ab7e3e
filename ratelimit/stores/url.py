"""URLs of stores: parsing, checking, and printing without the password."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, cast
from urllib.parse import SplitResult, unquote, urlsplit

from ratelimit.request.check import invalid_field
from ratelimit.stores.security import take_security

Scheme = Literal["redis", "rediss", "unix", "embedded", "memory"]

ALLOWED: Final = "redis://host:port/db, rediss://…, unix:///path/to.sock, embedded://[/path] or memory://"
_UNSUPPORTED_SCHEMES: Final = ("redis+sentinel", "redis+cluster")
_SCHEMES: Final = ("redis", "rediss", "unix", "embedded", "memory")


@dataclass(frozen=True, slots=True)
class StoreURL:
    """A store's parsed URL. `str()` and `repr()` show it without its password.

    Attributes:
        scheme: the kind of store.
        url: the whole URL with its password; only for clients.
        path: the data folder of `embedded://` or the name of `memory://`; empty for other schemes.
    """

    scheme: Scheme
    url: str = field(repr=False)
    path: str = ""

    @classmethod
    def parse(cls, url: str) -> StoreURL:
        """Parse a store's URL.

        Raises:
            InvalidRequest: the URL names no store, or an option of `security` is wrong; the message says
                what is allowed.
        """
        try:
            parts = urlsplit(url)
            valid_port = parts.port is None or parts.port > 0
        except ValueError:  # Its message may contain the password.
            raise invalid_field("redis", f"not a URL; allowed: {ALLOWED}") from None
        if parts.scheme in _UNSUPPORTED_SCHEMES:
            raise invalid_field("redis", f"{parts.scheme}:// is not supported yet; allowed: {ALLOWED}")
        if parts.scheme not in _SCHEMES:
            raise invalid_field("redis", f"names no store; allowed: {ALLOWED}")
        if not valid_port:
            raise invalid_field("redis", f"port 0 cannot be connected to; allowed: {ALLOWED}")
        take_security(url)
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
        # A login without a colon may be a password that was put in the wrong place: show none of it.
        user, colon, _ = login.partition(":")
        return parts._replace(netloc=f"{user + colon if user and colon else ''}***@{host}", query="").geturl()
