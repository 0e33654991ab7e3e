"""Who may call: gateways with one token, operators with another."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from starlette.requests import Request

from service.problems import Problem
from service.sidecar import Sidecar

if TYPE_CHECKING:
    from pydantic import SecretStr
    from starlette.requests import HTTPConnection

GATEWAY_HEADER = "X-RateLimit-Gateway-Token"


def require_gateway(request: HTTPConnection, token: SecretStr | None) -> None:
    """Let only gateways in, if the settings hold a token for them.

    Raises:
        Problem: 401 without the right token.
    """
    if token is not None and not _same(request.headers.get(GATEWAY_HEADER), token):
        raise Problem(401, f"{GATEWAY_HEADER} is missing or wrong")


async def gateways_only(request: Request) -> None:
    """Let only gateways in: for routes to depend on."""
    require_gateway(request, Sidecar.of(request).settings.gateway_token)


async def operators_only(request: Request) -> None:
    """Let only operators in: for routes to depend on."""
    require_operator(request, Sidecar.of(request).settings.admin_token)


def require_operator(request: HTTPConnection, token: SecretStr | None) -> None:
    """Let only operators in.

    Raises:
        Problem: 401 without the right token; 404 where the settings hold none, as if there
            were no such page.
    """
    if token is None:
        raise Problem(404, "Not Found")
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not _same(given.strip(), token):
        raise Problem(
            401, "Authorization must be Bearer with the admin token", headers={"WWW-Authenticate": "Bearer"}
        )


def _same(given: str | None, token: SecretStr) -> bool:
    """Compare in constant time, so that nobody can find a token letter by letter."""
    return given is not None and hmac.compare_digest(given.encode(), token.get_secret_value().encode())
