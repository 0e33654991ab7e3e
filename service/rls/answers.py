"""The answers of the rate-limit service, made of decisions and settlements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from envoy.config.core.v3.base_pb2 import HeaderValue
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitResponse
from google.protobuf.duration_pb2 import Duration

from ratelimit.web.problems import MEDIA_TYPE
from service import problems
from service.rls.struct_wire import write_bytes, write_struct

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from starlette.responses import Response

    from ratelimit import Decision, LimitState
    from service.rls.charges import Charge

_Status: Any = RateLimitResponse.DescriptorStatus
_Limit: Any = RateLimitResponse.RateLimit

_METADATA_NUMBER: Final = RateLimitResponse.DYNAMIC_METADATA_FIELD_NUMBER
_DYNAMIC_METADATA: Final = bytes([_METADATA_NUMBER << 3 | 2])

_NO_HEADERS: Final[dict[str, str]] = {}
OK: Final = RateLimitResponse.OK
OVER_LIMIT: Final = RateLimitResponse.OVER_LIMIT
_UNITS: Final = {
    1: _Limit.SECOND,
    60: _Limit.MINUTE,
    3600: _Limit.HOUR,
    86_400: _Limit.DAY,
    604_800: _Limit.WEEK,
}
_MAX_UINT32: Final = 2**32 - 1
_MAX_DURATION: Final = 315_576_000_000
"""Largest number of seconds in a protobuf Duration."""


def make_statuses(charge: Charge, decision: Decision) -> dict[int, RateLimitResponse.DescriptorStatus]:
    """Return the status of each descriptor of a check, by its place in the request.

    A descriptor is over its limit if a limit of its unit denied the check. If a limit of another unit did,
    such as that on failures, all descriptors are.
    """
    over = {state.unit for state in decision.limits if state.name in decision.violated}
    over = over & {*charge.units.values()} or {*charge.units.values()}
    return {
        index: _make_status(
            OVER_LIMIT if not decision.allowed and unit in over else OK,
            unit,
            decision.limits,
            decision.violated,
        )
        for index, unit in charge.units.items()
    }


def make_settled_statuses(
    charge: Charge, limits: Sequence[LimitState]
) -> dict[int, RateLimitResponse.DescriptorStatus]:
    """Return the status of each descriptor that was settled: always OK, even past zero."""
    return {index: _make_status(OK, unit, limits) for index, unit in charge.units.items()}


def _make_status(
    code: int, unit: str, limits: Iterable[LimitState], violated: Sequence[str] = ()
) -> RateLimitResponse.DescriptorStatus:
    """Return a status with the limit that denied, or else with the one that has the least left."""
    states = [state for state in limits if state.unit == unit and state.mode == "enforce"]
    if not states:
        return _Status(code=code)
    state = min(states, key=lambda state: (state.name not in violated, state.remaining))
    seconds = min(state.reset_after, _MAX_DURATION)
    return _Status(
        code=code,
        current_limit=_Limit(
            name=state.name,
            requests_per_unit=min(state.limit, _MAX_UINT32),
            unit=_UNITS.get(int(state.period) if state.period.is_integer() else 0, _Limit.UNKNOWN),
        ),
        limit_remaining=min(state.remaining, _MAX_UINT32),
        duration_until_reset=Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9)),
    )


def make_response(
    count: int,
    statuses: Mapping[int, RateLimitResponse.DescriptorStatus],
    decision: Decision | None = None,
    headers: Mapping[str, str] = _NO_HEADERS,
    key: str = "",
) -> bytes:
    """Return the response to a request of `count` descriptors, in protobuf's wire format.

    Args:
        count: how many descriptors the request has.
        statuses: those of the descriptors that have a limit; the others are OK.
        decision: the decision to show, if something was checked.
        headers: the headers of that decision, which Envoy adds to the client's response.
        key: the identifier of its key, which Envoy adds to an allowed request as X-RateLimit-Key.
    """
    unlimited = _Status(code=OK)
    allowed = decision is None or decision.allowed
    response = RateLimitResponse(
        overall_code=OK if allowed else OVER_LIMIT,
        statuses=[statuses.get(index, unlimited) for index in range(count)],
        response_headers_to_add=[HeaderValue(key=name, value=value) for name, value in headers.items()],
    )
    if decision is None:
        return bytes(response.SerializeToString())
    if allowed:
        response.request_headers_to_add.add(key="X-RateLimit-Key", value=key)
    else:
        _add_problem(response, problems.make_denial_response(decision, {}))
    metadata = write_bytes(_DYNAMIC_METADATA, write_struct(decision.as_dict()))
    return bytes(response.SerializeToString() + metadata)  # the order of fields does not matter


def make_refusal(count: int, error: Exception) -> bytes:
    """Return the response to a request that cannot be read: a denial with the problem as its body.

    A gRPC error would let the request pass wherever Envoy is configured to let failures pass, so a client
    could send a malformed key to have no limit.
    """
    response = RateLimitResponse(
        overall_code=OVER_LIMIT,
        statuses=[_Status(code=OVER_LIMIT) for _ in range(count)],
    )
    _add_problem(response, problems.make_error_response(error))
    return bytes(response.SerializeToString())


def _add_problem(response: RateLimitResponse, problem: Response) -> None:
    """Make a problem the body of the client's response."""
    response.raw_body = bytes(problem.body)
    response.response_headers_to_add.add(key="Content-Type", value=MEDIA_TYPE)
