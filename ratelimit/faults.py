"""From pydantic's errors to ours: where, what is wrong, and what is allowed."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from ratelimit.errors import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pydantic
    from pydantic_core import ErrorDetails

TAG = "~"
"""Tags of unions start with this, so that they can be left out of a fault's path."""


def faults_of(
    error: pydantic.ValidationError, fields_at: Callable[[tuple[str, ...]], Iterable[str]], *, echo: bool
) -> list[Fault]:
    """Describe every error in `error`.

    Args:
        error: what pydantic found.
        fields_at: the fields allowed beside the one at a path, for names that are unknown.
        echo: repeat the value at fault. Right for an operator's file; wrong for a request,
            where whatever was sent by mistake would end up in a log.
    """
    return [_fault(detail, fields_at, echo=echo) for detail in error.errors(include_url=False)]


def _fault(
    detail: ErrorDetails, fields_at: Callable[[tuple[str, ...]], Iterable[str]], *, echo: bool
) -> Fault:
    path = tuple(str(step) for step in detail["loc"] if step != "[key]" and not str(step).startswith(TAG))
    kind, context = detail["type"], detail.get("ctx", {})
    got = _short(detail["input"]) if echo else None
    if kind == "extra_forbidden":
        message = _unknown(path[-1], sorted(fields_at(path)))
    elif kind == "missing":
        message = "required"
    elif kind in {"value_error", "assertion_error"}:
        message = str(context["error"])
    elif kind == "literal_error":
        message = f"{got + ' is not allowed; ' if got else ''}one of {context['expected']}"
    else:
        message = detail["msg"].replace("Input should be", "must be").replace("Input should", "must")
        message += f", not {got}" if got else ""
    return Fault(".".join(path), message)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"  # noqa: PLR2004 - what fits a line of a terminal


def _unknown(name: str, allowed: list[str]) -> str:
    close = difflib.get_close_matches(name, allowed, n=1)
    hint = f"; did you mean `{close[0]}`?" if close else ""
    return (
        f"there is no such field{hint} Allowed: {', '.join(allowed)}"
        if hint
        else (f"there is no such field; allowed: {', '.join(allowed)}")
    )
