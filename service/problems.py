"""Every error response is a problem (RFC 9457), never a traceback."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import structlog
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from ratelimit import InvalidRequest, StoreUnavailable, UnknownReservation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI
    from starlette.requests import Request

    from ratelimit import Decision

MEDIA_TYPE = "application/problem+json"

_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE")

# draft-ietf-httpapi-ratelimit-headers-10, "Problem Types"
QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
REDUCED_CAPACITY = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"

log = structlog.get_logger("ratelimit")


class Problem(Exception):  # noqa: N818 - RFC 9457 calls it a problem
    """An error that is sent as a problem. Any code that a route calls may raise it.

    Args:
        status: the HTTP status.
        detail: what was wrong.
        type_uri: the URI of the problem's type.
        headers: headers of the response.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        type_uri: str = "about:blank",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.type_uri = type_uri
        self.headers = headers


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
    body = {
        "type": type_uri,
        "title": title or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **members,
    }
    return Response(to_json(body), status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def make_denial_response(decision: Decision, headers: Mapping[str, str], status: int = 429) -> Response:
    """Make the response for a denial: `status`, or 503 if it was denied because of an outage."""
    names = list(decision.violated)
    if decision.is_unavailable:
        status, type_uri, title = 503, REDUCED_CAPACITY, "The limiter's store does not answer"
        detail = f"{', '.join(names)} cannot be checked now, and the policy denies such requests"
    else:
        type_uri, title = QUOTA_EXCEEDED, "Quota exceeded"
        detail = f"over {', '.join(names)}; {decision.advice}"
    members = decision.as_dict()
    return make_problem_response(
        status,
        detail,
        type_uri=type_uri,
        title=title,
        headers=headers,
        **{"violated-policies": names},
        **members,
    )


def _make_invalid_response(error: InvalidRequest, status: int = 422) -> Response:
    """Make the response for an invalid request. It names every wrong field."""
    faults = [{"field": fault.path, "detail": fault.message} for fault in error.faults]
    return make_problem_response(status, str(error), errors=faults)


def make_error_response(error: Exception) -> Response:
    """Make the response for any exception. An unexpected one is a bug and is logged."""
    match error:
        case Problem():
            return make_problem_response(
                error.status, error.detail, type_uri=error.type_uri, headers=error.headers
            )
        case InvalidRequest():
            return _make_invalid_response(error, 404 if isinstance(error, UnknownReservation) else 422)
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
