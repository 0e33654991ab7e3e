"""Which key a request belongs to: the identifier of the secret that came with it, or of the client's address.

The policy's `unknown_keys` says what holds for a secret that nobody has assigned. Secrets go no further
than this module.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Final

from ratelimit.errors import Fault, InvalidRequest
from ratelimit.policy.spec import ANONYMOUS
from ratelimit.request.privacy import identifier_of
from ratelimit.web.problems import REDUCED_CAPACITY, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratelimit.limiters.base import BaseLimiter

Network = IPv4Network | IPv6Network

_UNKNOWN_ADDRESS: Final = "unknown"
_IPV6_PREFIX: Final = 64
_WITH_PORT: Final = re.compile(r"\[(?P<ipv6>[^\]]+)\](:[0-9]{1,5})?|(?P<ipv4>[0-9.]+):[0-9]{1,5}")


Identity = tuple[str, bool]
"""The key of a request, and whether it is anonymous: it stands for a client's address, and the plan
`anonymous` applies. It is a plain tuple because each request makes one."""


def identify_secret(secret: str, pepper: str, limiter: BaseLimiter) -> Identity | None:
    """Return the key of a secret; None if nobody has assigned it and its client's address counts instead.

    Raises:
        InvalidRequest: the secret is empty.
        Problem: 401 where the policy denies unknown keys; 503 where assignments have not been read, so that
            nobody can tell which keys are known.
    """
    key = key_of_secret(secret, pepper)
    unknown_keys = limiter.policy.unknown_keys
    if unknown_keys == "default_plan" or limiter.is_known(key):
        return key, False
    if unknown_keys == "deny":
        raise _refuse_unknown_key(limiter)
    return None


def identify_address(address: str, pepper: str, limiter: BaseLimiter) -> Identity:
    """Return the key of an address, on the plan `anonymous`. Of an IPv6 address, the /64 network counts.

    Raises:
        Problem: 401 where the policy has no such plan.
    """
    if ANONYMOUS not in limiter.policy.plans:
        raise refuse_anonymous(
            "the request carries no key, and the policy has no plan `anonymous` for such requests"
        )
    return key_of_address(address, pepper), True


def key_of_secret(secret: str, pepper: str) -> str:
    """Return the key of a secret, as it came in a header: each byte one character (Latin-1).

    Raises:
        InvalidRequest: there is nothing but white space.
    """
    secret = secret.strip()
    if not secret:
        raise InvalidRequest([Fault("secret", "is empty")])
    return identifier_of(secret, pepper)


def key_of_address(address: str, pepper: str) -> str:
    """Return the key of an IPv4 address, or of the /64 network of an IPv6 address."""
    return identifier_of(_find_network(address), pepper, "anon_")


def read_bearer(authorization: str) -> str:
    """Return the secret in an Authorization header of the scheme Bearer; empty for any other scheme."""
    scheme, _, secret = authorization.partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


def find_client_address(peer: str | None, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """Return the client's address, or `unknown`.

    X-Forwarded-For is read from the right, past every trusted proxy: everything further left may have
    been written by the client.

    Args:
        peer: the address that the connection came from; None for a Unix socket.
        forwarded: every X-Forwarded-For header of the request.
        trusted: the networks of proxies whose X-Forwarded-For is believed.
    """
    hops = [hop.strip() for value in forwarded for hop in value.split(",")]
    # A Unix socket has no address: its other end is on this machine, so it counts as trusted.
    address = peer
    while hops and (address is None or _is_trusted(address, trusted)):
        address = hops.pop()
    return address or _UNKNOWN_ADDRESS


def _refuse_unknown_key(limiter: BaseLimiter) -> Problem:
    if limiter.has_read_assignments:
        return refuse_anonymous("the API key is not known: the policy denies keys that nobody has assigned")
    return Problem(
        503,
        "assignments have not been read yet, so it is not certain whether the API key is known",
        type_uri=REDUCED_CAPACITY,
        headers={"Retry-After": "1"},
    )


def refuse_anonymous(detail: str) -> Problem:
    """Make the problem for a request without a key that the policy knows."""
    return Problem(401, detail, headers={"WWW-Authenticate": "Bearer"})


def _is_trusted(address: str, trusted: Sequence[Network]) -> bool:
    parsed = _parse_address(address)
    return parsed is not None and any(parsed in network for network in trusted)


def _find_network(address: str) -> str:
    """Return an IPv4 address, or the /64 network of an IPv6 address: a site gets at least that many."""
    parsed = _parse_address(address)
    if parsed is None:
        return _UNKNOWN_ADDRESS
    if isinstance(parsed, IPv6Address):
        return str(ip_network((parsed, _IPV6_PREFIX), strict=False))
    return str(parsed)


def _parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Return an address; None if the text is none.

    Some proxies write a port behind it. A socket for both versions of IP shows an IPv4 address as an IPv6
    address that contains it (RFC 4291, section 2.5.5.2).
    """
    if found := _WITH_PORT.fullmatch(text):
        text = found["ipv6"] or found["ipv4"]
    try:
        parsed = ip_address(text)
    except ValueError:
        return None
    return (parsed.ipv4_mapped or parsed) if isinstance(parsed, IPv6Address) else parsed
