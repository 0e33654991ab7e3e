"""The arithmetic of one token bucket, and nothing else.

This is the reference that `lua/check.lua` follows operation for operation, in
IEEE 754 doubles and in the same order, so that both reach the same decision to
the last bit. It is also the engine of the simulator and of `on_outage: local`.

A bucket remembers how many tokens are missing (`used`) and when that was true
(`at`, microseconds since the epoch). Missing tokens come back at the limit's
rate, so what is missing at `t` is

    level(t) = max(0, used - (t - at) · count / period)

For a late `t < at` the same line counts upwards: a late request sees only the
refill that its own time had earned. From that the bound follows in whatever
order requests arrive: between any two request times a ≤ b, no more than
`burst + (b - a) · count / period` is ever admitted.

Storing tokens rather than a theoretical arrival time (GCRA, ITU-T I.371) keeps
whole costs exact at any rate, and keeps what was used when a rate is edited.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratelimit.policy.shape import Shape


class Bucket(NamedTuple):
    """The state of one limit in one scope: `used` tokens were missing at time `at`."""

    used: float
    at: int

    def level(self, shape: Shape, t: int) -> float:
        """Return the tokens missing at `t` (microseconds), as a request of that time sees it."""
        level = self.used - float(t - self.at) * shape.count / shape.period
        return max(level, 0.0)

    def admits(self, shape: Shape, t: int, cost: float) -> bool:
        """Say whether a request of `cost` tokens at time `t` passes.

        A request that takes nothing is stopped only by debt: by a bucket already
        below empty at the latest time known, not by its own lateness.
        """
        if cost == 0:
            return self.level(shape, max(t, self.at)) <= shape.burst + shape.tolerance
        return self.level(shape, t) + cost <= shape.burst + shape.tolerance

    def take(self, shape: Shape, t: int, cost: float) -> Bucket:
        """Return the bucket after `cost` tokens were taken at time `t`."""
        if t < self.at:
            return Bucket(self.used + cost, self.at)
        return Bucket(self.level(shape, t) + cost, t)

    def adjust(self, shape: Shape, t: int, amount: float) -> Bucket:
        """Return the bucket after a settlement at `t` took `amount` more, or gave it back if negative.

        It may go below empty: what was used was used. It never rises above full.
        """
        if t < self.at:
            return Bucket(max(self.used + amount, 0.0), self.at)
        return Bucket(max(self.level(shape, t) + amount, 0.0), t)

    def has_left(self, shape: Shape, t: int) -> bool:
        """Say whether anything is left at `t`, for limits that are charged when a request settles."""
        return self.level(shape, max(t, self.at)) < shape.burst - shape.tolerance

    def standing(self, shape: Shape, t: int) -> tuple[int, int]:
        """Return the whole tokens that could be taken at `t`, and microseconds until nothing is missing."""
        level = self.level(shape, t)
        remaining = math.floor(shape.burst - level + shape.tolerance)
        return max(0, remaining), math.ceil(level * shape.period / shape.count)

    def wait(self, shape: Shape, t: int, cost: float) -> int | None:
        """Return the least microseconds after `t` at which `cost` passes; None for never.

        The formula gives the answer up to float error; the search then makes it the
        exact edge of `admits`, so that waiting this long always works and waiting
        less never does.
        """
        if cost > shape.burst + shape.tolerance:
            return None
        missing = self.used + cost - shape.burst - shape.tolerance
        return self._first(lambda wait: self.admits(shape, t + wait, cost), missing, shape, t)

    def wait_left(self, shape: Shape, t: int) -> int:
        """Return the least microseconds after `t` at which something is left again."""
        missing = self.used - shape.burst + shape.tolerance
        return self._first(lambda wait: self.has_left(shape, t + wait), missing, shape, t)

    def _first(self, passes: Callable[[int], bool], missing: float, shape: Shape, t: int) -> int:
        """Return the least wait that passes, searching from where the formula puts it."""
        if passes(0):
            return 0
        guess = max(1, math.ceil(missing * shape.period / shape.count) + self.at - t)
        low, high, step = 0, guess, 1
        while not passes(high):
            low, high, step = high, high + step, step * 2
        if low == 0 and not passes(high - 1):
            return high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if passes(middle) else (middle, high)
        return high
