"""`POST /v1/check` and `/v1/check/batch`: checks as JSON."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from ratelimit import Decision
from service import body, problems
from service.sidecar import Sidecar
from service.tokens import require_gateway


def _gateways_only(request: Request) -> None:
    require_gateway(request, Sidecar.of(request).settings.gateway_token)


async def _ask_gateways_only(request: Request) -> None:
    _gateways_only(request)


router = APIRouter(tags=["checks"], dependencies=[Depends(_ask_gateways_only)])


def _takes(schema: dict[str, Any]) -> dict[str, Any]:
    """Describe a body that the route reads itself, so that it is bounded and parsed only once."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


_PROBLEM: dict[str, Any] = {"content": {problems.MEDIA_TYPE: {"schema": {"type": "object"}}}}
_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "not JSON", **_PROBLEM},
    401: {"description": "the gateway token is missing or wrong", **_PROBLEM},
    413: {"description": "over 64 KiB", **_PROBLEM},
    422: {"description": "a field is wrong or not listed", **_PROBLEM},
}


@router.post(
    "/v1/check",
    response_model=Decision,
    openapi_extra=_takes(body.ONE.json_schema()),
    responses={
        429: {"description": "denied: the same members, as a problem", **_PROBLEM},
        503: {"description": "denied because the store does not answer", **_PROBLEM},
        **_ERRORS,
    },
)
async def check(request: Request) -> Response:
    """Ask whether one request may pass, and charge it if so."""
    sidecar = Sidecar.of(request)
    asked = await body.read(request, body.ONE)
    decision = await sidecar.limiter.check(asked)
    headers = sidecar.headers(decision)
    if not decision:
        return problems.denial(decision, headers)
    return Response(to_json(decision.as_dict()), headers=headers, media_type="application/json")


@router.post(
    "/v1/check/batch",
    response_model=list[Decision],
    openapi_extra=_takes(body.MANY.json_schema()),
    responses=_ERRORS,
)
async def check_batch(request: Request) -> Response:
    """Ask for up to 256 requests at once; each is all or nothing on its own, in order."""
    decisions = await Sidecar.of(request).limiter.check_many([*await body.read(request, body.MANY)])
    return Response(to_json([decision.as_dict() for decision in decisions]), media_type="application/json")
