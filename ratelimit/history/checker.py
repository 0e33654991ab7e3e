"""Checks a history of decisions and settlements against the promises P1, P2, P6 and P7. No I/O.

Three things are checked:

- Every window of every bucket, in whatever order the charges were made (windows.py). This is P1.
- Where the order of the decisions is known, every single decision against the plain bucket: what was admitted
  had room, what was denied had none, and what the store says is missing is what was charged (P1, P2, P6, P7).
- Repeated checks and settlements: they charge nothing, and an admission stays one (P6).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ratelimit.history.faults import FaultKind, HistoryFault, HistoryReport
from ratelimit.history.followed_bucket import UNKNOWN_FOR
from ratelimit.history.ledger import Ledger, Slots
from ratelimit.history.steps import make_steps
from ratelimit.history.windows import find_overlaps, find_windows
from ratelimit.request.privacy import mask
from ratelimit.request.timestamp import MICROSECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ratelimit.history.followed_bucket import FollowedBucket
    from ratelimit.history.lines import NumberedLine
    from ratelimit.history.steps import Step
    from ratelimit.history.windows import Window
    from ratelimit.policy import Policy

DEFAULT_REMEMBER: Final = 600.0
"""Seconds for which a limiter remembers reservations and request ids unless told otherwise."""


def verify_history(
    lines: Iterable[NumberedLine], policy: Policy, *, remember: float = DEFAULT_REMEMBER
) -> HistoryReport:
    """Check a history against the promises of a policy.

    Args:
        lines: the lines, of one file or of the files of several processes; see `read_history`.
        policy: the policy by which the decisions were made.
        remember: seconds for which a check with the same request id gets the same answer: the limiter's
            `remember`.

    Raises:
        InvalidRequest: a line names a plan that the policy does not have, or a unit that no plan meters.
    """
    steps = make_steps(lines, policy)
    ledger = Ledger(steps)
    checker = _Checker(ledger, round(remember * MICROSECONDS))
    unanswered = [step for step in steps if step.decided_by == "outage"]
    noted = 0
    for number, step in enumerate(steps):
        # A call may have been charged some time before its process gave up waiting and wrote the line.
        while noted < len(unanswered) and unanswered[noted].t <= step.t + UNKNOWN_FOR:
            ledger.note_unknown(unanswered[noted])
            noted += 1
        checker.read_step(number, step)
    checker.check_windows(steps)
    return checker.report


class _Checker:
    """Reads the steps one after another.

    Args:
        ledger: the buckets and what is known of them.
        remember: for how long a request id is remembered, microseconds.
    """

    def __init__(self, ledger: Ledger, remember: int) -> None:
        self.report = HistoryReport()
        self._ledger = ledger
        self._remember = remember
        self._answers: dict[tuple[str, str, str], tuple[int, Step]] = {}
        self._over: set[tuple[int, str]] = set()

    def read_step(self, number: int, step: Step) -> None:
        """Check one line, and charge its buckets."""
        if step.settled is not None:
            if step.decided_by != "outage":
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
            self._read_admission(number, step)
        elif step.decided_by == "store":
            self._read_denial(step)

    def _is_repeated(self, step: Step) -> bool:
        """Whether a check repeats an admission with the same request id; note a different answer."""
        if step.request_id is None:
            return False
        name = (step.subject.tenant, step.subject.key, step.request_id)
        known = self._answers.get(name)
        if known is None or step.t - known[0] > self._remember:
            if step.allowed:
                self._answers[name] = (step.t, step)
            return False
        first = known[1]
        if not step.allowed:
            text = f"line {first.place[1]} has the same request id and was admitted"
            self._note_fault("P6", "answered-differently", step, None, 1.0, text)
        elif step.reservation != first.reservation:
            text = f"line {first.place[1]} has the same request id and another reservation"
            self._note_fault("P6", "answered-differently", step, None, 1.0, text)
        return True

    def _read_admission(self, number: int, step: Step) -> None:
        taken = []
        for bucket, cost in self._ledger.list_buckets(step):
            is_taken = bucket.placed.kind == "bucket"
            if bucket.is_followed:
                bucket.settle_unknown(step.t)
                is_taken = self._follow_admission(step, bucket, cost)
            if is_taken and cost:
                bucket.add_charge(step.t, cost, number)
                bucket.remember(cost, step)
            taken.append(is_taken)
        self._ledger.open_reservation(number, step, taken)

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
        self._over.add((id(step), bucket.placed.limit.name))
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
        outcome = self._ledger.settle(step)
        if outcome == "repeated":
            self.report.repeated += 1
        elif outcome == "unknown":
            self.report.unknown_settlements += 1
        for bucket, difference in self._ledger.compare_settled(step, outcome):
            self._note_difference(step, bucket, difference)

    def check_windows(self, steps: list[Step]) -> None:
        """Check every window of every bucket, and count the slots that were taken at the same time."""
        self._ledger.refund_unanswered()
        buckets = self._ledger.buckets.values()
        self.report.buckets = sum(bucket.is_followed for bucket in buckets)
        self.report.windows_only = len(buckets) - self.report.buckets
        for bucket in buckets:
            if bucket.placed.limit.mode != "shadow" or bucket.is_followed:
                for window in find_windows(bucket.charges, bucket.shape, bucket.leased):
                    self._note_window(steps[window.number], bucket, window)
        for slots in self._ledger.slots.values():
            if slots.placed.limit.mode != "shadow":
                for window in find_overlaps(slots.intervals, slots.placed.shape.burst):
                    self._note_window(steps[window.number], slots, window)

    def _note_window(self, step: Step, bucket: FollowedBucket | Slots, window: Window) -> None:
        if (id(step), bucket.placed.limit.name) in self._over:
            return
        lost = [
            fault
            for fault in self.report.select_faults("lost")
            if fault.limit == bucket.placed.limit.name and window.start <= fault.end <= window.end
        ]
        explanation = f"line {lost[0].line} shows that charges were lost" if lost else ""
        self._note_fault("P1", "over-admitted", step, bucket, window.over, explanation, window)

    def _note_fault(
        self,
        promise: str,
        kind: FaultKind,
        step: Step,
        bucket: FollowedBucket | Slots | None,
        amount: float,
        explanation: str,
        window: Window | None = None,
    ) -> None:
        start, end, admitted, bound = step.t, step.t, 0.0, 0.0
        if window:
            start, end, admitted, bound, *_ = window
        elif bucket and kind == "over-admitted":
            start, admitted = bucket.start, bucket.taken
            shape = bucket.shape
            bound = shape.burst + (end - start) * shape.count / shape.period
        placed = bucket.placed if bucket else None
        self.report.faults.append(
            HistoryFault(
                promise,
                kind,
                *step.place,
                mask(step.subject.key),
                placed.limit.name if placed else "",
                placed.unit if placed else "",
                start,
                end,
                admitted,
                bound,
                amount,
                explanation,
            )
        )


def _explain_more(bucket: FollowedBucket, amount: float, *, at_least: bool) -> tuple[str, str, Step | None]:
    """Return the promise, the explanation and the line, if more is missing than the history explains."""
    if charge := bucket.find_charge(amount, at_least=at_least):
        return "P6", f"as if line {charge.place[1]} had been charged twice", charge
    if denied := bucket.find_charge(amount, at_least=at_least, allowed=False):
        return "P2", f"as if line {denied.place[1]}, which was denied, had been charged", denied
    return "P6", "a charge is not in the history: a process may have ended before it wrote its line", None
