"""The buckets of this process that decide for limits with `on_outage: local` during an outage.

A local bucket has the limit's share (`local_share`) of the rate and of the burst. It starts from that share
of what was used in the last state that this process has seen. After the outage the store is charged for what
the local bucket admitted, less what was refilled since. So one process with the whole share decides like the
store, and n processes with the share 1/n that have all seen the same state admit together what the store
would have admitted.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ratelimit.decision.decision import defer_decision
from ratelimit.engine.bucket import Bucket
from ratelimit.engine.check_script import decode_members, read_decision
from ratelimit.engine.layout import Layout
from ratelimit.engine.simulation import SimulatedBuckets
from ratelimit.policy.shape import Shape

if TYPE_CHECKING:
    from ratelimit.decision.decision import Decision
    from ratelimit.decision.limit_state import LimitState
    from ratelimit.engine.last_states import LastStates
    from ratelimit.engine.layout import Group, PlacedLimit
    from ratelimit.engine.resolver import LimitCost, ResolvedCheck
    from ratelimit.engine.simulation import BucketId

RETRY_AFTER: Final = 1.0
"""Seconds to wait when an outage denies. How long the outage will last is not known."""

_FULL: Final = Bucket(0.0, 0)


class LocalLimits(NamedTuple):
    """The limits of a layout that say `on_outage: local`.

    Attributes:
        indexes: their indexes into the layout's placed limits.
        groups: the indexes of the groups that have such limits.
        layout: these limits, with the shapes of the local buckets.
        charge_layouts: a layout for each of these limits alone, with its shape in the store.
        has_shares: whether a limit has a share below 1.
    """

    indexes: tuple[int, ...]
    groups: tuple[int, ...]
    layout: Layout
    charge_layouts: tuple[Layout, ...]
    has_shares: bool


class Charge(NamedTuple):
    """What the store is to be charged for one bucket.

    Attributes:
        bucket_id: the bucket.
        check: a check of this bucket alone, which costs what is to be charged.
        bucket: the local bucket at this time.
        uncharged: the local bucket without all admissions that no charge was made for before.
    """

    bucket_id: BucketId
    check: ResolvedCheck
    bucket: Bucket
    uncharged: Bucket


class _Opened:
    """What belongs to a local bucket.

    Attributes:
        uncharged: the local bucket as it would be without the admissions that no charge was made for.
        shape: the shape of the local bucket.
        check: the last check that it decided, for this bucket alone.
    """

    __slots__ = ("check", "shape", "uncharged")

    def __init__(self, uncharged: Bucket) -> None:
        self.uncharged = uncharged
        self.shape: Shape
        self.check: ResolvedCheck


class LocalBuckets:
    """The local buckets of one process. Times are microseconds since the epoch.

    Args:
        last_states: where the buckets start from.
        max_buckets: how many buckets are kept at most. Above that, the bucket that was asked longest ago is
            dropped, and what it admitted is not charged.
    """

    def __init__(self, last_states: LastStates, max_buckets: int) -> None:
        self._last_states = last_states
        self._max_buckets = max_buckets
        self._simulated = SimulatedBuckets()
        self._opened: OrderedDict[BucketId, _Opened] = OrderedDict()

    def __len__(self) -> int:
        return len(self._opened)

    def decide(self, check: ResolvedCheck, *, now: int, max_skew: int | None) -> Decision:
        """Decide a check by its limits with `on_outage: local` alone.

        Args:
            check: the check.
            now: the current time.
            max_skew: microseconds that its timestamp may be ahead of `now`; None trusts every one.
        """
        limits = find_local_limits(check.subject.layout)
        store_keys = tuple(check.subject.store_keys[number] for number in limits.groups)
        costs = tuple(check.costs[index] for index in limits.indexes)
        local = check.with_layout(limits.layout, store_keys, costs)
        for limit_cost, charge_layout in zip(local.limit_costs, limits.charge_layouts, strict=True):
            self._open_bucket(local, limit_cost, charge_layout)
        [reply] = self._simulated.decide([local], now=now, max_skew=max_skew)
        decision = read_decision(local, reply, source="outage")
        if not limits.has_shares:
            return decision
        placed_limits = [layout.placed_limits[0] for layout in limits.charge_layouts]
        return defer_decision(decision.allowed, "outage", (_make_members, None, local, reply, placed_limits))

    def _open_bucket(self, check: ResolvedCheck, limit_cost: LimitCost, charge_layout: Layout) -> None:
        placed, store_key, _ = limit_cost
        bucket_id = store_key, placed.limit.name
        opened = self._opened.get(bucket_id)
        if opened is None:
            last = self._last_states.find(bucket_id) or _FULL
            start = Bucket(last.used * placed.limit.local_share, last.at)
            self._simulated.buckets[bucket_id] = start
            opened = self._opened[bucket_id] = _Opened(start)
            if len(self._opened) > self._max_buckets:
                self._close_bucket(next(iter(self._opened)))
        self._opened.move_to_end(bucket_id)
        opened.shape, opened.check = placed.shape, check.with_layout(charge_layout, (store_key,), (0.0,))

    def _close_bucket(self, bucket_id: BucketId) -> None:
        self._opened.pop(bucket_id, None)
        self._simulated.buckets.pop(bucket_id, None)

    def list_ids(self) -> list[BucketId]:
        """Return the ids of all local buckets, those asked last first: they will be asked again soonest."""
        return [*reversed(self._opened)]

    def make_charge(self, bucket_id: BucketId, now: int) -> Charge | None:
        """Return what is to be charged for a bucket; None if nothing is, and then forget the bucket.

        The charge counts as made from now on. If its call was certainly not made, `undo_charge` takes that
        back; if the store has charged it, call `end_charge`.
        """
        opened = self._opened.get(bucket_id)
        if opened is None:
            return None
        bucket, uncharged, shape = self._simulated.buckets[bucket_id], opened.uncharged, opened.shape
        # Both have refilled. So nobody pays for what the refill has already repaid.
        amount = bucket.compute_missing(shape, now) - uncharged.compute_missing(shape, now)
        if amount <= shape.tolerance:
            self._close_bucket(bucket_id)
            return None
        opened.uncharged = bucket
        return Charge(bucket_id, opened.check.with_costs((amount,)), bucket, uncharged)

    def undo_charge(self, charge: Charge) -> None:
        """Note that a charge was not made: it is to be made later."""
        if (opened := self._opened.get(charge.bucket_id)) is not None:
            opened.uncharged = charge.uncharged

    def end_charge(self, charge: Charge) -> None:
        """Note that a charge was made, and forget the bucket if it has admitted nothing since."""
        if self._simulated.buckets.get(charge.bucket_id) == charge.bucket:
            self._close_bucket(charge.bucket_id)

    def drop_store_keys(self, store_keys: set[str]) -> None:
        """Forget the buckets that have been reset."""
        for bucket_id in [bucket_id for bucket_id in self._opened if bucket_id[0] in store_keys]:
            self._close_bucket(bucket_id)


@functools.lru_cache(maxsize=512)
def find_local_limits(layout: Layout) -> LocalLimits:
    """Return the limits of a layout that say `on_outage: local`."""
    groups: list[Group] = []
    charge_layouts: list[Layout] = []
    for owner, suffix, placed_limits in layout.groups:
        wanted = [placed for placed in placed_limits if placed.is_local]
        if wanted:
            groups.append((owner, suffix, tuple(_scale_limit(placed) for placed in wanted)))
        charge_layouts += (Layout(((owner, suffix, (placed,)),)) for placed in wanted)
    return LocalLimits(
        tuple(index for index, placed in enumerate(layout.placed_limits) if placed.is_local),
        tuple(number for number, _ in layout.local_groups),
        Layout(tuple(groups)),
        tuple(charge_layouts),
        any(placed.is_local and placed.limit.local_share < 1 for placed in layout.placed_limits),
    )


def _scale_limit(placed: PlacedLimit) -> PlacedLimit:
    """Return a limit with the shape of its local bucket."""
    shape, share = placed.shape, placed.limit.local_share
    return replace(placed, shape=Shape(shape.count * share, shape.period, shape.burst * share))


def _make_members(local: ResolvedCheck, reply: bytes, placed_limits: list[PlacedLimit]) -> dict[str, Any]:
    """Return a decision's members with the numbers of the policy, of which local buckets have a share.

    Args:
        local: the check, with the shapes of the local buckets.
        reply: the reply to it.
        placed_limits: the same limits with the shapes of the policy.
    """
    members = decode_members(local, reply, None, None, "outage")
    limits = {
        placed.limit.name: (placed.shape, cost)
        for placed, cost in zip(placed_limits, local.costs, strict=True)
    }
    states = tuple(_restore_limit(state, *limits[state.name]) for state in members["limits"])
    waits = [state.retry_after for state in states if state.name in members["violated"]]
    known = [wait for wait in waits if wait is not None]
    if waits:
        members["retry_after"] = max(known) if len(known) == len(waits) else None
    return {**members, "limits": states}


def _restore_limit(state: LimitState, shape: Shape, cost: float) -> LimitState:
    """Return a limit's state with the numbers of its shape in the policy."""
    wait = state.retry_after
    # More than the share of the burst is not too much for ever: only for this outage.
    if wait is None and cost <= shape.burst + shape.tolerance:
        wait = RETRY_AFTER
    return replace(state, limit=int(shape.count), burst=int(shape.burst), retry_after=wait)
