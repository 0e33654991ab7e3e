"""Tokens taken in advance: a key that is asked for all the time is decided without the store.

A lease is an ordinary check for a share of the burst, all limits or none. What it took is spent here,
check by check, until it is used up or its time is over; then what is left goes back. So nothing is
ever spent that was not paid for: the bound grows by what is out on lease at its beginning, at most one
share a process, and by nothing else. A process that crashes takes what was left of its lease with it.

Only checks that go by the store's clock, and need no record there, are decided here: those without a
timestamp, a request id or a reservation.
"""

from __future__ import annotations

from operator import add, gt, sub
from typing import TYPE_CHECKING, Any, Final

from ratelimit.call import members
from ratelimit.decision import Decision
from ratelimit.reading import bucket_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ratelimit.ask import Question
    from ratelimit.bucket import Bucket

HOT: Final = 4
"""A lease is worth its call for a key that is asked for more often than this within the lease's time."""

ENOUGH: Final = 2
"""Nor is it taken for less than so many checks like the one at hand."""

MOST: Final = 16_384
"""Keys that are watched at once; past that all are watched anew."""


class _Lease:
    """What is left of one lease.

    Attributes:
        question: the check that took it last.
        left: tokens of each limit.
        until: nanoseconds of our clock, when it ends.
    """

    __slots__ = ("_buckets", "_clock", "_heard", "left", "question", "until")

    def __init__(self, question: Question, reply: str, sent: int, heard: int) -> None:
        words = reply.split(" ")
        t = int(words[1])
        layout = question.route.layout
        states = zip(layout.places, question.costs, words[2::2], words[3::2], strict=True)
        self.question = question
        self.left = question.costs
        self.until = sent + layout.lease_ttl * 1000
        self._clock, self._heard = t, heard
        self._buckets = [
            bucket_of(first, second, t).take(place.shape, t, cost) for place, cost, first, second in states
        ]

    def spend(self, question: Question, now: int) -> Decision | None:
        """Decide a check with what is left; None if that is not enough."""
        before = self.left
        after = tuple(map(sub, before, question.costs))
        if min(after) < 0:
            return None
        self.left = after
        t = self._clock + (now - self._heard) // 1000
        return Decision.deferred(True, "lease", _members, question, self._buckets, before, t)


class Leases:
    """The leases of one limiter. Times are nanoseconds of one clock that never goes back."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, ...], _Lease] = {}
        self._ended: list[Question] = []
        self._watched: dict[tuple[str, ...], tuple[int, int, int]] = {}

    @property
    def held(self) -> int:
        """How many leases there are."""
        return len(self._held)

    def spend(self, question: Question, now: int) -> Decision | None:
        """Decide a check here; None if the store must be asked."""
        route = question.route
        lease = self._held.get(route.names)
        if (
            lease is None
            or now >= lease.until
            or lease.question.route.layout is not route.layout
            or not _is_plain(question)
        ):
            return None
        return lease.spend(question, now)

    def wanted(self, question: Question, now: int) -> Question | None:
        """Return the check that takes a lease, if one is worth it: its reply is for `granted`."""
        route = question.route
        amounts, ttl = route.layout.lease, route.layout.lease_ttl * 1000
        if not _is_plain(question) or any(map(gt, question.costs, (part / ENOUGH for part in amounts))):
            return None
        if len(self._watched) >= MOST:
            self._watched = {}
        asked, since, later = self._watched.get(route.names, (0, now, 0))
        asked, since = (asked + 1, since) if now - since <= ttl else (1, now)
        take = asked > HOT and now >= later
        self._watched[route.names] = asked, since, now + ttl if take else later
        if not take:
            return None
        lease = self._held.get(route.names)
        if lease is None or lease.question.route.layout is not route.layout:
            return question._replace(costs=amounts)
        return question._replace(costs=tuple(map(sub, amounts, lease.left)))  # what is missing of a share

    def granted(self, question: Question, reply: bytes | str, sent: int, heard: int) -> bool:
        """Hold what the check of `wanted` was told that it took; False if it was denied."""
        text = reply if isinstance(reply, str) else reply.decode()
        if not text.startswith("1 "):
            return False  # not asked again before the time of a lease has passed
        names = question.route.names
        lease, before = _Lease(question, text, sent, heard), self._held.get(names)
        if before is not None:
            if before.question.route.layout is question.route.layout:
                lease.left = tuple(map(add, lease.left, before.left))
            else:
                self._ended.append(before.question._replace(costs=before.left))
        self._held[names] = lease
        asked, since, _ = self._watched.get(names, (0, heard, 0))
        self._watched[names] = asked, since, 0
        return True

    def over(self, now: int | None = None) -> list[Question]:
        """Return what is left of leases whose time is over, to be given back; of all without a time."""
        ended, self._ended = self._ended, []
        for names in [names for names, lease in self._held.items() if now is None or now >= lease.until]:
            lease = self._held.pop(names)
            ended.append(lease.question._replace(costs=lease.left))
        return [question for question in ended if any(question.costs)]

    def forget(self, names: Iterable[str]) -> None:
        """Drop the leases on buckets that have been emptied: there is nothing to give back to."""
        gone = set(names)
        for held in [held for held in self._held if gone.intersection(held)]:
            del self._held[held]


def _is_plain(question: Question) -> bool:
    return (
        question.take
        and question.timestamp is None
        and question.request_id is None
        and question.reservation is None
    )


def _members(question: Question, buckets: list[Bucket], left: tuple[float, ...], t: int) -> dict[str, Any]:
    """What is left of the lease is as good as in the bucket: that is what the check found."""
    places = question.route.layout.places
    states = (
        f"{max(bucket.level(place.shape, t) - rest, 0.0)!r} {t}"
        for place, bucket, rest in zip(places, buckets, left, strict=True)
    )
    return members(question, f"1 {t} {' '.join(states)}", None, "lease")
