"""The numbers of a limit, as the engine uses them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

_MAX_TOLERANCE: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of a bucket: it gains `count` tokens in each `period`, and holds up to `burst`.

    Attributes:
        count: tokens per period.
        period: microseconds.
        burst: capacity in tokens.
        tolerance: tokens that a check may lack and still be admitted. It is what one microsecond
            refills, because timestamps are no finer than that, but at most a millionth of a token.
            Without it, rounding errors of floats could admit B - 1 requests from a full burst of B.
    """

    count: float
    period: float
    burst: float
    tolerance: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compute the tolerance once, because every comparison needs it."""
        object.__setattr__(self, "tolerance", min(_MAX_TOLERANCE, self.count / self.period))
