"""The answers of the rate-limit service, made of decisions and settlements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from envoy.config.core.v3.base_pb2 import HeaderValue
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitResponse
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from service import problems

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ratelimit import Decision, LimitState
    from service.rls.charges import Charge

_Status: Any = RateLimitResponse.DescriptorStatus
_Limit: Any = RateLimitResponse.RateLimit

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
    decision: Decision | None,
    headers: Mapping[str, str],
) -> RateLimitResponse:
    """Return the response to a request of `count` descriptors.

    Args:
        count: how many descriptors the request has.
        statuses: those of the descriptors that have a limit; the others are OK.
        decision: the decision to show, if something was checked.
        headers: the headers of that decision, which Envoy adds to the client's response.
    """
    unlimited = _Status(code=OK)
    allowed = decision is None or decision.allowed
    response = RateLimitResponse(
        overall_code=OK if allowed else OVER_LIMIT,
        statuses=[statuses.get(index, unlimited) for index in range(count)],
        response_headers_to_add=[HeaderValue(key=name, value=value) for name, value in headers.items()],
    )
    if decision is not None:
        response.dynamic_metadata.CopyFrom(_make_struct(decision.as_dict()))
        if not allowed:
            response.raw_body = bytes(problems.make_denial_response(decision, {}).body)
    return response


def make_refusal(count: int, error: Exception) -> RateLimitResponse:
    """Return the response to a request that cannot be read: a denial with the problem as its body.

    A gRPC error would let the request pass wherever Envoy is configured to let failures pass, so a client
    could send a malformed key to have no limit.
    """
    problem = problems.make_error_response(error)
    return RateLimitResponse(
        overall_code=OVER_LIMIT,
        statuses=[_Status(code=OVER_LIMIT) for _ in range(count)],
        raw_body=bytes(problem.body),
    )


def _make_struct(members: Mapping[str, Any]) -> Struct:
    return Struct(fields={name: _make_value(value) for name, value in members.items()})


def _make_value(value: object) -> Value:
    match value:
        case None:
            return Value(null_value=0)
        case bool():
            return Value(bool_value=value)
        case int() | float():
            return Value(number_value=value)
        case str():
            return Value(string_value=value)
        case list():
            return Value(list_value=ListValue(values=[_make_value(item) for item in value]))
        case dict():
            return Value(struct_value=_make_struct(value))
        case _:
            raise TypeError(f"{type(value).__name__} has no place in a decision")
