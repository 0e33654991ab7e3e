"""Denial memory: denials remembered in this process, so that a key that sends too many checks costs no calls.

A bucket that denied a cost also denies every cost that is equal or larger, until it has refilled enough.
Other clients can only take from it in this time. So until then, and for at most one second, this process
can repeat the denial. It repeats a denial only where the store would give the same decision:

- A check without a timestamp is decided by the store's clock. This process knows two bounds for that
  clock: the script ran after the call was sent and before its reply was received. The denial is repeated
  only if the bucket denies even at the later bound, with a thousandth added because clocks may run at
  different speeds. The time left to wait is counted from the earlier bound, so waiting that long is
  always enough.
- A check with a timestamp is decided at that timestamp, unless the script would clamp it. So a timestamp
  is used only if it is no further ahead of the clock than one that is known not to be clamped.
- A check with a request id may have been admitted before. It always goes to the store.
- Slots may be freed at any time. So denials by `concurrent` limits are never remembered.

A refund, a reset or the end of a lease in another process may give tokens back to a bucket. This process
notices that at most one second later.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from ratelimit.decision.decision import defer_decision
from ratelimit.engine.check_script import decode_members
from ratelimit.engine.limit_status import evaluate_limit, unpack_states

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ratelimit.decision.decision import Decision
    from ratelimit.engine.layout import Layout
    from ratelimit.engine.limit_status import RawState
    from ratelimit.engine.resolver import ResolvedCheck

MAX_AGE: Final = 1_000_000_000
"""Nanoseconds for which a denial is remembered."""

MAX_DENIALS: Final = 32_768
"""Denials remembered at the same time. At this number all are forgotten, which only costs calls."""


class _Denial(NamedTuple):
    """One denial.

    Attributes:
        layout: the limits that the check looked at.
        limit_index: the index in `layout.placed_limits` of the limit that denies for the longest time.
        store_key: the store key of that limit's state.
        cost: the cost that the limit denied.
        admits_at: when the limit admits that cost again, microseconds since the epoch.
        store_time: the store's clock in microseconds since the epoch; None if the check had a timestamp.
        sent: when the call was sent, nanoseconds of the local clock; the script ran after this.
        received: when the reply was received, nanoseconds of the local clock; the script ran before this.
        covers_slots: whether the reply holds the state of all slots: the check reserved, or there are none.
        reply: the script's reply.
    """

    layout: Layout
    limit_index: int
    store_key: str
    cost: float
    admits_at: float
    store_time: int | None
    sent: int
    received: int
    covers_slots: bool
    reply: bytes


class DenialMemory:
    """The denials that one limiter remembers.

    Times named `now`, `sent` and `received` are nanoseconds of one clock that never goes back.

    Args:
        max_skew: microseconds that a timestamp may lie ahead of the store's clock; None for no bound.

    Attributes:
        denials: what is remembered, by the store keys of a check. While it is empty, callers save the calls
            of `find_denial` and `forget_check`.
    """

    def __init__(self, max_skew: int | None) -> None:
        self._max_skew = max_skew
        self.denials: dict[tuple[str, ...], _Denial] = {}
        self._refunded_at: dict[str, int] = {}
        # Microseconds. A timestamp that is not further ahead of the local clock is not clamped.
        self._unclamped_lead = -math.inf

    def find_denial(self, check: ResolvedCheck, now: int) -> Decision | None:
        """Return the denial that the store would give; None if the check must go to the store."""
        subject = check.subject
        denial = self.denials.get(subject.store_keys)
        if (
            denial is None
            or denial.layout is not subject.layout
            or check.costs[denial.limit_index] < denial.cost
            or now - denial.received > MAX_AGE
            or check.request_id is not None
            or not check.take
            or (check.reservation is not None and not denial.covers_slots)
            or self._refunded_at.get(denial.store_key, 0) >= denial.sent
        ):
            return None
        t = check.timestamp
        if t is None:
            if denial.store_time is None:
                return None
            latest = denial.store_time + (now - denial.sent) * 1.001 / 1000
            t = denial.store_time + (now - denial.received) // 1000
        else:
            if self._max_skew is not None and t > self._unclamped_lead + now // 1000:
                return None
            latest = t
        if latest >= denial.admits_at:
            return None
        return defer_decision(
            False, "denial-memory", (decode_members, None, check, denial.reply, t, None, "denial-memory")
        )

    def remember(self, check: ResolvedCheck, reply: bytes, sent: int, received: int) -> None:
        """Remember a reply if it denies the check."""
        if not check.take or not reply.startswith(b"0"):
            return
        t, states = unpack_states(check.subject.layout, reply)
        if self._max_skew is None and check.subject.layout.has_slots:
            # In a replay slots are counted at the time of each check, and the next time may be any.
            return
        has_timestamp = check.timestamp is not None
        self._unclamped_lead = max(
            self._unclamped_lead, t - received // 1000 + (0 if has_timestamp else self._max_skew or 0)
        )
        denier = _find_longest_denier(check, states, t)
        if denier is None:
            return
        limit_index, wait = denier
        if len(self.denials) >= MAX_DENIALS:
            self.denials = {}
        self.denials[check.subject.store_keys] = _Denial(
            check.subject.layout,
            limit_index,
            check.limit_costs[limit_index].store_key,
            check.costs[limit_index],
            t + wait,
            None if has_timestamp else t,
            sent,
            received,
            check.reservation is not None or not check.subject.layout.has_slots,
            reply,
        )

    def forget_check(self, check: ResolvedCheck) -> None:
        """Forget the denial for the limits of an admitted check: their state has changed since."""
        self.denials.pop(check.subject.store_keys, None)

    def forget_store_keys(self, store_keys: Iterable[str], now: int) -> None:
        """Forget the denials by limits under these store keys: tokens were given back to them."""
        if len(self._refunded_at) >= MAX_DENIALS:
            self.denials, self._refunded_at = {}, {}
        self._refunded_at.update(dict.fromkeys(store_keys, now))


def _find_longest_denier(check: ResolvedCheck, states: list[RawState], t: int) -> tuple[int, float] | None:
    """Return the limit that denies for the longest time, of those that may be remembered.

    Returns:
        The limit's index and the microseconds for which it denies (infinite for never admits); None if
        no limit that may be remembered denies.
    """
    longest: tuple[int, float] | None = None
    for index, placed in enumerate(check.subject.layout.placed_limits):
        if placed.is_slots or placed.limit.mode == "shadow" or not placed.limit.denial_memory:
            continue
        wait = evaluate_limit(placed, check.costs[index], states[index], t, taken=False).wait
        microseconds = math.inf if wait is None else wait
        if microseconds > (longest[1] if longest else 0):
            longest = index, microseconds
    return longest
