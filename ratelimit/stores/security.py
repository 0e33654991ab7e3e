"""The options of a store's URL for TLS and for a password in a file: taking them out, and adding them.

They are `ca`, `cert`, `key` and `server_name`, for schemes with TLS, and `password_file`, for every store
that is a server. redis-py does not know them; it gets all other options of the query.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote, unquote_plus, urlsplit

from ratelimit.request.check import invalid_field

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ratelimit.errors import InvalidRequest

_TLS_OPTIONS: Final = {"ca": "ssl_ca_certs", "cert": "ssl_certfile", "key": "ssl_keyfile", "server_name": ""}
"""The options that only TLS has, and the options of redis-py that say the same."""

OPTIONS: Final = (*_TLS_OPTIONS, "password_file")

_SERVERS: Final = ("redis", "rediss", "unix")


@dataclass(frozen=True, slots=True)
class Security:
    """How connections to a store are secured.

    Attributes:
        ca: the file with the certificates of the authorities that are trusted, instead of the system's.
        cert: the file with this client's certificate.
        key: the file with its private key; None if `cert` has it, too.
        server_name: the name that the server's certificate must have, instead of the host in the URL.
        password_file: the file with the password, which is read again for each connection.
        user: the user of that password; None for the default user.
        key_password: the password of the private key.
    """

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    server_name: str | None = None
    password_file: str | None = None
    user: str | None = field(default=None, repr=False)
    key_password: str = field(default="", repr=False)

    @property
    def changes_tls(self) -> bool:
        """Whether an option for TLS is set."""
        return bool(self.ca or self.cert or self.server_name)


def take_security(url: str) -> tuple[str, Security]:
    """Return a store's URL without these options, and the options. No file is read.

    With `password_file` the user is taken out of the URL, too: redis-py allows either a user in the URL or a
    provider of credentials.

    Raises:
        InvalidRequest: an option is not allowed with this URL, is empty, or is given twice.
    """
    parts = urlsplit(url)
    options, others = _split_query(parts.query)
    if not options:
        return url, Security()
    _check_options(parts.scheme, options, others)
    head, _, tail = url.partition("?")
    user = None
    if "password_file" in options:
        if parts.password is not None or "password" in others:
            raise _refuse("has a password and a password_file; give one of them")
        user = unquote(parts.username) if parts.username else None
        scheme, _, rest = head.partition("://")
        head = f"{scheme}://{parts.netloc.rpartition('@')[2]}{rest.removeprefix(parts.netloc)}"
    query = "&".join(item for items in others.values() for item in items)
    fragment = tail.removeprefix(parts.query)
    # Text is cut out and joined, because `urlunsplit` turns unix:///path into unix:/path.
    plain = f"{head}?{query}{fragment}" if query else f"{head}{fragment}"
    key_password = (
        unquote_plus(others["ssl_password"][0].partition("=")[2]) if "ssl_password" in others else ""
    )
    return plain, Security(**options, user=user, key_password=key_password)


def _split_query(query: str) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return these options with their values, and all others as they are in the query, by name."""
    options: dict[str, str] = {}
    others: dict[str, list[str]] = {}
    for item in filter(None, query.split("&")):
        name, _, value = item.partition("=")
        name = unquote_plus(name)
        if name not in OPTIONS:
            others.setdefault(name, []).append(item)
        elif name in options:
            raise _refuse(f"has the option {name} twice")
        elif not value:
            raise _refuse(f"the option {name} is empty; leave it out instead")
        else:
            options[name] = unquote_plus(value)
    return options, others


def _check_options(scheme: str, options: Mapping[str, str], others: Mapping[str, object]) -> None:
    base = scheme.partition("+")[0]
    if base not in _SERVERS:
        raise _refuse(
            f"{scheme}:// has no options {', '.join(OPTIONS)}; they are for redis://, rediss:// and unix://"
        )
    for name, same in _TLS_OPTIONS.items():
        if name not in options:
            continue
        if base != "rediss":
            raise _refuse(f"the option {name} is for TLS only; use rediss:// instead of {scheme}://")
        if same in others:
            raise _refuse(f"has the options {name} and {same}; give one of them")
    if options.keys() & _TLS_OPTIONS.keys() and any(name.startswith("ssl_validate_ocsp") for name in others):
        raise _refuse(
            f"the options {', '.join(_TLS_OPTIONS)} do not go with ssl_validate_ocsp; use ssl_ca_certs,"
            " ssl_certfile and ssl_keyfile"
        )
    if "key" in options and "cert" not in options:
        raise _refuse("the option key needs the option cert: the certificate of this key")


def add_security(url: str, options: Mapping[str, str | None], password: str | None = None) -> str:
    """Return a store's URL with these options and a password.

    Args:
        url: the store's URL.
        options: values by the names of the options; None leaves one out.
        password: the password of the user in the URL, or of the default user; never shown.

    Raises:
        InvalidRequest: the URL already has a password, or its scheme has none.
    """
    if password is not None:
        url = _add_password(url, password)
    given = "&".join(
        f"{name}={quote(value, safe='/')}" for name, value in options.items() if value is not None
    )
    if not given:
        return url
    head, hash_sign, fragment = url.partition("#")
    return f"{head}{'&' if '?' in head else '?'}{given}{hash_sign}{fragment}"


def _add_password(url: str, password: str) -> str:
    try:
        parts = urlsplit(url)
    except (
        ValueError
    ):  # Its message may contain what was meant to be a password; StoreURL says what is wrong.
        return url
    if parts.scheme.partition("+")[0] not in _SERVERS:
        raise _refuse(f"{parts.scheme}:// has no password; leave redis_password out")
    if parts.password is not None:
        raise _refuse("has a password in the URL and in redis_password; give one of them")
    user, at_sign, host = parts.netloc.rpartition("@")
    login = f"{user if at_sign else ''}:{quote(password, safe='')}"
    return f"{parts.scheme}://{login}@{host}{url.partition('://')[2].removeprefix(parts.netloc)}"


def _refuse(message: str) -> InvalidRequest:
    return invalid_field("redis", message)
