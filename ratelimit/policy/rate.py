"""`20/minute`, `20/30s`: how operators write a rate."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ratelimit.request.check import MAX_COUNT
from ratelimit.request.timestamp import MICROSECONDS

_MAX_PERIOD: Final = 366 * 86_400 * MICROSECONDS
_NAMED: Final = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}
_SUFFIX: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_TEXT: Final = re.compile(
    r"(?P<count>[0-9]{1,13})/(?:(?P<name>[a-z]+)|(?P<number>[0-9]{1,9})(?P<suffix>[smhd]))"
)

ALLOWED: Final = "write N/second, N/minute, N/hour, N/day, or N/30s, N/5m, N/2h, N/7d"

_PERIOD: Final = re.compile(r"(?P<number>[0-9]{1,9})(?P<suffix>[smhd])")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"  # noqa: PLR2004 - longer than any rate


def parse_period(text: object) -> int:
    """Read `30s`, `5m`, `2h` or `7d` as microseconds.

    Raises:
        ValueError: it is something else, or not from 1s to 366d.
    """
    match = _PERIOD.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{_short(text)} is not a time; write 30s, 5m, 2h or 7d")
    period = int(match["number"]) * _SUFFIX[match["suffix"]] * MICROSECONDS
    if not 1 <= period <= _MAX_PERIOD:
        raise ValueError(f"{text!r} is out of range: from 1s to 366d")
    return period


def write_period(period: int) -> str:
    """Write microseconds as `30s`, `5m`, `2h` or `7d`."""
    seconds = period // MICROSECONDS
    suffix = next(suffix for suffix, length in reversed(_SUFFIX.items()) if seconds % length == 0)
    return f"{seconds // _SUFFIX[suffix]}{suffix}"


@dataclass(frozen=True, slots=True)
class Rate:
    """So many units every so long.

    Attributes:
        count: units a period, 1 to 10^12.
        period: microseconds, 1 second to 366 days.
    """

    count: int
    period: int

    @classmethod
    def parse(cls, text: object) -> Rate:
        """Read a rate as operators write it.

        Raises:
            ValueError: `text` is not a rate; the message says what is.
        """
        match = _TEXT.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise ValueError(f"{_short(text)} is not a rate; {ALLOWED}")
        name = match["name"]
        if name is not None and name not in _NAMED:
            raise ValueError(f"{_short(text)} is not a rate: there is no such period; {ALLOWED}")
        seconds = _NAMED[name] if name else int(match["number"]) * _SUFFIX[match["suffix"]]
        return cls(int(match["count"]), seconds * MICROSECONDS)

    def __post_init__(self) -> None:
        """Hold rates made by hand to the same ranges."""
        if not 1 <= self.count <= MAX_COUNT:
            raise ValueError(f"{self.count} is out of range: N is from 1 to {MAX_COUNT}")
        if not MICROSECONDS <= self.period <= _MAX_PERIOD:
            raise ValueError(f"{self.period} µs is out of range: a period is from 1s to 366d")

    def __str__(self) -> str:
        seconds = self.period // MICROSECONDS
        for name, length in _NAMED.items():
            if seconds == length:
                return f"{self.count}/{name}"
        return f"{self.count}/{write_period(self.period)}"
