"""The arithmetic of one token bucket.

This is the reference for `lua/check.lua`. Both do the same operations on IEEE 754
doubles in the same order, so they reach the same decision to the last bit. The
simulator and `on_outage: local` use it as well.

A bucket stores how many tokens are missing (`used`) and the time at which that was
true (`at`, microseconds since the epoch). Missing tokens come back at the limit's
rate. So the tokens missing at time `t` are

    missing(t) = max(0, used - (t - at) · count / period)

For a late request (`t < at`) the same formula counts upwards: a late request sees
only the refill up to its own time. This gives the bound, in whatever order requests
arrive: between any two request times a ≤ b, at most
`burst + (b - a) · count / period` is admitted.

The bucket stores tokens and not a theoretical arrival time (GCRA, ITU-T I.371).
So whole costs are exact at any rate, and the used tokens stay the same when a rate
is edited.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratelimit.policy.shape import Shape


class Bucket(NamedTuple):
    """The state of one limit in one scope.

    Attributes:
        used: tokens that were missing at the time `at`.
        at: that time, microseconds since the epoch.
    """

    used: float
    at: int

    def compute_missing(self, shape: Shape, t: int) -> float:
        """Return the tokens that are missing for a request with timestamp `t` (microseconds)."""
        missing = self.used - float(t - self.at) * shape.count / shape.period
        return max(missing, 0.0)

    def admits(self, shape: Shape, t: int, cost: float) -> bool:
        """Whether the bucket admits a request of `cost` tokens at time `t`.

        A request of cost 0 is denied only if the bucket is in debt at the latest time
        known. It is not denied for being late.
        """
        if cost == 0:
            return self.compute_missing(shape, max(t, self.at)) <= shape.burst + shape.tolerance
        return self.compute_missing(shape, t) + cost <= shape.burst + shape.tolerance

    def take(self, shape: Shape, t: int, cost: float) -> Bucket:
        """Return the bucket after a request took `cost` tokens at time `t`."""
        if t < self.at:
            return Bucket(self.used + cost, self.at)
        return Bucket(self.compute_missing(shape, t) + cost, t)

    def adjust(self, shape: Shape, t: int, amount: float) -> Bucket:
        """Return the bucket after a settlement at time `t` took `amount`, or refunded it if negative.

        The bucket may go into debt, because the tokens are already used. It never
        rises above full.
        """
        if t < self.at:
            return Bucket(max(self.used + amount, 0.0), self.at)
        return Bucket(max(self.compute_missing(shape, t) + amount, 0.0), t)

    def admits_post_paid(self, shape: Shape, t: int) -> bool:
        """Whether any tokens are left at time `t`: the rule for limits that only settlements charge."""
        return self.compute_missing(shape, max(t, self.at)) < shape.burst - shape.tolerance

    def compute_remaining(self, shape: Shape, t: int) -> tuple[int, int]:
        """Return the whole tokens that can be taken at time `t`, and the microseconds until full."""
        missing = self.compute_missing(shape, t)
        remaining = math.floor(shape.burst - missing + shape.tolerance)
        return max(0, remaining), math.ceil(missing * shape.period / shape.count)

    def compute_wait(self, shape: Shape, t: int, cost: float) -> int | None:
        """Return the least microseconds after `t` at which `cost` is admitted; None for never.

        The formula gives the wait up to float error. A search then finds the exact
        microsecond at which `admits` becomes true: this wait always suffices, and a
        shorter one never does.
        """
        if cost > shape.burst + shape.tolerance:
            return None
        excess = self.used + cost - shape.burst - shape.tolerance
        return self._find_first_wait(lambda wait: self.admits(shape, t + wait, cost), excess, shape, t)

    def compute_post_paid_wait(self, shape: Shape, t: int) -> int:
        """Return the least microseconds after `t` at which tokens are left again."""
        excess = self.used - shape.burst + shape.tolerance
        return self._find_first_wait(lambda wait: self.admits_post_paid(shape, t + wait), excess, shape, t)

    def _find_first_wait(
        self, is_admitted: Callable[[int], bool], excess: float, shape: Shape, t: int
    ) -> int:
        """Return the least wait that is admitted.

        Args:
            is_admitted: whether a wait (microseconds) is long enough.
            excess: tokens that must come back first; the search starts at the wait this gives.
            shape: the numbers of the limit.
            t: the time from which the wait counts, microseconds since the epoch.
        """
        if is_admitted(0):
            return 0
        guess = max(1, math.ceil(excess * shape.period / shape.count) + self.at - t)
        low, high, step = 0, guess, 1
        while not is_admitted(high):
            low, high, step = high, high + step, step * 2
        if low == 0 and not is_admitted(high - 1):
            return high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if is_admitted(middle) else (middle, high)
        return high


def compute_remaining_after(shape: Shape, used: float, at: float, t: float, cost: float) -> tuple[int, int]:
    """Return what `Bucket(used, at).take(shape, t, cost).compute_remaining(shape, t)` does, without objects.

    It does the same operations on the same doubles, for `t` not before `at`. Most checks come here, and it
    takes a third of the time.
    """
    missing = used - (t - at) * shape.count / shape.period
    missing = (0.0 if missing < 0 else missing) + cost
    remaining = math.floor(shape.burst - missing + shape.tolerance)
    return max(remaining, 0), math.ceil(missing * shape.period / shape.count)
