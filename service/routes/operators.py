"""Endpoints for operators: keys and their limits, assignments to keys and tenants, the policy in force."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from ratelimit import Decision
from ratelimit.metering.assignments import KeyAssignment, TenantAssignment
from service import body, openapi
from service.sidecar import Sidecar
from service.tokens import require_operator

_KEY = "/v1/keys/{key:path}"
"""`:path`, because a key may contain any visible character, also a slash."""

router = APIRouter(
    tags=["operators"],
    dependencies=[Depends(require_operator)],
    responses=openapi.describe_problems(401, 404),
)

_WRITE_RESPONSES = openapi.describe_problems(400, 413, 422, 503)


@router.get("/v1/policy", summary="Show the policy in force")
async def show_policy(request: Request) -> dict[str, Any]:
    """Show the policy in force, its source and its version."""
    policy = Sidecar.from_request(request).limiter.policy
    return {"source": policy.source, "version": policy.version, **policy.as_dict()}


@router.get(
    _KEY,
    summary="Show the limits of a key",
    response_model=Decision,
    responses=openapi.describe_problems(422),
)
async def show_key(
    request: Request,
    key: openapi.KeyPath,
    plan: openapi.PlanQuery = None,
    model: openapi.ModelQuery = None,
    tenant: openapi.TenantQuery = None,
) -> Response:
    """Show the limits of a key and charge nothing. `allowed` is true if one more request would pass."""
    decision = await Sidecar.from_request(request).limiter.peek(key, plan=plan, model=model, tenant=tenant)
    return Response(to_json(decision.as_dict()), media_type="application/json")


@router.put(
    _KEY,
    summary="Assign a plan or tenant to a key, or block it",
    response_model=KeyAssignment,
    openapi_extra=body.describe_body(body.KEY_ASSIGNMENT.json_schema()),
    responses=_WRITE_RESPONSES,
)
async def assign_to_key(request: Request, key: openapi.KeyPath) -> Response:
    """Assign a plan or tenant to a key, or block it, in every sidecar on this store.

    It takes effect within a second. The policy still decides fields that are absent, and `{}` removes the
    assignment.
    """
    assignment = await body.read_body(request, body.KEY_ASSIGNMENT, KeyAssignment)
    await Sidecar.from_request(request).limiter.assign(key, **dict(assignment))
    return Response(assignment.model_dump_json(), media_type="application/json")


@router.put(
    "/v1/tenants/{tenant:path}",
    summary="Assign a plan to a tenant",
    response_model=TenantAssignment,
    openapi_extra=body.describe_body(body.TENANT_ASSIGNMENT.json_schema()),
    responses=_WRITE_RESPONSES,
)
async def assign_to_tenant(request: Request, tenant: openapi.TenantPath) -> Response:
    """Assign a plan to a tenant, in every sidecar on this store.

    It takes effect within a second, for each key of the tenant that has no plan of its own. `{}` removes
    the assignment.
    """
    assignment = await body.read_body(request, body.TENANT_ASSIGNMENT, TenantAssignment)
    await Sidecar.from_request(request).limiter.assign_tenant(tenant, plan=assignment.plan)
    return Response(assignment.model_dump_json(), media_type="application/json")


@router.delete(_KEY, summary="Reset a key", status_code=204, responses=openapi.describe_problems(422, 503))
async def reset_key(request: Request, key: openapi.KeyPath, tenant: openapi.TenantQuery = None) -> None:
    """Forget what a key has used. Buckets that it shares with other keys do not change."""
    await Sidecar.from_request(request).limiter.reset(key, tenant=tenant)
