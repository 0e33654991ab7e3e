"""What an OpenAPI document says about answers that are problems, and about the headers of limits."""

from __future__ import annotations

from typing import Any, Final

from ratelimit.web.problems import MEDIA_TYPE

Responses = dict[int | str, dict[str, Any]]

_PROBLEM: Final[dict[str, Any]] = {
    "title": "Problem",
    "description": "RFC 9457; other members say more about the type",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "errors": {
            "description": "every wrong field",
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "detail"],
                "properties": {"field": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
        "violated-policies": {
            "description": "the limits that denied the check",
            "type": "array",
            "items": {"type": "string"},
        },
    },
}


def make_header(description: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the description of a header; text unless a schema says more."""
    return {"description": description, "schema": schema or {"type": "string"}}


LIMIT_HEADERS: Final = {
    "RateLimit": make_header("what remains of each limit: `r` units, and `t` seconds until it is full"),
    "RateLimit-Policy": make_header("each limit: `q` units in `w` seconds, and the unit `qu`"),
}
RETRY_AFTER: Final = {
    "Retry-After": make_header("whole seconds to wait; absent if waiting does not help", {"type": "integer"})
}


def describe_problem(description: str, headers: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the OpenAPI description of an answer that is a problem."""
    described = {"description": description, "content": {MEDIA_TYPE: {"schema": _PROBLEM}}}
    return {**described, "headers": headers} if headers else described


def describe_denials() -> Responses:
    """Return the descriptions of denials: 429, and 503 where a denial is due to an outage."""
    headers = {**LIMIT_HEADERS, **RETRY_AFTER}
    return {
        429: describe_problem("a limit denies the request; `violated-policies` names it", headers),
        503: describe_problem("the limiter's store does not answer, and the policy denies such requests"),
    }
