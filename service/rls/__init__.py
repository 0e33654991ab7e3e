"""Envoy's rate-limit service (gRPC), answered by the same limiter as HTTP."""

import importlib.util
from contextlib import suppress
from typing import Final

_MODULES: Final = ("grpc", "grpc_health.v1", "envoy.service.ratelimit.v3")


def is_installed() -> bool:
    """Whether the packages of the extra `grpc` are installed."""
    with suppress(ModuleNotFoundError):  # a parent of the module is missing
        return all(importlib.util.find_spec(name) is not None for name in _MODULES)
    return False
