"""The fast path: `/v1/check` and `/v1/authorize` without FastAPI's middleware and routing.

Gateways wait for these two endpoints. FastAPI's middleware and routing take longer than a check and
add nothing to it. So the application compares the path first, and calls the function that the route would
call. The routes still exist: for /docs, and for programs that mount the application or add middleware.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.requests import Request

from service import problems
from service.drain import Drain, close_after_response
from service.routes.authorize import authorize
from service.routes.check import check

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send


class Endpoint:
    """An ASGI application that calls one function, for any method, and turns its errors into problems.

    Args:
        handle: makes the response to a request.
    """

    def __init__(self, handle: Callable[[Request], Awaitable[Response]]) -> None:
        self._handle = handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            response = await self._handle(Request(scope, receive))
        except Exception as error:  # noqa: BLE001 - every error becomes a problem, and a bug is logged
            response = problems.make_error_response(error)
        await response(scope, receive, send)


CHECK = Endpoint(check)
AUTHORIZE = Endpoint(authorize)


class FastPathAPI(FastAPI):
    """FastAPI with the fast path.

    Attributes:
        drain: whether the sidecar is about to stop.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - those of FastAPI
        super().__init__(**options)
        self.drain = Drain()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, on the fast path if it is for one of its endpoints."""
        if self.drain.is_active and scope["type"] == "http":
            send = close_after_response(send)
        endpoint = self._find_endpoint(scope)
        if endpoint is None:
            await super().__call__(scope, receive, send)
            return
        scope["app"] = self
        await endpoint(scope, receive, send)

    def _find_endpoint(self, scope: Scope) -> ASGIApp | None:
        # Middleware that somebody has added must see every request.
        if scope["type"] != "http" or self.user_middleware:
            return None
        path = scope["path"]
        if path == "/v1/check" and scope["method"] == "POST":
            return CHECK
        if path == "/v1/authorize" or path.startswith("/v1/authorize/"):
            return AUTHORIZE
        return None
