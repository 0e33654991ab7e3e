"""`POST /v1/settle` and `DELETE /v1/reservations/{id}`: what a request really used."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from ratelimit import Settlement, Usage
from service import body, problems
from service.sidecar import Sidecar
from service.tokens import gateways_only

router = APIRouter(tags=["settlement"], dependencies=[Depends(gateways_only)])

_ERRORS: dict[int | str, dict[str, Any]] = {
    404: {"description": "there is no such reservation, or its time is over", **problems.CONTENT},
    503: {
        "description": "the store does not answer; settling a reservation again is safe",
        **problems.CONTENT,
    },
}


@router.post(
    "/v1/settle",
    response_model=Settlement,
    openapi_extra=body.takes(body.USAGE.json_schema()),
    responses={
        409: {"description": "the reservation was cancelled", **problems.CONTENT},
        **_ERRORS,
        **problems.ERRORS,
    },
)
async def settle(request: Request) -> Response:
    """Charge what a request really used: with a reservation the difference to its estimate, once."""
    limiter = Sidecar.of(request).limiter
    usage = await body.read(request, body.USAGE, Usage)
    settlement = await limiter.settle(usage)
    if not settlement.settled:
        return problems.problem(409, "the reservation was cancelled, and nothing is charged for it any more")
    return Response(to_json(settlement.as_dict()), media_type="application/json")


@router.delete("/v1/reservations/{reservation}", status_code=204, responses=_ERRORS)
async def cancel(request: Request, reservation: str) -> None:
    """Give back what a reservation took; nothing happens if it is cancelled or settled already."""
    await Sidecar.of(request).limiter.cancel(reservation)
