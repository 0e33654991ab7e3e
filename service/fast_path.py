"""The two calls that gateways wait for take a shortcut.

FastAPI's middleware and routing take longer than a check, and add nothing to one. So the
application looks at the path first, and calls the very function that the route would have called.
The routes remain: for /docs, and for whoever mounts the application or adds middleware to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.requests import Request

from service import problems
from service.routes.authorize import authorize
from service.routes.check import check

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send


class Direct:
    """An ASGI application for any method: the response that a function returns, or a problem."""

    def __init__(self, answer: Callable[[Request], Awaitable[Response]]) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            response = await self._answer(Request(scope, receive))
        except Exception as error:  # noqa: BLE001 - whatever it is becomes a problem; a bug is logged
            response = problems.of(error)
        await response(scope, receive, send)


CHECK = Direct(check)
AUTHORIZE = Direct(authorize)


class ShortcutAPI(FastAPI):
    """FastAPI, but for two paths that it need not look at."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request the short way, if there is one."""
        shortcut = self._shortcut(scope)
        if shortcut is None:
            await super().__call__(scope, receive, send)
            return
        scope["app"] = self
        await shortcut(scope, receive, send)

    def _shortcut(self, scope: Scope) -> ASGIApp | None:
        if scope["type"] != "http" or self.user_middleware:  # which is there to see every request
            return None
        path = scope["path"]
        if path == "/v1/check" and scope["method"] == "POST":
            return CHECK
        if path == "/v1/authorize" or path.startswith("/v1/authorize/"):
            return AUTHORIZE
        return None
