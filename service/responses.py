"""The response to an allowed check, made faster than Starlette makes responses of any kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

from ratelimit.web.encoding import encode_headers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Receive, Scope, Send


class AllowedResponse(Response):
    """A response with status 200, the given headers, and JSON if the body is not empty."""

    def __init__(self, headers: Mapping[str, str], body: bytes = b"") -> None:
        # Sets every attribute that Response.__init__ sets, which takes three times as long to make headers.
        self.status_code = 200
        self.background = None
        self.body = body
        self.raw_headers = encode_headers(headers)
        self.raw_headers.append((b"content-length", b"%d" % len(body)))
        if body:
            self.raw_headers.append((b"content-type", b"application/json"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - the interface
        """Send the response; without what Response does for WebSockets and background tasks."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body})
