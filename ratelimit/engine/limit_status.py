"""What the raw state of a limit means, for each kind of limit."""

from __future__ import annotations

import itertools
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from ratelimit.decision.limit_state import LimitState
from ratelimit.engine.bucket import Bucket, compute_remaining_after
from ratelimit.request.timestamp import MICROSECONDS

if TYPE_CHECKING:
    from ratelimit.decision.limit_state import Mode
    from ratelimit.engine.layout import Layout, PlacedLimit
    from ratelimit.policy.limit import Kind
    from ratelimit.policy.shape import Shape

_TIME_STRUCT: Final = Struct("<d")
ADMITTED: Final = b"1"[0]  # the first byte of a reply that admits

NONE = "-"
"""What stands in calls and replies of the scripts where there is no value."""

RawState = tuple[float, float, tuple[float, ...]]
"""The state of one limit as the scripts reply it: two numbers, and times of failures.

- bucket: the tokens missing, and the time at which that was true; no times.
- failures: the time until which the limit denies, and how many failures count; their times.
- slots: how many are taken, and the microseconds until one is free, -1 if one is; no times.
"""


class LimitStatus(NamedTuple):
    """What a limit's state means at one time.

    Attributes:
        wait: microseconds until the limit admits the check; 0 if it does now, None for never.
        remaining: whole units left.
        to_full: microseconds until the limit is full.
    """

    wait: int | None
    remaining: int
    to_full: int


def unpack_states(layout: Layout, reply: bytes) -> tuple[int, list[RawState]]:
    """Return the time of a decision, microseconds since the epoch, and the raw state of each limit.

    There are no raw states if the reply was cut off after the time.
    """
    if len(reply) < 1 + layout.state_struct.size:
        [t] = _TIME_STRUCT.unpack_from(reply, 1)
        return int(t), []
    t, *numbers = layout.state_struct.unpack_from(reply, 1)
    if len(reply) == 1 + layout.state_struct.size:
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        return int(t), [(first, second, ()) for first, second in pairs]
    times = (time for (time,) in _TIME_STRUCT.iter_unpack(reply[1 + layout.state_struct.size :]))
    states: list[RawState] = []
    for placed, first, second in zip(layout.placed_limits, numbers[::2], numbers[1::2], strict=True):
        count = int(second) if placed.kind == "failures" else 0
        states.append((first, second, tuple(itertools.islice(times, count))))
    return int(t), states


def evaluate_limit(placed: PlacedLimit, cost: float, state: RawState, t: int, *, taken: bool) -> LimitStatus:
    """Return the status of one limit of a check.

    Args:
        placed: the limit.
        cost: what the check takes of it.
        state: its raw state, from before the check.
        t: the time of the check, microseconds since the epoch.
        taken: whether the check was admitted and took its costs; the status is then the one after the check.
    """
    kind, shape = placed.kind, placed.shape
    if kind == "bucket":
        if taken and t >= state[1] and placed.kind_code == "b":
            return LimitStatus(0, *compute_remaining_after(shape, state[0], state[1], t, cost))
        bucket = make_bucket(state)
        # A check that took its costs was admitted by every limit that is not in shadow mode. Their wait is 0.
        wait = 0 if taken and placed.kind_code == "b" else bucket.compute_wait(shape, t, cost)
        if taken and wait == 0 and cost:
            bucket = bucket.take(shape, t, cost)
        return LimitStatus(wait, *bucket.compute_remaining(shape, t))
    if kind == "slots":
        return _evaluate_slots(shape, state, is_wanted=bool(cost), taken=taken)
    return _evaluate_settle_only_limit(kind, shape, state, t)


def evaluate_settled_limit(kind: Kind, shape: Shape, state: RawState, t: int) -> LimitStatus:
    """Return the status of one limit after a settlement, for a check of cost 0.

    Args:
        kind: the limit's kind.
        shape: its numbers.
        state: its raw state; of slots only how many are taken, of failures the time of the latest only.
        t: the time of the settlement, microseconds since the epoch.
    """
    if kind == "slots":
        return _evaluate_slots(shape, state, is_wanted=False, taken=False)
    if kind == "failures":
        shut_until, count, latest = state
        return _make_failures_status(shape, shut_until, int(count), latest, t)
    bucket = make_bucket(state)
    if kind == "bucket":
        return LimitStatus(bucket.compute_wait(shape, t, 0), *bucket.compute_remaining(shape, t))
    return _evaluate_post_paid(shape, bucket, t)


def make_bucket(state: RawState) -> Bucket:
    """Return the bucket of a raw state. A bucket that the store does not have is full: all zeros."""
    return Bucket(state[0], int(state[1]))


def unpack_buckets(state: bytes) -> dict[str, Bucket]:
    """Return all buckets of an owner by the names of their limits. lua/prelude.lua packed `state`."""
    buckets: dict[str, Bucket] = {}
    while state:
        name_list, _, state = state.partition(b"|")
        names = name_list.decode().split(",")
        pairs = Struct(f"<{2 * len(names)}d")
        numbers = pairs.unpack_from(state)
        for name, used, at in zip(names, numbers[::2], numbers[1::2], strict=True):
            buckets[name] = make_bucket((used, at, ()))
        state = state[pairs.size + _TIME_STRUCT.size :]
    return buckets


def _evaluate_settle_only_limit(kind: Kind, shape: Shape, state: RawState, t: int) -> LimitStatus:
    """Return the status of a limit that only settlements charge: failures, or a post-paid bucket."""
    if kind == "failures":
        return _evaluate_failures(shape, state, t)
    return _evaluate_post_paid(shape, make_bucket(state), t)


def _evaluate_post_paid(shape: Shape, bucket: Bucket, t: int) -> LimitStatus:
    return LimitStatus(bucket.compute_post_paid_wait(shape, t), *bucket.compute_remaining(shape, t))


def _evaluate_slots(shape: Shape, state: RawState, *, is_wanted: bool, taken: bool) -> LimitStatus:
    """Return the status of slots; `is_wanted` says whether the check takes one."""
    count, wait_for_slot, _ = state
    is_free = count < shape.burst
    if is_free and is_wanted and taken:
        count += 1
    wait = 0 if is_free or not is_wanted else int(wait_for_slot)
    return LimitStatus(wait, max(0, int(shape.burst - count)), 0)


def _evaluate_failures(shape: Shape, state: RawState, t: int) -> LimitStatus:
    shut_until, _, counted = state
    times = tuple(time for time in counted if time > t - shape.period)
    return _make_failures_status(shape, shut_until, len(times), times[-1:], t)


def _make_failures_status(
    shape: Shape, shut_until: float, count: int, latest: tuple[float, ...], t: int
) -> LimitStatus:
    """Return the status of a limit on failures; `latest` is the latest one that counts, if any does."""
    shut_for = max(0, int(shut_until) - t)
    remaining = 0 if shut_for else max(0, int(shape.count) - count)
    to_full = max([shut_for, *(int(time + shape.period - t) for time in latest)])
    return LimitStatus(shut_for, remaining, to_full)


def make_limit_state(
    name: str, unit: str, kind: Kind, shape: Shape, mode: Mode, status: LimitStatus
) -> LimitState:
    """Return a limit's status as users see it."""
    wait, remaining, to_full = status
    limit, period, burst = list_shown_numbers(kind, shape)
    retry_after = None if wait is None else wait / MICROSECONDS
    # The arguments are positional: keyword arguments take a third longer.
    return LimitState(name, unit, limit, period, burst, remaining, to_full / MICROSECONDS, retry_after, mode)


def list_shown_numbers(kind: Kind, shape: Shape) -> tuple[int, float, int]:
    """Return the numbers of a limit as users see them: units per period, its seconds, and the burst."""
    limit, period, burst = int(shape.count), shape.period / MICROSECONDS, int(shape.burst)
    if kind == "slots":
        return burst, 0.0, burst
    return limit, period, limit if kind == "failures" else burst
