"""The Azure trace, and what the sidecar should answer to it, worked out without the sidecar.

Only the arithmetic of one bucket is the library's. The reading of the policy, the loop over
the limits and the comparison are written again here, so that an error in the library's or
the sidecar's shows as a mismatch. What the benchmarks need of the library's inner parts is imported
here and nowhere else.

The trace: an hour of real LLM requests: arrival, context tokens, generated tokens. Timestamps have
seven fractional digits and no offset; they are read as UTC and rounded to the microsecond.

The trace names no keys, so each row is given one by a rule that anybody can repeat:
the first 48 bits of the SHA-256 of the row's number (decimal, from 0) are a uniform
number in [0, 1), and key k of 0…99 takes a share of it proportional to 1/(k + 3). So the
busiest key sends some 9 % of all requests, 34 times as many as the quietest.
"""

import csv
import hashlib
import json
from bisect import bisect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from benchmarks.load import Answer
from ratelimit.engine.bucket import Bucket
from ratelimit.engine.layout import make_owner_store_key
from ratelimit.engine.limit_status import unpack_buckets
from ratelimit.policy.shape import Shape

__all__ = ["Bucket"]

MICROSECONDS: Final = 1_000_000
_PERIODS: Final = {"minute": 60, "day": 86_400}  # seconds; all that the trace's policy uses
_OK: Final = 200
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

KEYS: Final = 100
RULE: Final = "row n -> key k of 100 by SHA-256(n), shares proportional to 1/(k + 3)"

_COLUMNS: Final = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]
_SHARES: Final = list(accumulate(1 / (k + 3) for k in range(KEYS)))
_DIGITS: Final = 7

Facts = dict[str, object]
"""All of an answer that both sides must agree on, by name, such as `allowed`, `retry_after` and
`tokens.remaining`; times in microseconds, None for never. What is no answer at all is a fact `answer`."""

Buckets = dict[tuple[str, str], Bucket]
"""Buckets by key and limit."""


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


class Limit(NamedTuple):
    """One limit as the model has it: a bucket for each key."""

    name: str
    unit: str
    shape: Shape


def limits_of(policy: Path, plan: str) -> tuple[Limit, ...]:
    """Read the limits of a plan."""
    raw = yaml.safe_load(policy.read_text(encoding="utf-8"))["plans"][plan]["limits"]
    limits = []
    for name, fields in raw.items():
        count, period = fields["rate"].split("/")
        burst = float(fields.get("burst", count))
        shape = Shape(float(count), float(_PERIODS[period] * MICROSECONDS), burst)
        limits.append(Limit(name, fields.get("unit", "requests"), shape))
    return tuple(limits)


@dataclass(slots=True)
class Model:
    """The plain model: buckets in a dictionary."""

    limits: tuple[Limit, ...]
    buckets: Buckets = field(default_factory=dict)

    def decide(self, request: Request, tokens: int) -> Facts:
        """Decide one request that asks for so many tokens: it takes from every bucket or from none."""
        t, costs = request.at, {"requests": 1.0, "tokens": float(tokens)}
        violated = [
            limit.name
            for limit in self.limits
            if not self._bucket(request, limit).admits(limit.shape, t, costs[limit.unit])
        ]
        states, waits = Facts(), list[int | None]()
        for limit in self.limits:
            bucket, cost = self._bucket(request, limit), costs[limit.unit]
            waits.append(bucket.compute_wait(limit.shape, t, cost))
            if not violated:
                bucket = self.buckets[request.key, limit.name] = bucket.take(limit.shape, t, cost)
            states |= _state(limit.name, *bucket.compute_remaining(limit.shape, t), waits[-1])
        return {
            "allowed": not violated,
            "violated": violated,
            "retry_after": None if None in waits else max(wait for wait in waits if wait is not None),
            "timestamp": (_EPOCH + timedelta(microseconds=t)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            **states,
        }

    def settle(self, request: Request, more: int) -> Facts:
        """Charge so many tokens more than were asked for, or give them back if negative.

        It is charged at the request's own time. How many requests there were does not change.
        """
        t, states = request.at, Facts()
        for limit in self.limits:
            bucket = self._bucket(request, limit)
            if limit.unit == "tokens":
                bucket = self.buckets[request.key, limit.name] = bucket.adjust(limit.shape, t, float(more))
            wait = bucket.compute_wait(limit.shape, t, 0)
            states |= _state(limit.name, *bucket.compute_remaining(limit.shape, t), wait)
        return {"settled": True, "replayed": False, **states}

    def _bucket(self, request: Request, limit: Limit) -> Bucket:
        return self.buckets.get((request.key, limit.name)) or Bucket(0.0, request.at)


def _state(name: str, remaining: int, reset_after: int, retry_after: int | None) -> Facts:
    return {
        f"{name}.remaining": remaining,
        f"{name}.reset_after": reset_after,
        f"{name}.retry_after": retry_after,
    }


def read_decision(answer: Answer) -> Facts:
    """Read the sidecar's answer to a check."""

    def read(fields: dict[str, Any]) -> Facts | None:
        if fields["source"] == "outage" or answer.status != (_OK if fields["allowed"] else 429):
            return None
        facts = {name: fields[name] for name in ("allowed", "violated", "timestamp")}
        return {**facts, "retry_after": _micros(fields["retry_after"]), **_states(fields)}

    return _read(answer, read)


def read_settlement(answer: Answer) -> Facts:
    """Read the sidecar's answer to a settlement."""

    def read(fields: dict[str, Any]) -> Facts | None:
        if answer.status != _OK:
            return None
        return {"settled": fields["settled"], "replayed": fields["replayed"], **_states(fields)}

    return _read(answer, read)


def _read(answer: Answer, read: Callable[[dict[str, Any]], Facts | None]) -> Facts:
    try:
        facts = read(json.loads(answer.body))
    except (ValueError, KeyError, TypeError):
        facts = None
    return facts or {"answer": f"HTTP {answer.status}: {answer.body[:300].decode(errors='replace')}"}


def _states(fields: dict[str, Any]) -> Facts:
    states = Facts()
    for limit in fields["limits"]:
        times = round(limit["reset_after"] * MICROSECONDS), _micros(limit["retry_after"])
        states |= _state(limit["name"], limit["remaining"], *times)
    return states


def _micros(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * MICROSECONDS)


def stored_buckets(client: Any, keys: Iterable[str], prefix: str) -> Buckets:
    """Read the buckets of some keys as they lie in the store, to the last bit.

    No answer of the sidecar shows as much: those are rounded to tokens and microseconds.
    """
    found: Buckets = {}
    for key in keys:
        state: bytes = client.get(make_owner_store_key("key", prefix + key, prefix + key)) or b""
        for name, (used, at) in unpack_buckets(state).items():
            found[key, name] = Bucket(used, at)
    return found
