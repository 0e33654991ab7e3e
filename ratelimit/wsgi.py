"""Middleware for WSGI applications: Flask, Django, Bottle, Pyramid and others.

```python
app.wsgi_app = RateLimitMiddleware(app.wsgi_app, limiter, key="X-Api-Key", pepper=pepper)
```
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from ratelimit.errors import InvalidRequest, RateLimited
from ratelimit.limiters.limiter import Limiter
from ratelimit.web.options import require_limiter
from ratelimit.web.problems import MEDIA_TYPE, Problem, encode_refusal
from ratelimit.web.refresh import Refresher
from ratelimit.web.rules import MiddlewareRules
from ratelimit.web.wsgi_ending import Chunks, Ending

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Unpack
    from wsgiref.types import StartResponse, WSGIApplication

    from ratelimit.decision.decision import Decision
    from ratelimit.web.options import MiddlewareOptions
    from ratelimit.web.wsgi_ending import Environ


class RateLimitMiddleware:
    """Checks every request of a WSGI application, and puts the limits into the headers of every answer.

    This is `ratelimit.asgi.RateLimitMiddleware` for threads. The application finds the decision in
    `environ["ratelimit.decision"]`, and with `reserve` the `Reservation` in
    `environ["ratelimit.reservation"]`. The reservation ends once: when the server has taken the last chunk,
    or closes the answer before that, or when the application fails.

    Args:
        app: the application.
        limiter: a `Limiter`, which all threads share.
        **options: those of `MiddlewareOptions`: `key`, `pepper`, `cost`, `plan`, `model`, `tenant`,
            `dialects`, `trusted_proxies`, `refresh`, `exclude`, `reserve`, `usage`, `body_tail`. Functions
            get the environ.

    Raises:
        TypeError: there is no such option.
        InvalidRequest: an option is wrong; the message says what is allowed.
    """

    def __init__(
        self, app: WSGIApplication, limiter: Limiter, **options: Unpack[MiddlewareOptions[Environ]]
    ) -> None:
        require_limiter(limiter, Limiter, "this middleware")
        self._app, self._limiter = app, limiter
        self._rules = MiddlewareRules(EnvironReader(), options)
        self._refresher = Refresher(self._rules.refresh)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        if self._rules.excludes(environ.get("PATH_INFO", "")):
            return self._app(environ, start_response)
        self._refresher.refresh_if_due(self._limiter)
        reservation = None
        try:
            key, is_anonymous = self._rules.identify(environ, self._limiter)
            options = self._rules.make_options(environ, is_anonymous=is_anonymous)
            if self._rules.reserve:
                reservation = self._limiter.reserve(key, **options)
                decision = reservation.decision
            else:
                decision = self._limiter.check(key, **options)
        except RateLimited as denied:
            decision = denied.decision
        except (Problem, InvalidRequest) as error:
            return _refuse(error, {}, environ, start_response)
        headers = decision.headers(self._rules.dialects)
        if not decision:
            return _refuse(decision, headers, environ, start_response)
        environ["ratelimit.decision"] = decision
        start = _add(headers, start_response)
        if reservation is None:
            return self._app(environ, start)
        environ["ratelimit.reservation"] = reservation
        ending = Ending(self._rules, reservation, environ)
        try:
            return Chunks(self._app(environ, ending.watch(start)), ending)
        except BaseException as error:
            ending.end(error)
            raise


class EnvironReader:
    """Reads what the rules need from an environ."""

    def list_headers(self, request: Environ, name: str) -> list[str]:
        """Return the header; a server has joined several values with commas."""
        value = request.get(f"HTTP_{name.upper().replace('-', '_')}")
        return [] if value is None else [value]

    def find_peer(self, request: Environ) -> str | None:
        """Return the address that the connection came from."""
        return request.get("REMOTE_ADDR") or None


def _add(headers: dict[str, str], start_response: StartResponse) -> StartResponse:
    """Return a `start_response` that adds headers."""
    if not headers:
        return start_response
    more = list(headers.items())

    def start(
        status: str,
        own: list[tuple[str, str]],
        exc_info: Any = None,  # noqa: ANN401 - of the interface
        /,
    ) -> Callable[[bytes], object]:
        return start_response(status, [*own, *more], exc_info)

    return start


def _refuse(
    refusal: Decision | Problem | InvalidRequest,
    headers: dict[str, str],
    environ: Environ,
    start_response: StartResponse,
) -> Iterable[bytes]:
    """Answer a request that may not pass."""
    answer, more = encode_refusal(refusal)
    headers = {**headers, **more, "Content-Type": MEDIA_TYPE, "Content-Length": str(len(answer.body))}
    start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", list(headers.items()))
    return [] if environ.get("REQUEST_METHOD") == "HEAD" else [answer.body]
