"""Tokens taken in advance: a key that is asked for all the time is decided without the store.

A lease is an ordinary check for a share of the burst, all limits or none. What it took is spent here,
check by check, until it is used up or its time is over; then what is left goes back. So nothing is
ever spent that was not paid for: the bound grows by what is out on lease at its beginning, and by
nothing else. That is one share at most for each process, key and class of models that asks for the
bucket. A process that crashes takes what was left of its leases with it.

Only checks that go by the store's clock, and need no record there, are decided here: those without a
timestamp, a request id or a reservation.
"""

from __future__ import annotations

import math
from operator import add, gt, sub
from typing import TYPE_CHECKING, Any, Final

from ratelimit.decision.decision import defer_decision
from ratelimit.engine.check_script import decode_members
from ratelimit.engine.limit_status import make_bucket, unpack_states

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ratelimit.decision.decision import Decision
    from ratelimit.engine.bucket import Bucket
    from ratelimit.engine.layout import Layout
    from ratelimit.engine.resolver import ResolvedCheck

    _Whose = tuple[Layout, tuple[str, ...]]

HOT: Final = 4
"""A lease is worth its call for a key that is asked for more often than this within the lease's time."""

ENOUGH: Final = 2
"""Nor is it taken for less than so many checks like the one at hand."""

MOST: Final = 16_384
"""Keys that are watched at once; past that all are watched anew."""

NANOSECONDS: Final = 1_000_000_000

LOOK_AGAIN: Final = 50_000_000
"""Nanoseconds between two looks at the least: leases that end meanwhile are given back together."""


class _Lease:
    """What is left of one lease.

    Attributes:
        question: the check that took it last.
        held: tokens of each limit, before the usual checks that have been counted since.
        spent: how many of those there were: to count them is a fifth of the work of subtracting.
        room: how many of those `held` is enough for.
        buckets: what the store had of each, after the lease was taken.
        clock: the time that the store told then, microseconds since the epoch.
        heard: nanoseconds of our clock, when it had told that.
        whole: whether every limit gave what it was asked for: one in shadow mode, which denies nothing,
            takes nothing either where it would have denied.
        until: nanoseconds of our clock, when it ends.
    """

    __slots__ = ("buckets", "check", "clock", "heard", "held", "room", "spent", "until", "whole")

    def __init__(self, check: ResolvedCheck, reply: bytes, sent: int, heard: int) -> None:
        layout = check.subject.layout
        t, states = unpack_states(layout, reply)
        self.check = check
        self.buckets: list[Bucket] = []
        left: list[float] = []
        for placed, cost, state in zip(layout.placed_limits, check.costs, states, strict=True):
            bucket, shape = make_bucket(state), placed.shape
            gives = bucket.admits(shape, t, cost)
            self.buckets.append(bucket.take(shape, t, cost) if gives else bucket)
            left.append(cost if gives else 0.0)
        self.hold(left)
        self.whole = tuple(left) == check.costs
        self.until = sent + layout.lease_ttl * 1000
        self.clock, self.heard = t, heard

    @property
    def left(self) -> list[float]:
        """Tokens of each limit."""
        return after(self.held, self.check, self.spent)

    def hold(self, left: list[float]) -> None:
        """Have this many tokens of each limit left."""
        default_costs = self.check.subject.layout.default_costs
        rooms = (rest // cost for rest, cost in zip(left, default_costs, strict=True) if cost)
        self.held, self.spent, self.room = left, 0, min(rooms, default=math.inf)

    def rest(self) -> ResolvedCheck:
        """Return what is left of it, as a question that took just that."""
        return self.check.with_costs(tuple(self.left))


def after(held: list[float], check: ResolvedCheck, spent: int) -> list[float]:
    """Return what is left of tokens after so many usual checks."""
    return [rest - spent * cost for rest, cost in zip(held, check.subject.layout.default_costs, strict=True)]


class Leases:
    """The leases of one limiter. Times are nanoseconds of one clock that never goes back.

    A key has one for each layout, such as for each class of models: their buckets may lie in one string.
    """

    def __init__(self) -> None:
        self._held: dict[_Whose, _Lease] = {}
        self._ended: list[ResolvedCheck] = []
        self._watched: dict[_Whose, tuple[int, int, int]] = {}

    @property
    def held(self) -> int:
        """How many leases there are."""
        return len(self._held)

    @property
    def next_end(self) -> int | None:
        """When `over` next has something to return; None while nothing is out."""
        if self._ended:
            return 0
        return min((lease.until for lease in self._held.values()), default=None)

    def spend(self, check: ResolvedCheck, now: int) -> Decision | None:
        """Decide a check here; None if the store must be asked."""
        subject = check.subject
        lease = self._held.get((subject.layout, subject.store_keys))
        if lease is None or now >= lease.until:
            return None
        if check.packed:  # it costs what is usual
            held, spent = lease.held, lease.spent
            if spent >= lease.room:
                return None
            lease.spent = spent + 1
        else:
            held, spent = lease.left, 0
            left = list(map(sub, held, check.costs))
            if min(left) < 0 or not check.is_plain:
                return None
            lease.hold(left)
        return defer_decision(True, "lease", (_members, check, lease, held, spent, now))

    def plan_lease(self, check: ResolvedCheck, now: int) -> ResolvedCheck | None:
        """Return the check that takes a lease, if one is worth it: its reply is for `granted`."""
        layout = check.subject.layout
        amounts, ttl = layout.lease_amounts, layout.lease_ttl * 1000
        if not check.is_plain or any(map(gt, check.costs, (amount / ENOUGH for amount in amounts))):
            return None
        if len(self._watched) >= MOST:
            self._watched = {}
        whose = layout, check.subject.store_keys
        asked, since, later = self._watched.get(whose, (0, now, 0))
        asked, since = (asked + 1, since) if now - since <= ttl else (1, now)
        take = asked > HOT and now >= later
        self._watched[whose] = asked, since, now + ttl if take else later
        if not take:
            return None
        lease = self._held.get(whose)
        if lease is None:
            return check.with_costs(amounts)
        missing = map(sub, amounts, lease.left)
        return check.with_costs(tuple(max(cost, 0.0) for cost in missing))

    def add_lease(self, check: ResolvedCheck, reply: bytes, sent: int, heard: int) -> bool:
        """Hold what the check of `wanted` was told that it took; False if it was denied."""
        if not reply.startswith(b"1"):
            return False  # not asked again before the time of a lease has passed
        whose = check.subject.layout, check.subject.store_keys
        lease, before = _Lease(check, reply, sent, heard), self._held.get(whose)
        if before is not None:
            lease.hold(list(map(add, lease.left, before.left)))
        self._held[whose] = lease
        if lease.whole:
            asked, since, _ = self._watched.get(whose, (0, heard, 0))
            self._watched[whose] = asked, since, 0
        return True

    def pop_expired(self, now: int | None = None) -> list[ResolvedCheck]:
        """Return what is left of leases whose time is over, to be given back; of all without a time."""
        ended, self._ended = self._ended, []
        for whose in [whose for whose, lease in self._held.items() if now is None or now >= lease.until]:
            ended.append(self._held.pop(whose).rest())
        return [check for check in ended if any(check.costs)]

    def drop_store_keys(self, names: Iterable[str]) -> None:
        """End the leases on buckets that have been emptied: only to the others is there something to give."""
        gone = set(names)
        for whose in [whose for whose in self._held if gone.intersection(whose[1])]:
            rest = self._held.pop(whose).rest()
            kept = tuple(
                0.0 if limit_cost.store_key in gone else limit_cost.cost for limit_cost in rest.limit_costs
            )
            if any(kept):
                self._ended.append(rest.with_costs(kept))


def _members(check: ResolvedCheck, lease: _Lease, held: list[float], spent: int, now: int) -> dict[str, Any]:
    """What is left of the lease is as good as in the bucket: that is what the check found."""
    layout = check.subject.layout
    t = lease.clock + (now - lease.heard) // 1000
    states: list[float] = []
    left = after(held, check, spent)
    for placed, bucket, rest in zip(layout.placed_limits, lease.buckets, left, strict=True):
        states += (max(bucket.compute_missing(placed.shape, t) - rest, 0.0), t)
    return decode_members(check, b"1" + layout.state_struct.pack(t, *states), None, "lease")
