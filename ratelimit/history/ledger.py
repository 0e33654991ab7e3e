"""The buckets and slots of a history, and its open reservations."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

from ratelimit.history.followed_bucket import UNKNOWN_FOR, FollowedBucket
from ratelimit.policy.spec import FAILURES, LeaseSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ratelimit.engine.layout import PlacedLimit
    from ratelimit.engine.resolver import Subject
    from ratelimit.history.steps import Step

SettledAs = Literal["settled", "repeated", "charged", "unknown"]
"""What a settlement was: of an open reservation, of one settled before, without one, or of an unknown one."""

BucketCosts = list[tuple[FollowedBucket, float]]


class Slots:
    """The slots of one owner.

    Attributes:
        placed: their limit.
        key: a key that uses them.
        open: when the slot of each open reservation is freed if it is not settled, microseconds.
        unknown: the same for checks that the store did not answer, each of which may have taken a slot.
        intervals: when the slots of settled reservations were taken and freed, and what tells the line.
    """

    __slots__ = ("intervals", "key", "open", "placed", "unknown")

    def __init__(self, placed: PlacedLimit, key: str) -> None:
        self.placed = placed
        self.key = key
        self.open: dict[str, int] = {}
        self.unknown: list[int] = []
        self.intervals: list[tuple[int, int, int]] = []

    def is_full(self, t: int) -> bool:
        """Whether as many slots may be taken at `t` as there are."""
        self.unknown = [until for until in self.unknown if until > t]
        taken = len(self.unknown) + sum(until > t for until in self.open.values())
        return taken >= self.placed.shape.burst


class _Targets(NamedTuple):
    """What the checks of one subject charge.

    Attributes:
        subject: the subject.
        buckets: its buckets, each with the index of its cost.
        slots: its limits on open reservations.
        counts_failures: whether it has a limit on failures, whose state a history does not have.
    """

    subject: Subject
    buckets: tuple[tuple[FollowedBucket, int], ...]
    slots: tuple[Slots, ...]
    counts_failures: bool


class _Open(NamedTuple):
    """A reservation that is open.

    Attributes:
        place: tells the line that made it.
        step: that line.
        charges: its buckets with the estimate that was charged, and the index among the bucket's charges.
    """

    place: int
    step: Step
    charges: list[tuple[FollowedBucket, float, int]]


class Ledger:
    """What is charged where.

    Attributes:
        buckets: all buckets of the history.
        slots: all limits on open reservations.
    """

    def __init__(self) -> None:
        self.buckets: dict[tuple[str, str], FollowedBucket] = {}
        self.slots: dict[tuple[str, str], Slots] = {}
        self._targets: dict[int, _Targets] = {}
        self._open: dict[str, _Open | None] = {}
        self._waiting: dict[str, Step] = {}

    def read_step(self, step: Step) -> None:
        """Find what a line charges, and whether the order of the charges is still known."""
        self._find_targets(step.subject)
        if step.clock is not None:
            self._find_order(step)

    def _find_targets(self, subject: Subject) -> _Targets:
        targets = self._targets.get(id(subject))
        if targets is None:
            targets = self._targets[id(subject)] = self._make_targets(subject)
        return targets

    def _make_targets(self, subject: Subject) -> _Targets:
        limits = [
            (store_key, placed)
            for store_key, (_, _, group) in zip(subject.store_keys, subject.layout.groups, strict=True)
            for placed in group
        ]
        buckets, slots = [], []
        for index, (store_key, placed) in enumerate(limits):
            name = (store_key, placed.limit.name)
            if placed.kind == "slots":
                slots.append(self.slots.setdefault(name, Slots(placed, subject.key)))
            elif placed.kind != "failures":
                bucket = self.buckets.setdefault(name, FollowedBucket(placed, subject.key))
                bucket.add_shape(placed.shape)
                buckets.append((bucket, index))
        has_failures = any(placed.kind == FAILURES for _, placed in limits)
        return _Targets(subject, tuple(buckets), tuple(slots), has_failures)

    def _find_order(self, step: Step) -> None:
        """Find the buckets whose charges have no known order from here on."""
        layout = step.subject.layout
        is_ordered = step.clock == "store" and not layout.has_shared and not layout.lease_amounts
        for bucket, index in self._targets[id(step.subject)].buckets:
            if not is_ordered:
                bucket.is_followed = False
            if isinstance(bucket.placed.limit.lease, LeaseSpec) and layout.lease_amounts:
                lessee = (step.process, step.subject.key, step.subject.model_class)
                bucket.note_lessee(lessee, layout.lease_amounts[index])

    def note_time(self, step: Step) -> None:
        """Note the time at which the store looked at the buckets of a line."""
        if step.clock is not None and (step.used is not None or step.allowed):
            for bucket, _ in self._targets[id(step.subject)].buckets:
                bucket.note_time(step.t)

    def list_buckets(self, step: Step) -> BucketCosts:
        """Return the buckets of a check with what it takes of each."""
        costs = step.costs
        return [(bucket, costs[index]) for bucket, index in self._find_targets(step.subject).buckets]

    def note_unknown(self, step: Step) -> None:
        """Note a call that the store did not answer: it may have been charged, and have taken a slot."""
        if step.settled is not None:
            self._note_unknown_settlement(step, step.settled)
            return
        targets = self._find_targets(step.subject)
        for bucket, cost in self.list_buckets(step):
            if bucket.placed.kind == "bucket":
                bucket.note_unknown(step.t, cost)
        for slots in targets.slots:
            slots.unknown.append(step.t + UNKNOWN_FOR + round(slots.placed.shape.period))

    def _note_unknown_settlement(self, step: Step, settled: Mapping[str, float]) -> None:
        """Note a settlement that the store did not answer."""
        if step.reservation is None:
            for bucket, _ in self.list_buckets(step):
                bucket.note_unknown(step.t, settled.get(bucket.placed.unit, 0.0))
        elif step.reservation not in self._open:
            self._waiting[step.reservation] = step
        elif opened := self._open[step.reservation]:
            is_cancelled = not settled  # the line does not know the units
            for bucket, estimate, index in opened.charges:
                actual = 0.0 if is_cancelled else settled.get(bucket.placed.unit, estimate)
                bucket.note_unknown(step.t, max(actual - estimate, 0.0))
                bucket.note_unknown_refund(step.t, max(estimate - actual, 0.0))
                earliest = max(opened.step.t + 1, step.t - UNKNOWN_FOR)
                bucket.charges.refund(index, earliest, max(estimate - actual, 0.0))

    def may_be_denied(self, step: Step) -> bool:
        """Whether a limit may have had no room for a check, or the reason cannot be known."""
        targets = self._targets[id(step.subject)]
        if step.violated is not None:
            known = {placed.limit.name for placed in step.subject.layout.placed_limits}
            if not known.issuperset(step.violated):
                return True  # an operator blocked the key, or the policy has been edited
        return (
            targets.counts_failures
            or any(slots.is_full(step.t) for slots in targets.slots if slots.placed.limit.mode == "enforce")
            or any(
                not bucket.is_followed or bucket.may_deny(step.t, step.costs[index])
                for bucket, index in targets.buckets
                if bucket.placed.limit.mode == "enforce"
            )
        )

    def open_reservation(self, place: int, step: Step, taken: Sequence[bool]) -> None:
        """Note the reservation of an admitted check, if it has one."""
        if step.reservation is None:
            return
        charges = [
            (bucket, cost, len(bucket.charges) - 1)
            for (bucket, cost), is_taken in zip(self.list_buckets(step), taken, strict=True)
            if is_taken or bucket.placed.kind == "post-paid"
        ]
        self._open[step.reservation] = _Open(place, step, charges)
        if unanswered := self._waiting.pop(step.reservation, None):
            self.note_unknown(unanswered)
        for slots in self._targets[id(step.subject)].slots:
            slots.open[step.reservation] = step.t + round(slots.placed.shape.period)

    def has_reservation(self, step: Step) -> bool:
        """Whether an earlier line has made or settled the reservation of a line."""
        return step.reservation in self._open

    def settle(self, step: Step) -> tuple[SettledAs, Step]:
        """Charge what a settlement used, less the estimate.

        Returns:
            What it was, and the line whose buckets it charged: for a reservation that of its check, because
            a settlement may name another model.
        """
        settled = step.settled or {}
        if step.reservation is None:
            for bucket, _ in self.list_buckets(step):
                self._charge(bucket, step, settled.get(bucket.placed.unit, 0.0))
            return "charged", step
        if step.reservation not in self._open:
            # An earlier history has it, or it was made by a process that ended before it wrote its line.
            for bucket, _ in self.list_buckets(step):
                bucket.note_unknown(step.t, settled.get(bucket.placed.unit, 0.0))
                bucket.note_unknown_refund(step.t, math.inf)
            self._open[step.reservation] = None
            return "unknown", step
        opened = self._open[step.reservation]
        if opened is None:
            return "repeated", step
        self._open[step.reservation] = None
        for bucket, estimate, index in opened.charges:
            bucket.note_time(step.t)
            actual = settled.get(bucket.placed.unit, estimate)
            self._charge(bucket, step, actual - estimate)
            if actual < estimate:
                bucket.charges.refund(index, step.t, estimate - actual)
        for slots in self._targets[id(opened.step.subject)].slots:
            self._free_slot(slots, opened, step)
        return "settled", opened.step

    def _charge(self, bucket: FollowedBucket, step: Step, amount: float) -> None:
        if bucket.is_followed and amount:
            bucket.adjust(step.t, amount)
            if amount > 0:
                bucket.remember(amount, step)

    def _free_slot(self, slots: Slots, opened: _Open, step: Step) -> None:
        until = slots.open.pop(step.reservation or "", None)
        if until is not None and step.t > opened.step.t:
            slots.intervals.append((opened.step.t, min(step.t, until), opened.place))

    def compare_settled(self, step: Step, charged: Step) -> BucketCosts:
        """Return the buckets of which the store says that something else is missing, with the difference.

        Args:
            step: the settlement.
            charged: the line whose buckets it charged.
        """
        if step.used is None:
            return []
        return [
            (bucket, difference)
            for bucket, _ in self.list_buckets(charged)
            if bucket.is_followed
            and (used := step.used.get(bucket.placed.limit.name)) is not None
            and (difference := bucket.compare(step.t, used))
        ]
