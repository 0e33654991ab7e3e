"""For operators: the limits of a key, assignments to keys and tenants, resets, and the policy in force."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from ratelimit import Decision
from ratelimit.metering.assignments import KeyAssignment, TenantAssignment
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


@router.put(_KEY, response_model=KeyAssignment, openapi_extra=body.takes(body.KEY_ASSIGNMENT.json_schema()))
async def assign(request: Request, key: str) -> Response:
    """Assign a plan or tenant to a key, or block it, for every sidecar on this store.

    What is left out is left to the policy; `{}` removes the assignment.
    """
    assignment = await body.read(request, body.KEY_ASSIGNMENT, KeyAssignment)
    await Sidecar.of(request).limiter.assign(key, **dict(assignment))
    return Response(assignment.model_dump_json(), media_type="application/json")


@router.put(
    "/v1/tenants/{tenant:path}",
    response_model=TenantAssignment,
    openapi_extra=body.takes(body.TENANT_ASSIGNMENT.json_schema()),
)
async def assign_tenant(request: Request, tenant: str) -> Response:
    """Assign a plan to a tenant: to each of its keys that has none of its own, through every sidecar.

    `{}` removes the assignment.
    """
    assignment = await body.read(request, body.TENANT_ASSIGNMENT, TenantAssignment)
    await Sidecar.of(request).limiter.assign_tenant(tenant, plan=assignment.plan)
    return Response(assignment.model_dump_json(), media_type="application/json")


@router.delete(_KEY, status_code=204)
async def reset(request: Request, key: str, tenant: str | None = None) -> None:
    """Forget what a key has used; buckets that it shares with others stay as they are."""
    await Sidecar.of(request).limiter.reset(key, tenant=tenant)
