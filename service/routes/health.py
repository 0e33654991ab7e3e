"""`/healthz`: the process is alive. `/readyz`: the store answers, and the sidecar is not about to stop."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request

from ratelimit.web.problems import Problem
from service import openapi
from service.sidecar import Sidecar

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Report that the process is alive")
async def report_health() -> dict[str, str]:
    """Answer 200 as long as the process is alive."""
    return {"status": "alive"}


@router.get("/readyz", summary="Report whether the store answers", responses=openapi.describe_problems(503))
async def report_readiness(request: Request) -> dict[str, str]:
    """Answer 200 with the store and the version of the policy.

    Answer 503 while the store does not answer, and when the sidecar is about to stop.
    """
    sidecar = Sidecar.from_request(request)
    if sidecar.drain.is_active:
        raise Problem(503, "the sidecar is about to stop, and answers only what still comes")
    limiter = sidecar.limiter
    await limiter.ping()
    return {"status": "ready", "store": limiter.store, "policy": limiter.policy.version}
