"""What `serve` prints when it listens: its address, store and policy, and a command to try it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import structlog

from service.cli.output import console

if TYPE_CHECKING:
    from ratelimit import Limiter
    from service.settings import Settings

log = structlog.get_logger("ratelimit")


def print_banner(settings: Settings, listener: socket.socket, limiter: Limiter) -> None:
    """Print the banner for people, or log it for programs."""
    address, curl_target = _make_addresses(settings, listener)
    policy = limiter.policy
    if settings.log_format == "json":
        log.info(
            "listening", address=address, store=limiter.store, policy=policy.source, version=policy.version
        )
    else:
        plans = ", ".join(policy.plans)
        console.print(f"[bold]ratelimit[/] listens on [bold]{address}[/]")
        console.print(f"  store    {limiter.store}")
        console.print(f"  policy   {policy.source} (plans {plans}; default {policy.default_plan})")
        console.print(f"  docs     {address}/docs" if settings.uds is None else "  docs     /docs")
        token = "" if settings.gateway_token is None else " -H 'X-RateLimit-Gateway-Token: …'"
        console.print(
            f'  try      curl -i {curl_target}/v1/check{token} -d \'{{"key": "vk_demo"}}\'', markup=False
        )


def _make_addresses(settings: Settings, listener: socket.socket) -> tuple[str, str]:
    """Return the address to print, and how curl must name it."""
    if settings.uds is not None:
        return f"unix:{settings.uds}", f"--unix-socket {settings.uds} http://localhost"
    host, port = listener.getsockname()[:2]
    if listener.family == socket.AF_INET6:
        host = f"[{host}]"
    return f"http://{host}:{port}", f"http://{host}:{port}"
