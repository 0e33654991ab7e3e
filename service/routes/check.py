"""`POST /v1/check` and `/v1/check/batch`: checks as JSON."""

from __future__ import annotations

from typing import TypeVar

import pydantic
from fastapi import APIRouter
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from ratelimit import Decision
from ratelimit.web import openapi as web
from service import body, openapi, problems
from service.problems import REFUSALS
from service.responses import AllowedResponse
from service.sidecar import Sidecar
from service.tokens import require_gateway_token

router = APIRouter(tags=["checks"])

T = TypeVar("T")


@router.post(
    "/v1/check",
    summary="Check one request",
    response_model=Decision,
    openapi_extra=body.describe_body(body.CHECK.json_schema()),
    responses={
        200: {"description": "allowed", "headers": web.LIMIT_HEADERS},
        429: web.describe_problem(
            "denied: a problem with the members of a decision",
            web.LIMIT_HEADERS | web.RETRY_AFTER,
        ),
        503: web.describe_problem("denied because the store does not answer", web.RETRY_AFTER),
        **openapi.describe_problems(400, 401, 413, 422),
    },
)
async def check(request: Request) -> Response:
    """Check one request, and charge it if it is allowed."""
    sidecar = Sidecar.from_request(request)
    parsed = await _read_checks(request, sidecar, body.CHECK)
    decision = await sidecar.limiter.check(parsed)
    headers = sidecar.make_headers(decision)
    if not decision:
        return problems.make_denial_response(decision, headers)
    return AllowedResponse(headers, to_json(decision.as_dict()))


@router.post(
    "/v1/check/batch",
    summary="Check up to 256 requests",
    response_model=list[Decision],
    openapi_extra=body.describe_body({**body.CHECKS.json_schema(), "items": body.CHECK.json_schema()}),
    responses=openapi.describe_problems(400, 401, 413, 422),
)
async def check_batch(request: Request) -> Response:
    """Check up to 256 requests, in order. Each check takes from all its buckets or from none."""
    sidecar = Sidecar.from_request(request)
    checks = await _read_checks(request, sidecar, body.CHECKS)
    decisions = await sidecar.limiter.check_many([*checks])
    return Response(to_json([decision.as_dict() for decision in decisions]), media_type="application/json")


async def _read_checks(request: Request, sidecar: Sidecar, schema: pydantic.TypeAdapter[T]) -> T:
    """Read the body. A request that is refused here is counted: the limiter never sees it."""
    try:
        require_gateway_token(request, sidecar.settings.gateway_token)
        return await body.read_body(request, schema)
    except REFUSALS:
        sidecar.limiter.note_invalid_check()
        raise
