"""The same decisions without a store: buckets in a dictionary.

This engine answers questions as lua/check.lua does, in the same form, so that
`call.read` cannot tell them apart. It serves replays, and `on_outage: local`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from ratelimit.bucket import Bucket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratelimit.call import Question


class Buckets:
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

    def answer(self, questions: Sequence[Question], *, now: int, max_skew: int | None) -> list[list[Any]]:
        """Decide as the script would at the time `now` (microseconds since the epoch)."""
        return [self._one(question, now, max_skew) for question in questions]

    def _one(self, question: Question, now: int, max_skew: int | None) -> list[Any]:
        t = question.check.timestamp
        if t is None:
            t = now
        elif max_skew is not None:
            t = min(t, now + max_skew)
        allowed = True
        reply: list[Any] = []
        taken: dict[tuple[str, str], Bucket] = {}
        for name, parts in question.hashes:
            for part in parts:
                place = (name, part.slot.field)
                known = self._buckets.get(place)
                bucket = known or Bucket(0.0, t)
                reply += (known.used, known.at) if known else (None, None)
                if bucket.admits(part.slot.shape, t, part.cost):
                    if part.cost:
                        taken[place] = bucket.take(part.slot.shape, t, part.cost)
                elif part.slot.limit.mode == "enforce":
                    allowed = False
        if question.take and allowed:
            self._keep(taken)
        return [int(allowed), t, *reply]

    def _keep(self, taken: dict[tuple[str, str], Bucket]) -> None:
        for place, bucket in taken.items():
            self._buckets[place] = bucket
            self._buckets.move_to_end(place)
        while self._most is not None and len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
