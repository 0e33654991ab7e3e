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

from ratelimit.engine.bucket import Bucket
from ratelimit.policy.shape import Shape

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.trace import Request

MICROSECONDS: Final = 1_000_000
_PERIODS: Final = {"minute": 60, "day": 86_400}  # seconds; all that the trace's policy uses
_OK: Final = 200
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
        return flat | _members(self.limits)


@dataclass(frozen=True, slots=True)
class Settled:
    """All of a settlement that both sides must agree on."""

    settled: bool
    replayed: bool
    limits: tuple[State, ...]

    def members(self) -> dict[str, object]:
        """Return everything in it by name, as of a `Verdict`."""
        return {"settled": self.settled, "replayed": self.replayed, **_members(self.limits)}


def _members(limits: tuple[State, ...]) -> dict[str, object]:
    return {f"{state.name}.{name}": getattr(state, name) for state in limits for name in state.__slots__[1:]}


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
    buckets: dict[tuple[str, str], Bucket] = field(default_factory=dict)

    def decide(self, request: Request, tokens: int) -> Verdict:
        """Decide one request that asks for so many tokens: it takes from every bucket or from none."""
        t, costs = request.at, {"requests": 1.0, "tokens": float(tokens)}
        violated = tuple(
            limit.name
            for limit in self.limits
            if not self._bucket(request, limit).admits(limit.shape, t, costs[limit.unit])
        )
        states = []
        for limit in self.limits:
            bucket, cost = self._bucket(request, limit), costs[limit.unit]
            wait = bucket.compute_wait(limit.shape, t, cost)
            if not violated:
                bucket = self.buckets[request.key, limit.name] = bucket.take(limit.shape, t, cost)
            states.append(_look(limit, bucket, t, wait))
        waits = [state.retry_after for state in states]
        return Verdict(
            allowed=not violated,
            violated=violated,
            retry_after=None if None in waits else max(wait for wait in waits if wait is not None),
            timestamp=(_EPOCH + timedelta(microseconds=t)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            limits=tuple(states),
        )

    def settle(self, request: Request, more: int) -> Settled:
        """Charge so many tokens more than were asked for, or give them back if negative.

        It is charged at the request's own time. How many requests there were does not change.
        """
        t, states = request.at, []
        for limit in self.limits:
            bucket = self._bucket(request, limit)
            if limit.unit == "tokens":
                bucket = self.buckets[request.key, limit.name] = bucket.adjust(limit.shape, t, float(more))
            states.append(_look(limit, bucket, t, bucket.compute_wait(limit.shape, t, 0)))
        return Settled(settled=True, replayed=False, limits=tuple(states))

    def _bucket(self, request: Request, limit: Limit) -> Bucket:
        return self.buckets.get((request.key, limit.name)) or Bucket(0.0, request.at)


def _look(limit: Limit, bucket: Bucket, t: int, wait: int | None) -> State:
    return State(limit.name, *bucket.compute_remaining(limit.shape, t), wait)


def told(status: int, body: bytes) -> Verdict | str:
    """Read what the sidecar answered; the bare answer where it is not a decision of the store."""
    try:
        answer = json.loads(body)
        if answer["source"] == "outage" or status != (_OK if answer["allowed"] else 429):
            return _bare(status, body)
        return Verdict(
            allowed=answer["allowed"],
            violated=tuple(answer["violated"]),
            retry_after=_micros(answer["retry_after"]),
            timestamp=answer["timestamp"],
            limits=tuple(_state(entry) for entry in answer["limits"]),
        )
    except (ValueError, KeyError, TypeError):
        return _bare(status, body)


def told_settled(status: int, body: bytes) -> Settled | str:
    """Read what the sidecar answered to a settlement; the bare answer where it is none."""
    try:
        answer = json.loads(body)
        if status != _OK:
            return _bare(status, body)
        states = tuple(_state(entry) for entry in answer["limits"])
        return Settled(answer["settled"], answer["replayed"], states)
    except (ValueError, KeyError, TypeError):
        return _bare(status, body)


def _bare(status: int, body: bytes) -> str:
    return f"HTTP {status}: {body[:300].decode(errors='replace')}"


def _state(entry: dict[str, Any]) -> State:
    reset_after = round(entry["reset_after"] * MICROSECONDS)
    return State(entry["name"], entry["remaining"], reset_after, _micros(entry["retry_after"]))


def _micros(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * MICROSECONDS)
