"""Every error response is a problem (RFC 9457), never a traceback."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import structlog
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from ratelimit import InvalidRequest, StoreUnavailable
from ratelimit.web.problems import (
    MEDIA_TYPE,
    REDUCED_CAPACITY,
    Problem,
    ProblemAnswer,
    encode_denial,
    encode_invalid_request,
    encode_problem,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI
    from starlette.requests import Request

    from ratelimit import Decision

_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE")

log = structlog.get_logger("ratelimit")


REFUSALS: Final = (Problem, InvalidRequest)
"""What is raised for a request that is refused before it is decided."""


def make_problem_response(
    status: int,
    detail: str,
    *,
    type_uri: str = "about:blank",
    title: str | None = None,
    headers: Mapping[str, str] | None = None,
    **members: Any,  # noqa: ANN401 - extension members are JSON of any kind
) -> Response:
    """Make the response for a problem, with extension members."""
    answer = encode_problem(status, detail, type_uri=type_uri, title=title, **members)
    return _make_response(answer, headers)


def _make_response(answer: ProblemAnswer, headers: Mapping[str, str] | None = None) -> Response:
    return Response(answer.body, answer.status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def make_denial_response(decision: Decision, headers: Mapping[str, str], status: int = 429) -> Response:
    """Make the response for a denial: `status`, or 503 if it was denied because of an outage."""
    return _make_response(encode_denial(decision, status), headers)


def make_error_response(error: Exception) -> Response:
    """Make the response for any exception. An unexpected one is a bug and is logged."""
    match error:
        case Problem():
            return make_problem_response(
                error.status, error.detail, type_uri=error.type_uri, headers=error.headers
            )
        case InvalidRequest():
            return _make_response(encode_invalid_request(error))
        case RequestValidationError():
            return _make_parameters_response(error)
        case StoreUnavailable():
            return make_problem_response(
                503, str(error), type_uri=REDUCED_CAPACITY, headers={"Retry-After": "1"}
            )
        case HTTPException():
            return make_problem_response(error.status_code, error.detail, headers=error.headers)
        case _:
            log.error("a bug in the sidecar", exc_info=error)
            return make_problem_response(500, "the sidecar has a bug; see its log")


def _make_parameters_response(error: RequestValidationError) -> Response:
    faults = [
        {"field": ".".join(str(step) for step in fault["loc"][1:]), "detail": fault["msg"]}
        for fault in error.errors()
    ]
    return make_problem_response(
        422, "; ".join(f"{fault['field']}: {fault['detail']}" for fault in faults), errors=faults
    )


def install_handlers(app: FastAPI) -> None:
    """Make the application send a problem for every exception."""

    async def handle(request: Request, error: Exception) -> Response:
        response = make_error_response(error)
        if response.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            response.headers["Allow"] = ", ".join(_list_methods(request))
        return response

    for exception in (
        Problem,
        InvalidRequest,
        RequestValidationError,
        StoreUnavailable,
        HTTPException,
        Exception,
    ):
        app.add_exception_handler(exception, handle)


def _list_methods(request: Request) -> list[str]:
    """Return the methods of all routes of a path. The router itself names those of the first route only."""
    return [
        method
        for method in _METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]
