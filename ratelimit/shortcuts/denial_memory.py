"""Denials remembered in this process, so that a key that floods us costs the store nothing.

A bucket that denied a cost denies it, and any larger one, until the time at which it will have refilled
enough: others can only take from it meanwhile. So until that time, and for a second at the most, the
answer is known here. It is never given where the store's could differ:

- Where a check goes by the store's clock, that clock is known to lie between two bounds: the script ran
  after we had sent the call and before we heard from it. A denial stands while even the later bound is
  before the time at which the bucket admits, with a thousandth for clocks that run apart; what is left to
  wait is counted from the earlier one, so that waiting that long is always enough.
- Where it carries its own timestamp, that is what it is judged at, unless the script would clamp it: a
  timestamp is only used that lies no further ahead than one which was seen not to be clamped.
- A check with a request id may have been admitted before, and is always asked.
- Slots are freed at any time, so limits on `concurrent` are never remembered.

What is given back to a bucket elsewhere, by a refund, a reset or a lease that ends, is seen a second
later at the most.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ratelimit.decision.decision import defer_decision
from ratelimit.engine.check_script import decode_members, move_reply_time
from ratelimit.engine.limit_status import evaluate_limit, unpack_states

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ratelimit.decision.decision import Decision
    from ratelimit.engine.layout import Layout
    from ratelimit.engine.limit_status import RawState
    from ratelimit.engine.resolver import ResolvedCheck

LONGEST: Final = 1_000_000_000
"""Nanoseconds that a denial is remembered at the most."""

MOST: Final = 32_768
"""Denials remembered at once; past that all are forgotten, and asked again."""


class _Denial(NamedTuple):
    """One denial.

    Attributes:
        layout: the limits that were looked at.
        number: the limit, among the layout's places, that will deny for the longest.
        name: the store's key it lies in.
        cost: what it denied.
        admits_at: the time from which it admits that again, microseconds since the epoch.
        clock: what the store's clock showed, if the check went by that.
        sent: nanoseconds of our own clock, before the script ran.
        heard: likewise, after it ran.
        reserving: whether it asked for slots, if there are any: else nothing is known of those.
        reply: what the script said.
    """

    layout: Layout
    number: int
    name: str
    cost: float
    admits_at: float
    clock: int | None
    sent: int
    heard: int
    reserving: bool
    reply: bytes


class DenialMemory:
    """The denials of one limiter.

    Times named `now`, `sent` and `heard` are nanoseconds of one clock that never goes back.

    Args:
        max_skew: microseconds that a timestamp may lie ahead of the store's clock; None for any.
    """

    def __init__(self, max_skew: int | None) -> None:
        self._max_skew = max_skew
        self._known: dict[tuple[str, ...], _Denial] = {}
        self._given_back: dict[str, int] = {}
        self._ahead = -math.inf  # how far a timestamp may lie before our own clock without being clamped

    def find_denial(self, check: ResolvedCheck, now: int) -> Decision | None:
        """Return the denial that the store would give; None if only the store can tell."""
        subject = check.subject
        denial = self._known.get(subject.store_keys) if self._known else None
        if (
            denial is None
            or denial.layout is not subject.layout
            or check.costs[denial.number] < denial.cost
            or now - denial.heard > LONGEST
            or check.request_id is not None
            or not check.take
            or (check.reservation is not None and not denial.reserving)
            or self._given_back.get(denial.name, 0) >= denial.sent
        ):
            return None
        t = check.timestamp
        if t is None:
            if denial.clock is None:
                return None
            latest = denial.clock + (now - denial.sent) * 1.001 / 1000
            t = denial.clock + (now - denial.heard) // 1000
        else:
            if self._max_skew is not None and t > self._ahead + now // 1000:
                return None
            latest = t
        if latest >= denial.admits_at:
            return None
        return defer_decision(False, "denial-memory", (_members, check, t, denial.reply))

    def remember(self, check: ResolvedCheck, reply: bytes, sent: int, heard: int) -> None:
        """Remember what the store said to a question that it denied."""
        if not check.take or not reply.startswith(b"0"):
            return
        t, states = unpack_states(check.subject.layout, reply)
        if self._max_skew is None and check.subject.layout.has_slots:
            return  # in a replay they are counted at the time of each check, and any may come next
        stamped = check.timestamp is not None
        self._ahead = max(self._ahead, t - heard // 1000 + (0 if stamped else self._max_skew or 0))
        denier = _longest(check, states, t)
        if denier is None:
            return
        number, wait = denier
        if len(self._known) >= MOST:
            self._known = {}
        self._known[check.subject.store_keys] = _Denial(
            check.subject.layout,
            number,
            check.limit_costs[number].store_key,
            check.costs[number],
            t + wait,
            None if stamped else t,
            sent,
            heard,
            check.reservation is not None or not check.subject.layout.has_slots,
            reply,
        )

    def forget_check(self, check: ResolvedCheck) -> None:
        """Forget what was said of limits that have just been taken from: it is true no more."""
        if self._known:
            self._known.pop(check.subject.store_keys, None)

    def forget_store_keys(self, names: Iterable[str], now: int) -> None:
        """Ask the store again about the limits in these of its keys: something was given back to them."""
        if len(self._given_back) >= MOST:
            self._known, self._given_back = {}, {}
        self._given_back.update(dict.fromkeys(names, now))


def _longest(check: ResolvedCheck, states: list[RawState], t: int) -> tuple[int, float] | None:
    """Return which limit denies for the longest, of those that may be remembered, and for how long."""
    longest: tuple[int, float] | None = None
    for number, placed in enumerate(check.subject.layout.placed_limits):
        if placed.is_slots or placed.limit.mode == "shadow" or not placed.limit.denial_memory:
            continue
        wait = evaluate_limit(placed, check.costs[number], states[number], t, taken=False).wait
        microseconds = math.inf if wait is None else wait
        if microseconds > (longest[1] if longest else 0):
            longest = number, microseconds
    return longest


def _members(check: ResolvedCheck, t: int, reply: bytes) -> dict[str, Any]:
    return decode_members(check, move_reply_time(reply, t), None, "denial-memory")
