"""A dependency for FastAPI.

```python
@app.get("/models", responses=RESPONSES)
async def list_models(decision: Annotated[Decision, Depends(rate_limit(key="X-Api-Key", pepper=pepper))]): ...
```
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeVar

try:
    from fastapi import HTTPException, Response, WebSocketException
    from fastapi.requests import HTTPConnection
except ImportError:
    raise ImportError("ratelimit.fastapi needs FastAPI: pip install fastapi") from None

from ratelimit.asgi import DENY_HANDSHAKE, POLICY_VIOLATION, ScopeReader
from ratelimit.decision.decision import Decision
from ratelimit.errors import InvalidRequest, RateLimited
from ratelimit.limiters.aio import AsyncLimiter
from ratelimit.web.openapi import describe_denials
from ratelimit.web.options import require_limiter
from ratelimit.web.problems import MEDIA_TYPE, Problem, ProblemAnswer, encode_refusal
from ratelimit.web.refresh import AsyncRefresher
from ratelimit.web.rules import CheckRules

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping
    from typing import Unpack

    from ratelimit.web.options import Amounts, CheckRuleOptions, Name

RESPONSES: Final[dict[int | str, dict[str, Any]]] = describe_denials()
"""What OpenAPI should say about denials: for `responses` of a route, a router or the application."""

_HANDLERS: Final = "starlette.exception_handlers"

# Functions may be of `Request` or of `WebSocket`: the route says which of them they get.
R = TypeVar("R", bound=HTTPConnection)


class Refused(HTTPException):
    """A request may not pass. It is sent as a problem.

    Attributes:
        answer: the status and the problem.
        headers: the headers of the answer.
    """

    def __init__(self, answer: ProblemAnswer, headers: Mapping[str, str], detail: str) -> None:
        HTTPException.__init__(self, answer.status, detail, dict(headers))
        self.answer = answer


class Denied(RateLimited, Refused):
    """A request was denied. A handler of the application for `RateLimited` is asked first.

    Attributes:
        decision: the denial.
    """

    def __init__(self, decision: Decision, answer: ProblemAnswer, headers: Mapping[str, str]) -> None:
        Refused.__init__(self, answer, headers, str(RateLimited(decision)))
        self.decision = decision


def rate_limit(
    limiter: AsyncLimiter | None = None,
    **options: Unpack[CheckRuleOptions[R, Amounts | Awaitable[Amounts], Name | Awaitable[Name]]],
) -> Callable[..., Coroutine[Any, Any, Decision]]:
    """Return a dependency that checks a request and gives the decision.

    The answer gets the headers of the decision, unless the endpoint returns a `Response` of its own. A denied
    request is answered with 429 and a problem (RFC 9457), or with 503 if it is denied because of an outage.

    Args:
        limiter: an `AsyncLimiter`; by default `app.state.limiter`.
        **options: those of `CheckRuleOptions`: `key`, `pepper`, `cost`, `plan`, `model`, `tenant`,
            `dialects`, `trusted_proxies`, `refresh`. Functions get the `Request` or `WebSocket`, and may be
            coroutine functions, such as a `cost` that awaits `request.json()`; only `key` may not.

    Raises:
        TypeError: there is no such option.
        InvalidRequest: an option is wrong; the message says what is allowed.
    """
    rules: CheckRules[Any] = CheckRules(_ConnectionReader(), options, allow_async=True)
    refresher = AsyncRefresher(rules.refresh)
    if limiter is not None:
        require_limiter(limiter, AsyncLimiter, "rate_limit")

    async def check_request(request: HTTPConnection, response: Response) -> Decision:
        chosen = limiter or _find_limiter(request)
        if (first_read := refresher.refresh_if_due(chosen)) is not None:
            await asyncio.wait({first_read})
        try:
            key, is_anonymous = rules.identify(request, chosen)
            fields = await rules.make_options_async(request, is_anonymous=is_anonymous)
            decision = await chosen.check(key, **fields)
        except (Problem, InvalidRequest) as error:
            raise _refuse(request, error, {}) from None
        headers = decision.headers(rules.dialects)
        if not decision:
            raise _refuse(request, decision, headers)
        response.headers.update(headers)
        return decision

    # FastAPI reads annotations as text in the names of this module; these are the objects themselves.
    check_request.__annotations__ = {"request": HTTPConnection, "response": Response, "return": Decision}
    return check_request


class _ConnectionReader:
    """Reads what the rules need from a request or a WebSocket of Starlette."""

    _scopes = ScopeReader()

    def list_headers(self, request: HTTPConnection, name: str) -> list[str]:
        return self._scopes.list_headers(request.scope, name)

    def find_peer(self, request: HTTPConnection) -> str | None:
        return self._scopes.find_peer(request.scope)


def _find_limiter(request: HTTPConnection) -> AsyncLimiter:
    limiter = getattr(request.app.state, "limiter", None)
    require_limiter(limiter, AsyncLimiter, "rate_limit without a limiter of its own (app.state.limiter)")
    assert isinstance(limiter, AsyncLimiter)  # noqa: S101 - for mypy: it was required above
    return limiter


def _refuse(
    request: HTTPConnection, refusal: Decision | Problem | InvalidRequest, headers: Mapping[str, str]
) -> Refused | WebSocketException:
    """Make the error for a request that may not pass, and make sure that it is sent as a problem.

    A dependency cannot return an answer. Starlette finds handlers in a dictionary that it puts into every
    scope. Without it FastAPI would still send the status, the headers and the detail.
    """
    if request.scope["type"] == "websocket" and DENY_HANDSHAKE not in request.scope.get("extensions", {}):
        return WebSocketException(POLICY_VIOLATION)
    request.scope.get(_HANDLERS, ({},))[0].setdefault(Refused, _send_problem)
    answer, more = encode_refusal(refusal)
    if isinstance(refusal, Decision):
        return Denied(refusal, answer, {**headers, **more})
    return Refused(answer, more, str(refusal))


async def _send_problem(_: HTTPConnection, refused: Refused) -> Response:
    return Response(refused.answer.body, refused.answer.status, refused.headers, MEDIA_TYPE)
