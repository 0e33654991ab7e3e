"""URLs of stores: parsing, checking, and printing without the password."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import parse_qs, quote, unquote, unquote_plus, urlsplit

from ratelimit.engine.keyspace import ONE_SERVER, SHARDS, Keyspace
from ratelimit.request.check import invalid_field
from ratelimit.stores.security import take_security

if TYPE_CHECKING:
    from collections.abc import Sequence

Kind = Literal["server", "socket", "sentinel", "cluster", "embedded", "memory"]
"""What a URL names: a server by its address or its Unix socket, a service that Sentinels watch, a cluster, or
a store of this process."""

ALLOWED: Final = (
    "redis://host:port/db, rediss://…, unix:///path/to.sock, redis+sentinel://host:port,host:port/service/db,"
    " redis+cluster://host:port,host:port (rediss+… with TLS), embedded://[/path] or memory://"
)
_KINDS: Final[dict[str, Kind]] = {
    "redis": "server",
    "rediss": "server",
    "unix": "socket",
    "redis+sentinel": "sentinel",
    "rediss+sentinel": "sentinel",
    "redis+cluster": "cluster",
    "rediss+cluster": "cluster",
    "embedded": "embedded",
    "memory": "memory",
}
_SENTINEL_OPTIONS: Final = ("sentinel_username", "sentinel_password")
"""Options of a Sentinel URL: the login at the Sentinels, if they want one."""

_DEFAULT_PORTS: Final[dict[Kind, int]] = {"sentinel": 26_379, "cluster": 6379}

Address = tuple[str, int]
"""The host and port of a server."""


@dataclass(frozen=True, slots=True)
class StoreURL:
    """A store's parsed URL. `str()` and `repr()` show it without its password.

    Attributes:
        kind: the kind of store.
        url: the whole URL with its password; only for clients.
        path: the data folder of `embedded://` or the name of `memory://`; empty for other kinds.
        hosts: the Sentinels, or some servers of the cluster; empty for other kinds.
        service: the name of the primary that Sentinels watch; empty for other kinds.
        database: the number of the database, as text; of Sentinel URLs only.
    """

    kind: Kind
    url: str = field(repr=False)
    path: str = ""
    hosts: tuple[Address, ...] = ()
    service: str = ""
    database: str = ""

    @classmethod
    def parse(cls, url: str) -> StoreURL:
        """Parse a store's URL.

        Raises:
            InvalidRequest: the URL names no store, or an option of `security` is wrong; the message says
                what is allowed.
        """
        kind = _KINDS.get(url.partition(":")[0]) if "://" in url else None
        if kind is None:
            raise invalid_field("redis", f"names no store; allowed: {ALLOWED}")
        if kind in {"sentinel", "cluster"}:
            return _parse_hosts(kind, url)
        try:
            parts = urlsplit(url)
            valid_port = parts.port is None or parts.port > 0
        except ValueError:  # Its message may contain the password.
            raise invalid_field("redis", f"not a URL; allowed: {ALLOWED}") from None
        if not valid_port:
            raise invalid_field("redis", f"port 0 cannot be connected to; allowed: {ALLOWED}")
        take_security(url)
        if kind == "server":
            _check_database(parts.path.strip("/"))
        elif kind == "socket":
            if not parts.path:
                raise invalid_field("redis", f"unix:// needs the path of a socket; allowed: {ALLOWED}")
        else:
            return cls(kind, url, unquote(parts.netloc + parts.path))
        return cls(kind, url)

    @property
    def keyspace(self) -> Keyspace:
        """The store keys of this store."""
        return Keyspace(SHARDS) if self.kind == "cluster" else ONE_SERVER

    def make_server_url(self, address: Address) -> str:
        """Return redis-py's URL of one server behind a Sentinel or cluster URL; it has the password."""
        parts = urlsplit(self.url)
        login, at, _ = parts.netloc.rpartition("@")
        query = _drop_options(parts.query, _SENTINEL_OPTIONS)
        return self._make_url(address, f"{login}{at}", f"/{self.database}", query)

    def make_sentinel_url(self, address: Address) -> str:
        """Return redis-py's URL of a Sentinel; it has the password for the Sentinels, if they have one."""
        query = urlsplit(self.url).query
        user, password = (parse_qs(query).get(name, [""])[-1] for name in _SENTINEL_OPTIONS)
        login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""
        of_primary = (*_SENTINEL_OPTIONS, "password_file", "username", "password", "db")
        return self._make_url(address, login, "", _drop_options(query, of_primary))

    def _make_url(self, address: Address, login: str, path: str, query: str) -> str:
        host, port = address
        scheme = urlsplit(self.url).scheme.partition("+")[0]
        netloc = f"{login}{f'[{host}]' if ':' in host else host}:{port}"
        return f"{scheme}://{netloc}{path}{'?' if query else ''}{query}"

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        if "@" not in parts.netloc:
            return parts._replace(query="").geturl() if parts.query else self.url
        login, _, host = parts.netloc.rpartition("@")
        # A login without a colon may be a password that was put in the wrong place: show none of it.
        user, colon, _ = login.partition(":")
        return parts._replace(netloc=f"{user + colon if user and colon else ''}***@{host}", query="").geturl()


def _parse_hosts(kind: Kind, url: str) -> StoreURL:
    """Parse the URL of a cluster, or of a service that Sentinels watch."""
    take_security(url)
    try:
        parts = urlsplit(url)
        hosts = tuple(
            _parse_address(text, _DEFAULT_PORTS[kind]) for text in parts.netloc.rpartition("@")[2].split(",")
        )
    except ValueError:  # Its message may contain the password.
        raise invalid_field("redis", f"not a list of host:port; allowed: {ALLOWED}") from None
    service, _, database = parts.path.strip("/").partition("/")
    if kind == "cluster":
        if parts.path.strip("/"):
            raise invalid_field("redis", f"a cluster has one database, without a number; allowed: {ALLOWED}")
        return StoreURL(kind, url, hosts=hosts)
    if not service:
        raise invalid_field(
            "redis", f"needs the name of the service that the Sentinels watch; allowed: {ALLOWED}"
        )
    _check_database(database)
    return StoreURL(kind, url, hosts=hosts, service=unquote(service), database=database)


def _drop_options(query: str, names: Sequence[str]) -> str:
    """Return a query without some options."""
    items = (item for item in query.split("&") if unquote_plus(item.partition("=")[0]) not in names)
    return "&".join(filter(None, items))


def _parse_address(text: str, default_port: int) -> Address:
    """Parse `host`, `host:port` or `[IPv6]:port`.

    Raises:
        ValueError: it is none of these.
    """
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.port == 0 or parts.path:
        raise ValueError(text)
    return parts.hostname, parts.port or default_port


def _check_database(database: str) -> None:
    if database and not database.isdigit():
        raise invalid_field("redis", f"the database after the last / must be a number; allowed: {ALLOWED}")
