"""Which key a request belongs to, from the headers that a gateway forwards.

The key is the identifier that the gateway states, else the identifier of the secret that it passed
on, else the identifier of the client's address on the plan `anonymous`; see `ratelimit.web.identity`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimit.web import identity as web
from ratelimit.web.identity import read_bearer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import HTTPConnection

    from ratelimit.web.identity import Identity, Network
    from service.headers import Headers
    from service.sidecar import Sidecar


def identify(request: HTTPConnection, headers: Headers, sidecar: Sidecar) -> Identity:
    """Return the key of a request.

    Raises:
        Problem: 401 where the policy denies unknown keys, or has no plan `anonymous` for a request that
            needs it; 503 where assignments cannot be read, so that nobody can tell which keys are known.
    """
    if b"x-ratelimit-key" in headers:
        return headers.get(b"x-ratelimit-key"), False
    secret = read_bearer(headers.get(b"authorization")) or headers.get(b"x-api-key").strip()
    if secret and (identity := identify_secret(secret, sidecar)):
        return identity
    return identify_address(find_client_address(request, headers, sidecar.settings.trusted_proxies), sidecar)


def identify_secret(secret: str, sidecar: Sidecar) -> Identity | None:
    """Return the key of a secret; None if its client's address counts instead. Raises as `identify`."""
    return web.identify_secret(secret, sidecar.pepper, sidecar.limiter)


def identify_address(address: str, sidecar: Sidecar) -> Identity:
    """Return the key of an address, on the plan `anonymous`. Raises as `identify`."""
    return web.identify_address(address, sidecar.pepper, sidecar.limiter)


def find_client_address(request: HTTPConnection, headers: Headers, trusted: Sequence[Network]) -> str:
    """Return the client's address, or `unknown`."""
    peer = request.client.host if request.client else None
    return web.find_client_address(peer, headers.all(b"x-forwarded-for"), trusted)
