"""The public names of the library, from their docstrings, by mkdocstrings."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
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
        "PolicyError",
        "InvalidRequest",
        "UnknownReservation",
        "Fault",
    ],
    "Observers": ["Observer", "End"],
}
_MODULES: Final = {
    "ratelimit.asgi": "ASGI: Starlette, FastAPI and others",
    "ratelimit.fastapi": "FastAPI",
    "ratelimit.wsgi": "WSGI: Flask, Django and others",
    "ratelimit.httpx": "httpx: a client that keeps to limits",
    "ratelimit.history": "Histories",
}
"""Modules beside the package itself. One that does not exist is left out."""


def make_page() -> str:
    """Return the page as Markdown, with a place for each public name that mkdocstrings fills."""
    names = [name for name in importlib.import_module("ratelimit").__all__ if not name.startswith("__")]
    grouped = {name for group in _GROUPS.values() for name in group}
    lines = ["# Python reference", "", "Every public name, from its docstring. Times are in seconds.", ""]
    for title, group in {"Functions": sorted({*names} - grouped), **_GROUPS}.items():
        lines += _list_names(title, "ratelimit", [name for name in group if name in names])
    for module, title in _MODULES.items():
        if find_spec(module):
            lines += _list_names(title, module, _find_public_names(module))
    return "\n".join(lines)


def _list_names(title: str, module: str, names: list[str]) -> list[str]:
    places = [f"::: {module}.{name}\n" for name in names]
    return (
        [f"## {title}", "", *([f"From `{module}`.", ""] if module != "ratelimit" else []), *places]
        if names
        else []
    )


def _find_public_names(module: str) -> list[str]:
    loaded = importlib.import_module(module)
    if hasattr(loaded, "__all__"):
        return [*loaded.__all__]
    return [
        name
        for name, value in vars(loaded).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module
    ]
