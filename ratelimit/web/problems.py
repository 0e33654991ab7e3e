"""Problems (RFC 9457): the body of every answer that is an error, for any framework.

The types of denials are those of draft-ietf-httpapi-ratelimit-headers-10, "Problem Types".
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic_core import to_json

from ratelimit.errors import InvalidRequest, UnknownReservation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ratelimit.decision.decision import Decision

MEDIA_TYPE: Final = "application/problem+json"
QUOTA_EXCEEDED: Final = "https://iana.org/assignments/http-problem-types#quota-exceeded"
REDUCED_CAPACITY: Final = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"


class Problem(Exception):  # noqa: N818 - RFC 9457 calls it a problem
    """An error that is sent as a problem.

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


class ProblemAnswer(NamedTuple):
    """A response that is a problem; its media type is `MEDIA_TYPE`.

    Attributes:
        status: the HTTP status.
        body: the problem, as JSON.
    """

    status: int
    body: bytes


def encode_problem(
    status: int,
    detail: str,
    *,
    type_uri: str = "about:blank",
    title: str | None = None,
    **members: Any,  # noqa: ANN401 - extension members are JSON of any kind
) -> ProblemAnswer:
    """Encode a problem with extension members."""
    body = {
        "type": type_uri,
        "title": title or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **members,
    }
    return ProblemAnswer(status, to_json(body))


def encode_denial(decision: Decision, status: int = 429) -> ProblemAnswer:
    """Encode a denial: with `status`, or with 503 if it was denied because of an outage."""
    names = list(decision.violated)
    if decision.is_unavailable:
        status, type_uri, title = 503, REDUCED_CAPACITY, "The limiter's store does not answer"
        detail = f"{', '.join(names)} cannot be checked now, and the policy denies such requests"
    else:
        type_uri, title = QUOTA_EXCEEDED, "Quota exceeded"
        detail = f"over {', '.join(names)}; {decision.advice}"
    members = {"violated-policies": names, **decision.as_dict()}
    return encode_problem(status, detail, type_uri=type_uri, title=title, **members)


def encode_invalid_request(error: InvalidRequest) -> ProblemAnswer:
    """Encode an invalid request, with every wrong field: 422, or 404 for an unknown reservation."""
    faults = [{"field": fault.path, "detail": fault.message} for fault in error.faults]
    return encode_problem(404 if isinstance(error, UnknownReservation) else 422, str(error), errors=faults)


def encode_refusal(refusal: Decision | Problem | InvalidRequest) -> tuple[ProblemAnswer, Mapping[str, str]]:
    """Encode why a request may not pass. Also returns the headers that belong to a problem itself."""
    if isinstance(refusal, Problem):
        return encode_problem(
            refusal.status, refusal.detail, type_uri=refusal.type_uri
        ), refusal.headers or {}
    if isinstance(refusal, InvalidRequest):
        return encode_invalid_request(refusal), {}
    return encode_denial(refusal), {}
