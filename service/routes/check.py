"""`POST /v1/check` and `/v1/check/batch`: checks as JSON."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from ratelimit import Decision
from service import body, problems
from service.responses import Allowed
from service.sidecar import Sidecar
from service.tokens import gateways_only, require_gateway

router = APIRouter(tags=["checks"])


@router.post(
    "/v1/check",
    response_model=Decision,
    openapi_extra=body.takes(body.ONE.json_schema()),
    responses={
        429: {"description": "denied: the same members, as a problem", **problems.CONTENT},
        503: {"description": "denied because the store does not answer", **problems.CONTENT},
        **problems.ERRORS,
    },
)
async def check(request: Request) -> Response:
    """Ask whether one request may pass, and charge it if so."""
    sidecar = Sidecar.of(request)
    require_gateway(request, sidecar.settings.gateway_token)
    asked = await body.read(request, body.ONE)
    decision = await sidecar.limiter.check(asked)
    headers = sidecar.headers(decision)
    if not decision:
        return problems.denial(decision, headers)
    return Allowed(headers, to_json(decision.as_dict()))


@router.post(
    "/v1/check/batch",
    response_model=list[Decision],
    dependencies=[Depends(gateways_only)],
    openapi_extra=body.takes(body.MANY.json_schema()),
    responses=problems.ERRORS,
)
async def check_batch(request: Request) -> Response:
    """Ask for up to 256 requests at once; each is all or nothing on its own, in order."""
    decisions = await Sidecar.of(request).limiter.check_many([*await body.read(request, body.MANY)])
    return Response(to_json([decision.as_dict() for decision in decisions]), media_type="application/json")
