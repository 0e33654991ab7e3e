"""What every contestant is asked: the same limits, and the same keys in the same order."""

import functools
import random
from dataclasses import dataclass
from typing import Final

MINUTE: Final = 60
DAY: Final = 86_400
# A burst that no run can use up, so that everything is admitted. The rates are modest: with a large rate
# every bucket would be full again, and its key gone, before the key is asked about again.
AMPLE: Final = 3_000_000
_STRIDE: Final = 0x9E3779B97F4B  # odd, so that no two keys below 2^48 are the same


@dataclass(frozen=True, slots=True)
class Quota:
    name: str
    count: int  # units a period
    period: int  # seconds
    unit: str = "requests"  # what is counted, where units are told apart
    burst: int | None = None  # where a contestant has one besides the count; the count unless given

    @property
    def capacity(self) -> int:
        return self.burst or self.count


ONE: Final = (Quota("requests-daily", 1000, DAY, burst=AMPLE),)
THREE: Final = (
    Quota("requests", 60, MINUTE, burst=AMPLE),
    Quota("tokens", 90_000, MINUTE, unit="tokens", burst=AMPLE),
    Quota("requests-daily", 1000, DAY, burst=AMPLE + 1),  # pyrate-limiter requires more than the first
)


@functools.lru_cache(maxsize=4)
def names(prefix: str, count: int) -> tuple[str, ...]:
    """Return so many keys of the usual look, in a shuffled order that is always the same."""
    numbers = list(range(1, count + 1))
    random.Random(count).shuffle(numbers)
    return tuple(f"vk_{prefix}{number * _STRIDE % 2**48:012x}" for number in numbers)
