"""The public names of the library, from their docstrings, by mkdocstrings."""

from __future__ import annotations

import contextlib
import importlib
from typing import Final

URI: Final = "reference/python.md"

_GROUPS: Final = {
    "Limiters": ["Limiter", "AsyncLimiter", "Reservation", "AsyncReservation"],
    "Policies": ["Policy", "Plan", "Limit", "Rate"],
    "What goes in": ["Check", "Usage"],
    "What comes out": ["Decision", "LimitState", "Settlement"],
    "Errors": [
        "RateLimitError",
        "RateLimited",
        "StoreUnavailable",
        "LimiterClosed",
        "PolicyError",
        "InvalidRequest",
        "UnknownReservation",
        "Fault",
    ],
    "Observers": ["Observer", "End"],
}
_MODULES: Final = {
    "ratelimit.asgi": ("ASGI: Starlette, FastAPI and others", ["RateLimitMiddleware"]),
    "ratelimit.fastapi": ("FastAPI", ["rate_limit", "RESPONSES", "Denied", "Refused"]),
    "ratelimit.wsgi": ("WSGI: Flask, Django and others", ["RateLimitMiddleware"]),
    "ratelimit.web.options": ("Options of these", ["CheckRuleOptions", "MiddlewareOptions"]),
    "ratelimit.httpx": (
        "httpx: a client that keeps to limits",
        ["RateLimitTransport", "AsyncRateLimitTransport"],
    ),
    "ratelimit.history": ("Histories", []),
}
"""Modules beside the package itself, with their titles and names; without names, all of `__all__`.

What does not exist is left out.
"""


def make_page() -> str:
    """Return the page as Markdown, with a place for each public name that mkdocstrings fills."""
    names = [name for name in importlib.import_module("ratelimit").__all__ if not name.startswith("__")]
    grouped = {name for group in _GROUPS.values() for name in group}
    lines = ["# Python reference", "", "Every public name, from its docstring. Times are in seconds.", ""]
    for title, group in {"Functions": sorted({*names} - grouped), **_GROUPS}.items():
        lines += _list_names(title, "ratelimit", [name for name in group if name in names])
    for module, (title, chosen) in _MODULES.items():
        with contextlib.suppress(ModuleNotFoundError):
            loaded = importlib.import_module(module)
            lines += _list_names(
                title, module, [name for name in chosen or loaded.__all__ if hasattr(loaded, name)]
            )
    return "\n".join(lines)


def _list_names(title: str, module: str, names: list[str]) -> list[str]:
    places = [f"::: {module}.{name}\n" for name in names]
    return (
        [f"## {title}", "", *([f"From `{module}`.", ""] if module != "ratelimit" else []), *places]
        if names
        else []
    )
