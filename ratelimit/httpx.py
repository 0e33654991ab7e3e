"""Transports for httpx, for clients that must obey the limits of somebody else's API.

```python
client = httpx.Client(transport=RateLimitTransport(limiter, key="api.example.com"))
```
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, TypedDict

try:
    import httpx
except ImportError:
    raise ImportError("ratelimit.httpx needs httpx: pip install httpx") from None

from ratelimit.limiters.aio import AsyncLimiter
from ratelimit.limiters.limiter import Limiter
from ratelimit.request.check import invalid_field
from ratelimit.web.options import require_limiter

if TYPE_CHECKING:
    from typing import Unpack

_TOO_MANY_REQUESTS: Final = 429
_UNAVAILABLE: Final = 503
_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})  # RFC 9110, 9.2.2
_MAX_RETRIES: Final = 100


class TransportOptions(TypedDict, total=False):
    """The options of both transports.

    Attributes:
        cost: how much of each unit a request takes, or a function of the request that returns it; 1 request
            by default.
        plan: the plan to apply; by default that of the key.
        model: a function of the request that returns its model.
        timeout: seconds to wait for the limiter at most; None, the default, waits without a bound.
        retries: how often a request is sent again after an answer with Retry-After, from 0 to 100; by
            default 2.
        max_wait: the longest Retry-After to obey, in seconds; by default 60. An answer that asks for more
            is returned.
    """

    cost: Mapping[str, float] | Callable[[httpx.Request], Mapping[str, float]]
    plan: str
    model: Callable[[httpx.Request], str | None]
    timeout: float | None
    retries: int
    max_wait: float


class _Rules:
    """What both transports have in common: which check a request is, and when it is sent again."""

    def __init__(self, key: str | Callable[[httpx.Request], str], options: TransportOptions) -> None:
        if unknown := options.keys() - TransportOptions.__annotations__.keys():
            allowed = ", ".join(TransportOptions.__annotations__)
            raise TypeError(f"there is no option {min(unknown)!r}; allowed: {allowed}")
        if not isinstance(key, str) and not callable(key):
            raise invalid_field("key", "must be a text, or a function of the request")
        self._key, self._cost = key, options.get("cost")
        self._plan, self._model = options.get("plan"), options.get("model")
        self.timeout, self.retries = options.get("timeout"), options.get("retries", 2)
        self._max_wait = options.get("max_wait", 60.0)
        if self._cost is not None and not isinstance(self._cost, Mapping) and not callable(self._cost):
            raise invalid_field("cost", "must be amounts by unit, such as {'tokens': 850}, or a function")
        if self._model is not None and not callable(self._model):
            raise invalid_field("model", "must be a function of the request")
        if self.timeout is not None and not self.timeout >= 0:
            raise invalid_field("timeout", "must be 0 seconds or more, or None to wait without a bound")
        if self.retries not in range(_MAX_RETRIES + 1):
            raise invalid_field("retries", f"must be a whole number from 0 to {_MAX_RETRIES}")
        if not self._max_wait >= 0:
            raise invalid_field("max_wait", "must be 0 seconds or more")

    def make_check(self, request: httpx.Request) -> dict[str, Any]:
        check: dict[str, Any] = {"key": self._key(request) if callable(self._key) else self._key}
        cost = self._cost(request) if callable(self._cost) else self._cost
        if cost is not None:
            check["cost"] = cost
        return {**check, "plan": self._plan, "model": self._model(request) if self._model else None}

    def find_wait(self, request: httpx.Request, response: httpx.Response) -> float | None:
        """Return the seconds after which to send a request again; None if its answer should be returned.

        An API that answers 429 has not run the request, so any method may be repeated. With 503 it may have
        run it in part, so only idempotent methods are. A body that is a stream cannot be sent twice.
        """
        is_safe = response.status_code == _TOO_MANY_REQUESTS or (
            response.status_code == _UNAVAILABLE and request.method in _IDEMPOTENT
        )
        if not is_safe or not isinstance(request.stream, httpx.ByteStream):
            return None
        wait = _read_retry_after(response.headers.get("Retry-After", ""))
        return wait if wait is not None and wait <= self._max_wait else None


class RateLimitTransport(httpx.BaseTransport):
    """Waits until the limiter admits a request, then sends it.

    If the API answers 429, or 503 to an idempotent method, with a Retry-After, the request is sent again
    after that time, and is charged again. Requests whose body is a stream are not repeated. Other requests
    of the same transport do not wait for a Retry-After; the limiter's rate should be that of the API.

    Args:
        limiter: a `Limiter`; of all processes that share a key and a store, together no more is sent than it
            allows.
        transport: sends the requests; `httpx.HTTPTransport()` by default.
        key: what is limited, such as the API's name: a text, or a function of the request.
        **options: those of `TransportOptions`: `cost`, `plan`, `model`, `timeout`, `retries`, `max_wait`.

    Raises:
        TypeError: there is no such option.
        InvalidRequest: an option is wrong; the message says what is allowed.

    A request raises `RateLimited` if the limiter never admits it, or not before the timeout.
    """

    def __init__(
        self,
        limiter: Limiter,
        transport: httpx.BaseTransport | None = None,
        *,
        key: str | Callable[[httpx.Request], str],
        **options: Unpack[TransportOptions],
    ) -> None:
        require_limiter(limiter, Limiter, "this transport")
        self._limiter, self._rules = limiter, _Rules(key, options)
        self._transport = transport or httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request."""
        check = self._rules.make_check(request)
        for retries_left in range(self._rules.retries, -1, -1):
            self._limiter.acquire(check, timeout=self._rules.timeout)
            response = self._transport.handle_request(request)
            wait = self._rules.find_wait(request, response) if retries_left else None
            if wait is None:
                return response
            response.close()
            time.sleep(wait)
        raise AssertionError("the last round returns")

    def close(self) -> None:
        """Close the transport; the limiter stays open."""
        self._transport.close()


class AsyncRateLimitTransport(httpx.AsyncBaseTransport):
    """`RateLimitTransport` for `httpx.AsyncClient`, with an `AsyncLimiter`."""

    def __init__(
        self,
        limiter: AsyncLimiter,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        key: str | Callable[[httpx.Request], str],
        **options: Unpack[TransportOptions],
    ) -> None:
        require_limiter(limiter, AsyncLimiter, "this transport")
        self._limiter, self._rules = limiter, _Rules(key, options)
        self._transport = transport or httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request."""
        check = self._rules.make_check(request)
        for retries_left in range(self._rules.retries, -1, -1):
            await self._limiter.acquire(check, timeout=self._rules.timeout)
            response = await self._transport.handle_async_request(request)
            wait = self._rules.find_wait(request, response) if retries_left else None
            if wait is None:
                return response
            await response.aclose()
            await asyncio.sleep(wait)
        raise AssertionError("the last round returns")

    async def aclose(self) -> None:
        """Close the transport; the limiter stays open."""
        await self._transport.aclose()


def _read_retry_after(text: str) -> float | None:
    """Return the seconds that a Retry-After asks to wait (RFC 9110, 10.2.3); None if it is not valid."""
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # a year or an offset may have any number of digits
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
