"""Timestamps: users write RFC 3339 or epoch seconds, the library uses whole microseconds since the epoch."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from pydantic import BeforeValidator, WithJsonSchema

MICROSECONDS: Final = 1_000_000
"""Microseconds per second. The library counts all times in whole microseconds; users see seconds."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = 7_258_118_400  # 2200-01-01: up to here a double holds microseconds exactly
_RFC3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,12})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_NUMBER: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")
_TIMESTAMP_HELP: Final = "an RFC 3339 time with an offset from UTC, or seconds since 1970"


def parse_timestamp(value: object) -> int | None:
    """Read a timestamp as microseconds since the epoch; None for None.

    The value is an aware datetime, epoch seconds as a number or as text, or RFC 3339 text with an
    offset. Numbers are rounded to whole microseconds. Digits of RFC 3339 beyond microseconds are cut off.

    Raises:
        ValueError: the value has no offset, is not a time, or is not between 1970 and 2200.
    """
    if value is None:
        return None
    if isinstance(value, str):
        value = _parse_text(value)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"has no offset; write {_TIMESTAMP_HELP}")
        value = value.timestamp()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:  # noqa: PLR0124 - NaN
        raise ValueError(f"must be {_TIMESTAMP_HELP}")
    if not 0 <= value <= _LATEST:
        hint = "; this looks like milliseconds" if 0 <= value <= _LATEST * 1000 else ""
        raise ValueError(f"must be between 1970 and 2200, in seconds{hint}")
    return round(value * MICROSECONDS)


def _parse_text(text: str) -> datetime | float:
    if _NUMBER.fullmatch(text):
        return float(text)
    if not _RFC3339.fullmatch(text):
        without_offset = re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9:.]+)?", text)
        raise ValueError(
            f"has no offset; write {_TIMESTAMP_HELP}" if without_offset else f"must be {_TIMESTAMP_HELP}"
        )
    try:
        return datetime.fromisoformat(text.upper())
    except ValueError as error:
        raise ValueError(f"is not a valid time ({error}); write {_TIMESTAMP_HELP}") from None


def as_datetime(t: int) -> datetime:
    """Return microseconds since the epoch as an aware datetime, exactly."""
    seconds, microseconds = divmod(t, MICROSECONDS)
    return _EPOCH + timedelta(0, seconds, microseconds)


Timestamp = Annotated[
    int | None,
    BeforeValidator(parse_timestamp),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "format": "date-time"},
                {"type": "number", "minimum": 0, "maximum": _LATEST},
                {"type": "null"},
            ],
            "description": f"when the request was made: {_TIMESTAMP_HELP}; by default the store's time",
            "examples": ["2026-02-20T15:30:00Z", 1771601400.25],
        }
    ),
]
