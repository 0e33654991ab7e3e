"""What the sidecar should answer, worked out without it: plain buckets, all or nothing.

Only the arithmetic of one bucket is the library's. The reading of the policy, the loop over
the limits and the comparison are written again here, so that an error in the library's or
the sidecar's shows as a mismatch. What the benchmarks need of the library's inner parts is imported
here and nowhere else.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from benchmarks.load import Answer
from benchmarks.trace import Request
from ratelimit.engine.bucket import Bucket, Shape
from ratelimit.engine.layout import owner_name
from ratelimit.engine.limit_status import buckets_in

__all__ = ["Bucket"]

MICROSECONDS: Final = 1_000_000
_PERIODS: Final = {"minute": 60, "day": 86_400}  # seconds; all that the trace's policy uses
_OK: Final = 200
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Facts = dict[str, object]
"""All of an answer that both sides must agree on, by name, such as `allowed`, `retry_after` and
`tokens.remaining`; times in microseconds, None for never. What is no answer at all is a fact `answer`."""

Buckets = dict[tuple[str, str], Bucket]
"""Buckets by key and limit."""


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
            waits.append(bucket.wait(limit.shape, t, cost))
            if not violated:
                bucket = self.buckets[request.key, limit.name] = bucket.take(limit.shape, t, cost)
            states |= _state(limit.name, *bucket.standing(limit.shape, t), waits[-1])
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
            wait = bucket.wait(limit.shape, t, 0)
            states |= _state(limit.name, *bucket.standing(limit.shape, t), wait)
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


def stored_buckets(client: Any, keys: Iterable[str], prefix: str) -> Buckets:  # noqa: ANN401 - redis-py leaves much untyped
    """Read the buckets of some keys as they lie in the store, to the last bit.

    No answer of the sidecar shows as much: those are rounded to tokens and microseconds.
    """
    found: Buckets = {}
    for key in keys:
        state: bytes = client.get(owner_name("key", prefix + key, prefix + key)) or b""
        for name, (used, at) in buckets_in(state).items():
            found[key, name] = Bucket(used, at)
    return found
