"""`POST /v1/settle` and `DELETE /v1/reservations/{id}`: what a request really used."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from ratelimit import Settlement, Usage
from ratelimit.web import openapi as web
from service import body, openapi, problems
from service.sidecar import Sidecar
from service.tokens import require_gateway

router = APIRouter(tags=["settlement"], dependencies=[Depends(require_gateway)])

_RESERVATION_RESPONSES: dict[int | str, dict[str, Any]] = {
    404: web.describe_problem("the reservation is unknown or has expired"),
    503: web.describe_problem(
        "the store does not answer; the same reservation can safely be settled again", web.RETRY_AFTER
    ),
}


@router.post(
    "/v1/settle",
    summary="Charge what a request really used",
    response_model=Settlement,
    openapi_extra=body.describe_body(body.USAGE.json_schema()),
    responses={
        409: web.describe_problem("the reservation was cancelled"),
        **_RESERVATION_RESPONSES,
        **openapi.describe_problems(400, 401, 413, 422),
    },
)
async def settle_usage(request: Request) -> Response:
    """Charge what a request really used; with a reservation, once, the difference from its estimate."""
    limiter = Sidecar.from_request(request).limiter
    usage = await body.read_body(request, body.USAGE, Usage)
    settlement = await limiter.settle(usage)
    if not settlement.settled:
        return problems.make_problem_response(409, "the reservation was cancelled, so nothing is charged")
    return Response(to_json(settlement.as_dict()), media_type="application/json")


@router.delete(
    "/v1/reservations/{reservation}",
    summary="Cancel a reservation",
    status_code=204,
    responses={**_RESERVATION_RESPONSES, **openapi.describe_problems(401, 422)},
)
async def cancel_reservation(request: Request, reservation: openapi.ReservationPath) -> None:
    """Refund what a reservation took. If it is already cancelled or settled, change nothing."""
    await Sidecar.from_request(request).limiter.cancel(reservation)
