"""Which key a request belongs to, from the headers that a gateway forwards.

The key is the identifier that the gateway states, else the identifier of the secret that it passed
on, else the identifier of the client's address on the plan `anonymous`. The policy's `unknown_keys`
says what holds for a secret that nobody has assigned. Secrets go no further than this module.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Final, NamedTuple

from ratelimit import Fault, InvalidRequest
from ratelimit.policy.spec import ANONYMOUS
from ratelimit.request.privacy import identifier_of
from service.problems import REDUCED_CAPACITY, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import HTTPConnection

    from service.headers import Headers
    from service.settings import Network
    from service.sidecar import Sidecar

_UNKNOWN_ADDRESS: Final = "unknown"
_IPV6_PREFIX: Final = 64


class Identity(NamedTuple):
    """The key of a request.

    Attributes:
        key: the identifier.
        is_anonymous: whether it stands for a client's address, and the plan `anonymous` applies.
    """

    key: str
    is_anonymous: bool = False


def identify(request: HTTPConnection, headers: Headers, sidecar: Sidecar) -> Identity:
    """Return the key of a request.

    Raises:
        Problem: 401 where the policy denies unknown keys, or has no plan `anonymous` for a request that
            needs it; 503 where assignments cannot be read, so that nobody can tell which keys are known.
    """
    if b"x-ratelimit-key" in headers:
        return Identity(headers.get(b"x-ratelimit-key"))
    secret = _find_secret(headers)
    if secret and (identity := identify_secret(secret, sidecar)):
        return identity
    return identify_address(find_client_address(request, headers, sidecar.settings.trusted_proxies), sidecar)


def identify_secret(secret: str, sidecar: Sidecar) -> Identity | None:
    """Return the key of a secret; None if nobody has assigned it and its client's address counts instead.

    Raises:
        InvalidRequest: the secret is empty.
        Problem: 401 where the policy denies unknown keys; 503 where assignments cannot be read, so that
            nobody can tell which keys are known.
    """
    key = key_of_secret(secret, sidecar.pepper)
    unknown_keys = sidecar.limiter.policy.unknown_keys
    if unknown_keys == "default_plan" or sidecar.limiter.is_known(key):
        return Identity(key)
    if unknown_keys == "deny":
        raise _refuse_unknown_key(sidecar)
    return None


def identify_address(address: str, sidecar: Sidecar) -> Identity:
    """Return the key of an address, on the plan `anonymous`. Of an IPv6 address, the /64 network counts.

    Raises:
        Problem: 401 where the policy has no such plan.
    """
    if ANONYMOUS not in sidecar.limiter.policy.plans:
        raise _unauthorized(
            "the request carries no key, and the policy has no plan `anonymous` for such requests"
        )
    return Identity(identifier_of(_find_network(address), sidecar.pepper, "anon_"), is_anonymous=True)


def key_of_secret(secret: str, pepper: str) -> str:
    """Return the key of a secret, as it came in a header: each byte one character (Latin-1).

    Raises:
        InvalidRequest: there is nothing but white space.
    """
    secret = secret.strip()
    if not secret:
        raise InvalidRequest([Fault("secret", "is empty")])
    return identifier_of(secret, pepper)


def _find_secret(headers: Headers) -> str:
    """Return the secret that the client sent; empty without one."""
    scheme, _, secret = headers.get(b"authorization").partition(" ")
    secret = secret.strip() if scheme.lower() == "bearer" else ""
    return secret or headers.get(b"x-api-key").strip()


def _refuse_unknown_key(sidecar: Sidecar) -> Problem:
    if sidecar.limiter.has_read_assignments:
        return _unauthorized("the API key is not known: the policy denies keys that nobody has assigned")
    return Problem(
        503,
        "assignments have not been read yet, so it is not certain whether the API key is known",
        type_uri=REDUCED_CAPACITY,
        headers={"Retry-After": "1"},
    )


def _unauthorized(detail: str) -> Problem:
    return Problem(401, detail, headers={"WWW-Authenticate": "Bearer"})


def find_client_address(request: HTTPConnection, headers: Headers, trusted: Sequence[Network]) -> str:
    """Return the client's address, or `unknown`.

    X-Forwarded-For is read from the right, past every trusted proxy: everything further left may have
    been written by the client.
    """
    hops = [hop.strip() for value in headers.all(b"x-forwarded-for") for hop in value.split(",")]
    # A Unix socket has no address: its other end is on this machine, so it counts as trusted.
    address = request.client.host if request.client else None
    while hops and (address is None or _is_trusted(address, trusted)):
        address = hops.pop()
    return address or _UNKNOWN_ADDRESS


def _is_trusted(address: str, trusted: Sequence[Network]) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in trusted)


def _find_network(address: str) -> str:
    """Return an IPv4 address, or the /64 network of an IPv6 address: a site gets at least that many."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return _UNKNOWN_ADDRESS
    if isinstance(parsed, IPv6Address):
        mapped = parsed.ipv4_mapped
        return str(mapped or ip_network((parsed, _IPV6_PREFIX), strict=False))
    return str(parsed)
