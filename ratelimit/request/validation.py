"""From pydantic's errors to ours: where, what is wrong, and what is allowed."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from pydantic_core import PydanticCustomError

from ratelimit.errors import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pydantic
    from pydantic_core import ErrorDetails

TAG = "\0"
"""Tags of unions start with this, so that they can be left out of a fault's path: no name holds it."""

_AT = "at_field"
_LONGEST = 64
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def at(field: str, message: str) -> PydanticCustomError:
    """Make the error for one field, from a validator that sees them all."""
    return PydanticCustomError(_AT, "{message}", {"field": field, "message": message})


def make_faults(
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
    kind, context = detail["type"], detail.get("ctx", {})
    path = _path(detail, echo=echo)
    got = short(detail["input"]) if echo else None
    if kind == "extra_forbidden":
        message = _unknown(path[-1], sorted(fields_at(path)))
    elif kind == "missing":
        message = "required"
    elif kind in {"value_error", "assertion_error"}:
        message = str(context["error"])
    elif kind == _AT:
        path, message = (*path, context["field"]), context["message"]
    elif kind == "model_type":  # pydantic names the class, which no operator has heard of
        message = "must be a mapping" + (f", not {got}" if got else "")
    elif kind == "literal_error":
        message = f"{got + ' is not allowed; ' if got else ''}one of {context['expected']}"
    else:
        message = detail["msg"].replace("Input should be", "must be").replace("Input should", "must")
        message += f", not {got}" if got else ""
    return Fault(".".join(path), message)


def _path(detail: ErrorDetails, *, echo: bool) -> tuple[str, ...]:
    steps = [str(step) for step in detail["loc"]]
    # The name of a field that nobody knows is whatever was sent, though it look like a tag.
    named = steps[-1:] if detail["type"] == "extra_forbidden" else []
    steps = [step for step in steps[: len(steps) - len(named)] if not step.startswith(TAG)] + named
    if steps and steps[-1] == "[key]":
        # The name itself is at fault: a request's goes unrepeated, whatever was put there.
        steps = steps[:-1] if echo else steps[:-2]
    return tuple(step if echo or _NAME.fullmatch(step) else "…" for step in steps)


def short(value: object) -> str:
    """Write a value from a file so that it fits a line."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _unknown(name: str, allowed: list[str]) -> str:
    close = difflib.get_close_matches(name, allowed, n=1)
    hint = f"; did you mean `{close[0]}`?" if close else ""
    return (
        f"there is no such field{hint} Allowed: {', '.join(allowed)}"
        if hint
        else (f"there is no such field; allowed: {', '.join(allowed)}")
    )
