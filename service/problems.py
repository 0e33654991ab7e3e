"""Every error is a problem detail (RFC 9457), and never a traceback."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import structlog
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ratelimit import InvalidRequest, StoreUnavailable, UnknownReservation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI
    from starlette.requests import Request

    from ratelimit import Decision

MEDIA_TYPE = "application/problem+json"

# draft-ietf-httpapi-ratelimit-headers-10, "Problem Types"
QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
REDUCED_CAPACITY = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"

CONTENT: Final[dict[str, Any]] = {"content": {MEDIA_TYPE: {"schema": {"type": "object"}}}}
ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"description": "not JSON", **CONTENT},
    401: {"description": "the gateway token is missing or wrong", **CONTENT},
    413: {"description": "over 64 KiB", **CONTENT},
    422: {"description": "a field is wrong or not listed", **CONTENT},
}

log = structlog.get_logger("ratelimit")


class Problem(Exception):  # noqa: N818 - RFC 9457 calls it a problem
    """An answer other than the one hoped for; raise it from anywhere under a route."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        kind: str = "about:blank",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.kind = kind
        self.headers = headers


def problem(
    status: int,
    detail: str,
    *,
    kind: str = "about:blank",
    title: str | None = None,
    headers: Mapping[str, str] | None = None,
    **members: Any,  # noqa: ANN401 - extension members are JSON of any kind
) -> Response:
    """Make the response for a problem, with any extension members."""
    body = {
        "type": kind,
        "title": title or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **members,
    }
    return Response(to_json(body), status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def denial(decision: Decision, headers: Mapping[str, str], status: int = 429) -> Response:
    """Make the response for a denied check: 429, or 503 where the store's outage denied it."""
    names = list(decision.violated)
    if decision.source == "outage" and not decision.limits:
        status, kind, title = 503, REDUCED_CAPACITY, "The limiter's store does not answer"
        detail = f"{', '.join(names)} cannot be checked now, and the policy denies without it"
    else:
        kind, title = QUOTA_EXCEEDED, "Quota exceeded"
        detail = f"over {', '.join(names)}; {decision.advice}"
    members = decision.as_dict()
    return problem(
        status, detail, kind=kind, title=title, headers=headers, **{"violated-policies": names}, **members
    )


def invalid(error: InvalidRequest, status: int = 422) -> Response:
    """Make the response for a question that cannot be asked, naming every field at fault."""
    faults = [{"field": fault.path, "detail": fault.message} for fault in error.faults]
    return problem(status, str(error), errors=faults)


def of(error: Exception) -> Response:
    """Make the response for whatever was raised. What nobody foresaw is a bug, and logged as one."""
    match error:
        case Problem():
            return problem(error.status, error.detail, kind=error.kind, headers=error.headers)
        case InvalidRequest():
            return invalid(error, 404 if isinstance(error, UnknownReservation) else 422)
        case RequestValidationError():
            return _parameters(error)
        case StoreUnavailable():
            return problem(503, str(error), kind=REDUCED_CAPACITY, headers={"Retry-After": "1"})
        case HTTPException():
            return problem(error.status_code, error.detail, headers=error.headers)
        case _:
            log.error("a bug in the sidecar", exc_info=error)
            return problem(500, "the sidecar has a bug; its log says more")


def _parameters(error: RequestValidationError) -> Response:
    faults = [
        {"field": ".".join(str(step) for step in fault["loc"][1:]), "detail": fault["msg"]}
        for fault in error.errors()
    ]
    return problem(422, "; ".join(f"{fault['field']}: {fault['detail']}" for fault in faults), errors=faults)


def install(app: FastAPI) -> None:
    """Answer every exception with a problem."""

    async def handle(_: Request, error: Exception) -> Response:
        return of(error)

    for kind in (Problem, InvalidRequest, RequestValidationError, StoreUnavailable, HTTPException, Exception):
        app.add_exception_handler(kind, handle)
