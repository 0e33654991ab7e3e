"""The Azure trace, and the answers that the sidecar should give to it, computed without the sidecar.

Only the arithmetic of one bucket is the library's, and no other module of the benchmarks imports its inner
parts. The policy, the loop over limits and the comparison are written again, so that an error of the library
shows as a mismatch.
"""

import hashlib
import json
import re
from bisect import bisect
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from benchmarks.load import Answer
from ratelimit.engine.bucket import Bucket
from ratelimit.engine.keyspace import ONE_SERVER
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
_FIGURES: Final = ("remaining", "reset_after", "retry_after")  # of each limit

# All of an answer that both sides must agree on, by name, such as `allowed`, `retry_after` and
# `tokens.remaining`; times in microseconds, None for never. A response that is no answer is a fact `answer`.
Facts = dict[str, object]
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
    def tokens(self) -> int:  # what it really used
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
    uniform = int.from_bytes(hashlib.sha256(str(row).encode()).digest()[:6], "big") / 2**48
    return bisect(_SHARES, uniform * _SHARES[-1])


class Limit(NamedTuple):
    name: str
    unit: str
    shape: Shape


def limits_of(policy: Path, plan: str) -> tuple[Limit, ...]:
    plans, limits = yaml.safe_load(policy.read_text(encoding="utf-8"))["plans"], list[Limit]()
    for name, fields in plans[plan]["limits"].items():
        count, period = fields["rate"].split("/")
        shape = Shape(float(count), float(_PERIODS[period]), float(fields.get("burst", count)))
        limits.append(Limit(name, fields.get("unit", "requests"), shape))
    return tuple(limits)


@dataclass(slots=True)
class Model:
    limits: tuple[Limit, ...]
    buckets: Buckets = field(default_factory=dict)

    def decide(self, request: Request, tokens: int) -> Facts:
        """Decide one request that asks for so many tokens: it takes from every bucket or from none."""
        t, costs = request.at, {"requests": 1.0, "tokens": float(tokens)}
        states, waits = Facts(), list[int | None]()
        violated = [
            limit.name
            for limit in self.limits
            if not self._bucket(request, limit).admits(limit.shape, t, costs[limit.unit])
        ]
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
    return {f"{name}.{figure}": value for figure, value in zip(_FIGURES, values, strict=True)}


def read_decision(answer: Answer) -> Facts:
    return _read(answer, "allowed", "violated", "timestamp", "retry_after")


def read_settlement(answer: Answer) -> Facts:
    return _read(answer, "settled", "replayed")


def _read(answer: Answer, *names: str) -> Facts:
    with suppress(ValueError, KeyError, TypeError):
        fields = json.loads(answer.body)
        status = 200 if fields.get("allowed", True) else 429
        if answer.status == status and fields.get("source") != "outage":
            facts = {name: _fact(fields, name) for name in names}
            for limit in fields["limits"]:
                facts |= _state(limit["name"], *(_fact(limit, figure) for figure in _FIGURES))
            return facts
    return {"answer": f"HTTP {answer.status}: {answer.body[:300].decode(errors='replace')}"}


def _fact(fields: dict[str, Any], name: str) -> Any:
    value = fields[name]
    return round(value * MICROSECONDS) if name.endswith("_after") and value is not None else value


def stored_buckets(client: Any, keys: Iterable[str], prefix: str) -> Buckets:
    """Read the buckets of some keys from the store: answers of the sidecar are rounded, buckets are not."""
    found: Buckets = {}
    for key in keys:
        state: bytes = client.get(f"{ONE_SERVER.make_prefix(prefix + key)}:k") or b""
        found |= {(key, name): Bucket(used, at) for name, (used, at) in unpack_buckets(state).items()}
    return found
