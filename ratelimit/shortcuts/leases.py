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

from ratelimit.decision.decision import deferred
from ratelimit.engine.check_script import members
from ratelimit.engine.limit_status import bucket_of, states_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ratelimit.decision.decision import Decision
    from ratelimit.engine.bucket import Bucket
    from ratelimit.engine.layout import Layout
    from ratelimit.engine.resolver import Question

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

    __slots__ = ("buckets", "clock", "heard", "held", "question", "room", "spent", "until", "whole")

    def __init__(self, question: Question, reply: bytes, sent: int, heard: int) -> None:
        layout = question.route.layout
        t, states = states_of(layout, reply)
        self.question = question
        self.buckets: list[Bucket] = []
        left: list[float] = []
        for place, cost, state in zip(layout.places, question.costs, states, strict=True):
            bucket, shape = bucket_of(state), place.shape
            gives = bucket.admits(shape, t, cost)
            self.buckets.append(bucket.take(shape, t, cost) if gives else bucket)
            left.append(cost if gives else 0.0)
        self.hold(left)
        self.whole = tuple(left) == question.costs
        self.until = sent + layout.lease_ttl * 1000
        self.clock, self.heard = t, heard

    @property
    def left(self) -> list[float]:
        """Tokens of each limit."""
        return after(self.held, self.question, self.spent)

    def hold(self, left: list[float]) -> None:
        """Have this many tokens of each limit left."""
        usual = self.question.route.layout.usual
        rooms = (rest // cost for rest, cost in zip(left, usual, strict=True) if cost)
        self.held, self.spent, self.room = left, 0, min(rooms, default=math.inf)

    def rest(self) -> Question:
        """Return what is left of it, as a question that took just that."""
        return self.question.costing(tuple(self.left))


def after(held: list[float], question: Question, spent: int) -> list[float]:
    """Return what is left of tokens after so many usual checks."""
    return [rest - spent * cost for rest, cost in zip(held, question.route.layout.usual, strict=True)]


class Leases:
    """The leases of one limiter. Times are nanoseconds of one clock that never goes back.

    A key has one for each layout, such as for each class of models: their buckets may lie in one string.
    """

    def __init__(self) -> None:
        self._held: dict[_Whose, _Lease] = {}
        self._ended: list[Question] = []
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

    def spend(self, question: Question, now: int) -> Decision | None:
        """Decide a check here; None if the store must be asked."""
        route = question.route
        lease = self._held.get((route.layout, route.names))
        if lease is None or now >= lease.until:
            return None
        if question.packed:  # it costs what is usual
            held, spent = lease.held, lease.spent
            if spent >= lease.room:
                return None
            lease.spent = spent + 1
        else:
            held, spent = lease.left, 0
            left = list(map(sub, held, question.costs))
            if min(left) < 0 or not question.is_plain:
                return None
            lease.hold(left)
        return deferred(True, "lease", (_members, question, lease, held, spent, now))

    def wanted(self, question: Question, now: int) -> Question | None:
        """Return the check that takes a lease, if one is worth it: its reply is for `granted`."""
        layout = question.route.layout
        amounts, ttl = layout.lease, layout.lease_ttl * 1000
        if not question.is_plain or any(map(gt, question.costs, (part / ENOUGH for part in amounts))):
            return None
        if len(self._watched) >= MOST:
            self._watched = {}
        whose = layout, question.route.names
        asked, since, later = self._watched.get(whose, (0, now, 0))
        asked, since = (asked + 1, since) if now - since <= ttl else (1, now)
        take = asked > HOT and now >= later
        self._watched[whose] = asked, since, now + ttl if take else later
        if not take:
            return None
        lease = self._held.get(whose)
        if lease is None:
            return question.costing(amounts)
        missing = map(sub, amounts, lease.left)
        return question.costing(tuple(max(cost, 0.0) for cost in missing))

    def granted(self, question: Question, reply: bytes, sent: int, heard: int) -> bool:
        """Hold what the check of `wanted` was told that it took; False if it was denied."""
        if not reply.startswith(b"1"):
            return False  # not asked again before the time of a lease has passed
        whose = question.route.layout, question.route.names
        lease, before = _Lease(question, reply, sent, heard), self._held.get(whose)
        if before is not None:
            lease.hold(list(map(add, lease.left, before.left)))
        self._held[whose] = lease
        if lease.whole:
            asked, since, _ = self._watched.get(whose, (0, heard, 0))
            self._watched[whose] = asked, since, 0
        return True

    def over(self, now: int | None = None) -> list[Question]:
        """Return what is left of leases whose time is over, to be given back; of all without a time."""
        ended, self._ended = self._ended, []
        for whose in [whose for whose, lease in self._held.items() if now is None or now >= lease.until]:
            ended.append(self._held.pop(whose).rest())
        return [question for question in ended if any(question.costs)]

    def forget(self, names: Iterable[str]) -> None:
        """End the leases on buckets that have been emptied: only to the others is there something to give."""
        gone = set(names)
        for whose in [whose for whose in self._held if gone.intersection(whose[1])]:
            rest = self._held.pop(whose).rest()
            kept = tuple(0.0 if part.name in gone else part.cost for part in rest.parts)
            if any(kept):
                self._ended.append(rest.costing(kept))


def _members(question: Question, lease: _Lease, held: list[float], spent: int, now: int) -> dict[str, Any]:
    """What is left of the lease is as good as in the bucket: that is what the check found."""
    layout = question.route.layout
    t = lease.clock + (now - lease.heard) // 1000
    states: list[float] = []
    left = after(held, question, spent)
    for place, bucket, rest in zip(layout.places, lease.buckets, left, strict=True):
        states += (max(bucket.level(place.shape, t) - rest, 0.0), t)
    return members(question, b"1" + layout.states.pack(t, *states), None, "lease")
