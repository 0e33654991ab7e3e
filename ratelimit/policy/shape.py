"""The numbers of a limit, as the engine uses them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

_TOLERANCE: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Shape:
    """What a bucket is: `count` tokens come back every `period`, up to `burst`.

    Attributes:
        count: tokens a period.
        period: microseconds.
        burst: capacity in tokens.
        tolerance: tokens forgiven on admission: what one microsecond refills, since
            timestamps are no finer than that, but never more than a millionth. It
            keeps float error from turning a full burst of B into B - 1.
    """

    count: float
    period: float
    burst: float
    tolerance: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Reckon the tolerance once: every comparison needs it."""
        object.__setattr__(self, "tolerance", min(_TOLERANCE, self.count / self.period))
