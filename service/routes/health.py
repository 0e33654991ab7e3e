"""`/healthz`: the process is alive. `/readyz`: it can decide."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request

from service.sidecar import Sidecar

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Say that the process is alive."""
    return {"status": "alive"}


@router.get("/readyz")
async def readyz(request: Request) -> dict[str, str]:
    """Say that the store answers and which policy is in force; 503 while the store does not."""
    limiter = Sidecar.of(request).limiter
    await limiter.ping()
    return {"status": "ready", "store": limiter.store, "policy": limiter.policy.version}
