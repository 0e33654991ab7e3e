"""Middleware for WSGI applications: Flask, Django, Bottle, Pyramid and others.

```python
app.wsgi_app = RateLimitMiddleware(app.wsgi_app, limiter, key="X-Api-Key", pepper=pepper)
```
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from ratelimit.errors import InvalidRequest, RateLimited, RateLimitError
from ratelimit.limiters.limiter import Limiter
from ratelimit.web.answer import Answer, BodyTail, log_unsettled, read_usage
from ratelimit.web.options import require_limiter
from ratelimit.web.problems import MEDIA_TYPE, Problem, encode_refusal
from ratelimit.web.rules import MiddlewareRules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Unpack
    from wsgiref.types import StartResponse, WSGIApplication

    from ratelimit.decision.decision import Decision
    from ratelimit.limiters.reservation import Reservation
    from ratelimit.web.options import MiddlewareOptions

    Environ = dict[str, Any]


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
            `dialects`, `trusted_proxies`, `exclude`, `reserve`, `usage`, `body_tail`. Functions get the
            environ.

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

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        if self._rules.excludes(environ.get("PATH_INFO", "")):
            return self._app(environ, start_response)
        reservation = None
        try:
            identity = self._rules.identify(environ, self._limiter)
            options = self._rules.make_options(environ, identity)
            if self._rules.reserve:
                reservation = self._limiter.reserve(identity.key, **options)
                decision = reservation.decision
            else:
                decision = self._limiter.check(identity.key, **options)
        except RateLimited as denied:
            decision = denied.decision
        except (Problem, InvalidRequest) as error:
            return _refuse(error, {}, start_response)
        headers = decision.headers(self._rules.dialects)
        if not decision:
            return _refuse(decision, headers, start_response)
        environ["ratelimit.decision"] = decision
        start = _add(headers, start_response)
        if reservation is None:
            return self._app(environ, start)
        environ["ratelimit.reservation"] = reservation
        ending = _Ending(self._rules, reservation, environ)
        try:
            return _Chunks(self._app(environ, ending.watch(start)), ending)
        except BaseException:
            ending.end()
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


class _Ending:
    """Ends the reservation of a request, once."""

    def __init__(self, rules: MiddlewareRules[Environ], reservation: Reservation, environ: Environ) -> None:
        self._rules, self._reservation = rules, reservation
        self._answer = Answer(environ)
        self.tail = BodyTail(rules.body_tail)
        self._ended = False

    def watch(self, start_response: StartResponse) -> StartResponse:
        """Return a `start_response` that notes the status and the headers."""

        def start(
            status: str,
            headers: list[tuple[str, str]],
            exc_info: Any = None,  # noqa: ANN401 - of the interface
            /,
        ) -> Callable[[bytes], object]:
            self._answer.status = int(status[:3])
            self._answer.headers = {name.lower(): value for name, value in headers}
            return start_response(status, headers, exc_info)

        return start

    def end(self, *, complete: bool = False) -> None:
        """Settle what was used and free the slots, unless that was done before."""
        if self._ended:
            return
        self._ended = True
        self._answer.complete, self._answer.body = complete, self.tail.read()
        usage = read_usage(self._rules.usage, self._answer)
        try:
            if usage is not None:
                self._reservation.settle(usage)
        except RateLimitError as error:
            log_unsettled(error)
        self._reservation.__exit__()  # frees the slots, unless the reservation has been settled


class _Chunks:
    """The chunks of an answer, as they come; the reservation ends with them."""

    def __init__(self, chunks: Iterable[bytes], ending: _Ending) -> None:
        self._chunks, self._ending = chunks, ending

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self._ending.tail.add(chunk)
            yield chunk
        self._ending.end(complete=True)

    def close(self) -> None:
        try:
            close = getattr(self._chunks, "close", None)
            if close is not None:
                close()
        finally:
            self._ending.end()


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
    refusal: Decision | Problem | InvalidRequest, headers: dict[str, str], start_response: StartResponse
) -> Iterable[bytes]:
    """Answer a request that may not pass."""
    answer, more = encode_refusal(refusal)
    headers = {**headers, **more, "Content-Type": MEDIA_TYPE, "Content-Length": str(len(answer.body))}
    start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", list(headers.items()))
    return [answer.body]
