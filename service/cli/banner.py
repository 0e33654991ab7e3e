"""What `serve` says when it is there: where it listens, what it uses, and how to try it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import structlog

from service.cli.output import console

if TYPE_CHECKING:
    from ratelimit import Limiter
    from service.settings import Settings

log = structlog.get_logger("ratelimit")


def announce(settings: Settings, listener: socket.socket, limiter: Limiter) -> None:
    """Say it to people, or log it for machines."""
    where, curl = _address(settings, listener)
    policy = limiter.policy
    if settings.log_format == "json":
        log.info(
            "listening", address=where, store=limiter.store, policy=policy.source, version=policy.version
        )
    else:
        plans = ", ".join(policy.plans)
        console.print(f"[bold]ratelimit[/] listens on [bold]{where}[/]")
        console.print(f"  store    {limiter.store}")
        console.print(f"  policy   {policy.source} (plans {plans}; default {policy.default_plan})")
        console.print(f"  docs     {where}/docs" if settings.uds is None else "  docs     /docs")
        token = "" if settings.gateway_token is None else " -H 'X-RateLimit-Gateway-Token: …'"
        console.print(f'  try      curl -i {curl}/v1/check{token} -d \'{{"key": "vk_demo"}}\'', markup=False)
    if settings.key_pepper is None:
        log.warning(
            "no key_pepper: secrets become other identifiers after a restart and in other sidecars;"
            " set RATELIMIT_KEY_PEPPER"
        )


def _address(settings: Settings, listener: socket.socket) -> tuple[str, str]:
    if settings.uds is not None:
        return f"unix:{settings.uds}", f"--unix-socket {settings.uds} http://localhost"
    host, port = listener.getsockname()[:2]
    if listener.family == socket.AF_INET6:
        host = f"[{host}]"
    return f"http://{host}:{port}", f"http://{host}:{port}"
