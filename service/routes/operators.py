"""For operators: what a key has left, a fresh start for it, and the policy in force."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from ratelimit import Decision
from ratelimit.metering.assignments import Assign
from service import body
from service.sidecar import Sidecar
from service.tokens import operators_only

_KEY = "/v1/keys/{key:path}"
"""A key may hold any visible character, a slash among them."""

router = APIRouter(tags=["operators"], dependencies=[Depends(operators_only)])


@router.get("/v1/policy")
async def policy(request: Request) -> dict[str, Any]:
    """Show the policy in force."""
    running = Sidecar.of(request).limiter.policy
    return {"source": running.source, "version": running.version, **running.as_dict()}


@router.get(_KEY, response_model=Decision)
async def show(
    request: Request, key: str, plan: str | None = None, model: str | None = None, tenant: str | None = None
) -> Response:
    """Show a key's limits without charging; `allowed` says whether one more request would pass."""
    decision = await Sidecar.of(request).limiter.peek(key, plan=plan, model=model, tenant=tenant)
    return Response(to_json(decision.as_dict()), media_type="application/json")


@router.put(_KEY, response_model=Assign, openapi_extra=body.takes(body.ASSIGN.json_schema()))
async def assign(request: Request, key: str) -> Response:
    """Assign a plan or tenant to a key, or shut it, for every sidecar on this store.

    What is left out is left to the policy; `{}` takes an assignment back.
    """
    assigned = await body.read(request, body.ASSIGN, Assign)
    await Sidecar.of(request).limiter.assign(key, **dict(assigned))
    return Response(assigned.model_dump_json(), media_type="application/json")


@router.delete(_KEY, status_code=204)
async def reset(request: Request, key: str, tenant: str | None = None) -> None:
    """Forget what a key has used; buckets that it shares with others stay as they are."""
    await Sidecar.of(request).limiter.reset(key, tenant=tenant)
