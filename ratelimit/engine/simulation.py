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

    from ratelimit.engine.resolver import Question


def judged_at(question: Question, now: int, max_skew: int | None) -> int:
    """Return the time that a question is judged at, when it is `now` (microseconds since the epoch)."""
    t = question.timestamp
    if t is None:
        return now
    return t if max_skew is None else min(t, now + max_skew)


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

    def answer(self, questions: Sequence[Question], *, now: int, max_skew: int | None) -> list[bytes]:
        """Decide as the script would at the time `now` (microseconds since the epoch)."""
        return [self._one(question, now, max_skew) for question in questions]

    def _one(self, question: Question, now: int, max_skew: int | None) -> bytes:
        t = judged_at(question, now, max_skew)
        allowed = True
        states: list[float] = []
        taken: dict[tuple[str, str], Bucket] = {}
        for part in question.parts:
            place, shape = (part.name, part.place.limit.name), part.place.shape
            known = self._buckets.get(place)
            bucket = known or Bucket(0.0, t)
            states += known or (0, 0)
            if bucket.admits(shape, t, part.cost):
                if part.cost:
                    taken[place] = bucket.take(shape, t, part.cost)
            elif part.place.limit.mode == "enforce":
                allowed = False
        if question.take and allowed:
            self._keep(taken)
        return (b"1" if allowed else b"0") + question.route.layout.states.pack(t, *states)

    def _keep(self, taken: dict[tuple[str, str], Bucket]) -> None:
        for place, bucket in taken.items():
            self._buckets[place] = bucket
            self._buckets.move_to_end(place)
        while self._most is not None and len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
