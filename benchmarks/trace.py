"""The Azure trace as requests of 100 keys.

An hour of real LLM requests: arrival, context tokens, generated tokens. Timestamps have
seven fractional digits and no offset; they are read as UTC and rounded to the microsecond.

The trace names no keys, so each row is given one by a rule that anybody can repeat:
the first 48 bits of the SHA-256 of the row's number (decimal, from 0) are a uniform
number in [0, 1), and key k of 0…99 takes a share of it proportional to 1/(k + 3). So the
busiest key sends some 9 % of all requests, 34 times as many as the quietest.
"""

from __future__ import annotations

import csv
import hashlib
from bisect import bisect
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

KEYS: Final = 100
RULE: Final = "row n -> key k of 100 by SHA-256(n), shares proportional to 1/(k + 3)"

_COLUMNS: Final = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]
_SHARES: Final = list(accumulate(1 / (k + 3) for k in range(KEYS)))
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DIGITS: Final = 7


class TraceError(ValueError):
    """The file is not the trace."""


@dataclass(frozen=True, slots=True)
class Request:
    """One row of the trace.

    Attributes:
        row: its number, from 0.
        key: the key it was assigned to.
        timestamp: its own time, RFC 3339 in UTC, with all its digits.
        at: the same in microseconds since the epoch.
        context: tokens of the prompt.
        generated: tokens of the answer.
    """

    row: int
    key: str
    timestamp: str
    at: int
    context: int
    generated: int

    @property
    def tokens(self) -> int:
        """Context and generated tokens together: what it really used."""
        return self.context + self.generated


def read_trace(path: Path) -> list[Request]:
    """Read the trace in its own order.

    Raises:
        TraceError: the file is not there or is something else.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            if next(reader, None) != _COLUMNS:
                raise TraceError(f"{path}: the first line must be {','.join(_COLUMNS)}")
            requests = [_request(row, cells) for row, cells in enumerate(reader)]
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise error if isinstance(error, TraceError) else TraceError(f"{path}: {error}") from None
    if not requests:
        raise TraceError(f"{path}: holds no requests")
    return requests


def key_of(row: int) -> int:
    """Return the key, 0 to 99, that a row is assigned to; the module's text states the rule."""
    uniform = int.from_bytes(hashlib.sha256(str(row).encode()).digest()[:6], "big") / 2**48
    return bisect(_SHARES, uniform * _SHARES[-1])


def _request(row: int, cells: list[str]) -> Request:
    try:
        text, context, generated = cells
        return Request(
            row=row,
            key=f"vk_{key_of(row):03d}",
            timestamp=f"{text.replace(' ', 'T')}Z",
            at=_micros(text),
            context=int(context),
            generated=int(generated),
        )
    except ValueError as error:
        raise TraceError(f"row {row}: {error}") from None


def _micros(text: str) -> int:
    whole, fraction = text.split(".")
    if len(fraction) != _DIGITS:
        raise ValueError(f"expected {_DIGITS} fractional digits")
    since = datetime.fromisoformat(whole).replace(tzinfo=UTC) - _EPOCH
    # By hand: datetime would drop the seventh digit instead of rounding it.
    return since // timedelta(microseconds=1) + round(int(fraction) / 10)
