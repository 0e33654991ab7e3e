"""Middleware for ASGI applications: Starlette, FastAPI, Litestar, Django and others.

```python
app.add_middleware(RateLimitMiddleware, limiter=limiter, key="X-Api-Key", pepper=pepper)
```
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from ratelimit.errors import InvalidRequest, RateLimited
from ratelimit.limiters.aio import AsyncLimiter
from ratelimit.web.asgi_ending import Ending
from ratelimit.web.encoding import encode_decision, encode_headers
from ratelimit.web.options import require_limiter
from ratelimit.web.problems import MEDIA_TYPE, Problem, encode_refusal
from ratelimit.web.refresh import AsyncRefresher
from ratelimit.web.rules import MiddlewareRules

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import Unpack

    from ratelimit.decision.decision import Decision
    from ratelimit.web.asgi_ending import ASGIApp, Message, Receive, Scope, Send
    from ratelimit.web.encoding import RawHeaders
    from ratelimit.web.options import MiddlewareOptions


DENY_HANDSHAKE: Final = "websocket.http.response"  # an extension: an answer in place of a handshake
POLICY_VIOLATION: Final = 1008  # RFC 6455, section 7.4.1
_STARTS: Final = frozenset({"http.response.start", "websocket.accept"})


class RateLimitMiddleware:
    """Checks every request of an ASGI application, and puts the limits into the headers of every answer.

    A denied request is answered with 429 and a problem (RFC 9457), or with 503 if it is denied because of an
    outage; a denied WebSocket is closed before it opens. The application finds the decision in
    `scope["state"]["rate_limit"]` (`request.state.rate_limit`), and with `reserve` the `AsyncReservation` in
    `scope["state"]["reservation"]`. Chunks of answers pass one by one as they come.

    With `reserve`, the reservation ends once: when the last chunk has been sent, or when the application
    ends without that, by an error or because the client went away. Then the option `usage` says what to
    settle. Without a `usage`, if it returns None, or if it fails, the estimate stays charged and the slots
    are freed. Background tasks of the answer run later, and may still settle.

    Args:
        app: the application.
        limiter: an `AsyncLimiter` of the event loop that serves the requests.
        **options: those of `MiddlewareOptions`: `key`, `pepper`, `cost`, `plan`, `model`, `tenant`,
            `dialects`, `trusted_proxies`, `refresh`, `exclude`, `reserve`, `usage`, `body_tail`. Functions
            get the scope.

    Raises:
        TypeError: there is no such option.
        InvalidRequest: an option is wrong; the message says what is allowed.
    """

    def __init__(
        self, app: ASGIApp, limiter: AsyncLimiter, **options: Unpack[MiddlewareOptions[Scope]]
    ) -> None:
        require_limiter(limiter, AsyncLimiter, "this middleware")
        self._app, self._limiter = app, limiter
        self._rules = MiddlewareRules(ScopeReader(), options)
        self._refresher = AsyncRefresher(self._rules.refresh)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        rules, limiter = self._rules, self._limiter
        if scope["type"] not in {"http", "websocket"} or rules.excludes(
            scope["path"], scope.get("root_path")
        ):
            await self._app(scope, receive, send)
            return
        if (first_read := self._refresher.refresh_if_due(limiter)) is not None:
            await asyncio.wait({first_read})
        reservation = None
        try:
            key, is_anonymous = rules.identify(scope, limiter)
            options = rules.make_options(scope, is_anonymous=is_anonymous)
            if rules.reserve:
                reservation = await limiter.reserve(key, **options)
                decision = reservation.decision
            else:
                decision = await limiter.check(key, **options)
        except RateLimited as denied:
            decision = denied.decision
        except (Problem, InvalidRequest) as error:
            await _refuse(error, {}, scope, receive, send)
            return
        if not decision.allowed:
            await _refuse(decision, decision.headers(rules.dialects), scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["rate_limit"] = decision
        if rules.dialects:
            send = _add(encode_decision(decision, rules.dialects), send)
        if reservation is not None:
            state["reservation"] = reservation
            await Ending(rules, reservation, scope).serve(self._app, receive, send)
            return
        await self._app(scope, receive, send)


class ScopeReader:
    """Reads what the rules need from a scope."""

    def list_headers(self, request: Scope, name: str) -> list[str]:
        """Return every value of a header, by its lower-case name."""
        wanted = name.encode()
        return [value.decode("latin-1") for other, value in request["headers"] if other == wanted]

    def find_peer(self, request: Scope) -> str | None:
        """Return the address that the connection came from."""
        client = request.get("client")
        return client[0] if client else None


def _add(headers: RawHeaders, send: Send) -> Send:
    """Return a `send` that adds headers to the start of the answer."""

    def send_with_headers(message: Message) -> Awaitable[None]:
        if message["type"] in _STARTS:
            message = {**message, "headers": [*message.get("headers", ()), *headers]}
        return send(message)  # not awaited here, to save a coroutine for each chunk

    return send_with_headers


async def _refuse(
    refusal: Decision | Problem | InvalidRequest,
    headers: dict[str, str],
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """Answer a request that may not pass."""
    answer, more_headers = encode_refusal(refusal)
    headers = {**headers, **more_headers, "Content-Type": MEDIA_TYPE, "Content-Length": str(len(answer.body))}
    kind = "http.response"
    if scope["type"] == "websocket":
        await receive()  # the handshake
        if DENY_HANDSHAKE not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": ""})
            return
        kind = DENY_HANDSHAKE
    start: dict[str, Any] = {"status": answer.status, "headers": encode_headers(headers)}
    await send({"type": f"{kind}.start", **start})
    await send({"type": f"{kind}.body", "body": answer.body})
