"""What the raw state of a limit means, for each kind of limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ratelimit.bucket import Bucket
from ratelimit.decision import LimitState
from ratelimit.rate import MICROSECONDS

if TYPE_CHECKING:
    from ratelimit.bucket import Shape
    from ratelimit.layout import Place
    from ratelimit.policy.limit import Kind
    from ratelimit.policy.spec import Mode

NONE = "-"
"""What the scripts say where there is nothing."""


class Reading(NamedTuple):
    """What a limit's state means at one time.

    Attributes:
        wait: microseconds until it admits; 0 if it does, None for never.
        remaining: whole units left.
        to_full: microseconds until nothing is missing.
    """

    wait: int | None
    remaining: int
    to_full: int


def read_place(place: Place, cost: float, first: str, second: str, t: int, *, taken: bool) -> Reading:
    """Read one limit of a question.

    Args:
        place: the limit.
        cost: what the question would take there.
        first: the first of the two values that the script gave, from before the check.
        second: the second.
        t: the time of the check, microseconds since the epoch.
        taken: whether what is admitted was taken: then the reading is that of after.
    """
    kind, shape = place.kind, place.shape
    if kind == "bucket":
        bucket = bucket_of(first, second, t)
        # What was taken was admitted by every limit but those in shadow mode: no need to look again.
        wait = 0 if taken and place.letter == "b" else bucket.wait(shape, t, cost)
        if taken and wait == 0 and cost:
            bucket = bucket.take(shape, t, cost)
        return Reading(wait, bucket.remaining(shape, t), bucket.to_full(shape, t))
    if kind == "post-paid":
        bucket = bucket_of(first, second, t)
        return Reading(bucket.wait_left(shape, t), bucket.remaining(shape, t), bucket.to_full(shape, t))
    if kind == "slots":
        return _slots(shape, first, second, want=bool(cost), taken=taken)
    return _failures(shape, first, second, t)


def read_settled(kind: Kind, shape: Shape, first: str, second: str, t: int) -> Reading:
    """Read one limit as a settlement left it, for a request that would take nothing."""
    if kind == "slots":
        return _slots(shape, first, second, want=False, taken=False)
    if kind == "failures":
        return _failures(shape, first, second, t)
    bucket = bucket_of(first, second, t)
    wait = bucket.wait_left(shape, t) if kind == "post-paid" else bucket.wait(shape, t, 0)
    return Reading(wait, bucket.remaining(shape, t), bucket.to_full(shape, t))


def bucket_of(first: str, second: str, t: int) -> Bucket:
    """Return the bucket that two fields hold; a full one where there are none."""
    return Bucket(float(first), int(second)) if first != NONE else Bucket(0.0, t)


def _slots(shape: Shape, first: str, second: str, *, want: bool, taken: bool) -> Reading:
    count = int(first) if first != NONE else 0
    free = count < shape.burst
    if free and want and taken:
        count += 1
    wait = 0 if free or not want else int(second)
    return Reading(wait, max(0, int(shape.burst) - count), 0)


def _failures(shape: Shape, first: str, second: str, t: int) -> Reading:
    since = t - shape.period
    times = [int(text) for text in first.split(",") if text and int(text) > since] if first != NONE else []
    shut = max(0, int(second) - t) if second != NONE else 0
    remaining = 0 if shut else max(0, int(shape.count) - len(times))
    to_full = max(shut, int(times[-1] - since) if times else 0)
    return Reading(shut, remaining, to_full)


def state_of(name: str, unit: str, kind: Kind, shape: Shape, mode: Mode, reading: Reading) -> LimitState:
    """Return a limit's state as people are told it."""
    wait, remaining, to_full = reading
    limit, period, burst = shape.count, shape.period / MICROSECONDS, shape.burst
    if kind == "slots":
        limit, period = burst, 0.0
    elif kind == "failures":
        burst = limit
    retry_after = None if wait is None else wait / MICROSECONDS
    # In the order of its members: by name it takes a third longer.
    return LimitState(
        name, unit, int(limit), period, int(burst), remaining, to_full / MICROSECONDS, retry_after, mode
    )
