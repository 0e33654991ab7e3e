"""Checks the bound of P1 for every window of a bucket, in whatever order its charges were made.

For each charge in the order of the request times, the largest excess of all windows that end with it is

    excess = max(0, excess before - rate · time since) + cost

which is at most the burst if, and only if, no window that ends there admits more than burst + rate · length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ratelimit.policy.shape import Shape


class TimedCost(NamedTuple):
    """What was admitted at a time, less what was refunded of it.

    Attributes:
        t: the request time, microseconds since the epoch.
        cost: how much.
        number: the number of its step.
    """

    t: int
    cost: float
    number: int


class Window(NamedTuple):
    """A window in which more was admitted than the limit allows.

    Attributes:
        start: its begin, microseconds since the epoch.
        end: its end.
        admitted: what was admitted in it.
        bound: what might have been.
        over: by how much that was too much, less what windows that were found before exceed.
        number: the number of the step that exceeds it.
    """

    start: int
    end: int
    admitted: float
    bound: float
    over: float
    number: int


def find_windows(costs: Sequence[TimedCost], shape: Shape, extra: float = 0.0) -> Iterator[Window]:
    """Find the windows that admit too much. Each admission that is too much is in one window.

    Args:
        costs: what was admitted, in any order.
        shape: the numbers of the limit.
        extra: by how much the bound is larger than the burst, because of tokens that are out on lease.
    """
    bound = shape.burst + extra
    tolerance = 2 * shape.tolerance + 1e-9 * bound
    excess, admitted, start, previous = 0.0, 0.0, 0, 0
    for t, cost, number in sorted(costs):
        excess -= (t - previous) * shape.count / shape.period
        previous = t
        if excess <= 0:
            excess, admitted, start = 0.0, 0.0, t
        excess += cost
        admitted += cost
        if excess > bound + tolerance:
            allowed = bound + (t - start) * shape.count / shape.period
            yield Window(start, t, admitted, allowed, excess - bound, number)
            excess = bound


def find_overlaps(intervals: Sequence[tuple[int, int, int]], capacity: float) -> Iterator[Window]:
    """Find the times at which more slots were taken than there are.

    Args:
        intervals: the time at which each slot was taken, when it was freed, and the number of the step.
        capacity: how many slots there are.
    """
    changes = [(start, 1, number) for start, _, number in intervals]
    changes += [(end, -1, number) for _, end, number in intervals]
    taken = 0
    for t, change, number in sorted(changes):
        taken += change
        if change > 0 and taken > capacity:
            yield Window(t, t, taken, capacity, 1.0, number)
