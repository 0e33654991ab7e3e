"""A sketch: the largest of many counts, in bounded memory.

This is the algorithm of Misra and Gries ("Finding repeated elements", 1982), which keeps the same items and
bounds as Space-Saving (Metwally, Agrawal, El Abbadi, 2005); Agarwal et al. ("Mergeable Summaries", 2012) show
how two sketches become one. Smaller counts are removed many at a time, so that adding is one step of a dict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Sketch:
    """Counts of many items, of which the largest are kept.

    The true count of an item is at least what `counts` has, 0 if it has none, and at most `error` more. The
    error is at most the sum of all amounts, divided by the capacity: all items with more than that are kept.

    Args:
        capacity: how many items are kept for certain.

    Attributes:
        counts: the counts, at most twice the capacity.
        error: how much may be missing of each.
    """

    __slots__ = ("_capacity", "counts", "error")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self.counts: dict[str, float] = {}
        self.error = 0.0

    def add(self, amounts: Iterable[tuple[str, float]]) -> None:
        """Add an amount, at least 0, to the count of each item."""
        counts = self.counts
        for item, amount in amounts:
            counts[item] = counts.get(item, 0.0) + amount
        if len(counts) > 2 * self._capacity:
            self.trim()

    def trim(self) -> None:
        """Keep the largest counts, as many as the capacity, and take the next largest count from each."""
        if len(self.counts) <= self._capacity:
            return
        largest = sorted(self.counts.values(), reverse=True)
        taken = largest[self._capacity]
        self.counts = {item: count - taken for item, count in self.counts.items() if count > taken}
        self.error += taken


def merge_sketches(sketches: Iterable[tuple[dict[str, float], float]], capacity: int) -> Sketch:
    """Return the sketch of everything that several sketches have counted.

    Args:
        sketches: counts and error of each.
        capacity: how many items the result keeps for certain.
    """
    merged = Sketch(capacity)
    for counts, error in sketches:
        merged.error += error
        for item, count in counts.items():
            merged.counts[item] = merged.counts.get(item, 0.0) + count
    merged.trim()
    return merged
