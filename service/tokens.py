"""Tokens: gateways need one, and operators another."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from starlette.requests import Request

from ratelimit.web.problems import Problem
from service.sidecar import Sidecar

if TYPE_CHECKING:
    from pydantic import SecretStr
    from starlette.requests import HTTPConnection

GATEWAY_HEADER = "X-RateLimit-Gateway-Token"


async def require_gateway(request: Request) -> None:
    """Refuse a request without the gateway token. Routes depend on this function."""
    require_gateway_token(request, Sidecar.from_request(request).settings.gateway_token)


def require_gateway_token(request: HTTPConnection, token: SecretStr | None) -> None:
    """Refuse a request without the gateway token, if the settings have one.

    Raises:
        Problem: 401 if the token is missing or wrong.
    """
    if token is not None and not _is_correct(request.headers.get(GATEWAY_HEADER), token):
        raise Problem(401, f"{GATEWAY_HEADER} is missing or wrong")


async def require_operator(request: Request) -> None:
    """Refuse a request without the admin token. Routes depend on this function.

    Raises:
        Problem: 401 if the token is missing or wrong; 404 if the settings have none, as if the
            endpoint did not exist.
    """
    token = Sidecar.from_request(request).settings.admin_token
    if token is None:
        raise Problem(404, "Not Found")
    scheme, _, sent = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not _is_correct(sent.strip(), token):
        raise Problem(
            401, "Authorization must be Bearer with the admin token", headers={"WWW-Authenticate": "Bearer"}
        )


def _is_correct(sent: str | None, token: SecretStr) -> bool:
    """Compare in constant time, so that response times do not reveal a token letter by letter."""
    return sent is not None and hmac.compare_digest(sent.encode(), token.get_secret_value().encode())
