"""`/healthz`: the process is alive. `/readyz`: the store answers."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request

from service import openapi
from service.sidecar import Sidecar

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Report that the process is alive")
async def report_health() -> dict[str, str]:
    """Answer 200 as long as the process is alive."""
    return {"status": "alive"}


@router.get("/readyz", summary="Report whether the store answers", responses=openapi.describe_problems(503))
async def report_readiness(request: Request) -> dict[str, str]:
    """Answer 200 with the store and the version of the policy, or 503 while the store does not answer."""
    limiter = Sidecar.from_request(request).limiter
    await limiter.ping()
    return {"status": "ready", "store": limiter.store, "policy": limiter.policy.version}
