"""Warnings at the start of the sidecar: settings with which it works, but which are not safe."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ratelimit import Policy
    from service.settings import Settings

log = structlog.get_logger("ratelimit")

MIN_PEPPER: Final = 16
"""Characters of a pepper that is hard to guess."""


def warn_of_unsafe_settings(settings: Settings, policy: Policy) -> None:
    """Log a warning for each setting that is not safe, with what to do."""
    for text in find_unsafe_settings(settings, policy):
        log.warning(text)


def find_unsafe_settings(settings: Settings, policy: Policy) -> Iterator[str]:
    """Yield a line for each setting that is not safe."""
    if settings.key_pepper is None:
        yield (
            "no key_pepper: the same secret becomes another key after a restart and in other sidecars;"
            " set RATELIMIT_KEY_PEPPER"
        )
    elif len(settings.key_pepper.get_secret_value()) < MIN_PEPPER:
        yield (
            f"key_pepper is shorter than {MIN_PEPPER} characters: whoever reads a key can guess its secret;"
            " set RATELIMIT_KEY_PEPPER to a longer random text, such as that of `openssl rand -hex 32`"
        )
    if settings.gateway_token is None and _listens_beyond_loopback(settings):
        yield (
            f"no gateway_token, and {settings.host} can be reached from other machines: they can charge and"
            " block every key; set RATELIMIT_GATEWAY_TOKEN, or listen on 127.0.0.1"
        )
    if policy.unknown_keys == "default_plan":
        yield (
            "unknown_keys is default_plan: each made-up secret gets fresh limits of the plan"
            f" {policy.default_plan}; set unknown_keys to anonymous or deny in {policy.source}"
        )


def _listens_beyond_loopback(settings: Settings) -> bool:
    if settings.uds is not None and settings.grpc_port == 0:
        return False
    try:
        return not ip_address(settings.host).is_loopback
    except ValueError:  # a name
        return settings.host != "localhost"
