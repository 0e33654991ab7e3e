"""The fast path: `/v1/check` and `/v1/authorize` without FastAPI's middleware and routing.

Gateways wait for these two endpoints. FastAPI's middleware and routing take longer than a check and
add nothing to it. So the application compares the path first, and calls the function that the route would
call. The routes still exist: for /docs, and for programs that mount the application or add middleware.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.requests import Request

from service import problems
from service.drain import Drain, close_after_response
from service.routes.authorize import authorize
from service.routes.check import check

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

    from service.sidecar import Sidecar


Handler = Callable[[Request], Awaitable["Response"]]
"""Makes the response to a request."""


class AuthorizeEndpoint:
    """`/v1/authorize` as an ASGI application, for a route that takes any method."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            response = await authorize(Request(scope, receive))
        except Exception as error:  # noqa: BLE001 - every error becomes a problem, and a bug is logged
            response = problems.make_error_response(error)
        await response(scope, receive, send)


class FastPathAPI(FastAPI):
    """FastAPI with the fast path.

    Attributes:
        drain: whether the sidecar is about to stop.
        sidecar: what the routes need; set when the application starts.
    """

    sidecar: Sidecar

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - those of FastAPI
        super().__init__(**options)
        self.drain = Drain()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, on the fast path if it is for one of its endpoints."""
        if self.drain.is_active and scope["type"] == "http":
            send = close_after_response(send)
        # Middleware that somebody has added must see every request.
        is_simple = scope["type"] == "http" and not self.user_middleware
        handle = _find_handler(scope) if is_simple else None
        if handle is None:
            await super().__call__(scope, receive, send)
            return
        scope["app"] = self
        try:
            response = await handle(Request(scope, receive))
        except Exception as error:  # noqa: BLE001 - every error becomes a problem, and a bug is logged
            response = problems.make_error_response(error)
        await response(scope, receive, send)


def _find_handler(scope: Scope) -> Handler | None:
    """Return what answers a request on the fast path; None if FastAPI must."""
    path = scope["path"]
    if path == "/v1/check":
        return check if scope["method"] == "POST" else None
    return authorize if path == "/v1/authorize" or path.startswith("/v1/authorize/") else None
