"""Turn errors of pydantic into faults: where it is wrong, what is wrong, and what is allowed."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Final

from pydantic_core import PydanticCustomError

from ratelimit.errors import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pydantic
    from pydantic_core import ErrorDetails

TAG_PREFIX: Final = "\0"
"""Start of the tags of unions, so that a fault's path can leave them out. No name contains this."""

_FIELD_ERROR: Final = "field_error"
_MAX_LENGTH: Final = 64
_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def make_field_error(field: str, message: str) -> PydanticCustomError:
    """Make the error for one field. It is for validators of a whole model, which check several fields."""
    return PydanticCustomError(_FIELD_ERROR, "{message}", {"field": field, "message": message})


def make_faults(
    error: pydantic.ValidationError,
    find_allowed_fields: Callable[[tuple[str, ...]], Iterable[str]],
    *,
    echo: bool,
) -> list[Fault]:
    """Return a fault for each thing that is wrong.

    Args:
        error: the error of pydantic.
        find_allowed_fields: returns the fields that are allowed at the path of an unknown field.
        echo: whether messages repeat the wrong value. Use it for an operator's file, but not for a
            request: content that was sent by mistake would end up in a log.
    """
    return [_make_fault(detail, find_allowed_fields, echo=echo) for detail in error.errors(include_url=False)]


def _make_fault(
    detail: ErrorDetails, find_allowed_fields: Callable[[tuple[str, ...]], Iterable[str]], *, echo: bool
) -> Fault:
    error_type, context = detail["type"], detail.get("ctx", {})
    path = _make_path(detail, echo=echo)
    got = shorten(detail["input"]) if echo else None
    if error_type == "extra_forbidden":
        message = _describe_unknown_field(path[-1], sorted(find_allowed_fields(path)))
    elif error_type == "missing":
        message = "required"
    elif error_type in {"value_error", "assertion_error"}:
        message = str(context["error"])
    elif error_type == _FIELD_ERROR:
        path, message = (*path, context["field"]), context["message"]
    elif error_type == "model_type":  # pydantic's message names a class, which users do not know
        message = "must be a mapping" + (f", not {got}" if got else "")
    elif error_type == "literal_error":
        message = f"{got + ' is not allowed; ' if got else ''}allowed: {context['expected']}"
    else:
        message = detail["msg"].replace("Input should be", "must be").replace("Input should", "must")
        message += f", not {got}" if got else ""
    return Fault(".".join(path), message)


def _make_path(detail: ErrorDetails, *, echo: bool) -> tuple[str, ...]:
    steps = [str(step) for step in detail["loc"]]
    # The name of an unknown field can be any text, also one that looks like a tag, so it is kept.
    unknown = steps[-1:] if detail["type"] == "extra_forbidden" else []
    steps = [step for step in steps[: len(steps) - len(unknown)] if not step.startswith(TAG_PREFIX)] + unknown
    if steps and steps[-1] == "[key]":
        # A name in a mapping is wrong. It is not repeated for a request, because it can be any text.
        steps = steps[:-1] if echo else steps[:-2]
    return tuple(step if echo or _SAFE_NAME.fullmatch(step) else "…" for step in steps)


def shorten(value: object) -> str:
    """Write a value for a message, cut off where it is longer than a line has room for."""
    text = repr(value)
    return text if len(text) <= _MAX_LENGTH else f"{text[: _MAX_LENGTH - 1]}…"


def _describe_unknown_field(name: str, allowed: list[str]) -> str:
    names = ", ".join(allowed)
    if similar := difflib.get_close_matches(name, allowed, n=1):
        return f"there is no such field; did you mean `{similar[0]}`? Allowed: {names}"
    return f"there is no such field; allowed: {names}"
