"""Which limits denied a check, and which are nearly used up: from the raw reply, without decoding a decision.

This is for counting. It runs for every check, so it computes no waits and makes no objects for users.
"""

from __future__ import annotations

from math import ceil
from operator import gt
from typing import TYPE_CHECKING, Final

from ratelimit.engine.limit_status import evaluate_limit, unpack_states

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratelimit.engine.layout import Layout
    from ratelimit.engine.resolver import ResolvedCheck

NEAR_LIMIT: Final = 5
"""A limit is nearly used up when, after an admitted check, less than this part of its burst is left: a fifth.

It is compared with the whole units that are left, as users see them."""

ScanResult = tuple["Sequence[int]", "Sequence[int]"]
"""The limits that do not admit the check, and those that are nearly used up after it.

Both are indexes into the layout's placed limits. Limits in shadow mode are among them. Only a check that was
admitted has limits that are nearly used up."""

_NOTHING: Final[ScanResult] = ((), ())


class LimitScan:
    """Finds the limits of one layout that a decision is worth counting for.

    Args:
        layout: the limits.
    """

    __slots__ = ("_buckets", "_layout", "_size", "_unpack", "_unsuspicious")

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._unpack = layout.state_struct.unpack_from
        self._size = 1 + layout.state_struct.size
        shapes = [placed.shape for placed in layout.placed_limits]
        # Count, period, the most that may be missing after a check, and from where on it is nearly used up.
        self._buckets = [
            (
                shape.count,
                shape.period,
                shape.burst + shape.tolerance,
                shape.burst - ceil(shape.burst / NEAR_LIMIT) + shape.tolerance,
            )
            for shape in shapes
            if all(placed.kind == "bucket" for placed in layout.placed_limits)
        ]
        # With no more than this missing before a check of the default cost, a bucket is not nearly used up.
        self._unsuspicious = [
            shape.burst - ceil(shape.burst / NEAR_LIMIT) - cost
            for shape, cost in zip(shapes, layout.default_costs, strict=True)
        ]

    def find(
        self,
        check: ResolvedCheck,
        reply: bytes,
        t: int | None,
        allowed: bool,  # noqa: FBT001 - a keyword takes longer
    ) -> ScanResult:
        """Return the limits that do not admit a check, and those that are nearly used up after it.

        Args:
            check: the check, with the limits of this scan's layout.
            reply: the check script's reply.
            t: the time of the decision, microseconds since the epoch; None for that of the reply.
            allowed: whether the check was admitted.
        """
        if len(reply) < self._size:  # a remembered answer, whose states do not match this check
            return _NOTHING
        if not self._buckets:
            return self._find_by_status(check, reply, t, allowed=allowed)
        numbers = self._unpack(reply, 1)
        used = numbers[1::2]
        # Most checks end here. Buckets only fill up after the time of their state, except for a late check.
        if allowed and check.packed is not None:
            bounds = self._unsuspicious
            if used[0] <= bounds[0] if len(bounds) == 1 else not any(map(gt, used, bounds)):
                return _NOTHING
        return self._find_in_buckets(check, used, numbers[2::2], numbers[0] if t is None else t, allowed)

    def _find_in_buckets(
        self,
        check: ResolvedCheck,
        used: Sequence[float],
        times: Sequence[float],
        t: float,
        allowed: bool,  # noqa: FBT001 - a keyword takes longer
    ) -> ScanResult:
        denying: list[int] = []
        near: list[int] = []
        index = 0
        for (count, period, most, near_from), cost, missing_before, at in zip(  # noqa: B905 - one for each limit
            self._buckets, check.costs, used, times
        ):
            # The operations of engine/bucket.py, so that the result is the same to the last bit.
            missing = missing_before - (t - at) * count / period
            missing = cost if missing < 0 else missing + cost
            # A cost of 0 is not denied for being late.
            if missing > most and (cost or t >= at or missing_before > most):
                denying.append(index)
            elif allowed and missing > near_from:
                near.append(index)
            index += 1  # noqa: SIM113 - enumerate makes a tuple of each
        return denying, near

    def _find_by_status(
        self, check: ResolvedCheck, reply: bytes, t: int | None, *, allowed: bool
    ) -> ScanResult:
        """Do the same for limits of any kind. It takes several times as long."""
        layout = self._layout
        reply_time, states = unpack_states(layout, reply)
        t = reply_time if t is None else t
        denying: list[int] = []
        near: list[int] = []
        for index, placed in enumerate(layout.placed_limits):
            status = evaluate_limit(
                placed, check.costs[index], states[index], t, taken=allowed and check.take
            )
            if status.wait != 0:
                denying.append(index)
            elif allowed and placed.kind != "failures" and status.remaining < placed.shape.burst / NEAR_LIMIT:
                near.append(index)
        return denying, near
