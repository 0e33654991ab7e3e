"""Checks the bound of P1 for every window of a bucket, in whatever order its charges were made.

For each charge in the order of the request times, the largest excess of all windows that end with it is

    excess = max(0, excess before - rate · time since) + cost

which is at most the burst if, and only if, no window that ends there admits more than burst + rate · length.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ratelimit.policy.shape import Shape


class TimedCosts:
    """What was admitted at which time, and what of it was refunded. It takes 24 bytes for each."""

    __slots__ = ("_costs", "_places", "_refunds", "_times")

    def __init__(self) -> None:
        self._times = array("q")
        self._costs = array("d")
        self._places = array("q")
        self._refunds: list[tuple[int, int, float]] = []

    def __len__(self) -> int:
        return len(self._times)

    def list_costs(self, *, is_ordered: bool) -> list[tuple[int, float, int]]:
        """Return the time, the cost and the place of each charge, and of each refund with a cost below 0.

        A refund counts in the windows that contain it: from then on its tokens can be taken again.

        Args:
            is_ordered: whether all was decided in the order of its time. Otherwise a charge with an earlier
                time may have been made after the refund. So the refund counts in the windows that contain
                the charge that it takes back as well.
        """
        costs = self._costs if is_ordered else self._costs[:]
        refunds = []
        for index, t, amount in self._refunds:
            refunds.append((t, -amount, self._places[index]))
            if not is_ordered:
                costs[index] -= amount
        return sorted([*zip(self._times, costs, self._places, strict=True), *refunds])

    def append(self, t: int, cost: float, place: int) -> None:
        """Add what was admitted at the time `t`, in microseconds; `place` tells the line."""
        self._times.append(t)
        self._costs.append(cost)
        self._places.append(place)

    def refund(self, index: int, t: int, amount: float) -> None:
        """Note that a part of a cost was refunded at the time `t`, in microseconds."""
        if t <= self._times[index]:
            self._costs[index] -= amount
        else:
            self._refunds.append((index, t, amount))


class Window(NamedTuple):
    """A window in which more was admitted than the limit allows.

    Attributes:
        start: its begin, microseconds since the epoch.
        end: its end.
        admitted: what was admitted in it.
        bound: what might have been.
        over: by how much that was too much, less what windows that were found before exceed.
        place: tells the line that exceeds it.
    """

    start: int
    end: int
    admitted: float
    bound: float
    over: float
    place: int


def find_windows(
    costs: TimedCosts, shape: Shape, *, is_ordered: bool, extra: float = 0.0
) -> Iterator[Window]:
    """Find the windows that admit too much. Each admission that is too much is in one window.

    Args:
        costs: what was admitted.
        shape: the numbers of the limit.
        is_ordered: whether all was decided in the order of its time.
        extra: by how much the bound is larger than the burst, because of tokens that are out on lease.
    """
    bound = shape.burst + extra
    tolerance = 2 * shape.tolerance + 1e-9 * bound
    excess, admitted, start, previous = 0.0, 0.0, 0, 0
    for t, cost, place in costs.list_costs(is_ordered=is_ordered):
        excess -= (t - previous) * shape.count / shape.period
        previous = t
        if excess <= 0:
            excess, admitted, start = 0.0, 0.0, t
        excess += cost
        admitted += cost
        if cost > 0 and excess > bound + tolerance:
            allowed = bound + (t - start) * shape.count / shape.period
            yield Window(start, t, admitted, allowed, excess - bound, place)
            excess = bound


def find_overlaps(intervals: Sequence[tuple[int, int, int]], capacity: float) -> Iterator[Window]:
    """Find the times at which more slots were taken than there are.

    Args:
        intervals: the time at which each slot was taken, when it was freed, and what tells the line.
        capacity: how many slots there are.
    """
    changes = [(start, 1, place) for start, _, place in intervals]
    changes += [(end, -1, place) for _, end, place in intervals]
    taken = 0
    for t, change, place in sorted(changes):
        taken += change
        if change > 0 and taken > capacity:
            yield Window(t, t, taken, capacity, 1.0, place)
