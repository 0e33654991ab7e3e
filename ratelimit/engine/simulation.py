"""The same decisions without a store: buckets in a dictionary.

It decides checks on buckets as lua/check.lua does and gives replies of the same form, so
`check_script.read_decision` reads both. Replays and local_buckets.py use it. It does not know
slots, failures or post-paid limits: reservations and settlements charge those. `adjust` does to one bucket
what lua/settle.lua does to it, so that what is left of a lease can be given back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimit.engine.bucket import Bucket

BucketId = tuple[str, str]
"""Which bucket: the store key, and the name of the limit."""

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratelimit.engine.resolver import ResolvedCheck
    from ratelimit.policy.shape import Shape


def find_check_time(check: ResolvedCheck, now: int, max_skew: int | None) -> int:
    """Return the time at which a check is decided.

    Args:
        check: the check.
        now: the current time. All times here are microseconds since the epoch.
        max_skew: microseconds that its timestamp may be ahead of `now`; None trusts every one.
    """
    t = check.timestamp
    if t is None:
        return now
    return t if max_skew is None else min(t, now + max_skew)


class SimulatedBuckets:
    """Buckets of one process.

    Attributes:
        buckets: the buckets. A bucket that is not among them is full.
    """

    def __init__(self) -> None:
        self.buckets: dict[BucketId, Bucket] = {}

    def decide(self, checks: Sequence[ResolvedCheck], *, now: int, max_skew: int | None) -> list[bytes]:
        """Return the replies that the script would give at the time `now` (microseconds since the epoch)."""
        return [self._decide_check(check, now, max_skew) for check in checks]

    def adjust(self, bucket_id: BucketId, shape: Shape, *, now: int, amount: float) -> Bucket:
        """Charge a bucket `amount` tokens at the time `now`, or refund them if negative; return the bucket.

        A bucket that was never used, or was forgotten, is full: a refund leaves it as it is.
        """
        stored = self.buckets.get(bucket_id)
        if amount > 0 or (amount < 0 and stored):
            stored = self.buckets[bucket_id] = (stored or Bucket(0.0, now)).adjust(shape, now, amount)
        return stored or Bucket(0.0, now)

    def _decide_check(self, check: ResolvedCheck, now: int, max_skew: int | None) -> bytes:
        t = find_check_time(check, now, max_skew)
        allowed = True
        states: list[float] = []
        taken: dict[BucketId, Bucket] = {}
        for limit_cost in check.limit_costs:
            bucket_id, shape = (limit_cost.store_key, limit_cost.placed.limit.name), limit_cost.placed.shape
            stored = self.buckets.get(bucket_id)
            bucket = stored or Bucket(0.0, t)
            states += stored or (0, 0)
            if bucket.admits(shape, t, limit_cost.cost):
                if limit_cost.cost:
                    taken[bucket_id] = bucket.take(shape, t, limit_cost.cost)
            elif limit_cost.placed.limit.mode == "enforce":
                allowed = False
        if check.take and allowed:
            self.buckets.update(taken)
        return (b"1" if allowed else b"0") + check.subject.layout.state_struct.pack(t, *states)
