"""`/metrics`: what Prometheus reads."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.sidecar import Sidecar

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    summary="Show the metrics for Prometheus",
    response_class=Response,
    responses={200: {"description": "the metrics of all workers", "content": {"text/plain": {}}}},
)
async def show_metrics(request: Request) -> Response:
    """Show the metrics of all workers, in Prometheus' text format or in OpenMetrics. No key is in them."""
    metrics = Sidecar.from_request(request).metrics
    # In a thread: many series take some milliseconds, and checks must not wait for that.
    body, media_type = await asyncio.to_thread(metrics.render, request.headers.get("Accept", ""))
    return Response(body, headers={"Content-Type": media_type})
