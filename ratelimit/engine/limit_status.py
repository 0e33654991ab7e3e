"""What the raw state of a limit means, for each kind of limit."""

from __future__ import annotations

import itertools
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from ratelimit.decision.limit_state import LimitState
from ratelimit.engine.bucket import Bucket
from ratelimit.request.timestamp import MICROSECONDS

if TYPE_CHECKING:
    from ratelimit.decision.limit_state import Mode
    from ratelimit.engine.layout import Layout, PlacedLimit
    from ratelimit.policy.limit import Kind
    from ratelimit.policy.shape import Shape

_TIME: Final = Struct("<d")

NONE = "-"
"""What the scripts say where there is nothing."""

RawState = tuple[float, float, tuple[float, ...]]
"""The state of one limit, as lua/check.lua replies: of a bucket what was missing and when; of failures until
when it is shut, how many count, and when they were; of slots how many are taken, and microseconds until
enough are free."""


class LimitStatus(NamedTuple):
    """What a limit's state means at one time.

    Attributes:
        wait: microseconds until it admits; 0 if it does, None for never.
        remaining: whole units left.
        to_full: microseconds until nothing is missing.
    """

    wait: int | None
    remaining: int
    to_full: int


def unpack_states(layout: Layout, reply: bytes) -> tuple[int, list[RawState]]:
    """Return the time that a question was judged at, and the state of each place, where it is told."""
    if len(reply) < 1 + layout.state_struct.size:
        [t] = _TIME.unpack_from(reply, 1)
        return int(t), []
    t, *numbers = layout.state_struct.unpack_from(reply, 1)
    if len(reply) == 1 + layout.state_struct.size:
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        return int(t), [(first, second, ()) for first, second in pairs]
    times = (time for (time,) in _TIME.iter_unpack(reply[1 + layout.state_struct.size :]))
    states: list[RawState] = []
    for placed, first, second in zip(layout.placed_limits, numbers[::2], numbers[1::2], strict=True):
        counted = int(second) if placed.kind == "failures" else 0
        states.append((first, second, tuple(itertools.islice(times, counted))))
    return int(t), states


def evaluate_limit(placed: PlacedLimit, cost: float, state: RawState, t: int, *, taken: bool) -> LimitStatus:
    """Read one limit of a question.

    Args:
        placed: the limit.
        cost: what the question would take there.
        state: what the script said of it, from before the check.
        t: the time of the check, microseconds since the epoch.
        taken: whether what is admitted was taken: then the reading is that of after.
    """
    kind, shape = placed.kind, placed.shape
    if kind == "bucket":
        bucket = make_bucket(state)
        # What was taken was admitted by every limit but those in shadow mode: no need to look again.
        wait = 0 if taken and placed.letter == "b" else bucket.wait(shape, t, cost)
        if taken and wait == 0 and cost:
            bucket = bucket.take(shape, t, cost)
        return LimitStatus(wait, *bucket.standing(shape, t))
    if kind == "slots":
        return _slots(shape, state, want=bool(cost), taken=taken)
    return _unasked(kind, shape, state, t)


def evaluate_settled_limit(kind: Kind, shape: Shape, first: str, second: str, t: int) -> LimitStatus:
    """Read one limit as a settlement left it, for a request that would take nothing.

    Args:
        kind: what the limit is kept as.
        shape: its rate and burst.
        first: the first of the two words of lua/settle.lua.
        second: the second.
        t: the time of the settlement, microseconds since the epoch.
    """
    nothing = first == NONE
    if kind == "slots":
        return _slots(shape, (0.0 if nothing else float(first), 0.0, ()), want=False, taken=False)
    if kind == "failures":
        times = () if nothing else tuple(float(text) for text in first.split(",") if text)
        return _failures(shape, (0.0 if nothing else float(second), len(times), times), t)
    state: RawState = (0.0, 0.0, ()) if nothing else (float(first), float(second), ())
    if kind == "bucket":
        bucket = make_bucket(state)
        return LimitStatus(bucket.wait(shape, t, 0), *bucket.standing(shape, t))
    return _unasked(kind, shape, state, t)


def make_bucket(state: RawState) -> Bucket:
    """Return the bucket that this is the state of; an absent one is full, and all zeros."""
    return Bucket(state[0], int(state[1]))


def unpack_buckets(state: bytes) -> dict[str, Bucket]:
    """Return all buckets of an owner by the names of their limits, as lua/prelude.lua packs them."""
    found: dict[str, Bucket] = {}
    while state:
        listed, _, state = state.partition(b"|")
        names = listed.decode().split(",")
        pairs = Struct(f"<{2 * len(names)}d")
        numbers = pairs.unpack_from(state)
        for name, used, at in zip(names, numbers[::2], numbers[1::2], strict=True):
            found[name] = make_bucket((used, at, ()))
        state = state[pairs.size + _TIME.size :]
    return found


def _unasked(kind: Kind, shape: Shape, state: RawState, t: int) -> LimitStatus:
    """Read a limit of which requests take nothing when they are checked."""
    if kind == "failures":
        return _failures(shape, state, t)
    bucket = make_bucket(state)
    return LimitStatus(bucket.wait_left(shape, t), *bucket.standing(shape, t))


def _slots(shape: Shape, state: RawState, *, want: bool, taken: bool) -> LimitStatus:
    count, until, _ = state
    free = count < shape.burst
    if free and want and taken:
        count += 1
    wait = 0 if free or not want else int(until)
    return LimitStatus(wait, max(0, int(shape.burst - count)), 0)


def _failures(shape: Shape, state: RawState, t: int) -> LimitStatus:
    until, _, counted = state
    since = t - shape.period
    times = [time for time in counted if time > since]
    shut = max(0, int(until) - t)
    remaining = 0 if shut else max(0, int(shape.count) - len(times))
    to_full = max(shut, int(times[-1] - since) if times else 0)
    return LimitStatus(shut, remaining, to_full)


def make_limit_state(
    name: str, unit: str, kind: Kind, shape: Shape, mode: Mode, reading: LimitStatus
) -> LimitState:
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
