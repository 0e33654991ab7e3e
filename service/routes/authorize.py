"""`/v1/authorize`: checks for gateways that forward only headers.

Any method and any path below `/v1/authorize` work. The body is never read.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, cast

import http_sf

from ratelimit import Fault, InvalidRequest
from ratelimit.policy.spec import ANONYMOUS
from ratelimit.web.problems import Problem
from service import problems
from service.headers import Headers
from service.identity import identify
from service.problems import REFUSALS
from service.responses import AllowedResponse
from service.sidecar import Sidecar
from service.tokens import require_gateway_token

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

_HEADER_NAMES: Final = {
    "plan": "X-RateLimit-Plan",
    "model": "X-RateLimit-Model",
    "tenant": "X-RateLimit-Tenant",
    "timestamp": "X-RateLimit-Timestamp",
    "key": "X-RateLimit-Key",
    "cost": "X-RateLimit-Cost",
    "reserve": "X-RateLimit-Reserve",
    # Not X-Request-Id: clients choose that one, and could repeat one admission for ever.
    "request_id": "X-RateLimit-Request-Id",
}
"""The header that holds each field of a check."""

_TEXT_HEADERS: Final = {
    field: _HEADER_NAMES[field].lower().encode()
    for field in ("plan", "model", "tenant", "timestamp", "request_id")
}
"""The headers whose text is the value of the field, as `Headers` names them."""

_SINGLE_HEADERS: Final = {
    name.lower().encode(): name for name in (*_HEADER_NAMES.values(), "Authorization", "X-Api-Key")
}
"""The headers that may be sent once only: of two secrets, the API might take the other one."""
_DENY_STATUSES: Final = {"401", "403", "429"}


async def authorize(request: Request) -> Response:
    """Answer 200 without a body if the check is allowed, else with the denial."""
    sidecar = Sidecar.from_request(request)
    headers = Headers(request)
    try:
        require_gateway_token(request, sidecar.settings.gateway_token)
        deny_status = _read_deny_status(request)
        _refuse_repeated_headers(headers)
        key, is_anonymous = identify(request, headers, sidecar)
        fields = _read_fields(headers)
        if is_anonymous:
            fields["plan"] = ANONYMOUS
    except REFUSALS as error:
        sidecar.limiter.note_invalid_check()
        raise _name_headers(error) from None
    try:
        decision = await sidecar.limiter.check(key, **fields)
    except InvalidRequest as error:
        raise _name_headers(error) from None
    response_headers = {**sidecar.make_headers(decision), "X-RateLimit-Key": key}
    # No other check has a reservation, and reading it would compute all members of the decision.
    if ("reserve" in fields or "request_id" in fields) and decision.reservation is not None:
        response_headers["X-RateLimit-Reservation"] = decision.reservation
    if not decision:
        return problems.make_denial_response(decision, response_headers, deny_status)
    return AllowedResponse(response_headers)


def _read_fields(headers: Headers) -> dict[str, Any]:
    """Read the fields of the check, except the key."""
    fields: dict[str, Any] = {
        field: text for field, header in _TEXT_HEADERS.items() if (text := headers.get(header))
    }
    if cost := headers.get(b"x-ratelimit-cost"):
        fields["cost"] = _parse_cost(cost)
    if reserve := headers.get(b"x-ratelimit-reserve"):
        fields["reserve"] = _parse_reserve(reserve)
    return fields


def _parse_reserve(text: str) -> bool:
    """Parse a structured-field Boolean (RFC 9651, section 3.3.6)."""
    if text.strip() not in {"?0", "?1"}:
        raise InvalidRequest([Fault("reserve", "must be ?1 or ?0")])
    return text.strip() == "?1"


def _parse_cost(text: str) -> dict[str, Any]:
    """Parse a structured-field dictionary (RFC 9651) of units and amounts: `tokens=512, images=2`."""
    try:
        parsed = http_sf.parse(text.encode(), tltype="dictionary")
    except (http_sf.StructuredFieldError, UnicodeEncodeError, ValueError):
        raise InvalidRequest(
            [Fault("cost", "must be a structured-field dictionary, such as tokens=512")]
        ) from None
    items = cast("dict[str, tuple[object, object]]", parsed)
    return {unit: float(value) if isinstance(value, Decimal) else value for unit, (value, _) in items.items()}


def _read_deny_status(request: Request) -> int:
    status = request.query_params.get("deny_status", "429") if request.scope["query_string"] else "429"
    if status not in _DENY_STATUSES:
        raise InvalidRequest([Fault("deny_status", f"must be one of {', '.join(sorted(_DENY_STATUSES))}")])
    return int(status)


def _refuse_repeated_headers(headers: Headers) -> None:
    """Refuse a header that was sent twice: one may come from the client and one from the gateway.

    Raises:
        Problem: 400 if a header that holds a field of the check or a secret was sent more than once.
    """
    repeated = headers.find_repeated_names()
    for name in sorted(repeated & _SINGLE_HEADERS.keys()) if repeated else ():
        raise Problem(
            400, f"{_SINGLE_HEADERS[name]} was sent more than once; the gateway must remove the client's own"
        )


def _name_headers(error: Exception) -> Exception:
    """Replace the names of fields in an error by the names of the headers that hold them."""
    if not isinstance(error, InvalidRequest):
        return error
    faults = []
    for fault in error.faults:
        field, _, rest = fault.path.partition(".")
        faults.append(fault._replace(path=".".join(filter(None, (_HEADER_NAMES.get(field, field), rest)))))
    return InvalidRequest(faults)
