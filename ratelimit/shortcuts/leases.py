"""Leases: tokens taken in advance, so that checks of a busy key need no call to the store.

A lease is taken by an ordinary check that costs a share of the burst of every limit: all limits or none.
Later checks spend its tokens in this process until they are used up or the lease ends. Then the tokens
that were not spent are returned to the store. So nothing is spent that was not taken before. The bound of
a window grows only by the tokens that are out on lease when the window begins: at most one share for each
process, key and model class that uses the bucket. If a process crashes, the unspent tokens of its leases
are lost.

A lease decides only checks that go by the store's clock and need no record in the store: checks without a
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

    _LeaseKey = tuple[Layout, tuple[str, ...]]
    """The layout and the store keys of the checks that a lease decides."""

CHECKS_BEFORE_LEASE: Final = 4
"""A lease is taken for a key only after more than this many checks within the lease's `ttl`.

For fewer checks a lease is not worth its call."""

MIN_CHECKS_PER_LEASE: Final = 2
"""A lease is taken only if it is enough for this many checks like the current one."""

MAX_ACTIVE_KEYS: Final = 16_384
"""Keys whose checks are counted at the same time. At this number all counts start again at zero."""

NANOSECONDS: Final = 1_000_000_000

MIN_RETURN_DELAY: Final = 50_000_000
"""Nanoseconds between two returns at least: leases that end in this time are returned together."""


class _Lease:
    """One lease and its unspent tokens.

    Checks with the default cost are only counted, because counting takes a fifth of the work of
    subtracting. Their costs are subtracted when the exact number of tokens is needed.

    Attributes:
        check: the check that last took tokens for this lease.
        tokens: tokens of each limit, before subtracting the counted checks.
        spent_checks: how many checks with the default cost have been counted since `tokens` was set.
        max_checks: for how many checks with the default cost `tokens` is enough.
        buckets: each bucket as the store had it after the lease was taken.
        store_time: the store's clock at that time, microseconds since the epoch.
        received: when the reply with that time was received, nanoseconds of the local clock.
        is_complete: whether every limit gave the tokens asked for. A limit in shadow mode denies nothing,
            but takes nothing where it would have denied.
        ends_at: when the lease ends, nanoseconds of the local clock.
    """

    __slots__ = (
        "buckets",
        "check",
        "ends_at",
        "is_complete",
        "max_checks",
        "received",
        "spent_checks",
        "store_time",
        "tokens",
    )

    def __init__(self, check: ResolvedCheck, reply: bytes, sent: int, received: int) -> None:
        layout = check.subject.layout
        t, states = unpack_states(layout, reply)
        self.check = check
        self.buckets: list[Bucket] = []
        tokens: list[float] = []
        for placed, cost, state in zip(layout.placed_limits, check.costs, states, strict=True):
            bucket, shape = make_bucket(state), placed.shape
            admits = bucket.admits(shape, t, cost)
            self.buckets.append(bucket.take(shape, t, cost) if admits else bucket)
            tokens.append(cost if admits else 0.0)
        self.set_tokens(tokens)
        self.is_complete = tuple(tokens) == check.costs
        self.ends_at = sent + layout.lease_ttl * 1000
        self.store_time, self.received = t, received

    @property
    def unspent(self) -> list[float]:
        """Unspent tokens of each limit."""
        return subtract_checks(self.tokens, self.check, self.spent_checks)

    def set_tokens(self, tokens: list[float]) -> None:
        """Set the unspent tokens of each limit."""
        default_costs = self.check.subject.layout.default_costs
        checks = (count // cost for count, cost in zip(tokens, default_costs, strict=True) if cost)
        self.tokens, self.spent_checks, self.max_checks = tokens, 0, min(checks, default=math.inf)

    def make_return(self) -> ResolvedCheck:
        """Return the check whose costs are the unspent tokens: what the store must give back."""
        return self.check.with_costs(tuple(self.unspent))


def subtract_checks(tokens: list[float], check: ResolvedCheck, checks: int) -> list[float]:
    """Return tokens minus the cost of this many checks with the default cost."""
    default_costs = check.subject.layout.default_costs
    return [count - checks * cost for count, cost in zip(tokens, default_costs, strict=True)]


class Leases:
    """The leases of one limiter. Times are nanoseconds of one clock that never goes back.

    A key has one lease for each layout, for example one for each model class: the buckets of several
    layouts may lie under one store key.
    """

    def __init__(self) -> None:
        self._leases: dict[_LeaseKey, _Lease] = {}
        self._ended: list[ResolvedCheck] = []
        # The number of checks in the current period, the period's start, the time of the next attempt.
        self._activity: dict[_LeaseKey, tuple[int, int, int]] = {}

    @property
    def count(self) -> int:
        """How many leases there are."""
        return len(self._leases)

    def count_tokens(self) -> dict[str, float]:
        """Return the unspent tokens of all leases, by the limit's name."""
        counts: dict[str, float] = {}
        for lease in [*self._leases.values()]:  # a copy: another thread may add one
            for placed, tokens in zip(lease.check.subject.layout.placed_limits, lease.unspent, strict=True):
                counts[placed.limit.name] = counts.get(placed.limit.name, 0.0) + tokens
        return counts

    @property
    def next_end(self) -> int | None:
        """When `pop_expired` next has something to return; None if there is no lease."""
        if self._ended:
            return 0
        return min((lease.ends_at for lease in self._leases.values()), default=None)

    def spend(self, check: ResolvedCheck, now: int) -> Decision | None:
        """Decide a check with leased tokens; None if the check must go to the store."""
        subject = check.subject
        lease = self._leases.get((subject.layout, subject.store_keys))
        if lease is None or now >= lease.ends_at:
            return None
        if check.packed:  # It has the default cost.
            tokens, spent_checks = lease.tokens, lease.spent_checks
            if spent_checks >= lease.max_checks:
                return None
            lease.spent_checks = spent_checks + 1
        else:
            tokens, spent_checks = lease.unspent, 0
            unspent = list(map(sub, tokens, check.costs))
            if min(unspent) < 0 or not check.is_plain:
                return None
            lease.set_tokens(unspent)
        return defer_decision(True, "lease", (_make_members, None, check, lease, tokens, spent_checks, now))

    def plan_lease(self, check: ResolvedCheck, now: int) -> ResolvedCheck | None:
        """Count a check, and return the check that takes a lease if one is worth its call.

        Pass the reply to the returned check to `add_lease`.
        """
        layout = check.subject.layout
        amounts, ttl = layout.lease_amounts, layout.lease_ttl * 1000
        if not check.is_plain or any(
            map(gt, check.costs, (amount / MIN_CHECKS_PER_LEASE for amount in amounts))
        ):
            return None
        if len(self._activity) >= MAX_ACTIVE_KEYS:
            self._activity = {}
        lease_key = layout, check.subject.store_keys
        checks, since, next_attempt = self._activity.get(lease_key, (0, now, 0))
        checks, since = (checks + 1, since) if now - since <= ttl else (1, now)
        take = checks > CHECKS_BEFORE_LEASE and now >= next_attempt
        self._activity[lease_key] = checks, since, now + ttl if take else next_attempt
        if not take:
            return None
        lease = self._leases.get(lease_key)
        if lease is None:
            return check.with_costs(amounts)
        missing = map(sub, amounts, lease.unspent)
        return check.with_costs(tuple(max(cost, 0.0) for cost in missing))

    def add_lease(self, check: ResolvedCheck, reply: bytes, sent: int, received: int) -> bool:
        """Keep the tokens that a check from `plan_lease` took; return False if it was denied.

        After a denial the next attempt for the same key comes after the lease's `ttl` at the earliest.
        """
        if not reply.startswith(b"1"):
            return False
        lease_key = check.subject.layout, check.subject.store_keys
        lease, previous = _Lease(check, reply, sent, received), self._leases.get(lease_key)
        if previous is not None:
            lease.set_tokens(list(map(add, lease.unspent, previous.unspent)))
        self._leases[lease_key] = lease
        if lease.is_complete:
            checks, since, _ = self._activity.get(lease_key, (0, received, 0))
            self._activity[lease_key] = checks, since, 0
        return True

    def pop_expired(self, now: int | None = None) -> list[ResolvedCheck]:
        """Remove the leases that have ended (all leases if `now` is None) and return what to give back.

        The costs of each returned check are the unspent tokens of one lease.
        """
        ended, self._ended = self._ended, []
        expired = [key for key, lease in self._leases.items() if now is None or now >= lease.ends_at]
        for lease_key in expired:
            ended.append(self._leases.pop(lease_key).make_return())
        return [check for check in ended if any(check.costs)]

    def drop_store_keys(self, store_keys: Iterable[str]) -> None:
        """End the leases on buckets that have been reset.

        A lease may also hold tokens of other buckets. `pop_expired` returns those, and only those.
        """
        dropped = set(store_keys)
        for lease_key in [lease_key for lease_key in self._leases if dropped.intersection(lease_key[1])]:
            check = self._leases.pop(lease_key).make_return()
            costs = tuple(
                0.0 if limit_cost.store_key in dropped else limit_cost.cost
                for limit_cost in check.limit_costs
            )
            if any(costs):
                self._ended.append(check.with_costs(costs))


def _make_members(
    check: ResolvedCheck, lease: _Lease, tokens: list[float], spent_checks: int, now: int
) -> dict[str, Any]:
    """Return a decision's members, as if the unspent tokens of the lease were still in the buckets."""
    layout = check.subject.layout
    t = lease.store_time + (now - lease.received) // 1000
    states: list[float] = []
    unspent = subtract_checks(tokens, check, spent_checks)
    for placed, bucket, count in zip(layout.placed_limits, lease.buckets, unspent, strict=True):
        states += (max(bucket.compute_missing(placed.shape, t) - count, 0.0), t)
    return decode_members(check, b"1" + layout.state_struct.pack(t, *states), t, None, "lease")
