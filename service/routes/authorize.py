"""`/v1/authorize`: checks for gateways that forward headers and nothing else.

Any method and any path below its own will do, and a body is never read.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, cast

import http_sf

from ratelimit import Fault, InvalidRequest
from ratelimit.policy.spec import ANONYMOUS
from service import problems
from service.headers import Headers
from service.identity import identify
from service.problems import Problem
from service.responses import Allowed
from service.sidecar import Sidecar
from service.tokens import require_gateway

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

_NAMES: Final = {
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
_TEXTS: Final = ("plan", "model", "tenant", "timestamp", "request_id")
_SENT: Final = {header.lower().encode(): header for header in _NAMES.values()}
_AS_STATED: Final = {name: _NAMES[name].lower().encode() for name in _TEXTS}
_DENY_STATUSES: Final = {"401", "403", "429"}


async def authorize(request: Request) -> Response:
    """Answer 200 with no body, or the denial."""
    sidecar = Sidecar.of(request)
    require_gateway(request, sidecar.settings.gateway_token)
    headers = Headers(request)
    try:
        deny_status = _deny_status(request)
        _refuse_doubles(headers)
        identity = identify(request, headers, sidecar)
        stated = _stated(headers)
        if identity.anonymous:
            stated["plan"] = ANONYMOUS
        decision = await sidecar.limiter.check(identity.key, **stated)
    except InvalidRequest as error:
        raise _by_header(error) from None
    told = {**sidecar.headers(decision), "X-RateLimit-Key": identity.key}
    if decision.reservation is not None:
        told["X-RateLimit-Reservation"] = decision.reservation
    return Allowed(told) if decision else problems.denial(decision, told, deny_status)


def _stated(headers: Headers) -> dict[str, Any]:
    fields: dict[str, Any] = {
        field: text for field, header in _AS_STATED.items() if (text := headers.get(header))
    }
    if cost := headers.get(b"x-ratelimit-cost"):
        fields["cost"] = _cost(cost)
    if reserve := headers.get(b"x-ratelimit-reserve"):
        fields["reserve"] = _boolean(reserve)
    return fields


def _boolean(text: str) -> bool:
    """Read a structured-field Boolean (RFC 9651, section 3.3.6)."""
    if text.strip() not in {"?0", "?1"}:
        raise InvalidRequest([Fault("reserve", "must be ?1 or ?0")])
    return text.strip() == "?1"


def _cost(text: str) -> dict[str, Any]:
    """Read a structured-field dictionary (RFC 9651) of units and amounts: `tokens=512, images=2`."""
    try:
        parsed = http_sf.parse(text.encode(), tltype="dictionary")
    except (http_sf.StructuredFieldError, UnicodeEncodeError, ValueError):
        raise InvalidRequest(
            [Fault("cost", "must be a structured-field dictionary, such as tokens=512")]
        ) from None
    items = cast("dict[str, tuple[object, object]]", parsed)
    return {unit: float(value) if isinstance(value, Decimal) else value for unit, (value, _) in items.items()}


def _deny_status(request: Request) -> int:
    asked = request.query_params.get("deny_status", "429") if request.scope["query_string"] else "429"
    if asked not in _DENY_STATUSES:
        raise InvalidRequest([Fault("deny_status", f"must be one of {', '.join(sorted(_DENY_STATUSES))}")])
    return int(asked)


def _refuse_doubles(headers: Headers) -> None:
    """A header that comes twice may be the client's beside the gateway's: neither can be believed."""
    doubled = headers.doubled()
    for name in sorted(doubled & _SENT.keys()) if doubled else ():
        raise Problem(400, f"{_SENT[name]} was sent more than once; the gateway must remove the client's own")


def _by_header(error: InvalidRequest) -> InvalidRequest:
    """Name the header where the library names the field."""
    faults = []
    for fault in error.faults:
        field, _, rest = fault.path.partition(".")
        faults.append(fault._replace(path=".".join(filter(None, (_NAMES.get(field, field), rest)))))
    return InvalidRequest(faults)
