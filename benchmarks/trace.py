"""The Azure trace as requests of 100 keys.

An hour of real LLM requests: arrival, context tokens, generated tokens. Timestamps have
seven fractional digits and no offset; they are read as UTC and rounded to the microsecond.

The trace names no keys, so each row is given one by a rule that anybody can repeat:
the first 48 bits of the SHA-256 of the row's number (decimal, from 0) are a uniform
number in [0, 1), and key k of 0…99 takes a share of it proportional to 1/(k + 3). So the
busiest key sends some 9 % of all requests, 34 times as many as the quietest.
"""

import csv
import hashlib
from bisect import bisect
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Final, NamedTuple

KEYS: Final = 100
RULE: Final = "row n -> key k of 100 by SHA-256(n), shares proportional to 1/(k + 3)"

_COLUMNS: Final = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]
_SHARES: Final = list(accumulate(1 / (k + 3) for k in range(KEYS)))
_DIGITS: Final = 7


class TraceError(ValueError):
    """The file is not the trace."""


class Request(NamedTuple):
    """One row of the trace."""

    row: int  # from 0
    key: str  # that it was assigned to
    timestamp: str  # its own time, RFC 3339 in UTC, with all its digits
    at: int  # the same in microseconds since the epoch
    context: int  # tokens of the prompt
    generated: int  # tokens of the answer

    @property
    def tokens(self) -> int:
        """Context and generated tokens together: what it really used."""
        return self.context + self.generated


def read_trace(path: Path) -> list[Request]:
    """Read the trace in its own order; TraceError if the file is not there or is something else."""
    try:
        header, *rows = [*csv.reader(path.read_text(encoding="utf-8").splitlines())] or [[]]
    except (OSError, ValueError) as error:
        raise TraceError(f"{path}: {error}") from None
    if header != _COLUMNS or not rows:
        raise TraceError(f"{path}: the first line must be {','.join(_COLUMNS)}, and requests must follow")
    return [_request(path, row, cells) for row, cells in enumerate(rows)]


def key_of(row: int) -> int:
    """Return the key, 0 to 99, that a row is assigned to; the module's text states the rule."""
    uniform = int.from_bytes(hashlib.sha256(str(row).encode()).digest()[:6], "big") / 2**48
    return bisect(_SHARES, uniform * _SHARES[-1])


def _request(path: Path, row: int, cells: list[str]) -> Request:
    try:
        text, context, generated = cells
        whole, fraction = text.split(".")
        if len(fraction) != _DIGITS:
            raise ValueError(f"expected {_DIGITS} fractional digits")  # noqa: TRY301 - told like the others
        # By hand: datetime would drop the seventh digit instead of rounding it.
        seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
        at = 1_000_000 * seconds + round(int(fraction) / 10)
        timestamp = f"{text.replace(' ', 'T')}Z"
        return Request(row, f"vk_{key_of(row):03d}", timestamp, at, int(context), int(generated))
    except ValueError as error:
        raise TraceError(f"{path}: row {row}: {error}") from None
