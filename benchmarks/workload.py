"""What every contestant is asked: the same limits, and the same keys in the same order."""

from __future__ import annotations

import functools
import itertools
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

MINUTE: Final = 60
DAY: Final = 86_400
AMPLE: Final = 3_000_000
"""A burst that no run can use up, so that everything is admitted. The rates are modest: with a large
one every bucket would be full again, and its key gone, before it is next asked."""

_STRIDE: Final = 0x9E3779B97F4B  # odd, so that no two keys below 2^48 meet


@dataclass(frozen=True, slots=True)
class Quota:
    """One limit, in terms that every contestant can be told.

    Attributes:
        name: what it is called where limits have names.
        count: units a period.
        period: seconds.
        unit: what is counted, where units are told apart.
        burst: the capacity, where there is one besides the count; the count unless given.
    """

    name: str
    count: int
    period: int
    unit: str = "requests"
    burst: int | None = None

    @property
    def capacity(self) -> int:
        """All that can be taken at once."""
        return self.burst or self.count


ONE: Final = (Quota("requests-daily", 1000, DAY, burst=AMPLE),)
THREE: Final = (
    Quota("requests", 60, MINUTE, burst=AMPLE),
    Quota("tokens", 90_000, MINUTE, unit="tokens", burst=AMPLE),
    Quota("requests-daily", 1000, DAY, burst=AMPLE + 1),  # pyrate-limiter wants it above the first
)


def several(count: int) -> tuple[Quota, ...]:
    """Return so many ample limits, each of a unit of its own."""
    return tuple(Quota(f"limit-{n}", 1000, DAY, unit=f"unit-{n}", burst=AMPLE) for n in range(count))


@functools.lru_cache(maxsize=4)
def names(prefix: str, count: int) -> tuple[str, ...]:
    """Return so many keys of the usual look, in a shuffled order that is always the same."""
    numbers = list(range(1, count + 1))
    random.Random(count).shuffle(numbers)
    return tuple(f"vk_{prefix}{number * _STRIDE % 2**48:012x}" for number in numbers)


def endless(prefix: str, count: int) -> Iterator[str]:
    """Return these keys over and over. Threads may share it: `cycle` is one step of the interpreter."""
    return itertools.cycle(names(prefix, count))
