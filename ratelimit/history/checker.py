"""Checks a history of decisions and settlements against the promises P1, P2, P6 and P7. No I/O.

Three things are checked:

- Every window of every bucket, in whatever order the charges were made (windows.py). This is P1.
- Where the order of the decisions is known, every single decision against the plain bucket: what was admitted
  had room, what was denied had none, and what the store says is missing is what was charged (P1, P2, P6, P7).
- Repeated checks and settlements: they charge nothing, and an admission stays one (P6).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from ratelimit.history.faults import FaultKind, HistoryFault, HistoryReport
from ratelimit.history.followed_bucket import UNKNOWN_FOR
from ratelimit.history.ledger import Ledger, Slots
from ratelimit.history.steps import make_steps
from ratelimit.history.windows import find_overlaps, find_windows
from ratelimit.request.privacy import mask
from ratelimit.request.timestamp import MICROSECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ratelimit.history.followed_bucket import FollowedBucket
    from ratelimit.history.lines import NumberedLine
    from ratelimit.history.steps import Step
    from ratelimit.history.windows import Window
    from ratelimit.policy import Policy

_LINE_BITS: Final = 40  # of a packed place: more lines than any file has
_MILLISECOND: Final = 1_000

DEFAULT_REMEMBER: Final = 600.0
"""Seconds for which a limiter remembers reservations and request ids unless told otherwise."""


def verify_history(
    lines: Iterable[NumberedLine], policy: Policy, *, remember: float = DEFAULT_REMEMBER
) -> HistoryReport:
    """Check a history against the promises of a policy.

    Args:
        lines: the lines, in the order of the decisions, as `read_history` and `merge_lines` give them.
        policy: the policy by which the decisions were made.
        remember: seconds for which a check with the same request id gets the same answer: the limiter's
            `remember`.

    Raises:
        InvalidRequest: a line names a plan that the policy does not have, or a unit that no plan meters.
    """
    checker = _Checker(round(remember * MICROSECONDS))
    for step in checker.look_ahead(make_steps(lines, policy)):
        checker.read_step(step)
    checker.check_windows()
    return checker.report


class _Checker:
    """Reads the steps one after another.

    Args:
        remember: for how long a request id is remembered, microseconds.
    """

    def __init__(self, remember: int) -> None:
        self.report = HistoryReport()
        self._ledger = Ledger()
        self._remember = remember
        self._answers: dict[tuple[str, str, str], Step] = {}
        self._over: set[tuple[int, str]] = set()
        self._sources: dict[str, int] = {}

    def look_ahead(self, steps: Iterable[Step]) -> Iterator[Step]:
        """Note calls that were not answered before the lines during which they may have been charged.

        A process writes the line only when it has given up waiting.
        """
        ahead: deque[Step] = deque()
        for step in steps:
            while ahead and ahead[0].t < step.t - UNKNOWN_FOR:
                yield ahead.popleft()
            if step.decided_by == "outage":
                self._ledger.note_unknown(step)
            ahead.append(step)
        yield from ahead

    def _pack_place(self, step: Step) -> int:
        """Return one number for the file and the line of a step."""
        source, number = step.place
        return self._sources.setdefault(source, len(self._sources)) << _LINE_BITS | number

    def _unpack_place(self, place: int) -> tuple[str, int]:
        return list(self._sources)[place >> _LINE_BITS], place & (1 << _LINE_BITS) - 1

    def read_step(self, step: Step) -> None:
        """Check one line, and charge its buckets."""
        if step.settled is not None and step.decided_by == "outage":
            self.report.unanswered_settlements += 1
            return
        self._ledger.read_step(step)
        if step.settled is not None:
            if step.estimates and not self._ledger.has_reservation(step):
                self.read_step(step._replace(settled=None, costs=step.estimates, estimates=(), used=None))
            self._read_settlement(step)
            return
        report = self.report
        report.decisions += 1
        report.admitted += step.allowed
        report.sources[step.decided_by] += 1
        if step.decided_by == "outage":
            report.outage_admissions += step.allowed
        elif self._is_repeated(step):
            report.repeated += 1
        elif step.allowed:
            self._read_admission(step)
        elif step.decided_by == "store":
            self._read_denial(step)

    def _is_repeated(self, step: Step) -> bool:
        """Whether a check repeats an admission with the same request id; note a different answer."""
        if step.request_id is None:
            return False
        name = (step.subject.tenant, step.subject.key, step.request_id)
        first = self._answers.get(name)
        # A store forgets in whole milliseconds. A repeated answer has the time of the first one.
        is_forgotten = first is not None and step.t - first.t > self._remember - _MILLISECOND
        if first is None or is_forgotten:
            if step.allowed:
                self._answers[name] = step
            return False
        if not step.allowed:
            text = f"line {first.place[1]} has the same request id and was admitted"
            self._note_fault("P6", "answered-differently", step, None, 1.0, text)
        elif step.reservation != first.reservation:
            text = f"line {first.place[1]} has the same request id and another reservation"
            self._note_fault("P6", "answered-differently", step, None, 1.0, text)
        return True

    def _read_admission(self, step: Step) -> None:
        taken, place = [], self._pack_place(step)
        self._ledger.note_time(step)
        for bucket, cost in self._ledger.list_buckets(step):
            is_taken = bucket.placed.kind == "bucket"
            if bucket.is_followed:
                bucket.settle_unknown(step.t)
                is_taken = self._follow_admission(step, bucket, cost)
            if is_taken and cost:
                bucket.charges.append(step.t, cost, place)
                bucket.remember(cost, step)
            taken.append(is_taken)
        self._ledger.open_reservation(place, step, taken)

    def _follow_admission(self, step: Step, bucket: FollowedBucket, cost: float) -> bool:
        """Follow an admission on one bucket; return whether its cost was taken."""
        placed = bucket.placed
        if step.request_id is not None and bucket.admit_in_call(step.t, cost):
            return placed.kind == "bucket"
        used = None if step.used is None else step.used.get(placed.limit.name)
        is_taken, over = True, 0.0
        if placed.limit.mode == "shadow":
            is_taken = bucket.admit_in_shadow(step.t, cost)
            if not is_taken:  # The line does not say whether the store has taken it.
                used = None
        else:
            over = bucket.admit(step.t, cost)
        difference = 0.0 if used is None else bucket.compare(step.t, used)
        if over:
            # Without this admission the bucket holds what fits, so the store's view is that much smaller.
            self._note_over_admission(step, bucket, over, is_forgotten=difference < 0)
        elif difference:
            self._note_difference(step, bucket, difference)
        return is_taken and placed.kind == "bucket"

    def _note_over_admission(
        self, step: Step, bucket: FollowedBucket, over: float, *, is_forgotten: bool
    ) -> None:
        if is_forgotten:
            explanation = "the store had forgotten what was used: its state was lost, reset or had expired"
        elif charge := bucket.find_charge(over, at_least=True):
            explanation = f"as if the charge of line {charge.place[1]} had been lost"
        else:
            explanation = "no single charge explains it: the state was lost or reset, or several charges were"
        self._over.add((self._pack_place(step), bucket.name))
        self._note_fault("P1", "over-admitted", step, bucket, over, explanation)

    def _note_difference(self, step: Step, bucket: FollowedBucket, difference: float) -> None:
        """Note that the store says that more was missing than the history explains, or less."""
        amount = abs(difference)
        if difference < 0:
            charge = bucket.find_charge(amount)
            explanation = (
                f"as if the charge of line {charge.place[1]} had been lost"
                if charge
                else "the state was lost, reset, or refunded more than was taken"
            )
            self._note_fault("P1", "lost", step, bucket, amount, explanation)
        else:
            promise, explanation, _ = _explain_more(bucket, amount, at_least=False)
            self._note_fault(promise, "charged-more", step, bucket, amount, explanation)

    def _read_denial(self, step: Step) -> None:
        buckets = self._ledger.list_buckets(step)
        self._ledger.note_time(step)
        for bucket, cost in buckets:
            used = None if step.used is None else step.used.get(bucket.placed.limit.name)
            if bucket.is_followed:
                bucket.settle_unknown(step.t)
                if used is not None and (difference := bucket.compare(step.t, used)):
                    self._note_difference(step, bucket, difference)
            bucket.remember(cost, step)
        if self._ledger.may_be_denied(step):
            return
        enforced = [
            (bucket.find_room(step.t, cost), bucket)
            for bucket, cost in buckets
            if bucket.placed.limit.mode == "enforce" and bucket.name in (step.violated or (bucket.name,))
        ]
        if not enforced:
            self._note_fault("P2", "denied-without-reason", step, None, 1.0, "no limit applies to it")
            return
        room, bucket = min(enforced, key=lambda one: one[0] / one[1].placed.shape.burst)
        promise, explanation, charge = _explain_more(bucket, room, at_least=True)
        self._note_fault(promise, "denied-without-reason", step, bucket, room, explanation)
        # What explains it may explain later denials, too, also those of other limits.
        bucket.assume_charge(step.t, room)
        for other, cost in self._ledger.list_buckets(charge) if charge else ():
            other.assume_charge(step.t, cost)

    def _read_settlement(self, step: Step) -> None:
        self.report.settlements += 1
        outcome, charged = self._ledger.settle(step)
        if outcome == "repeated":
            self.report.repeated += 1
        elif outcome == "unknown":
            self.report.unknown_settlements += 1
        else:
            for bucket, difference in self._ledger.compare_settled(step, charged):
                self._note_difference(step, bucket, difference)

    def check_windows(self) -> None:
        """Check every window of every bucket, and count the slots that were taken at the same time."""
        buckets = self._ledger.buckets.values()
        self.report.buckets = sum(bucket.is_followed for bucket in buckets)
        self.report.windows_only = len(buckets) - self.report.buckets
        for bucket in buckets:
            if bucket.placed.limit.mode != "shadow" or bucket.is_followed:
                for window in find_windows(
                    bucket.charges, bucket.shape, is_ordered=bucket.is_followed, extra=bucket.leased
                ):
                    self._note_window(bucket, window)
        for slots in self._ledger.slots.values():
            if slots.placed.limit.mode != "shadow":
                for window in find_overlaps(slots.intervals, slots.placed.shape.burst):
                    self._note_window(slots, window)

    def _note_window(self, bucket: FollowedBucket | Slots, window: Window) -> None:
        placed = bucket.placed
        if (window.place, placed.limit.name) in self._over:
            return
        key = mask(bucket.key)
        lost = next(
            (
                fault
                for fault in self.report.faults
                if (fault.kind, fault.limit, fault.key) == ("lost", placed.limit.name, key)
                and window.start <= fault.end <= window.end
            ),
            None,
        )
        explanation = f"line {lost.line} shows that charges were lost" if lost else ""
        place = self._unpack_place(window.place)
        names = (key, placed.limit.name, placed.unit)
        fault = HistoryFault(
            "P1",
            "over-admitted",
            *place,
            *names,
            window.start,
            window.end,
            window.admitted,
            window.bound,
            window.over,
            explanation,
        )
        self.report.faults.append(fault)

    def _note_fault(
        self,
        promise: str,
        kind: FaultKind,
        step: Step,
        bucket: FollowedBucket | None,
        amount: float,
        explanation: str,
    ) -> None:
        names = (mask(step.subject.key), bucket.name if bucket else "", bucket.placed.unit if bucket else "")
        start, admitted, bound = step.t, 0.0, 0.0
        if bucket and kind == "over-admitted":
            start, admitted, shape = bucket.start, bucket.taken, bucket.shape
            bound = shape.burst + (step.t - start) * shape.count / shape.period
        fault = HistoryFault(
            promise, kind, *step.place, *names, start, step.t, admitted, bound, amount, explanation
        )
        self.report.faults.append(fault)


def _explain_more(bucket: FollowedBucket, amount: float, *, at_least: bool) -> tuple[str, str, Step | None]:
    """Return the promise, the explanation and the line, if more is missing than the history explains."""
    if charge := bucket.find_charge(amount, at_least=at_least):
        return "P6", f"as if line {charge.place[1]} had been charged twice", charge
    if denied := bucket.find_charge(amount, at_least=at_least, allowed=False):
        return "P2", f"as if line {denied.place[1]}, which was denied, had been charged", denied
    return "P6", "a charge is not in the history: a process may have ended before it wrote its line", None
