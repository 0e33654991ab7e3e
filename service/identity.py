"""Whose request a gateway asks about, from the headers it forwards.

The identifier that the gateway states, else one made from the secret it passed on, else the
anonymous plan on one made from the client's address. Secrets go no further than here.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Final, NamedTuple

from ratelimit.request.privacy import identifier_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import HTTPConnection

    from service.headers import Headers
    from service.settings import Network

ANONYMOUS: Final = "anonymous"
_UNKNOWN: Final = "unknown"
_IPV6_SITE: Final = 64


class Identity(NamedTuple):
    """A key, and whether it only stands for an address."""

    key: str
    anonymous: bool = False


def identify(request: HTTPConnection, headers: Headers, pepper: str, trusted: Sequence[Network]) -> Identity:
    """Say whose request this is."""
    if b"x-ratelimit-key" in headers:
        return Identity(headers.get(b"x-ratelimit-key"))
    scheme, _, secret = headers.get(b"authorization").partition(" ")
    secret = secret.strip() if scheme.lower() == "bearer" else ""
    secret = secret or headers.get(b"x-api-key").strip()
    if secret:
        return Identity(identifier_of(secret, pepper))
    return Identity(identifier_of(client_address(request, headers, trusted), pepper, "anon_"), anonymous=True)


def client_address(request: HTTPConnection, headers: Headers, trusted: Sequence[Network]) -> str:
    """Return the client's address, or its network where a single address means little.

    X-Forwarded-For is read from the right, past every trusted proxy: what stands further left
    was written by whoever sent the request. IPv6 is taken by its /64, the least a site is given.
    """
    hops = [hop.strip() for value in headers.all(b"x-forwarded-for") for hop in value.split(",")]
    # A Unix socket has no address: only what is on this machine can be at its other end.
    address = request.client.host if request.client else None
    while hops and (address is None or _is_trusted(address, trusted)):
        address = hops.pop()
    return _site(address or _UNKNOWN)


def _is_trusted(address: str, trusted: Sequence[Network]) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in trusted)


def _site(address: str) -> str:
    try:
        parsed = ip_address(address)
    except ValueError:
        return _UNKNOWN
    if isinstance(parsed, IPv6Address):
        mapped = parsed.ipv4_mapped
        return str(mapped or ip_network((parsed, _IPV6_SITE), strict=False))
    return str(parsed)
