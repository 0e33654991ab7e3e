"""The buckets and slots of a history, and its open reservations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from ratelimit.history.followed_bucket import UNKNOWN_FOR, FollowedBucket
from ratelimit.history.steps import is_clock_set_back
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
        open: when the slot of each open reservation is freed if it is not settled, microseconds.
        unknown: the same for checks that the store did not answer, each of which may have taken a slot.
        intervals: when the slots of settled reservations were taken and freed, and the number of the step.
    """

    __slots__ = ("intervals", "open", "placed", "shape", "start", "taken", "unknown")

    def __init__(self, placed: PlacedLimit) -> None:
        self.placed = placed
        self.shape = placed.shape
        self.start = 0
        self.taken = 0.0
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
        buckets: its buckets, each with the index of its cost.
        slots: its limits on open reservations.
        counts_failures: whether it has a limit on failures, whose state a history does not have.
    """

    buckets: tuple[tuple[FollowedBucket, int], ...]
    slots: tuple[Slots, ...]
    counts_failures: bool


class _Open(NamedTuple):
    """A reservation that is open.

    Attributes:
        number: the number of the step that made it.
        step: that step.
        charges: its buckets with the estimate that was charged, and the index among the bucket's charges.
    """

    number: int
    step: Step
    charges: list[tuple[FollowedBucket, float, int]]


class Ledger:
    """What is charged where.

    Attributes:
        buckets: all buckets of the history.
        slots: all limits on open reservations.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self.buckets: dict[tuple[str, str], FollowedBucket] = {}
        self._targets: dict[int, _Targets] = {}
        self._open: dict[str, _Open | None] = {}
        self.slots: dict[tuple[str, str], Slots] = {}
        self._unanswered: dict[str, Mapping[str, float]] = {}
        steps = [step for step in steps if not _is_unanswered_end(step)]
        self._reserved = {step.reservation: step for step in steps if step.settled is None}
        self._is_clock_steady = not is_clock_set_back(steps)
        for step in steps:
            if id(step.subject) not in self._targets:
                self._targets[id(step.subject)] = self._find_targets(step.subject)
        for step in steps:
            self._find_order(step)

    def _find_targets(self, subject: Subject) -> _Targets:
        limits = [
            (store_key, placed)
            for store_key, (_, _, group) in zip(subject.store_keys, subject.layout.groups, strict=True)
            for placed in group
        ]
        buckets, slots = [], []
        for index, (store_key, placed) in enumerate(limits):
            name = (store_key, placed.limit.name)
            if placed.kind == "slots":
                slots.append(self.slots.setdefault(name, Slots(placed)))
            elif placed.kind != "failures":
                bucket = self.buckets.setdefault(name, FollowedBucket(placed))
                bucket.add_shape(placed.shape)
                buckets.append((bucket, index))
        return _Targets(tuple(buckets), tuple(slots), any(placed.kind == FAILURES for _, placed in limits))

    def _find_order(self, step: Step) -> None:
        """Find the buckets whose charges have no known order."""
        layout = step.subject.layout
        is_ordered = step.clock is None or (
            step.clock == "store"
            and self._is_clock_steady
            and not layout.has_shared
            and not layout.lease_amounts
        )
        for bucket, index in self._targets[id(step.subject)].buckets:
            if not is_ordered:
                bucket.is_followed = False
            if isinstance(bucket.placed.limit.lease, LeaseSpec) and layout.lease_amounts:
                lessee = (step.process, step.subject.key, step.subject.model_class)
                bucket.note_lessee(lessee, layout.lease_amounts[index])

    def list_buckets(self, step: Step) -> BucketCosts:
        """Return the buckets of a check with what it takes of each."""
        costs = step.costs
        return [(bucket, costs[index]) for bucket, index in self._targets[id(step.subject)].buckets]

    def note_unknown(self, step: Step) -> None:
        """Note a call that the store did not answer: it may have been charged, and have taken a slot."""
        if step.settled is not None:
            self._note_unknown_settlement(step, step.settled)
            return
        for bucket, cost in self.list_buckets(step):
            if bucket.placed.kind == "bucket":
                bucket.note_unknown(step.t, cost)
        for slots in self._targets[id(step.subject)].slots:
            slots.unknown.append(step.t + UNKNOWN_FOR + round(slots.shape.period))

    def _note_unknown_settlement(self, step: Step, settled: Mapping[str, float]) -> None:
        check = self._reserved.get(step.reservation or "")
        if check is None and step.reservation is not None:
            return
        if not settled and check is not None:  # a cancellation, or a settlement that says nothing
            settled = dict.fromkeys((bucket.placed.unit for bucket, _ in self.list_buckets(check)), 0.0)
        for bucket, estimate in self.list_buckets(check or step):
            change = settled.get(bucket.placed.unit, estimate) - (estimate if check else 0.0)
            bucket.note_unknown(step.t, max(change, 0.0), max(-change, 0.0))
        if check is not None:
            self._unanswered[step.reservation or ""] = settled

    def refund_unanswered(self) -> None:
        """Take settlements that were not answered, and not repeated, as made: for the windows."""
        for reservation, settled in self._unanswered.items():
            opened = self._open.get(reservation)
            for bucket, estimate, index in opened.charges if opened else ():
                bucket.refund(index, max(estimate - settled.get(bucket.placed.unit, estimate), 0.0))

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

    def open_reservation(self, number: int, step: Step, taken: Sequence[bool]) -> None:
        """Note the reservation of an admitted check, if it has one."""
        if step.reservation is None:
            return
        charges = [
            (bucket, cost, len(bucket.charges) - 1)
            for (bucket, cost), is_taken in zip(self.list_buckets(step), taken, strict=True)
            if is_taken or bucket.placed.kind == "post-paid"
        ]
        self._open[step.reservation] = _Open(number, step, charges)
        for slots in self._targets[id(step.subject)].slots:
            slots.open[step.reservation] = step.t + round(slots.shape.period)

    def settle(self, step: Step) -> SettledAs:
        """Charge what a settlement used, less the estimate."""
        settled = step.settled or {}
        if step.reservation is None:
            for bucket, _ in self.list_buckets(step):
                self._charge(bucket, step, settled.get(bucket.placed.unit, 0.0))
            return "charged"
        if step.reservation not in self._open:
            # An earlier history has it, or it was made by a process that ended before it wrote its line.
            for bucket, _ in self.list_buckets(step):
                bucket.note_unknown(step.t, settled.get(bucket.placed.unit, 0.0))
                bucket.note_unknown_refund()
            self._open[step.reservation] = None
            return "unknown"
        opened = self._open[step.reservation]
        if opened is None:
            return "repeated"
        self._open[step.reservation] = None
        for bucket, estimate, index in opened.charges:
            actual = settled.get(bucket.placed.unit, estimate)
            self._charge(bucket, step, actual - estimate)
            if actual < estimate:
                bucket.refund(index, estimate - actual)
        for slots in self._targets[id(opened.step.subject)].slots:
            self._free_slot(slots, opened, step)
        return "settled"

    def _charge(self, bucket: FollowedBucket, step: Step, amount: float) -> None:
        if bucket.is_followed and amount:
            bucket.adjust(step.t, amount)
            if amount > 0:
                bucket.remember(amount, step)

    def _free_slot(self, slots: Slots, opened: _Open, step: Step) -> None:
        until = slots.open.pop(step.reservation or "", None)
        if until is not None and step.t > opened.step.t:
            slots.intervals.append((opened.step.t, min(step.t, until), opened.number))

    def compare_settled(self, step: Step, outcome: SettledAs) -> BucketCosts:
        """Return the buckets of which the store says that something else is missing, with the difference."""
        if step.used is None or outcome == "repeated":
            return []
        return [
            (bucket, difference)
            for bucket, _ in self.list_buckets(step)
            if bucket.is_followed
            and (used := step.used.get(bucket.placed.limit.name)) is not None
            and (difference := bucket.compare(step.t, used))
        ]


def _is_unanswered_end(step: Step) -> bool:
    """Whether a line is of a settlement without an answer. It has no key: its reservation's check has it."""
    return step.settled is not None and step.decided_by == "outage" and step.reservation is not None
