"""The same decisions without a store: buckets in a dictionary.

This engine answers questions about buckets as lua/check.lua does, in the same form, so that
`call.read` cannot tell them apart. It serves replays, and `on_outage: local`. What is counted
by reservations and settlements it does not know.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from ratelimit.engine.bucket import Bucket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratelimit.engine.resolver import ResolvedCheck


def find_check_time(check: ResolvedCheck, now: int, max_skew: int | None) -> int:
    """Return the time that a question is judged at, when it is `now` (microseconds since the epoch)."""
    t = check.timestamp
    if t is None:
        return now
    return t if max_skew is None else min(t, now + max_skew)


class SimulatedBuckets:
    """Buckets of one process.

    Args:
        most: buckets kept at the most; past that the one least recently used is forgotten,
            which can only ever admit more. None keeps all.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._buckets: OrderedDict[tuple[str, str], Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def decide(self, checks: Sequence[ResolvedCheck], *, now: int, max_skew: int | None) -> list[bytes]:
        """Decide as the script would at the time `now` (microseconds since the epoch)."""
        return [self._one(check, now, max_skew) for check in checks]

    def _one(self, check: ResolvedCheck, now: int, max_skew: int | None) -> bytes:
        t = find_check_time(check, now, max_skew)
        allowed = True
        states: list[float] = []
        taken: dict[tuple[str, str], Bucket] = {}
        for limit_cost in check.limit_costs:
            placed, shape = (limit_cost.store_key, limit_cost.placed.limit.name), limit_cost.placed.shape
            known = self._buckets.get(placed)
            bucket = known or Bucket(0.0, t)
            states += known or (0, 0)
            if bucket.admits(shape, t, limit_cost.cost):
                if limit_cost.cost:
                    taken[placed] = bucket.take(shape, t, limit_cost.cost)
            elif limit_cost.placed.limit.mode == "enforce":
                allowed = False
        if check.take and allowed:
            self._keep(taken)
        return (b"1" if allowed else b"0") + check.subject.layout.state_struct.pack(t, *states)

    def _keep(self, taken: dict[tuple[str, str], Bucket]) -> None:
        for placed, bucket in taken.items():
            self._buckets[placed] = bucket
            self._buckets.move_to_end(placed)
        while self._most is not None and len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
