"""The Azure trace, and the answers that the sidecar should give to it, computed without the sidecar.

Only the arithmetic of one bucket is the library's, and no other module of the benchmarks imports its inner
parts. The policy, the loop over limits and the comparison are written again, so that an error of the library
shows as a mismatch. The trace is an hour of real LLM requests; its timestamps have seven fractional digits
and no offset, are read as UTC and rounded to the microsecond. It names no keys, so each row gets one by a
rule that anybody can repeat: the first 48 bits of the SHA-256 of the row's number (decimal, from 0) are a
uniform number in [0, 1), and key k of 0…99 takes a share of it proportional to 1/(k + 3). So the busiest key
sends about 9 % of all requests, 34 times as many as the quietest.
"""

import hashlib
import json
import re
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

KEYS: Final = 100
RULE: Final = "row n -> key k of 100 by SHA-256(n), shares proportional to 1/(k + 3)"
_SHARES: Final = list(accumulate(1 / (k + 3) for k in range(KEYS)))

MICROSECONDS: Final = 1_000_000
_PERIODS: Final = {"minute": 60 * MICROSECONDS, "day": 86_400 * MICROSECONDS}  # all that the policy uses
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HEADER: Final = "TIMESTAMP,ContextTokens,GeneratedTokens"
_ROW: Final = re.compile(r"(\S+) ([\d:]+)\.(\d{7}),(\d+),(\d+)")

Facts = dict[str, object]
"""All of an answer that both sides must agree on, by name, such as `allowed`, `retry_after` and
`tokens.remaining`; times in microseconds, None for never. A response that is no answer is a fact `answer`."""

Buckets = dict[tuple[str, str], Bucket]  # by key and limit


class TraceError(ValueError):
    """The file is not the trace."""


class Request(NamedTuple):
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
    """Read the trace in its own order; TraceError if the file is missing or is something else."""
    try:
        header, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
        requests = [_read_row(row, line) for row, line in enumerate(lines)] if header == _HEADER else []
    except (OSError, ValueError) as error:
        raise TraceError(f"{path}: {error}") from None
    if not requests:
        raise TraceError(f"{path}: the first line must be {_HEADER}, and requests must follow")
    return requests


def _read_row(row: int, line: str) -> Request:
    match = _ROW.fullmatch(line)
    if match is None:
        raise ValueError(f"row {row}: expected a time with 7 fractional digits and two numbers: {line!r}")
    date, clock, fraction, context, generated = match.groups()
    # By hand: datetime would drop the seventh digit instead of rounding it.
    seconds = int(datetime.fromisoformat(f"{date}T{clock}Z").timestamp())
    at = MICROSECONDS * seconds + round(int(fraction) / 10)
    timestamp = f"{date}T{clock}.{fraction}Z"
    return Request(row, f"vk_{key_of(row):03d}", timestamp, at, int(context), int(generated))


def key_of(row: int) -> int:
    """Return the key, 0 to 99, that a row is assigned to."""
    uniform = int.from_bytes(hashlib.sha256(str(row).encode()).digest()[:6], "big") / 2**48
    return bisect(_SHARES, uniform * _SHARES[-1])


class Limit(NamedTuple):
    name: str
    unit: str
    shape: Shape


def limits_of(policy: Path, plan: str) -> tuple[Limit, ...]:
    """Read the limits of a plan."""

    def read(name: str, fields: dict[str, Any]) -> Limit:
        count, period = fields["rate"].split("/")
        burst = float(fields.get("burst", count))
        return Limit(
            name, fields.get("unit", "requests"), Shape(float(count), float(_PERIODS[period]), burst)
        )

    plans = yaml.safe_load(policy.read_text(encoding="utf-8"))["plans"]
    return tuple(read(name, fields) for name, fields in plans[plan]["limits"].items())


@dataclass(slots=True)
class Model:
    """The plain model: buckets in a dictionary."""

    limits: tuple[Limit, ...]
    buckets: Buckets = field(default_factory=dict)

    def decide(self, request: Request, tokens: int) -> Facts:
        """Decide one request that asks for so many tokens: it takes from every bucket or from none."""
        t, costs = request.at, {"requests": 1.0, "tokens": float(tokens)}
        violated, states, waits = list[str](), Facts(), list[int | None]()
        for limit in self.limits:
            if not self._bucket(request, limit).admits(limit.shape, t, costs[limit.unit]):
                violated.append(limit.name)
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
        """Charge `more` tokens at the request's own time, or give them back if negative; count no request."""
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


def _state(name: str, *values: int | None) -> Facts:
    figures = ("remaining", "reset_after", "retry_after")
    return {f"{name}.{figure}": value for figure, value in zip(figures, values, strict=True)}


def read_decision(answer: Answer) -> Facts:
    """Read the sidecar's answer to a check."""

    def read(fields: dict[str, Any]) -> Facts | None:
        if fields["source"] == "outage" or answer.status != (200 if fields["allowed"] else 429):
            return None
        facts = {name: fields[name] for name in ("allowed", "violated", "timestamp")}
        return {**facts, "retry_after": _to_microseconds(fields["retry_after"])}

    return _read(answer, read)


def read_settlement(answer: Answer) -> Facts:
    """Read the sidecar's answer to a settlement."""
    names = ("settled", "replayed")
    return _read(answer, lambda fields: {n: fields[n] for n in names} if answer.status == 200 else None)


def _read(answer: Answer, read: Callable[[dict[str, Any]], Facts | None]) -> Facts:
    try:
        fields = json.loads(answer.body)
        facts = read(fields)
        for limit in fields["limits"] if facts else ():
            times = (_to_microseconds(limit[name]) for name in ("reset_after", "retry_after"))
            facts = {**(facts or {}), **_state(limit["name"], limit["remaining"], *times)}
    except (ValueError, KeyError, TypeError):
        facts = None
    return facts or {"answer": f"HTTP {answer.status}: {answer.body[:300].decode(errors='replace')}"}


def _to_microseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * MICROSECONDS)


def stored_buckets(client: Any, keys: Iterable[str], prefix: str) -> Buckets:
    """Read the buckets of some keys from the store: answers of the sidecar are rounded, buckets are not."""
    found: Buckets = {}
    for key in keys:
        state: bytes = client.get(make_owner_store_key("key", prefix + key, prefix + key)) or b""
        found |= {(key, name): Bucket(used, at) for name, (used, at) in unpack_buckets(state).items()}
    return found
