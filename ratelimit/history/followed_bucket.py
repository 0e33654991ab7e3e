"""Follows one bucket through a history.

Its state is known between two bounds. `low` has only the charges that the history is sure of. `high` has also
those that may have been made: of calls that the store did not answer. A decision is wrong if it is wrong for
every state between the two.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from ratelimit.engine.bucket import Bucket
from ratelimit.history.windows import TimedCosts
from ratelimit.policy.shape import Shape
from ratelimit.request.timestamp import MICROSECONDS

if TYPE_CHECKING:
    from ratelimit.engine.layout import PlacedLimit
    from ratelimit.history.steps import Step

UNKNOWN_FOR: Final = 5 * MICROSECONDS
"""How long before and after the line of a call that was not answered the call may have been charged,
microseconds."""

_RECENT: Final = 64
"""How many charges are kept, to name the one that explains a fault."""


class Charge(NamedTuple):
    """What a line took or asked for.

    Attributes:
        cost: how much.
        step: the line.
    """

    cost: float
    step: Step


class FollowedBucket:
    """The state of one bucket, as far as the history tells it.

    Attributes:
        placed: its limit.
        key: a key that uses it.
        latest: the latest time of a line that is about it.
        shape: its numbers; if several plans share the bucket, the highest of each.
        charges: what was admitted, less what was refunded, for the windows.
        is_followed: whether the order of its charges is known. Otherwise only the windows are checked.
        start: the begin of the time since which the bucket was never full, microseconds since the epoch.
        taken: what was taken since then.
        leased: how many tokens may be out on lease.
    """

    __slots__ = (
        "_at_pending",
        "_high",
        "_lessees",
        "_low",
        "_pending",
        "_precision",
        "_recent",
        "_refundable",
        "charges",
        "is_followed",
        "key",
        "latest",
        "leased",
        "placed",
        "shape",
        "start",
        "taken",
    )  # fmt: skip

    def __init__(self, placed: PlacedLimit, key: str) -> None:
        self.placed = placed
        self.key = key
        self.latest = 0
        self.shape = placed.shape
        self.charges = TimedCosts()
        self.is_followed = True
        self.leased = 0.0
        self._lessees: set[tuple[str | None, ...]] = set()
        self.start = 0
        self.taken = 0.0
        self._low = self._high = Bucket(0.0, 0)
        self._pending = self._refundable = 0.0  # by calls of which it is not known whether they were made
        self._at_pending = 0
        self._recent: deque[Charge] = deque(maxlen=_RECENT)
        shape = placed.shape
        # Lines write states in whole microseconds of refill, and add floats in another order than the store.
        self._precision = 2 * shape.count / shape.period + 1e-6 + 1e-9 * shape.burst

    @property
    def name(self) -> str:
        """The limit's name."""
        return self.placed.limit.name

    def add_shape(self, shape: Shape) -> None:
        """Note the numbers by which another plan uses the bucket."""
        if shape != self.shape:
            mine = self.shape
            rate = max(mine, shape, key=lambda one: one.count / one.period)
            self.shape = Shape(rate.count, rate.period, max(mine.burst, shape.burst))
            self.is_followed = False

    def note_time(self, t: int) -> None:
        """Note the time of a line. If it is before the latest one, the store's clock has been set back."""
        if t < self.latest:
            self.is_followed = False
        self.latest = max(self.latest, t)

    def note_lessee(self, lessee: tuple[str | None, ...], amount: float) -> None:
        """Note a process, key and model class that may hold `amount` of the bucket on lease."""
        if lessee not in self._lessees:
            self._lessees.add(lessee)
            self.leased += amount

    def note_unknown(self, t: int, cost: float) -> None:
        """Note a call at the time `t` of which it is not known whether it was charged."""
        self._pending += cost
        self._at_pending = max(self._at_pending, t)

    def note_unknown_refund(self, t: int, amount: float) -> None:
        """Note a call at the time `t` of which it is not known whether it refunded `amount`."""
        self._refundable += amount
        self._at_pending = max(self._at_pending, t)

    def settle_unknown(self, t: int) -> None:
        """Take calls of an outage that is long over as made at `t`, the latest time that they can have."""
        if (self._pending or self._refundable) and t > self._at_pending + UNKNOWN_FOR:
            missing = self._high.compute_missing(self.placed.shape, t)
            self._high = Bucket(missing + self._pending, max(t, self._high.at))
            self._low = Bucket(max(self._low.used - self._refundable, 0.0), self._low.at)
            self._pending = self._refundable = 0.0

    def compare(self, t: int, used: float) -> float:
        """Compare with what the store says was missing at `t`, and go on from there.

        Returns:
            How much more was missing than the history explains; negative if less was missing.
        """
        if t < self._low.at:
            return 0.0
        shape = self.placed.shape
        low, high = self._low.compute_missing(shape, t), self._high.compute_missing(shape, t)
        more, less = used - high - self._pending, low - self._refundable - used
        is_explained = more <= self._precision and less <= self._precision
        if not is_explained or self._low is not self._high:
            self._low = self._high = Bucket(used, t)
        if is_explained:
            return 0.0
        return more if more > 0 else -less

    def admit(self, t: int, cost: float) -> float:
        """Take the cost of a check that was admitted; return by how much it was too much, 0 if it was not."""
        shape, low = self.placed.shape, self._low
        missing = low.compute_missing(shape, t)
        if missing <= 0:
            self.start, self.taken = t, 0.0
        self.taken += cost
        if self.placed.kind == "post-paid":
            is_open = self._refundable or low.admits_post_paid(shape, t)
            return 0.0 if is_open else max(missing - shape.burst, shape.tolerance)
        if cost == 0 and low.admits(shape, t, cost):
            return 0.0  # The store writes nothing, so its latest time stays as well.
        if low.admits(shape, t, cost):
            self._low, is_same = low.take(shape, t, cost), self._high is low
            self._high = self._low if is_same else self._high.take(shape, t, cost)
            return 0.0
        over = missing + cost - shape.burst
        # Each admission is judged by itself: from here on this one counts as if it had just fitted.
        self._low = Bucket(max(low.used - over, 0.0), low.at).take(shape, t, cost)
        self._high = max(self._high.take(shape, t, cost), self._low)
        over -= self._refundable
        return over if over > self._precision else 0.0

    def admit_in_call(self, t: int, cost: float) -> bool:
        """Take the cost of a check that may share its call with the line before; return whether it may.

        If the call was not answered, its checks are repeated in any order. The state in the line before
        may be that after this check, too.
        """
        if t != self._low.at or not self._pending:
            return False
        self._high = self._high.take(self.placed.shape, t, cost)
        return True

    def admit_in_shadow(self, t: int, cost: float) -> bool:
        """Take the cost if there is room, as the store does in shadow mode; return whether it was taken."""
        shape, low, high = self.placed.shape, self._low, self._high
        if low.admits(shape, t, cost) and high.admits(shape, t, cost):
            self.admit(t, cost)
            return True
        if low.admits(shape, t, cost):
            self._high = high.take(shape, t, cost)
        return False

    def may_deny(self, t: int, cost: float) -> bool:
        """Whether the bucket has no room for `cost` if all that may have been charged was charged."""
        shape, high = self.placed.shape, self._high
        slack = 2 * shape.tolerance + 1e-9 * shape.burst
        if self.placed.kind == "post-paid":
            return high.compute_missing(shape, max(t, high.at)) + self._pending >= shape.burst - slack
        if cost == 0:
            t = max(t, high.at)
        return high.compute_missing(shape, t) + self._pending + cost > shape.burst - slack

    def find_room(self, t: int, cost: float) -> float:
        """Return how much more would be missing at least, if the bucket had no room for `cost`."""
        missing = self._high.compute_missing(self.placed.shape, t)
        return max(self.placed.shape.burst - cost - missing - self._pending, 0.0)

    def assume_charge(self, t: int, amount: float) -> None:
        """Go on as if `amount` might have been charged in addition."""
        self._high = self._high.adjust(self.placed.shape, t, amount)

    def adjust(self, t: int, amount: float) -> None:
        """Charge `amount` by a settlement, or refund it if negative."""
        shape, low = self.placed.shape, self._low
        self._low, is_same = low.adjust(shape, t, amount), self._high is low
        self._high = self._low if is_same else self._high.adjust(shape, t, amount)
        self.taken += amount

    def remember(self, cost: float, step: Step) -> None:
        """Keep a charge, or what a denied check asked for, to explain faults by it."""
        self._recent.append(Charge(cost, step))

    def find_charge(self, amount: float, *, at_least: bool = False, allowed: bool = True) -> Step | None:
        """Return the latest line with this cost, or with at least this cost.

        Args:
            amount: the cost.
            at_least: whether a higher cost is found as well.
            allowed: whether to look among what was admitted, or among what was denied.
        """
        for cost, step in reversed(self._recent):
            if (
                step.allowed is allowed
                and cost
                and (cost >= amount - self._precision if at_least else abs(cost - amount) <= self._precision)
            ):
                return step
        return None
