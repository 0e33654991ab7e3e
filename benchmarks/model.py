"""What the sidecar should answer, worked out without it: plain buckets, all or nothing.

Only the arithmetic of one bucket is the library's. The reading of the policy, the loop over
the limits and the comparison are written again here, so that an error in the library's or
the sidecar's shows as a mismatch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import yaml

from ratelimit.bucket import Bucket, Shape

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.trace import Request

MICROSECONDS: Final = 1_000_000
_PERIODS: Final = {"minute": 60, "day": 86_400}  # seconds; all that the trace's policy uses
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit as the model knows it: a bucket for each key."""

    name: str
    unit: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class State:
    """One limit after the decision; times in microseconds, None for never."""

    name: str
    remaining: int
    reset_after: int
    retry_after: int | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """All of a decision that both sides must agree on; times in microseconds, None for never."""

    allowed: bool
    violated: tuple[str, ...]
    retry_after: int | None
    timestamp: str
    limits: tuple[State, ...]

    def members(self) -> dict[str, object]:
        """Return everything in it by name, such as `retry_after` and `tokens.remaining`."""
        flat = {name: getattr(self, name) for name in self.__slots__ if name != "limits"}
        for state in self.limits:
            flat |= {f"{state.name}.{name}": getattr(state, name) for name in state.__slots__[1:]}
        return flat


def limits_of(policy: Path, plan: str) -> tuple[Limit, ...]:
    """Read the limits of a plan."""
    raw = yaml.safe_load(policy.read_text(encoding="utf-8"))["plans"][plan]["limits"]
    return tuple(_limit(name, fields) for name, fields in raw.items())


def _limit(name: str, fields: dict[str, Any]) -> Limit:
    count, period = fields["rate"].split("/")
    burst = float(fields.get("burst", count))
    shape = Shape(float(count), float(_PERIODS[period] * MICROSECONDS), burst)
    return Limit(name, fields.get("unit", "requests"), shape)


@dataclass(slots=True)
class Model:
    """Buckets in a dictionary, by key and limit."""

    limits: tuple[Limit, ...]
    _buckets: dict[tuple[str, str], Bucket] = field(default_factory=dict)

    def decide(self, request: Request) -> Verdict:
        """Decide one request: it takes from every bucket or from none."""
        t, costs = request.at, {"requests": 1.0, "tokens": float(request.tokens)}
        violated = tuple(
            limit.name
            for limit in self.limits
            if not self._bucket(request, limit).admits(limit.shape, t, costs[limit.unit])
        )
        states = []
        for limit in self.limits:
            bucket, cost = self._bucket(request, limit), costs[limit.unit]
            wait = bucket.wait(limit.shape, t, cost)
            if not violated:
                bucket = self._buckets[request.key, limit.name] = bucket.take(limit.shape, t, cost)
            states.append(
                State(limit.name, bucket.remaining(limit.shape, t), bucket.to_full(limit.shape, t), wait)
            )
        waits = [state.retry_after for state in states]
        return Verdict(
            allowed=not violated,
            violated=violated,
            retry_after=None if None in waits else max(wait for wait in waits if wait is not None),
            timestamp=(_EPOCH + timedelta(microseconds=t)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            limits=tuple(states),
        )

    def _bucket(self, request: Request, limit: Limit) -> Bucket:
        return self._buckets.get((request.key, limit.name)) or Bucket(0.0, request.at)


def told(status: int, body: bytes) -> Verdict | str:
    """Read what the sidecar answered; the bare answer where it is not a decision of the store."""
    bare = f"HTTP {status}: {body[:300].decode(errors='replace')}"
    try:
        answer = json.loads(body)
        if answer["source"] != "store" or status != (200 if answer["allowed"] else 429):
            return bare
        return Verdict(
            allowed=answer["allowed"],
            violated=tuple(answer["violated"]),
            retry_after=_micros(answer["retry_after"]),
            timestamp=answer["timestamp"],
            limits=tuple(_state(entry) for entry in answer["limits"]),
        )
    except (ValueError, KeyError, TypeError):
        return bare


def _state(entry: dict[str, Any]) -> State:
    reset_after = round(entry["reset_after"] * MICROSECONDS)
    return State(entry["name"], entry["remaining"], reset_after, _micros(entry["retry_after"]))


def _micros(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * MICROSECONDS)
