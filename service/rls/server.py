"""The gRPC server: Envoy's rate-limit service and gRPC's health service, in the event loop of HTTP."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import grpc
from grpc_health.v1.health import OVERALL_HEALTH
from grpc_health.v1.health import aio as health
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from service.background import run_in_background
from service.rls.service import RateLimitService

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from service.sidecar import Sidecar

SERVICE: Final = "envoy.service.ratelimit.v3.RateLimitService"
_GRACE: Final = 10.0
"""Seconds that calls under way have when the server stops, as over HTTP."""

_MAX_MESSAGE: Final = 65_536
"""Bytes of a request, as over HTTP."""


@contextlib.asynccontextmanager
async def run_server(sidecar: Sidecar) -> AsyncIterator[None]:
    """Serve the rate-limit service on the settings' `host` and `grpc_port` until the block ends.

    Raises:
        RuntimeError: the port cannot be used.
    """
    settings = sidecar.settings
    shared = (
        settings.workers > 1
    )  # each worker listens on the same port, and the kernel shares the connections out
    server = grpc.aio.server(
        options=[("grpc.so_reuseport", int(shared)), ("grpc.max_receive_message_length", _MAX_MESSAGE)]
    )
    # Without the generated handler: it answers UNKNOWN for a message that cannot be read.
    method = grpc.unary_unary_rpc_method_handler(RateLimitService(sidecar).handle)
    server.add_registered_method_handlers(SERVICE, {"ShouldRateLimit": method})
    add_HealthServicer_to_server(servicer := health.HealthServicer(), server)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    server.add_insecure_port(f"{host}:{settings.grpc_port}")
    await server.start()
    for name in (OVERALL_HEALTH, SERVICE):
        await servicer.set(name, HealthCheckResponse.SERVING)

    async def end_health() -> None:
        await sidecar.drain.begun.wait()
        await servicer.enter_graceful_shutdown()

    try:
        async with run_in_background(end_health()):
            yield
    finally:
        await servicer.enter_graceful_shutdown()
        await server.stop(_GRACE)
