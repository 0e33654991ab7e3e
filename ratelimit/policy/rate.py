"""How operators write rates and periods: `20/minute`, `20/30s`, `30s`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ratelimit.request.check import MAX_COUNT
from ratelimit.request.timestamp import MICROSECONDS
from ratelimit.request.validation import shorten

_MAX_PERIOD: Final = 366 * 86_400 * MICROSECONDS
_SECONDS_BY_NAME: Final = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}
_SECONDS_BY_SUFFIX: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_PERIOD: Final = re.compile(r"(?P<number>[0-9]{1,9})(?P<suffix>[smhd])")
_RATE: Final = re.compile(
    r"(?P<count>[0-9]{1,13})/(?:(?P<name>[a-z]+)|(?P<number>[0-9]{1,9})(?P<suffix>[smhd]))"
)

RATE_HELP: Final = "write N/second, N/minute, N/hour, N/day, or N/30s, N/5m, N/2h, N/7d"


def parse_period(text: object) -> int:
    """Read `30s`, `5m`, `2h` or `7d` as microseconds.

    Raises:
        ValueError: the text is not a period, or the period is not from 1s to 366d.
    """
    match = _PERIOD.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{shorten(text)} is not a period; write 30s, 5m, 2h or 7d")
    period = int(match["number"]) * _SECONDS_BY_SUFFIX[match["suffix"]] * MICROSECONDS
    if not 1 <= period <= _MAX_PERIOD:
        raise ValueError(f"{text!r} is out of range: a period is from 1s to 366d")
    return period


def write_period(period: int) -> str:
    """Write microseconds as `30s`, `5m`, `2h` or `7d`."""
    seconds = period // MICROSECONDS
    suffix = next(suffix for suffix, length in reversed(_SECONDS_BY_SUFFIX.items()) if seconds % length == 0)
    return f"{seconds // _SECONDS_BY_SUFFIX[suffix]}{suffix}"


@dataclass(frozen=True, slots=True)
class Rate:
    """N units per period.

    Attributes:
        count: units per period, 1 to 10^12.
        period: microseconds, 1 second to 366 days.
    """

    count: int
    period: int

    @classmethod
    def parse(cls, text: object) -> Rate:
        """Read a rate as operators write it.

        Raises:
            ValueError: the text is not a rate, or a number in it is out of range. The message tells
                what is allowed.
        """
        match = _RATE.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise ValueError(f"{shorten(text)} is not a rate; {RATE_HELP}")
        name = match["name"]
        if name is not None and name not in _SECONDS_BY_NAME:
            raise ValueError(f"{shorten(text)} is not a rate: there is no such period; {RATE_HELP}")
        seconds = (
            _SECONDS_BY_NAME[name] if name else int(match["number"]) * _SECONDS_BY_SUFFIX[match["suffix"]]
        )
        return cls(int(match["count"]), seconds * MICROSECONDS)

    def __post_init__(self) -> None:
        """Check the ranges, also of a rate that is not parsed from text."""
        if not 1 <= self.count <= MAX_COUNT:
            raise ValueError(f"{self.count} is out of range: N is from 1 to {MAX_COUNT}")
        if not MICROSECONDS <= self.period <= _MAX_PERIOD:
            raise ValueError(f"{self.period} µs is out of range: a period is from 1s to 366d")

    def __str__(self) -> str:
        seconds = self.period // MICROSECONDS
        for name, length in _SECONDS_BY_NAME.items():
            if seconds == length:
                return f"{self.count}/{name}"
        return f"{self.count}/{write_period(self.period)}"
